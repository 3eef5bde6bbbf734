"""Measure live recognition: latency of words, flicker, and computing time per second of audio.

    python benchmarks/live.py --model EXPERIMENT --data dump/raw/test_x ... [--minutes 60]

All utterances form one stream, pushed in pieces. A word's latency is the time from its end until an
update shows it whole, and until one makes it final: audio that arrived meanwhile, plus computing
time. A shown text has flickered if the final word does not begin with it. Word errors are counted
with each utterance as its own stream.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from common import milliseconds, model_arguments, peak_of_process, prepare, report
from streaming import read_set

import espnet_mlma
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.decode.streaming import StreamingTranscriber
from espnet_mlma.evaluation.score.align import count_errors, total_errors

SETTINGS = ((0.32, 0.32), (0.64, 0.64), (1.28, 0.64))
PIECES = (0.02, 0.08, 0.32)
LARGE = round(PIECES[-1] * SAMPLE_RATE)


@dataclass(frozen=True)
class StreamFigures:
    """Figures of one stream.

    Attributes:
        cost: seconds of computing per second of audio.
        shown, final: seconds from each word's end until it was shown whole, and until it was final.
        flicker: share of the shown texts that changed.
    """

    cost: float
    shown: list[float]
    final: list[float]
    flicker: float


def cut(audio: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


def watch(stream: StreamingTranscriber, audio: np.ndarray, size: int) -> StreamFigures:
    """Push audio as in real time, and note when each form of each word appears."""
    stream.reset()
    received = ready = spent = 0.0
    words, final, seen = [], [], {}  # seen: when a form was first shown in a place
    for piece in cut(audio, size):
        received += len(piece) / SAMPLE_RATE
        started = time.perf_counter()
        update = stream.push(piece)
        cost = time.perf_counter() - started
        spent += cost
        ready = max(ready, received) + cost  # an update waits for the one before
        forms = [word.text for word in update.final] + update.partial.split()
        for place, form in enumerate(forms, start=len(words)):
            seen.setdefault((place, form), ready)
        words += update.final
        final += [ready - word.end for word in update.final]
    settled = [(place, form) for place, form in seen if place < len(words)]
    changed = sum(not words[place].text.startswith(form) for place, form in settled)
    late = [seen[place, word.text] - word.end for place, word in enumerate(words)]
    return StreamFigures(spent / received, late, final, changed / len(settled))


def streams(recogniser) -> dict[str, StreamingTranscriber]:
    """Return streams by name; a causal model has neither chunk nor look-ahead."""
    if getattr(recogniser.model.encoder, "is_causal", lambda: False)():
        return {"causal": StreamingTranscriber(recogniser)}
    return {
        f"{1e3 * chunk:.0f} + {1e3 * lookahead:.0f} ms": StreamingTranscriber(
            recogniser, chunk, lookahead
        )
        for chunk, lookahead in SETTINGS
    }


def compare(recogniser, utterances, args) -> None:
    """Report latency, flicker, cost and word errors by setting and size of the pieces."""
    audio = np.concatenate([samples for samples, _ in utterances])
    texts = [recogniser.transcribe_batch([samples])[0].text for samples, _ in utterances]
    rows = [["one pass", *[""] * 7, word_error_rate(utterances, texts)]]
    for name, stream in streams(recogniser).items():
        rate = word_error_rate(utterances, [text_of(stream, s) for s, _ in utterances])
        for seconds in PIECES:
            found = watch(stream, audio, round(seconds * SAMPLE_RATE))
            late = [
                f"{1e3 * np.quantile(of, q):.0f}"
                for of in (found.shown, found.final)
                for q in (0.5, 0.95)
            ]
            figures = [f"{1e3 * seconds:.0f}", f"{1e3 * found.cost:.0f}", *late]
            rows.append([name, *figures, f"{100 * found.flicker:.1f}", rate])
    header = ["chunk + look-ahead", "pieces (ms)", "a second costs (ms)", "word shown after (ms)"]
    header += ["95th percentile", "final after (ms)", "95th percentile", "flicker (%)", "WER (%)"]
    report(f"Live, {len(utterances)} utterances", header, rows, args)


def text_of(stream: StreamingTranscriber, samples: np.ndarray) -> str:
    stream.reset()
    updates = [*map(stream.push, cut(samples, LARGE)), stream.finish()]
    return " ".join(word.text for update in updates for word in update.final)


def word_error_rate(utterances, texts: list[str]) -> str:
    pairs = zip(utterances, texts, strict=True)
    counts = total_errors(count_errors(ref.split(), text.split()) for (_, ref), text in pairs)
    return f"{counts.rate:.1f}"


def endurance(recogniser, utterances, args) -> None:
    """Report time per push and the process's memory over the minutes."""
    stream = StreamingTranscriber(recogniser)
    loop = itertools.cycle(np.concatenate([samples for samples, _ in utterances]))
    rows = []
    for minute in range(1, args.minutes + 1):
        seconds = []
        for _ in range(round(60 / PIECES[-1])):
            piece = np.fromiter(loop, np.float32, LARGE)
            started = time.perf_counter()
            stream.push(piece)
            seconds.append(time.perf_counter() - started)
        if minute in (1, 2, 10, 30, args.minutes):
            median, late = (milliseconds(np.quantile(seconds, q)) for q in (0.5, 0.95))
            rows.append([minute, median, late, f"{peak_of_process() / 2**20:.0f}"])
    header = ["minute", "a push of 320 ms (ms)", "95th percentile", "peak of process (MiB)"]
    report("One live stream", header, rows, args)


def main() -> None:
    parser = model_arguments(__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=60, help="length of the long stream")
    args = parser.parse_args()
    if not args.model or not args.data:
        parser.error("give --model and --data")
    prepare(args)
    recogniser = espnet_mlma.load(args.model, device="cpu")
    utterances = [utterance for folder in args.data for utterance in read_set(folder)]
    compare(recogniser, utterances, args)
    endurance(recogniser, utterances, args)


if __name__ == "__main__":
    main()
