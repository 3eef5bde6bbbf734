"""Translate talks while they are spoken: files, or raw samples from standard input.

    mlma translate stream --model exp/stage2 --wav talk.wav --log instances.log
    arecord -q -f S16_LE -r 16000 -c 1 | mlma translate stream --model exp/stage2 --live

Text goes to standard output as it is translated, statistics after each talk to standard error.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from espnet_mlma import streams
from espnet_mlma.audio import UntilDamage, audio_blocks, pcm_blocks
from espnet_mlma.errors import MlmaError, one_line
from espnet_mlma.espnet.imports import check_device
from espnet_mlma.memory import keep_freed_memory
from espnet_mlma.numbers import natural
from espnet_mlma.sst import model as models
from espnet_mlma.sst.grid import CHUNK_SECONDS, SAMPLE_RATE
from espnet_mlma.sst.score.logs import Emission, TranslatedTalk, write_simuleval, write_simulstream
from espnet_mlma.sst.score.quality import unit_and_tokeniser
from espnet_mlma.sst.stream.agent import Translator

_LIVE_SECONDS = 0.1
# Command-line options that override fields of `TurnDecoding`.
_DECODING = {
    "beams": "beam width; 1 is greedy search",
    "no_repeat_ngram": "length of n-grams that may not repeat; 0: no ban",
    "max_tokens": "maximum tokens in the language model's cache",
    "keep_tokens": "tokens kept when the cache is full",
}
_WRITERS = {"simuleval": write_simuleval, "simulstream": write_simulstream}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `stream`."""
    add_translator_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav", type=Path, nargs="+", help="talks, any format and length")
    source.add_argument(
        "--live", action="store_true", help="read 16-bit little-endian mono samples from stdin"
    )
    parser.add_argument(
        "--rate",
        type=natural,
        default=SAMPLE_RATE,
        help="sampling rate of --live in Hz (default: 16000)",
    )
    parser.add_argument(
        "--realtime", action="store_true", help="read files no faster than real time"
    )
    parser.add_argument("--log", type=Path, help="write text and times for `score`")
    parser.add_argument("--log_format", choices=_WRITERS, default="simuleval")


def add_translator_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `make_translator` reads."""
    parser.add_argument("--model", type=Path, required=True, help="--out of training stage 2")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--multiplier", type=natural, default=2, help="chunks of 0.96 s per turn (default: 2)"
    )
    parser.add_argument(
        "--exempt_eos",
        action="store_true",
        help="no repetition penalty on the end-of-turn token; InfiniSST penalises it",
    )
    for name, what in _DECODING.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default: the model's)")


def run(args: argparse.Namespace) -> None:
    """Translate the talks in order and write the log after each.

    Unreadable talks are reported and skipped. Truncated talks are translated as far as they go.

    Raises:
        MlmaError: a talk was skipped.
        SystemExit: 1 if a talk is truncated.
    """
    keep_freed_memory()
    if args.live and not streams.has_stdin():
        raise MlmaError("--live: no standard input; send samples through a pipe")
    for path in args.wav or ():
        if not path.exists():  # before the slow import; pipes exist too
            raise MlmaError(f"{path}: no such file; check --wav")
    listener = make_translator(args)
    unit, _ = unit_and_tokeniser(listener.model.config.dialogue.target)
    if args.live:
        sources: dict[str, Iterable[np.ndarray]] = {
            "live": pcm_blocks(sys.stdin.buffer, args.rate, seconds=_LIVE_SECONDS)
        }
    else:
        sources = {str(path): audio_blocks(path, _LIVE_SECONDS) for path in args.wav}
    talks, is_damaged = [], False
    for name, blocks in sources.items():
        whole = UntilDamage(blocks)
        try:
            talks.append(translate(listener, name, paced(whole) if args.realtime else whole))
        except MlmaError as error:
            if len(sources) == 1:
                raise
            print(f"\nskipped {name}: {error}", file=sys.stderr)
        if whole.damage is not None:
            is_damaged = True
            print(f"error: {one_line(str(whole.damage))}", file=sys.stderr)
        listener.reset()
        if args.log is not None:
            _WRITERS[args.log_format](args.log, talks, unit)
    if len(talks) < len(sources):
        skipped = len(sources) - len(talks)
        raise MlmaError(f"{skipped} of {len(sources)} talks were skipped; see the messages above")
    if is_damaged:
        raise SystemExit(1)


def make_translator(args: argparse.Namespace) -> Translator:
    """Load a model and make a translator from command-line options.

    Raises:
        MlmaError: the model cannot be loaded, or an option is out of range.
    """
    check_device(args.device)
    own = models.read_config(args.model).decoding
    given = {name: getattr(args, name) for name in _DECODING}
    changes: dict[str, int] = {name: value for name, value in given.items() if value is not None}
    if args.exempt_eos:
        changes["penalize_eos"] = False
    try:
        decoding = replace(own, **changes)
    except ValueError as error:
        raise MlmaError(f"--{error}") from None
    return Translator(models.load(args.model, args.device), args.multiplier, decoding)


def translate(listener: Translator, name: str, blocks: Iterable[np.ndarray]) -> TranslatedTalk:
    """Translate one talk and print the text as it comes.

    Args:
        listener: translator at the start of a talk.
        name: name of the talk.
        blocks: samples, each (time,) at 16 kHz.
    """
    emissions: list[Emission] = []
    samples = 0

    def turns() -> Iterator[Emission]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield from listener.push_turns(block)
        yield from listener.finish_turns()

    for emission in turns():
        emissions.append(emission)
        print(listener.spaced(emission.text), end="", flush=True)
    print(flush=True)
    seconds = samples / SAMPLE_RATE
    print(summary(name, emissions, seconds, listener.multiplier), file=sys.stderr)
    return TranslatedTalk(name, tuple(emissions), seconds)


def paced(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield blocks, each (time,) at 16 kHz, in real time: no block before its last sample."""
    started, samples = time.perf_counter(), 0
    for block in blocks:
        samples += len(block)
        time.sleep(max(0.0, started + samples / SAMPLE_RATE - time.perf_counter()))
        yield block


def summary(name: str, emissions: list[Emission], seconds: float, multiplier: int) -> str:
    """Return one line of statistics about a talk.

    Args:
        name: name of the talk.
        emissions: turns of the talk.
        seconds: length of the audio.
        multiplier: chunks per turn.
    """
    times = sorted(emission.compute_seconds for emission in emissions)
    if not times:
        return f"{name}: no audio"
    spoken = sum(bool(emission.text) for emission in emissions)
    late = sum(one > multiplier * CHUNK_SECONDS for one in times)
    p95 = times[int(0.95 * (len(times) - 1))]
    speed, median = seconds / sum(times), statistics.median(times)
    return (
        f"{name}: {seconds:.1f} s of audio, {speed:.1f} times real time; {spoken} of {len(times)} "
        f"turns have text; seconds per turn: median {median:.2f}, p95 {p95:.2f}, maximum "
        f"{times[-1]:.2f}; {late} turns took longer than their audio"
    )
