"""Commands run in forked processes: a crash or a hang is that process's alone, a start costs none.

What is slow to import has to be imported before, in this process.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = 60
MEMORY = 6 * 2**30  # bytes beyond what the parent has mapped
CRASHED = 70
_LONGEST_ERROR = 1000


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Args:
        status: exit status; below 0: minus the signal that ended it; None: it hung.
        out, err: what it wrote.
    """

    status: int | None
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines that begin with `error: `."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


def run(
    work: Callable[[], object], seconds: float = SECONDS, memory: int = MEMORY, cwd: str = "."
) -> Ended:
    """Do some work in a forked process of its own group, within bounds.

    Args:
        work: returns, or raises SystemExit; any other exception is a traceback on standard error.
        seconds: after which it counts as hanging.
        memory: bytes it may map beyond what this process has.
        cwd: where it runs.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(work, memory, cwd, out.fileno(), err.fileno())
        status = _wait(pid, seconds)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return Ended(status, *texts)


def _become(work: Callable[[], object], memory: int, cwd: str, out: int, err: int) -> None:
    """Never returns."""
    code = CRASHED
    try:
        end_with_parent()
        os.setsid()
        os.chdir(cwd)
        nothing = os.open(os.devnull, os.O_RDONLY)
        take_streams(nothing, out, err)
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = status_of(work)
    finally:
        os._exit(code)


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def take_streams(*fds: int) -> None:
    """Make file descriptors the standard streams, as an interpreter does that starts with them."""
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def status_of(work: Callable[[], object]) -> int:
    """Do some work as a program's main function; its exit status, standard streams flushed."""
    try:
        work()
        code = 0
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = CRASHED
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    return code


def _wait(pid: int, seconds: float) -> int | None:
    handle = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([handle], [], [], seconds)
    finally:
        os.close(handle)
        _end_group(pid)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if ended else None


def _end_group(leader: int) -> None:
    """What a program leaves running must not disturb the next case."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(leader, signal.SIGKILL)  # it has not come to setsid yet


def fault(ended: Ended) -> str | None:
    """What is wrong with the way a command ended; None: it ended well, or with clear errors."""
    if ended.status is None:
        return "hangs"
    if ended.status < 0:
        return f"ended by {signal.Signals(-ended.status).name}"
    if "Traceback (most recent call last)" in ended.err:
        return f"traceback: {_summary(ended.err)}"
    if ended.status not in (0, 1, 2):
        return f"exit status {ended.status}: {ended.err.strip()[-200:]!r}"
    if ended.status and not ended.errors:
        return f"exit status {ended.status} without an error line: {ended.err.strip()[-200:]!r}"
    long = next((line for line in ended.errors if len(line) > _LONGEST_ERROR), None)
    return long and f"an error of {len(long)} characters: {long[:200]!r}"


def _summary(err: str) -> str:
    """The last line of a traceback and the innermost line of ours in it."""
    places = re.findall(r'File "[^"]*?(espnet_mlma/[^"]+)", line (\d+)', err)
    where = ":".join(places[-1]) if places else "outside espnet_mlma"
    lines = [
        line
        for line in err.splitlines()
        if re.match(r"[A-Za-z_][\w.]*(Error|Exception|\w*)(:|$)", line)
    ]
    return f"{(lines or ['?'])[-1][:200]} at {where}"
