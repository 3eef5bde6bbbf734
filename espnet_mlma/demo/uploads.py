"""Keep uploads until they are recognised, each under a random name in the server's folder.

Gradio names an upload by its contents, so clients that upload the same file share one, and it opens
any path in its folder that a client names. Here a client's path is only looked up among the paths
that were handed out.
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

# Most uploads of maximum size on disk, all clients together.
_MAX_WAITING = 64
# Most files, and most other fields, of one request.
_MAX_FILES = _MAX_FIELDS = 16
# Disk space of the smallest file.
_BLOCK_BYTES = 4096
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}", re.ASCII)
_CHUNK_BYTES = 2**16


@dataclass(frozen=True)
class Upload:
    """A file on disk.

    Attributes:
        path: its place.
        name: the client's name of the file.
        size: bytes on disk.
        since: its arrival, seconds of `time.monotonic`.
    """

    path: Path
    name: str
    size: int
    since: float

    def renamed(self, text: str) -> str:
        """Replace our name of the file by the client's in a message."""
        return text.replace(str(self.path), self.name).replace(self.path.name, self.name)


class Uploads:
    """Uploads that wait for recognition.

    Args:
        folder: an empty folder that nothing else uses.
        max_bytes: maximum size of a request.
        seconds: maximum time for an upload to arrive, and to wait.
    """

    def __init__(self, folder: Path, max_bytes: int, seconds: float):
        self._folder = folder
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._waiting: dict[str, Upload] = {}
        self._held_bytes = 0
        self._lock = threading.Lock()

    async def receive(self, request: Request) -> Response:
        """Answer a multipart request with the paths of its files, as Gradio does.

        Until the request is complete, it is kept in unnamed files, which the system deletes.
        """
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse, PlainTextResponse

        size = int(request.headers.get("content-length", self._max_bytes))
        try:
            with self._reserve(size):
                async with asyncio.timeout(self._seconds):
                    paths = await self._store_all(request)
        except (ClientDisconnect, TimeoutError):
            return PlainTextResponse("the upload was interrupted; upload it again", 408)
        except (_FullError, OSError) as error:
            return PlainTextResponse(f"no space for the upload ({error}); try again later", 503)
        if not paths:
            return PlainTextResponse("no file; send one in the field 'files'", 400)
        return JSONResponse(paths)

    async def send(self, request: Request) -> Response:
        """Answer with a waiting upload; 404 for any other path."""
        from starlette.responses import PlainTextResponse, StreamingResponse

        path = request.path_params["path"]
        with self._lock:
            upload = self._waiting.get(path)
            # Opened under the lock; a deleted file stays readable.
            file = None if upload is None else upload.path.open("rb")
        if file is None:
            return PlainTextResponse("no such upload", 404)
        kind = mimetypes.guess_type(path)[0] or ""
        is_media = kind.startswith(("audio/", "video/"))
        return StreamingResponse(
            _chunks(file),
            media_type=kind if is_media else "application/octet-stream",
            headers={"Content-Disposition": "inline" if is_media else "attachment"},
        )

    @contextmanager
    def take(self, path: str) -> Iterator[Upload]:
        """Remove an upload from the waiting ones and yield it; it is deleted afterwards.

        Args:
            path: the path that the client got.

        Raises:
            MlmaError: no upload waits under this path; or an error of the context, with the
                client's name of the file.
        """
        with self._lock:
            upload = self._waiting.pop(path, None)
        if upload is None:
            raise MlmaError("the upload is no longer on the server; upload it again")
        try:
            yield upload
        except MlmaError as error:
            raise MlmaError(upload.renamed(str(error))) from None
        finally:
            self._delete(upload)

    @contextmanager
    def sweep_every(self, interval: float) -> Iterator[None]:
        """Delete expired uploads repeatedly, as long as the context lasts.

        Args:
            interval: seconds.
        """
        ended = threading.Event()

        def sweep() -> None:
            while not ended.wait(interval):
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
            # Only the thread that removes an upload deletes its file.
            with self._lock:
                upload = self._waiting.pop(path, None)
            if upload is not None:
                self._delete(upload)

    async def _store_all(self, request: Request) -> list[str]:
        from starlette.concurrency import run_in_threadpool
        from starlette.datastructures import UploadFile

        paths: list[str] = []
        async with request.form(max_files=_MAX_FILES, max_fields=_MAX_FIELDS) as form:
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
    def _reserve(self, size: int) -> Iterator[None]:
        """Reserve space for a request while it arrives; stored files are counted separately."""
        with self._lock:
            if self._held_bytes + size > _MAX_WAITING * self._max_bytes:
                raise _FullError("too many uploads wait")
            self._held_bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._held_bytes -= size


class _FullError(Exception):
    """No space for a request."""


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
