"""Translate talks as they are heard: files, or bare samples from the standard input.

    python -m espnet_mlma.sst stream --model exp/stage2 --wav talk.wav --log instances.log
    arecord -q -f S16_LE -r 16000 -c 1 | python -m espnet_mlma.sst stream --model exp/stage2 --live

Text is printed as it is said, and figures after each talk on the standard error.
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
from espnet_mlma.sst.score.logs import Emission, Talk, write_simuleval, write_simulstream
from espnet_mlma.sst.score.quality import unit_and_tokeniser
from espnet_mlma.sst.stream.agent import Translator

_LIVE_SECONDS = 0.1
# Options that stand for fields of `TurnDecoding`.
_DECODING = {
    "beams": "hypotheses followed at once; 1 takes the best token each time",
    "no_repeat_ngram": "tokens in a row that are not said again soon; 0: they may be",
    "max_tokens": "most of the language model's memory",
    "keep_tokens": "how many it forgets down to",
}
_WRITERS = {"simuleval": write_simuleval, "simulstream": write_simulstream}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_translator_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav", type=Path, nargs="+", help="talks, of any format and length")
    source.add_argument(
        "--live", action="store_true", help="16-bit little-endian samples of one channel on stdin"
    )
    parser.add_argument(
        "--rate", type=natural, default=SAMPLE_RATE, help="of --live, in Hz (default: 16000)"
    )
    parser.add_argument(
        "--realtime", action="store_true", help="hear files no faster than they were spoken"
    )
    parser.add_argument("--log", type=Path, help="write what was said when, for `score`")
    parser.add_argument("--log_format", choices=_WRITERS, default="simuleval")


def add_translator_arguments(parser: argparse.ArgumentParser) -> None:
    """What `translator` reads."""
    parser.add_argument("--model", type=Path, required=True, help="folder that stage 2 wrote")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--multiplier", type=natural, default=2, help="chunks of 0.96 s in a turn (default: 2)"
    )
    parser.add_argument(
        "--exempt_eos",
        action="store_true",
        help="no repetition penalty on the end of a turn, which InfiniSST penalises",
    )
    for name, what in _DECODING.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default: the model's)")


def run(args: argparse.Namespace) -> None:
    """Translate, one talk after the other, and write the log after each.

    A talk that cannot be read is named and skipped; of one that is cut off, what is there is
    translated.

    Raises:
        MlmaError: a talk was skipped.
        SystemExit: 1 where a part of a talk is missing.
    """
    keep_freed_memory()
    if args.live and not streams.has_stdin():
        raise MlmaError("there is no standard input; send samples through a pipe")
    for path in args.wav or ():
        if not path.exists():  # before the model is loaded; a pipe will do
            raise MlmaError(f"{path}: no such file; give talks that are there")
    listener = translator(args)
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
        raise MlmaError(f"{skipped} of {len(sources)} talks were skipped, see above")
    if is_damaged:
        raise SystemExit(1)


def translator(args: argparse.Namespace) -> Translator:
    """A translator by the options of a command.

    Raises:
        MlmaError: the model cannot be loaded, or an option is out of its range.
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


def translate(listener: Translator, name: str, blocks: Iterable[np.ndarray]) -> Talk:
    """Print one talk's translation as it comes.

    Args:
        listener: at the beginning of a talk.
        name: of the talk.
        blocks: its samples (time,) at 16 kHz.
    """
    emissions: list[Emission] = []
    samples = 0

    def heard() -> Iterator[Emission]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield from listener.hear(block)
        yield from listener.hear_end()

    for emission in heard():
        emissions.append(emission)
        print(listener.spaced(emission.text), end="", flush=True)
    print(flush=True)
    seconds = samples / SAMPLE_RATE
    print(summary(name, emissions, seconds, listener.multiplier), file=sys.stderr)
    return Talk(name, tuple(emissions), seconds)


def paced(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks (time,) at 16 kHz, each no sooner than its last sample would have been spoken."""
    started, samples = time.perf_counter(), 0
    for block in blocks:
        samples += len(block)
        time.sleep(max(0.0, started + samples / SAMPLE_RATE - time.perf_counter()))
        yield block


def summary(name: str, emissions: list[Emission], seconds: float, multiplier: int) -> str:
    """A line of figures on one talk.

    Args:
        name: of the talk.
        emissions: its turns.
        seconds: of audio.
        multiplier: chunks of a turn.
    """
    spent = sorted(emission.compute_seconds for emission in emissions)
    if not spent:
        return f"{name}: no audio"
    spoken = sum(bool(emission.text) for emission in emissions)
    late = sum(one > multiplier * CHUNK_SECONDS for one in spent)
    nearly_all = spent[int(0.95 * (len(spent) - 1))]
    speed, middle = seconds / sum(spent), statistics.median(spent)
    return (
        f"{name}: {seconds:.1f} s of audio, {speed:.1f} times as fast as real time; {spoken} of "
        f"{len(spent)} turns said something; a turn took {middle:.2f} s (median; 95th percentile "
        f"{nearly_all:.2f}, most {spent[-1]:.2f}), {late} longer than its audio"
    )
