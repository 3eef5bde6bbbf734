"""The recipe killed within its stages, and the same command again until it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR

import numpy as np

from tests.campaign import recipe, watch
from tests.campaign.cases import Campaign
from tests.campaign.forked import fault
from tests.campaign.recipe import Recipe

PART = "kills"
# Kills of each stage at events, and at moments.
COUNTS = {1: (4, 3), 3: (4, 2), 4: (4, 0), 10: (6, 2), 11: (12, 3), 12: (4, 2), 13: (5, 0)}
_TRIES = 3


def campaign(report: Campaign, folder: Path) -> None:
    """Kill every stage at several points.

    Args:
        report: gets the cases.
        folder: to work in; empty.
    """
    tried = recipe.build(folder.parent / "recipe")
    rng = np.random.default_rng(report.seed)
    stages = {3: (1, 0), 11: (1, 0)} if report.quick else COUNTS
    for stage, (events, moments) in stages.items():
        for name, kill in _points(tried, stage, events, moments, rng):
            _kill(report, tried, stage, name, kill)
    if not report.quick:
        for stage in (1, 3, 10, 11, 12):
            _two_at_once(report, tried, stage)
        for stage in (3, 11):
            _kill_script_alone(report, tried, stage)


def _points(
    tried: Recipe, stage: int, events: int, moments: int, rng: np.random.Generator
) -> Iterator[tuple[str, watch.Kill]]:
    """Kills spread over a stage's events, every other of a file that is open and empty."""
    log = watch.read_log(tried.folder / f"events.{stage}")
    first = 1 if events > 1 else len(log) // 2
    chosen = np.linspace(first, len(log) - 1, events) + rng.uniform(-0.4, 0.4, events)
    places = sorted({int(np.clip(round(place), 0, len(log) - 1)) for place in chosen})
    if stage == 11 and events > 2:
        # Between checkpoint.pth and the epoch's parameters, of the second epoch and later.
        saves = [n for n, row in enumerate(log) if row[2] == "torch.save begins"]
        places = sorted({*places, *saves[2:5]})
    for number, place in enumerate(places):
        program, count, event, path = log[place]
        kill = watch.Kill(program, count, torn=number % 2 == 1, group=number % 3 != 2)
        how = ("torn" if kill.torn else "before") + ("" if kill.group else ", program alone")
        short = Path(path).name if path else ""
        yield f"{_program(program)}, event {count}, {event} {short}".rstrip() + f", {how}", kill
    programs = list(dict.fromkeys(row[0] for row in log))
    for number in range(moments):
        program = programs[number % len(programs)]
        after = float(rng.uniform(0.05, 1.2))
        yield f"{_program(program)}, after {after:.3f} s", watch.Kill(program, 0, after=after)


def _program(arguments: str) -> str:
    """The module that a command line ends up in."""
    words = arguments.split()
    module = words[max(n for n, word in enumerate(words[:4]) if word == "-m") + 1 :]
    return module[2] if module[1:2] == ["recipe"] else module[0]


def _kill(report: Campaign, tried: Recipe, stage: int, name: str, kill: watch.Kill) -> None:
    tried.restore(stage)
    before = _listing(tried)
    tried.run(stage, kill.as_environment())
    killed = any(event == "killed" for _, _, event, _ in watch.read_log(tried.log))
    if not killed or _listing(tried) == before:
        return  # not effective: it had ended, or had written nothing yet
    report.add(PART, f"stage {stage}", name, _again(tried, stage))


def _again(tried: Recipe, stage: int) -> str | None:
    """Give the same command until it ends; what is wrong with that, or with what it made."""
    for number in range(1, _TRIES + 1):
        ended = tried.run(stage)
        wrong = fault(ended)
        if wrong:
            return f"run {number} after it: {wrong}"
        if not tried.wait_for_orphans():
            return "processes do not end with their parent"
        if ended.status == 0:
            return recipe.difference(tried, stage)
    return f"does not end in {_TRIES} runs after it: {ended.errors[-1][:300]}"


def _listing(tried: Recipe) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted((tried.folder / "work").rglob("*")):
        with suppress(FileNotFoundError):  # a process may still be at work
            status = path.lstat()
            date = 0 if S_ISDIR(status.st_mode) else status.st_mtime_ns
            found.append((str(path), status.st_size, date))
    return found


def _two_at_once(report: Campaign, tried: Recipe, stage: int) -> None:
    """The same command twice at the same time, and once more."""
    tried.restore(stage)
    files = [(tried.folder / f"err.{number}").open("w+") for number in range(2)]
    running = [tried.start(stage, stdout=file, stderr=file) for file in files]
    wrong = None
    for process, file in zip(running, files, strict=True):
        status = process.wait(300)
        file.seek(0)
        said = file.read()
        file.close()
        if "Traceback (most recent call last)" in said:
            last = said.strip().splitlines()[-1]
            wrong = f"one of two runs ends in a traceback: {last[:200]}"
        elif status and "error: " not in said:
            wrong = f"one of two runs ends with status {status} and no error line"
    report.add(PART, f"stage {stage}, two at once", "together", wrong)
    report.add(PART, f"stage {stage}, two at once", "once more", _again(tried, stage))


def _kill_script_alone(report: Campaign, tried: Recipe, stage: int) -> None:
    """kill -9 of asr.sh leaves its programs without a parent; the same command at once."""
    tried.restore(stage)
    with open(os.devnull, "w") as nothing:
        process = tried.start(stage, real=True, stdout=nothing, stderr=nothing)
        wanted = "checkpoint.pth" if stage == 11 else "*.ark"
        deadline = time.monotonic() + 120
        while not next(tried.work.rglob(wanted), None) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        status = process.wait()
    if status == -signal.SIGKILL:
        report.add(PART, f"stage {stage}", "asr.sh alone", _again(tried, stage))
