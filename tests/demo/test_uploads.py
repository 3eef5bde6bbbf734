"""Uploads over HTTP, without a page: limits on time and space."""

import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from espnet_mlma.demo.guard import UPLOAD, Guard, Hosts
from espnet_mlma.demo.server import listen
from espnet_mlma.demo.uploads import Uploads
from espnet_mlma.errors import MlmaError

pytest.importorskip("gradio")
import httpx  # noqa: E402
import uvicorn  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Route  # noqa: E402

MOST = 2**14


@contextmanager
def served(folder: Path, seconds: float = 60.0):
    """Serve uploads; yield them and a client."""
    uploads = Uploads(folder, MOST, seconds)
    app = Starlette(routes=[Route(UPLOAD, uploads.receive, methods=["POST"])])
    sockets = listen("127.0.0.1", 0)
    hosts = Hosts("127.0.0.1", ["demo.example"])
    server = uvicorn.Server(uvicorn.Config(Guard(app, hosts, MOST), log_level="warning"))
    thread = threading.Thread(target=server.run, args=(sockets,))
    thread.start()
    address = "http://{}:{}".format(*sockets[0].getsockname())
    try:
        with httpx.Client(base_url=address, trust_env=False) as client:
            yield uploads, client
    finally:
        server.should_exit = True
        thread.join()


def send(client, data: bytes = b"sound", **more):
    return client.post(UPLOAD, files={"files": ("a.wav", data)}, **more)


def until(condition) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("timeout")


def test_expired_uploads_are_deleted(tmp_path):
    with served(tmp_path, seconds=0.2) as (uploads, client):
        with uploads.sweep_every(0.05):
            (path,) = send(client).json()
            until(lambda: not Path(path).exists())
        with pytest.raises(MlmaError, match="no longer on the server"), uploads.take(path):
            pass


def test_an_upload_in_recognition_is_not_deleted(tmp_path):
    with served(tmp_path, seconds=0.0) as (uploads, client):
        uploads._seconds = 60.0
        (path,) = send(client).json()
        with uploads.take(path) as upload:
            uploads._seconds = 0.0
            uploads._sweep()
            assert upload.path.read_bytes() == b"sound"
        assert not upload.path.exists()


def test_a_stalled_upload_gets_a_timeout(tmp_path):
    request = (
        f"POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        "Content-Type: multipart/form-data; boundary=XX\r\n\r\n--XX\r\n"
        "Content-Disposition: form-data; name=files; filename=a\r\n\r\nsound"
    )
    with served(tmp_path, seconds=0.3) as (_, client):
        address = client.base_url.host, client.base_url.port
        with socket.create_connection(address) as connection:
            connection.sendall(request.encode())
            assert connection.recv(100).split()[1] == b"408"
        assert not list(tmp_path.iterdir())


def test_all_waiting_uploads_together_have_a_limit(tmp_path):
    with served(tmp_path) as (uploads, client):
        paths = []
        while (response := send(client, bytes(MOST))).status_code == 200:
            paths += response.json()
        assert response.status_code == 503 and "try again later" in response.text
        assert len(paths) > 30
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 64 * MOST
        for path in paths[:2]:
            with uploads.take(path):
                pass
        assert send(client, bytes(MOST)).status_code == 200


def test_empty_files_count_with_their_disk_space(tmp_path):
    with served(tmp_path) as (_, client):
        files = [("files", (f"{i}.wav", b"")) for i in range(16)]
        for _ in range(64 * MOST // 4096 // 16 + 1):
            response = client.post(UPLOAD, files=files)
        assert response.status_code == 503


def test_nothing_is_left_if_a_file_cannot_be_stored(tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    with served(folder) as (uploads, client):
        folder.rmdir()
        assert send(client).status_code == 503
        folder.mkdir()
        assert send(client).status_code == 200
        assert uploads._held_bytes == 4096


def test_only_the_named_proxy_is_accepted(tmp_path):
    with served(tmp_path) as (_, client):
        own = {"Host": "demo.example", "Origin": "https://demo.example"}
        assert send(client, headers=own).status_code == 200
        # Some proxies keep the browser's Origin and replace its Host.
        assert send(client, headers={"Origin": "https://demo.example"}).status_code == 200
        assert send(client, headers={"Host": "evil.example"}).status_code == 403
        foreign = {"Host": "demo.example", "Origin": "https://evil.example"}
        assert send(client, headers=foreign).status_code == 403


@pytest.mark.parametrize("host", ["", "no.such.host.invalid", "203.0.113.7"])
def test_a_host_that_is_not_ours_is_an_error(host):
    with pytest.raises(MlmaError, match="cannot listen on"):
        listen(host, 0)
