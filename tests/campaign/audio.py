"""Sound in many containers, whole, cut, damaged and joined, by `mlma transcribe` and stage 3."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.campaign import fixtures
from tests.campaign.cases import Campaign
from tests.campaign.containers import CONTAINERS, Container
from tests.campaign.forked import Ended, fault, run

PART = "audio"
SECONDS = 12.0
_TOLERANCE = 0.25  # seconds: padding of codecs
_LOST = 1.3  # seconds of a cut file that a reader may lose at its end: one large page or cluster
_LONGEST = 600.0  # seconds that no damage of a header makes of twelve
_CUTS = (0.3, 0.6, 0.9)
_FUZZED_BYTES = 160


@dataclass(frozen=True)
class Input:
    """A file, and what it is of the whole one: `whole`, `cut at 0.6`, `joined`, `header 3`."""

    path: Path
    kind: str


def campaign(report: Campaign, folder: Path) -> None:
    """Try every container.

    Args:
        report: gets the cases.
        folder: to work in; empty.
    """
    fixtures.import_models()
    model = folder / "char/exp/model"
    made = run(lambda: fixtures.experiment(folder / "char"))
    assert made.status == 0, made.err
    control = Input(fixtures.clip(folder / "control.wav", SECONDS, seed=9), "control")
    expected = _results(_transcribe(model, [control], folder), [control], folder)[control.path]
    assert expected is not None and expected["words"], "the control has no words"
    chosen = CONTAINERS[::9] if report.quick else CONTAINERS
    for number, container in enumerate(chosen):
        place = folder / f"{number:02d}"
        place.mkdir()
        inputs = _inputs(container, place, [report.seed, number], 2 if report.quick else 10)
        _try_transcribe(report, container, model, inputs, control, expected, place)
        _try_stages(report, container, inputs, place)
        shutil.rmtree(place)


def _inputs(container: Container, place: Path, seed: list[int], fuzzed: int) -> list[Input]:
    rng = np.random.default_rng(seed)
    result = run(lambda: (place / "whole").write_bytes(container.write(fixtures.sound(SECONDS))))
    assert result.status == 0, f"{container.name}: {result.err}"
    whole = (place / "whole").read_bytes()
    (place / "whole").unlink()
    contents = {"whole": whole, "joined": whole + whole}
    contents |= {f"cut at {part}": whole[: round(len(whole) * part)] for part in _CUTS}
    for number in range(fuzzed):
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 9)):
            damaged[rng.integers(min(_FUZZED_BYTES, len(whole)))] = rng.integers(256)
        contents[f"header {number}"] = bytes(damaged)
    inputs = []
    for kind, content in contents.items():
        path = place / f"{kind.replace(' ', '_')}.{container.suffix}"
        path.write_bytes(content)
        inputs.append(Input(path, kind))
    return inputs


def _transcribe(model: Path, inputs: list[Input], out: Path) -> Ended:
    from espnet_mlma.cli import main

    options = ["--model", str(model), "--format", "json", "-o", str(out / "out")]
    files = [str(one.path) for one in inputs]
    return run(lambda: main(["transcribe", *options, *files]), cwd=str(out))


def _results(ended: Ended, inputs: list[Input], out: Path) -> dict[Path, dict | None]:
    """What was written for each input; None: nothing."""
    found = {}
    for one in inputs:
        file = out / "out" / f"{one.path.stem}.json"
        found[one.path] = json.loads(file.read_text()) if file.exists() else None
    return found


def _try_transcribe(
    report: Campaign,
    container: Container,
    model: Path,
    inputs: list[Input],
    control: Input,
    expected: dict,
    place: Path,
) -> None:
    rows = [*inputs, control]
    ended = _transcribe(model, rows, place)
    results = _results(ended, rows, place)
    alone = {}
    if wrong := fault(ended):
        shutil.rmtree(place / "out", ignore_errors=True)
        for one in inputs:
            alone[one.path] = _transcribe(model, [one], place)
        results = _results(ended, rows, place)
        report.add(PART, container.name, "all in one command", wrong)
    elif results[control.path] is None or results[control.path]["words"] != expected["words"]:
        report.add(PART, container.name, "control", "another file in the command lost its text")
    else:
        report.add(PART, container.name, "control", None)
    for one in inputs:
        own = alone.get(one.path, ended)
        errors = [line for line in own.errors if str(one.path) in line]
        result = results[one.path]
        seconds = None if result is None else result["duration"]
        verdict = fault(own) if alone else None
        verdict = verdict or _verdict(container, one.kind, seconds, errors)
        report.add(PART, container.name, one.kind, verdict)


def _verdict(
    container: Container, kind: str, seconds: float | None, errors: list[str]
) -> str | None:
    """What is wrong with what became of an input.

    Args:
        container: what it is in.
        kind: of `Input`.
        seconds: of what was recognised; None: no result.
        errors: lines about it.
    """
    if seconds is None and not errors:
        return "neither a result nor an error"
    if kind.startswith("header"):
        too_long = seconds is not None and seconds > _LONGEST
        return f"{seconds} s out of {SECONDS}" if too_long else None
    if kind.startswith("cut"):
        return _verdict_of_cut(container, float(kind.split()[-1]), seconds, errors)
    if kind == "joined":
        wanted = [2 * SECONDS] if container.joins else [SECONDS, 2 * SECONDS]
    else:
        wanted = [SECONDS]
        if errors:
            return f"a whole file is refused: {errors[0]}"
    if errors or any(abs(seconds - right) <= 2 * _TOLERANCE for right in wanted):
        return None
    return f"{seconds} s and no error, where {wanted[0]} s are in it"


def _verdict_of_cut(
    container: Container, part: float, seconds: float | None, errors: list[str]
) -> str | None:
    there = part * SECONDS
    if not errors:
        if abs(seconds - SECONDS) <= _TOLERANCE:
            return None  # the end was padding
        if container.tells:
            return f"{seconds} s of a cut-off file of {SECONDS:.0f} s and no error"
        return None if seconds >= there - _LOST else f"{seconds} s of {there:.1f} s that are there"
    if container.sequential and part >= 0.6 and (seconds or 0) < there - _LOST:
        return f"{seconds or 0} s of {there:.1f} s that are there; {errors[0]}"
    return None


def _try_stages(report: Campaign, container: Container, inputs: list[Input], place: Path) -> None:
    """The same files as a corpus of clips."""
    ended = run(lambda: _format(inputs, place), cwd=str(place))
    wrong = fault(ended)
    if wrong:
        for one in inputs:
            for name in ("data", "dump"):
                shutil.rmtree(place / name, ignore_errors=True)
            alone = fault(run(lambda one=one: _format([one], place), cwd=str(place)))
            report.add(PART, container.name, f"{one.kind}, stages 1 and 3", alone)
        return
    kept = dict(_table(place / "dump/set/utt2num_samples"))
    for number, one in enumerate(inputs):
        samples = kept.get(f"mini_en_s-{number:03d}")
        seconds = samples and int(samples) / fixtures.RATE
        dropped = [] if samples else ["dropped"]
        # What is cut off is not to be trained on: dropping it is right.
        verdict = None
        if not (dropped and one.kind.startswith("cut")):
            verdict = _verdict(container, one.kind, seconds, dropped)
        report.add(PART, container.name, f"{one.kind}, stages 1 and 3", verdict)


def _format(inputs: list[Input], place: Path) -> None:
    from espnet_mlma.audio.archives import AudioFile
    from espnet_mlma.data.format_audio import format_folder
    from espnet_mlma.data.utterance import Utterance
    from espnet_mlma.data.writer import write_set
    from espnet_mlma.errors import MlmaError, run_cli

    def work() -> None:
        utterances = [
            Utterance(f"mini_en_s-{n:03d}", AudioFile(one.path), "a bad cab", "mini_en_s", "en")
            for n, one in enumerate(inputs)
        ]
        try:
            write_set(place / "data/set", utterances, nj=1, scored=True)
            format_folder(place / "data/set", place / "dump/set", 1)
        except MlmaError as error:
            if len(inputs) > 1:
                raise AssertionError(f"one file ends the stage: {error}") from None
            raise

    run_cli(work)


def _table(file: Path) -> Iterator[list[str]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        yield line.split(maxsplit=1)
