"""Compare word times with the times at which eSpeak NG spoke each word.

    python benchmarks/word_times.py --model EXPERIMENT [--split test] [--sentences 40] [--json FILE]

The sentences are of the demonstration corpus; the model was trained on its other sentences. The
lead is the assumed time from a word's beginning to the peak of its first symbol, the tail the time
from its last symbol's peak to its end. A word ends before the first peak of the next one.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile

import numpy as np
from common import prepare, report, timed_arguments

import espnet_mlma
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data.corpora.espeak import SPLITS, Espeak, SynthesisLine, finish
from espnet_mlma.data.corpora.mini import SplitSizes, plan
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.decode.transcript import Transcript
from espnet_mlma.decode.words import token_groups
from espnet_mlma.text import LANGUAGES

TAILS = (0.0, 0.02, 0.04, 0.1)
LEADS = (0.0, 0.03)
EDGE_SECONDS, SNR = 0.1, 28.0  # of the silence before and after a sentence, as the corpus has it


class Event(ctypes.Structure):
    """`espeak_EVENT` of eSpeak NG's speak_lib.h."""

    WORD, PHONEME = 1, 7
    _INTEGERS = ("type", "identifier", "text_position", "length", "milliseconds", "sample")
    _fields_ = (
        *((name, ctypes.c_int) for name in _INTEGERS),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


@dataclass(frozen=True)
class SpokenSentence:
    """A sentence: samples (time,) at 16 kHz, its words, and each one's start and end in seconds."""

    samples: np.ndarray
    words: list[str]
    times: dict[int, tuple[float, float]]  # without words that eSpeak speaks as one


class Voice(Espeak):
    """eSpeak NG, with its events of words and phonemes."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, int, int, bytes]] = []
        self._lib.espeak_Initialize(self._SYNC, 0, str(self._data).encode(), 1)  # with phonemes
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples, count: int, events: int | None) -> int:
        several = ctypes.cast(events, ctypes.POINTER(Event)) if events else ()
        for event in takewhile(lambda event: event.type, several):
            self.events.append((event.type, event.text_position, event.sample, event.name))
        return super()._collect(samples, count, events)

    def speak_in_noise(self, line: SynthesisLine, rng: np.random.Generator) -> SpokenSentence:
        """Synthesise one sentence with silence and noise around it."""
        self.events.clear()
        voice = self.speak(line)
        loud = np.flatnonzero(np.abs(voice) > 0.02 * np.abs(voice).max())
        samples = finish(voice, SNR, rng).astype(np.float32)
        shift = EDGE_SECONDS - loud[0] / SAMPLE_RATE
        limits = EDGE_SECONDS, shift + (loud[-1] + 1) / SAMPLE_RATE
        words, spans = line.text.split(), self.spans(line.text)
        alone = [i for i in spans if i + 1 in spans or i + 1 == len(words)]
        times = {i: tuple(np.clip(np.array(spans[i]) / self._rate + shift, *limits)) for i in alone}
        return SpokenSentence(samples, words, times)

    def spans(self, text: str) -> dict[int, tuple[int, int]]:
        """Return each word's samples, from its first phoneme to the end of its last."""
        found: dict[int, tuple[int, int]] = {}
        current = None
        for (kind, position, sample, name), after in zip(
            self.events, [*self.events[1:], self.events[-1]], strict=True
        ):
            if kind == Event.WORD:
                current = len(text[: position - 1].split())  # positions count from 1
                found.setdefault(current, (sample, sample))
            elif kind == Event.PHONEME and current is not None and not name.startswith(b"_"):
                found[current] = (found[current][0], after[2])
        return found


def errors(
    recogniser: Recogniser, spoken: SpokenSentence, found: Transcript
) -> dict[str, list[float]]:
    """Return found minus true seconds of right words' starts and ends, by lead and by tail."""
    acoustic = recogniser.acoustic
    groups = token_groups(found.tokens, acoustic.token_type, acoustic.special_ids)
    starts = [group[0].start for group in groups]
    limits = [*starts[1:], found.duration]
    texts = [word.text for word in found.words]
    matches = SequenceMatcher(None, spoken.words, texts, autojunk=False).get_matching_blocks()
    pairs = [(m.a + i, m.b + i) for m in matches for i in range(m.size) if m.a + i in spoken.times]
    result = {}
    for lead in LEADS:
        result[f"start, lead {1e3 * lead:.0f} ms"] = [
            max(0, starts[j] - lead) - spoken.times[i][0] for i, j in pairs
        ]
    for tail in TAILS:
        result[f"end, tail {1e3 * tail:.0f} ms"] = [
            min(groups[j][-1].end + tail, limits[j]) - spoken.times[i][1] for i, j in pairs
        ]
    return result


def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, help="experiment folder of a model trained on `mini`"
    )
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--sentences", type=int, default=40, help="of each language")
    args = parser.parse_args()
    prepare(args)
    recogniser = espnet_mlma.load(args.model, device="cpu")
    voice, rng = Voice(), np.random.default_rng(1)
    found: dict[str, dict[str, list[float]]] = {"align": {}, "transcribe": {}}
    for lang in LANGUAGES:
        for line in plan(lang, 1, SplitSizes())[args.split][: args.sentences]:
            spoken = voice.speak_in_noise(line, rng)
            aligned = recogniser.align(spoken.samples, line.text)
            recognised = recogniser.transcribe(spoken.samples)
            for name, transcript in (("align", aligned), ("transcribe", recognised)):
                for kind, seconds in errors(recogniser, spoken, transcript).items():
                    found[name].setdefault(kind, []).extend(seconds)
    rows = []
    for name, kinds in found.items():
        for kind, seconds in kinds.items():
            errors_ms = 1e3 * np.array(seconds)
            median, most = np.percentile(np.abs(errors_ms), (50, 90))
            rows.append([f"{name}: {kind}", len(seconds), f"{median:.0f}", f"{most:.0f}"])
            rows[-1].append(f"{np.median(errors_ms):+.0f}")
    header = ["time", "words", "median error (ms)", "90 % (ms)", "median, signed"]
    report(f"Word times, sentences of {args.split}", header, rows, args)


if __name__ == "__main__":
    main()
