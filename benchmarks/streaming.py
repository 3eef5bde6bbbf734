"""Measure encoding in chunks: computing time and word errors.

    python benchmarks/streaming.py [--model EXPERIMENT --data dump/raw/test_x ...] [--json FILE]

Times are of the 31.6 M encoder with random weights, word error rates of a trained bidirectional
model that saw only whole utterances in training.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from common import milliseconds, model_arguments, prepare, report
from encoders import FEATURES

import espnet_mlma
from espnet_mlma.data import tables as datadir
from espnet_mlma.decode.folder import read_samples
from espnet_mlma.encoder import ConMambaEncoder, EncoderStream
from espnet_mlma.evaluation.score.align import count_errors, total_errors

# Encoder frames of 40 ms: 320 ms to 5 s of chunk, 0 to 1.3 s of look-ahead.
SETTINGS = (
    (8, 0),
    (8, 8),
    (8, 16),
    (16, 0),
    (16, 8),
    (16, 16),
    (32, 8),
    (32, 16),
    (32, 32),
    (128, 32),
)
FRAME_SECONDS = 0.04


def cost(args) -> None:
    """Report time and memory of a causal chunk over an hour."""
    torch.manual_seed(0)
    causal = ConMambaEncoder(FEATURES, bimamba="none").eval()
    stream = EncoderStream(causal, chunk=16)
    chunk = torch.randn(16 * 4, FEATURES)
    rows, seconds, minute = [], [], 0
    per_minute = round(60 / (16 * FRAME_SECONDS))
    for number in range(1, 60 * per_minute + 1):
        started = time.perf_counter()
        stream.push(chunk)
        seconds.append(time.perf_counter() - started)
        if number % per_minute == 0:
            minute += 1
            if minute in (1, 10, 30, 60):
                recent = sorted(seconds[-per_minute:])
                state = state_bytes(stream)
                rows.append(
                    [
                        minute,
                        milliseconds(recent[per_minute // 2]),
                        milliseconds(recent[round(0.95 * per_minute)]),
                        f"{state / 2**20:.2f}",
                    ]
                )
    header = ["minute", "chunk of 640 ms (ms)", "95th percentile", "state (MiB)"]
    report("A causal stream of an hour, 31.6 M", header, rows, args)


def state_bytes(stream: EncoderStream) -> int:
    def tensors(x):
        if isinstance(x, torch.Tensor):
            yield x
        elif isinstance(x, tuple | list):
            for item in x:
                yield from tensors(item)

    kept = tensors([stream._features, stream._waiting, stream._states])
    return sum(x.untyped_storage().nbytes() for x in kept)


def chunk_seconds(encoder, chunk: int, right_context: int) -> float:
    """Return the median time of a chunk in the middle of a stream."""
    stream = EncoderStream(encoder, chunk, right_context)
    stream.push(torch.randn(4 * (chunk + right_context), FEATURES))
    seconds = []
    for _ in range(15):
        started = time.perf_counter()
        stream.push(torch.randn(4 * chunk, FEATURES))
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[7]


class InChunks(torch.nn.Module):
    """Replace a model's encoder, and encode each utterance as a stream."""

    def __init__(self, encoder: ConMambaEncoder, chunk: int, right_context: int):
        super().__init__()
        self.encoder, self.chunk, self.right_context = encoder, chunk, right_context

    def output_size(self) -> int:
        return self.encoder.output_size()

    def forward(self, xs_pad, ilens):
        (length,) = ilens.tolist()
        stream = EncoderStream(self.encoder, self.chunk, self.right_context)
        frames = torch.cat([stream.push(xs_pad[0, :length]), stream.finish()])
        return frames[None], torch.tensor([len(frames)]), None


def word_errors(args) -> None:
    recogniser = espnet_mlma.load(args.model, device="cpu")
    encoder = recogniser.model.encoder
    utterances = [u for folder in args.data for u in read_set(folder)]
    big = ConMambaEncoder(FEATURES).eval()
    rows = [["one pass", "", "", "", word_error_rate(recogniser, utterances)]]
    for chunk, right in SETTINGS:
        recogniser.model.encoder = InChunks(encoder, chunk, right)
        rate = word_error_rate(recogniser, utterances)
        spent = chunk_seconds(big, chunk, right)
        rows.append(
            [
                f"{1e3 * chunk * FRAME_SECONDS:.0f} + {1e3 * right * FRAME_SECONDS:.0f} ms",
                f"{1e3 * (chunk / 2 + right) * FRAME_SECONDS:.0f}",
                milliseconds(spent),
                f"{spent / (chunk * FRAME_SECONDS):.3f}",
                rate,
            ]
        )
    header = ["chunk + look-ahead", "mean wait (ms)", "chunk, 31.6 M (ms)", "RTF", "WER (%)"]
    title = f"A bidirectional model in chunks, {len(utterances)} utterances"
    report(title, header, rows, args)


def read_set(folder: Path):
    """Yield samples and reference of each utterance."""
    texts = datadir.read(folder / "text", "stage 4")
    for id_, where in datadir.read(folder / "wav.scp", "stage 4").items():
        yield read_samples(where), texts[id_]


def word_error_rate(recogniser, utterances) -> str:
    counts = total_errors(
        count_errors(reference.split(), recogniser.transcribe(samples).text.split())
        for samples, reference in utterances
    )
    return f"{counts.rate:.1f}"


def main() -> None:
    args = model_arguments(__doc__.splitlines()[0]).parse_args()
    prepare(args)
    cost(args)
    if args.model:
        word_errors(args)


if __name__ == "__main__":
    main()
