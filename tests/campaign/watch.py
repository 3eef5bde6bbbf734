"""What a program writes, event by event, and its death at one of them.

Events are what Python's audit hooks tell of: files opened to be written, renamed, removed, folders
made; and tensors written by `torch.save`, before and after. They do not depend on time.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

LOG, KILL, BELOW, FSIZE = (f"MLMA_CAMPAIGN_{name}" for name in ("LOG", "KILL", "BELOW", "FSIZE"))
_ONE_PATH = {"os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
_TWO_PATHS = {"os.rename", "os.link", "os.symlink", "shutil.move", "shutil.copyfile"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Kill:
    """When a program dies.

    Args:
        program: its arguments, joined.
        event: the number of the event, from 1; 0: the start of the program.
        torn: die when the file of the event is open and empty, or, of tensors, not closed.
        after: seconds after the event.
        group: kill the whole process group of the script that started it, not the program alone.
    """

    program: str
    event: int
    torn: bool = False
    after: float = 0.0
    group: bool = True

    def as_environment(self) -> dict[str, str]:
        """What tells a program of it."""
        return {KILL: json.dumps(asdict(self))}


def begin(arguments: list[str], group: int) -> None:
    """Note every event of this process from now on, and die where it is told to.

    Args:
        arguments: of the program.
        group: the process group of the script that started it.
    """
    if FSIZE in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ[FSIZE]),) * 2)
    if LOG not in os.environ:
        return
    program = re.sub(r"\bnew\.\d+", "new.PID", " ".join(arguments))  # stage 10's own folder
    told = os.environ.get(KILL)
    kill = Kill(**json.loads(told)) if told else None
    if kill and kill.program != program:
        kill = None
    _Watch(program, kill, group).install()


class _Watch:
    def __init__(self, program: str, kill: Kill | None, group: int) -> None:
        self.program, self.kill, self.group = program, kill, group
        self.log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.below = os.environ[BELOW]
        self.count = 0
        self.pid = os.getpid()
        self.inside = threading.local()

    def install(self) -> None:
        import torch

        write = torch.serialization._save

        def watched(obj, zip_file, *arguments, **options) -> None:
            self.note("torch.save begins", "")
            write(obj, zip_file, *arguments, **options)
            self.note("torch.save ends", "")

        torch.serialization._save = watched
        sys.addaudithook(self.hook)
        if self.kill and not self.kill.event:
            self.die("", 0)

    def hook(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self.note(event, path, flags)
        elif event in _ONE_PATH or event in _TWO_PATHS:
            self.note(event, arguments[event in _TWO_PATHS])

    def note(self, event: str, path: object, flags: int = 0) -> None:
        if os.getpid() != self.pid or getattr(self.inside, "note", False):
            return  # a process forked from this one
        if path != "" and not isinstance(path, str | bytes | os.PathLike):
            return
        self.inside.note = True
        try:
            name = os.path.abspath(os.fsdecode(path)) if path != "" else ""
            if name and not name.startswith(self.below):
                return
            self.count += 1
            self.write([self.program, self.count, event, name[len(self.below) :]])
            if self.kill and self.count == self.kill.event:
                self.die(name, flags)
        finally:
            self.inside.note = False

    def die(self, name: str, flags: int) -> None:
        kill = self.kill
        if kill.after:
            threading.Thread(target=self.end, args=(kill.after,), daemon=True).start()
            return
        if kill.torn and flags:
            os.open(name, flags & ~os.O_EXCL, 0o666)
        self.end(0)

    def end(self, seconds: float) -> None:
        time.sleep(seconds)
        self.write([self.program, self.count, "killed", ""])
        if self.kill.group:
            os.killpg(self.group, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def write(self, row: list) -> None:
        os.write(self.log, (json.dumps(row) + "\n").encode())


def read_log(path: Path) -> list[tuple[str, int, str, str]]:
    """The events: program, number, what happened, and the path below the watched folder."""
    if not path.exists():
        return []
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]
