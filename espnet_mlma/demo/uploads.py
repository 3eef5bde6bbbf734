"""Uploads: each under a name of its own, in a folder of the server's own, until it is read.

Gradio names an upload by its contents, so that all who upload the same file share one, and takes
whatever path of its folder a client names. Here the path that a client names is looked up among
those that were given out, and is never itself opened.
"""

from __future__ import annotations

import asyncio
import mimetypes
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from espnet_mlma.errors import MlmaError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

# How many uploads of the largest size may lie on disk, all clients together.
_WAITING = 64
# Files and other fields of one request.
_MOST_FILES = _MOST_FIELDS = 16
# What the smallest file takes on disk.
_BLOCK_BYTES = 4096
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}", re.ASCII)
_CHUNK_BYTES = 2**16


@dataclass(frozen=True)
class Upload:
    """A file on disk.

    Attributes:
        path: where it lies.
        name: what its sender calls it.
        size: bytes it takes on disk.
        since: seconds, of `time.monotonic`.
    """

    path: Path
    name: str
    size: int
    since: float

    def renamed(self, text: str) -> str:
        """Put the sender's name in the place of ours in a message."""
        return text.replace(str(self.path), self.name).replace(self.path.name, self.name)


class Uploads:
    """What has been uploaded to a server and not yet been read.

    Args:
        folder: empty, of this server alone.
        most_bytes: of one request.
        seconds: how long an upload waits, and how long it may take to arrive.
    """

    def __init__(self, folder: Path, most_bytes: int, seconds: float):
        self._folder = folder
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._waiting: dict[str, Upload] = {}
        self._held_bytes = 0
        self._lock = threading.Lock()

    async def receive(self, request: Request) -> Response:
        """Answer a multipart request with the paths of its files, as Gradio does.

        Until it is complete, it is held in files without a name, which end with it.
        """
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse, PlainTextResponse

        most = int(request.headers.get("content-length", self._most_bytes))
        try:
            with self._reserved(most):
                async with asyncio.timeout(self._seconds):
                    paths = await self._stored(request)
        except (ClientDisconnect, TimeoutError):
            return PlainTextResponse("the upload broke off; upload it again", 408)
        except (_FullError, OSError) as error:
            return PlainTextResponse(f"no room for the upload ({error}); try again later", 503)
        if not paths:
            return PlainTextResponse("no file; send one in the field 'files'", 400)
        return JSONResponse(paths)

    async def send(self, request: Request) -> Response:
        """Answer with an upload that waits; other paths do not exist."""
        from starlette.responses import PlainTextResponse, StreamingResponse

        path = request.path_params["path"]
        with self._lock:
            upload = self._waiting.get(path)
            # Once it is open, it may be deleted.
            file = upload and upload.path.open("rb")
        if upload is None:
            return PlainTextResponse("no such upload", 404)
        kind = mimetypes.guess_type(path)[0] or ""
        is_media = kind.startswith(("audio/", "video/"))
        return StreamingResponse(
            _chunks(file),
            media_type=kind if is_media else "application/octet-stream",
            headers={"Content-Disposition": "inline" if is_media else "attachment"},
        )

    @contextmanager
    def taken(self, path: str) -> Iterator[Upload]:
        """Take an upload out of those that wait; it is deleted afterwards.

        Args:
            path: as it was given to the client.

        Raises:
            MlmaError: none waits there; or what was raised meanwhile, with the sender's name of
                the file.
        """
        with self._lock:
            upload = self._waiting.pop(path, None)
        if upload is None:
            raise MlmaError("the upload is no longer there; upload it again")
        try:
            yield upload
        except MlmaError as error:
            raise MlmaError(upload.renamed(str(error))) from None
        finally:
            self._delete(upload)

    @contextmanager
    def swept(self, every: float) -> Iterator[None]:
        """Delete again and again what nobody came to have read.

        Args:
            every: seconds.
        """
        ended = threading.Event()

        def sweep() -> None:
            while not ended.wait(every):
                self._sweep()

        sweeper = threading.Thread(target=sweep, daemon=True)
        sweeper.start()
        try:
            yield
        finally:
            ended.set()
            sweeper.join()

    def _sweep(self) -> None:
        since = time.monotonic() - self._seconds
        with self._lock:
            old = [path for path, upload in self._waiting.items() if upload.since < since]
        self._drop(old)

    def _drop(self, paths: Iterable[str]) -> None:
        for path in paths:
            # Whoever takes an upload out deletes it.
            with self._lock:
                upload = self._waiting.pop(path, None)
            if upload is not None:
                self._delete(upload)

    async def _stored(self, request: Request) -> list[str]:
        from starlette.concurrency import run_in_threadpool
        from starlette.datastructures import UploadFile

        paths: list[str] = []
        async with request.form(max_files=_MOST_FILES, max_fields=_MOST_FIELDS) as form:
            try:
                for file in form.getlist("files"):
                    if isinstance(file, UploadFile):
                        name = file.filename or ""
                        paths.append(await run_in_threadpool(self._store, file.file, name))
            except BaseException:
                self._drop(paths)
                raise
        return paths

    def _store(self, source: BinaryIO, name: str) -> str:
        suffix = PurePosixPath(name).suffix.lower()
        suffix = suffix if _SUFFIX.fullmatch(suffix) else ""
        path = self._folder / (secrets.token_hex(16) + suffix)
        try:
            with path.open("xb") as target:
                shutil.copyfileobj(source, target)
            size = max(_BLOCK_BYTES, path.stat().st_size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        name = PurePosixPath(name.replace("\\", "/")).name or "audio"
        with self._lock:
            self._waiting[str(path)] = Upload(path, name, size, time.monotonic())
            self._held_bytes += size
        return str(path)

    def _delete(self, upload: Upload) -> None:
        upload.path.unlink(missing_ok=True)
        with self._lock:
            self._held_bytes -= upload.size

    @contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        """Room for a request that arrives; its files are counted on their own."""
        with self._lock:
            if self._held_bytes + size > _WAITING * self._most_bytes:
                raise _FullError("too much audio waits")
            self._held_bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._held_bytes -= size


class _FullError(Exception):
    """No room for a request."""


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
