"""Compare ends of words by the CTC model and by PocketSphinx with those of the synthesiser.

    python benchmarks/sst_word_times.py --model EXPERIMENT [--sentences 40] [--json FILE]

flite and eSpeak NG speak sentences of the demonstration corpus and report when each word ended.
flite's voices are of real speakers who are not in the model's training. The model's ends are given
as the recogniser returns them and with margins added. A word is in another chunk of 0.96 s if its
two ends lie on different sides of a boundary, at any offset of the chunks. The last table shows
what tells a wrong text from the right one: the mean log-probability of the symbols of the sentence
and of another sentence of similar length.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
from common import prepare, report, timed_arguments
from pocketsphinx import Decoder
from word_times import SpokenSentence, Voice

import espnet_mlma
from espnet_mlma.audio import read_audio
from espnet_mlma.data.corpora.mini import SplitSizes, SynthesisLine, plan
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.imports import import_espnet
from espnet_mlma.sst.data.words import lengthen, mean_score
from espnet_mlma.sst.grid import CHUNK_SECONDS

FLITE_VOICES = ("slt", "rms", "awb")
MARGINS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
HEADER = ["ends of words", "words", "median, signed (ms)", "mean error (ms)", "95 % (ms)"]
HEADER += ["in another chunk (%)"]


def flite(text: str, voice: str) -> SpokenSentence | None:
    """A text as flite says it; None where it says a word otherwise than alone."""
    words = text.split()
    counts = [len(phones(word, voice)) for word in words]
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        said = phones(text, voice, file.name)
        samples = read_audio(file.name)
    if sum(counts) != len(said):
        return None
    ends = [said[i - 1][1] for i in np.cumsum(counts)]
    starts = [said[i][0] for i in np.cumsum([0, *counts[:-1]])]
    times = dict(enumerate(zip(starts, ends, strict=True)))
    return SpokenSentence(samples, words, times)


def phones(text: str, voice: str, file: str = "none") -> list[tuple[float, float]]:
    """Start and end of each phone in seconds, pauses left out."""
    command = ["flite", "-voice", voice, "-psdur", "-t", text, "-o", file]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names, times = zip(*(item.split(":") for item in printed.split()), strict=True)
    ends = [float(time) for time in times]
    spans = zip(names, [0.0, *ends[:-1]], ends, strict=True)
    return [(start, end) for name, start, end in spans if name != "pau"]


class Pocketsphinx:
    """The aligner inside the package `pocketsphinx`."""

    FRAMES_PER_SECOND = 100

    def __init__(self) -> None:
        self._decoder = Decoder(loglevel="FATAL", lm=None)

    def ends(self, spoken: SpokenSentence) -> list[float] | None:
        """End of each word, seconds; None for a word that is not in its dictionary."""
        if any(self._decoder.lookup_word(word) is None for word in spoken.words):
            return None
        self._decoder.set_align_text(" ".join(spoken.words))
        self._decoder.start_utt()
        pcm = (np.clip(spoken.samples, -1, 1) * 32767).astype(np.int16)
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = [s for s in self._decoder.seg() or () if not s.word.startswith(("<", "["))]
        ends = [(segment.end_frame + 1) / self.FRAMES_PER_SECOND for segment in found]
        return ends if len(ends) == len(spoken.words) else None


def row(name: str, found: list[float], true: list[float]) -> list[object]:
    """A row of the table."""
    errors = np.array(found) - np.array(true)
    # The share of positions of the grid for which a boundary falls between the two ends.
    moved = np.minimum(np.abs(errors) / CHUNK_SECONDS, 1)
    return [
        name,
        len(errors),
        f"{1e3 * np.median(errors):+.0f}",
        f"{1e3 * np.abs(errors).mean():.0f}",
        f"{1e3 * np.percentile(np.abs(errors), 95):.0f}",
        f"{100 * moved.mean():.1f}",
    ]


def sentences(
    lines: list[SynthesisLine],
) -> dict[str, Callable[[], Iterator[SpokenSentence | None]]]:
    """What each speaker says."""
    espeak, rng = Voice(), np.random.default_rng(1)
    voices: dict[str, Callable[[], Iterator[SpokenSentence | None]]] = {
        f"flite {voice}": lambda voice=voice: (flite(line.text, voice) for line in lines)
        for voice in FLITE_VOICES
    }
    voices["eSpeak NG"] = lambda: (espeak.speak(line, rng) for line in lines)
    return voices


def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, help="experiment folder of a model trained on `mini`"
    )
    parser.add_argument("--sentences", type=int, default=40)
    args = parser.parse_args()
    prepare(args)
    import_espnet()
    recogniser = espnet_mlma.load(args.model, device="cpu")
    sphinx = Pocketsphinx()
    lines = plan("en", 1, SplitSizes())["test"][: args.sentences]
    rows, scores = [], []
    for voice, say in sentences(lines).items():
        true, by_sphinx = [], []
        by_margin: dict[float, list[float]] = {margin: [] for margin in MARGINS}
        right, wrong = [], []
        for spoken, other in zip(say(), [*lines[1:], lines[0]], strict=True):
            if spoken is None or (ends := sphinx.ends(spoken)) is None:
                continue
            found = recogniser.align(spoken.samples, " ".join(spoken.words))
            right.append(mean_score(found))
            with suppress(MlmaError):  # the other text may be too long for this audio
                wrong.append(mean_score(recogniser.align(spoken.samples, other.text)))
            known = sorted(spoken.times)
            true += [spoken.times[i][1] for i in known]
            by_sphinx += [ends[i] for i in known]
            for margin, times in by_margin.items():
                timed = lengthen(found.words, margin)
                times += [timed[i].end for i in known]
        for margin, times in by_margin.items():
            rows.append(row(f"{voice}: CTC, {1e3 * margin:.0f} ms more", times, true))
        rows.append(row(f"{voice}: pocketsphinx", by_sphinx, true))
        spread = [f"{value:.2f}" for value in np.percentile(right, (0, 10, 50))]
        scores.append([voice, len(right), *spread])
        scores[-1] += [f"{value:.2f}" for value in np.percentile(wrong, (50, 90, 100))]
    report("Ends of words, English sentences of the test split", HEADER, rows, args)
    header = ["voice", "sentences", "least", "10 %", "median", "wrong text: median", "90 %", "most"]
    report("Mean log-probability of a text's symbols", header, scores, args)


if __name__ == "__main__":
    main()
