"""Time the translator's speech encoders over a long stream, beside encoding its audio again.

    python benchmarks/sst_encoder.py [--encoder wav2vec2] [--size full] [--minutes 60] [--json FILE]

Weights are random; `full` is wav2vec 2.0 Large (24 layers of 1024) or the 31.6 M ConMamba. The
stream is encoded block by block; every block is timed. For comparison, earlier audio is encoded
again with each block: a window of 10 chunks, or the last 30 s.
"""

from __future__ import annotations

import statistics
import time

import torch
from common import milliseconds, prepare, report, time_together, timed_arguments
from scipy.stats import theilslopes
from torch import Tensor, nn

from espnet_mlma.encoder import EncoderStream
from espnet_mlma.encoder.espnet_streams import FeatureStream
from espnet_mlma.sst.encoder.conmamba import ChunkConMamba, ConMambaConfig
from espnet_mlma.sst.encoder.wav2vec2 import ChunkWav2Vec2, Wav2Vec2Config
from espnet_mlma.sst.grid import CHUNK_SAMPLES, CHUNK_SECONDS

SMALL = {"output_size": 64, "num_blocks": 4, "linear_units": 128, "bimamba": "none"}
ENCODERS = {
    ("wav2vec2", "full"): lambda: ChunkWav2Vec2(Wav2Vec2Config()),
    ("wav2vec2", "small"): lambda: ChunkWav2Vec2(
        Wav2Vec2Config((32,) * 7, d_model=64, num_layers=4, num_heads=4, linear_units=128)
    ),
    ("conmamba", "full"): lambda: ChunkConMamba(ConMambaConfig()),
    ("conmamba", "small"): lambda: ChunkConMamba(ConMambaConfig(encoder_conf=SMALL)),
}
MINUTES = (0, 1, 10, 60)
WINDOW_CHUNKS, RECOMPUTED_SECONDS = 10, 30
# Blocks whose median is one point of the regression: a hiccup of the machine is then no point.
TOGETHER = 8


def long_stream(encoder: nn.Module, name: str, args) -> None:
    """Time and state of each block over the stream."""
    block_seconds = args.multiplier * CHUNK_SECONDS
    blocks = round(60 * (args.minutes + 1) / block_seconds)
    samples = 0.1 * torch.randn(args.multiplier * CHUNK_SAMPLES)
    state, seconds, sizes = encoder.initial_state(), [], []
    for _ in range(blocks):
        started = time.perf_counter()
        _, state = encoder.step(samples, state)
        seconds.append(time.perf_counter() - started)
        sizes.append(state_bytes(state))
    rows = []
    for minute in MINUTES:
        first = round(60 * minute / block_seconds)
        of_minute = sorted(seconds[first : round(60 * (minute + 1) / block_seconds)])
        if minute <= args.minutes and of_minute:
            late = of_minute[round(0.95 * (len(of_minute) - 1))]
            middle = milliseconds(statistics.median(of_minute))
            rows.append([minute, middle, milliseconds(late), f"{sizes[first] / 2**20:.3f}"])
    header = ["minute", "block (ms)", "95th percentile", "state at its beginning (MiB)"]
    report(f"{name}: a stream, block by block", header, rows, args)
    # The first blocks have less than a window to look back on.
    filled = -(-WINDOW_CHUNKS // args.multiplier)
    points = [
        (k * block_seconds / 3600, 1e3 * statistics.median(seconds[k : k + TOGETHER]))
        for k in range(filled, blocks - TOGETHER + 1, TOGETHER)
    ]
    hours, times = zip(*points, strict=True)
    slope, _, low, high = theilslopes(times, hours)
    row = [blocks, *(f"{x:+.3g}" for x in (slope, low, high))]
    row += [milliseconds(1e-3 * statistics.median(times)), max(sizes[filled:])]
    header = ["blocks", "slope (ms an hour)", "95 %: from", "to", "median (ms)", "state (bytes)"]
    report(f"{name}: Theil-Sen slope of a block's time", header, [row], args)


def beside_recompute(encoder: nn.Module, name: str, args) -> None:
    """A block from the state, and from the audio of a window, in turn."""
    state = encoder.initial_state()
    block = 0.1 * torch.randn(args.multiplier * CHUNK_SAMPLES)

    def step() -> None:
        nonlocal state
        _, state = encoder.step(block, state)

    def encode_again(seconds: float) -> tuple[str, Tensor]:
        blocks = max(round(seconds / CHUNK_SECONDS / args.multiplier), 1)
        shown = blocks * args.multiplier * CHUNK_SECONDS
        return f"{shown:.2f} s again", block.repeat(blocks)[None]

    for _ in range(-(-WINDOW_CHUNKS // args.multiplier)):
        step()
    runs = {"from the state": step}
    for seconds in (WINDOW_CHUNKS * CHUNK_SECONDS, RECOMPUTED_SECONDS):
        label, samples = encode_again(seconds)
        runs[label] = lambda samples=samples: encoder(samples, args.multiplier)
    found = time_together(runs, args.repeats)
    base = found["from the state"]
    rows = [[label, milliseconds(t), f"{t / base:.1f}x"] for label, t in found.items()]
    title = f"{name}: one block of a stream, from its state or with earlier audio encoded again"
    report(title, ["encoded", "time (ms)", "of the first"], rows, args)


def state_bytes(state: object) -> int:
    """Of all tensors that a stream keeps."""
    if isinstance(state, Tensor):
        return state.untyped_storage().nbytes()
    if isinstance(state, FeatureStream | EncoderStream):
        state = [part for part in vars(state).values() if not isinstance(part, nn.Module)]
    return sum(map(state_bytes, state)) if isinstance(state, tuple | list) else 0


@torch.inference_mode()
def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=["wav2vec2", "conmamba"], default="wav2vec2")
    parser.add_argument("--size", choices=["full", "small"], default="full")
    parser.add_argument("--multiplier", type=int, default=1, help="chunks of a block")
    parser.add_argument("--minutes", type=int, default=60, help="the last minute that is timed")
    parser.add_argument("--repeats", type=int, default=5, help="of the comparison")
    args = parser.parse_args()
    prepare(args)
    torch.manual_seed(0)
    encoder = ENCODERS[args.encoder, args.size]().eval()
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    name = f"{args.encoder}, {millions:.3g} M, multiplier {args.multiplier}"
    beside_recompute(encoder, name, args)
    long_stream(encoder, name, args)


if __name__ == "__main__":
    main()
