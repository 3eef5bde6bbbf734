"""Lock outputs for one writer. The kernel releases a lock when its writer ends or is killed.

The locks are those of `flock`. On file systems without it (some NFS and Lustre) nothing is locked.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from espnet_mlma.errors import MlmaError

_NOT_SUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_LONGEST_NAME = 120  # bytes; the file system's limit is 255
_held: set[int] = set()  # descriptors of claims


@contextmanager
def claim(path: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Claim an output, so that no other process writes it at the same time.

    The lock is the hidden file `.<name>.claim` beside the output; it names host and process.

    Args:
        path: the output, which need not exist; its folder is made.
        doing: the holder's work, for the error, such as `decodes into it`.
        wait: wait for a process that holds the claim.

    Raises:
        MlmaError: another process holds the claim and `wait` is false, or the lock cannot be
            written.
    """
    lock = beside(path, "claim")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_locked(lock, wait=wait)
    except BlockingIOError:
        raise MlmaError(
            f"{path}: {_holder(lock)} {doing} already; wait for it or end it, then run this again"
        ) from None
    except OSError as error:
        raise MlmaError(f"cannot write {lock}: {error.strerror}; choose another place") from None
    _held.add(descriptor)
    with suppress(OSError):  # on a full disk the claim holds, without the name of its holder
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    try:
        yield
    finally:
        if descriptor in _held:  # not in a forked child
            _held.remove(descriptor)
            with suppress(FileNotFoundError):
                lock.unlink()  # before the release, so that no new holder loses its file
            os.close(descriptor)


def _leave_to_parent() -> None:
    """Close the claims in a forked child, which may outlive a killed parent for seconds."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_leave_to_parent)


def open_locked(path: Path, *, folder: bool = False, wait: bool = False) -> int:
    """Lock a file or folder; make it if it does not exist.

    Args:
        path: the file or folder; links are not followed.
        folder: make a folder.
        wait: wait for a process that has locked it.

    Returns:
        A file descriptor; closing it releases the lock.

    Raises:
        BlockingIOError: it is locked, perhaps by this process, and `wait` is false.
        OSError: it cannot be made or opened.
    """
    while True:
        if folder:
            path.mkdir(exist_ok=True)
        kind = os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR | os.O_CREAT
        try:
            descriptor = os.open(path, kind | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise
            continue  # another process has just moved the folder away
        try:
            _lock(descriptor, wait)
            if _lies_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the previous holder renamed or removed it: open the new one


def beside(path: Path, purpose: str) -> Path:
    """Name a hidden file beside a path; a long name is replaced by a digest."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
    return path.with_name(f".{name}.{purpose}")


def _lock(descriptor: int, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def _lies_at(descriptor: int, path: Path) -> bool:
    ours = os.fstat(descriptor)
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _holder(lock: Path) -> str:
    with suppress(OSError):
        return lock.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    return "another process"
