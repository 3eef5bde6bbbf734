"""Requests that the page answers or refuses, with the server as `mlma demo` starts it."""

import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("gradio")
import httpx  # noqa: E402

UPLOAD, FILE = "/gradio_api/upload", "/gradio_api/file="


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.address, timeout=60, trust_env=False) as client:
        yield client


def upload(client, data: bytes, name: str = "noise.wav") -> str:
    (path,) = client.post(UPLOAD, files={"files": (name, data)}).raise_for_status().json()
    return path


def recognise(client, path: str, **fields) -> str:
    """Return the HTML that the page shows for an upload, or the error."""
    session = secrets.token_hex(8)
    file = {"path": path, "meta": {"_type": "gradio.FileData"}} | fields
    body = {"data": [file], "fn_index": 0, "session_hash": session}
    client.post("/gradio_api/queue/join", json=body).raise_for_status()
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line else {"msg": ""}
            if message["msg"] == "process_completed":
                return (message["output"].get("data") or [str(message["output"])])[0]
    raise AssertionError("no answer")


def is_transcript(shown: str) -> bool:
    return 'class="downloads"><a' in shown


def status_of(server, request: bytes) -> int:
    """Return the status of a request that no HTTP library would send."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request)
        return int(connection.recv(100).split()[1])


HOSTS = {
    "127.0.0.1": 200,
    "127.0.0.1:{port}": 200,
    "LOCALHOST:{port}": 200,
    "[::1]:{port}": 200,
    "evil.example:{port}": 403,
    "127.0.0.1.evil.example:{port}": 403,
    "localhost.": 403,
    "localhost@evil.example": 403,
    "0.0.0.0:{port}": 403,
    "192.168.1.5": 403,
    "127.0.0.1:{port}:1": 403,
    "": 403,
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_foreign_host_name_is_refused(server, host):
    """As after DNS rebinding, when a foreign name resolves to this machine."""
    name = host.format(port=server.port).encode()
    for target in (b"/", b"/theme.css", b"/gradio_api/queue/data?session_hash=x"):
        request = b"GET " + target + b" HTTP/1.1\r\nHost: " + name + b"\r\n\r\n"
        assert status_of(server, request) == HOSTS[host]
    forwarded = b"Host: 127.0.0.1\r\nX-Forwarded-Host: " + name + b"\r\n\r\n"
    assert status_of(server, b"GET / HTTP/1.1\r\n" + forwarded) == (HOSTS[host] if host else 200)


def test_a_request_without_one_host_is_refused(server):
    assert status_of(server, b"GET / HTTP/1.0\r\n\r\n") in (400, 403)
    twice = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"
    assert status_of(server, twice) in (400, 403)


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost:{port}"},
    {"Origin": "null"},
    {"Origin": "{address}.evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "audio"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_origin_is_refused(server, client, sound, headers):
    own = {"address": server.address, "port": server.port}
    headers = {name: value.format(**own) for name, value in headers.items()}
    before = server.uploads()
    requests = [
        client.build_request("POST", UPLOAD, files={"files": ("a.wav", sound.read_bytes())}),
        client.build_request("POST", "/gradio_api/queue/join", json={"data": []}),
        client.build_request("POST", "/gradio_api/cancel", json={}),
        client.build_request("GET", "/gradio_api/queue/data", params={"session_hash": "x"}),
        client.build_request("GET", "/config"),
        client.build_request("OPTIONS", UPLOAD),
        client.build_request("GET", "/", headers={"Upgrade": "websocket", "Connection": "Upgrade"}),
    ]
    for request in requests:
        request.headers.update(headers)
        response = client.send(request)
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers
    assert server.uploads() == before


def test_own_origin_links_and_other_programs_are_served(server, client, sound):
    own = {"Origin": server.address, "Sec-Fetch-Site": "same-origin"}
    path = client.post(UPLOAD, files={"files": ("a.wav", sound.read_bytes())}, headers=own).json()[
        0
    ]
    assert is_transcript(recognise(client, path))
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    link["Sec-Fetch-Dest"] = "document"
    assert client.get("/", headers=link).status_code == 200
    assert client.post(UPLOAD, headers=link).status_code == 403
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        "POST /gradio_api/run/predict",
        "POST /gradio_api/api/recognise",
        "POST /gradio_api/call/recognise",
        "POST /gradio_api/component_server",
        "POST /gradio_api/process_recording",
        "POST /gradio_api/vibe-code",
        "POST /login",
        "GET /gradio_api/proxy=http://127.0.0.1/",
        "GET /gradio_api/file/etc/passwd",
        "GET /gradio_api/info",
        "GET /gradio_api/deep_link?session_hash=x",
        "GET /gradio_api/queue/status",
        "GET /gradio_api/stream/x/y/1/playlist.m3u8",
        "GET /gradio_api/upload_progress?upload_id=x",
        "GET /monitoring",
        "GET //",
    ],
)
def test_unused_routes_are_closed(server, target):
    method, path = target.split()
    request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    assert status_of(server, request.encode()) == 404


def test_only_waiting_uploads_can_be_downloaded(server, client, sound, models):
    path = upload(client, sound.read_bytes())
    response = client.get(FILE + path)
    assert response.content == sound.read_bytes()
    assert response.headers["content-type"].startswith("audio/")
    assert response.headers["x-content-type-options"] == "nosniff"
    folder = Path(path).parent
    others = [
        "/etc/passwd",
        f"{models[0]}/config.yaml",
        folder,
        f"{folder}/../{folder.name}/{Path(path).name}",
        f"{folder}//{Path(path).name}",
        Path(path).name,
        "http://127.0.0.1/",
        "https://example.org/a.wav",
    ]
    for other in others:
        request = f"GET {FILE}{other} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert status_of(server, request.encode()) == 404
    assert is_transcript(recognise(client, path))
    assert client.get(FILE + path).status_code == 404
    page = upload(client, b"<script>alert(1)</script>", "a.html")
    assert client.get(FILE + page).headers["content-disposition"] == "attachment"
    recognise(client, page)


def test_only_uploads_are_recognised(server, client, sound, tmp_path):
    mine, others = (upload(client, sound.read_bytes()) for _ in range(2))
    folder = Path(mine).parent
    link, stranger = folder / "link.wav", shutil.copy(sound, folder / "stranger.wav")
    link.symlink_to(others)
    (tmp_path / "own.wav").write_bytes(sound.read_bytes())
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.5)
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/a.wav"
        for path in (
            folder,
            folder.parent,
            link,
            stranger,
            tmp_path / "own.wav",
            "/etc/passwd",
            f"{folder}/../{folder.name}/{Path(others).name}",
            f"{folder}/./{Path(others).name}",
            f"{folder}/{Path(others).name}/",
            Path(others).name,
            "",
            "a\0b",
            "a" * 5000,
            address,
        ):
            for fields in (
                {},
                {"is_stream": True},
                {"url": address, "orig_name": "../x", "size": -1},
            ):
                assert not is_transcript(recognise(client, str(path), **fields))
        with pytest.raises(TimeoutError):
            connections.append(elsewhere.accept())
    assert not connections
    link.unlink()
    Path(stranger).unlink()
    assert {Path(mine), Path(others)} <= set(server.uploads())
    assert (tmp_path / "own.wav").is_file()
    assert is_transcript(recognise(client, mine)) and is_transcript(recognise(client, others))
    assert "no longer on the server" in recognise(client, mine)


@pytest.mark.parametrize(
    "data", [[], [None], [5], ["x"], [{}], [{"path": 5}], [[{"path": "x"}]], "x"]
)
def test_later_requests_work_after_malformed_data(server, client, sound, data):
    body = {"data": data, "fn_index": 0, "session_hash": secrets.token_hex(8)}
    client.post("/gradio_api/queue/join", json=body)
    assert is_transcript(recognise(client, upload(client, sound.read_bytes())))


def test_one_file_from_many_clients_at_once(server, client, sound):
    def visit(_) -> str:
        return recognise(client, upload(client, sound.read_bytes()))

    with ThreadPoolExecutor(20) as visitors:
        shown = list(visitors.map(visit, range(20)))
    assert all(map(is_transcript, shown))
    words = {tuple(re.findall(r">(\w+)</span>", one)) for one in shown}
    assert len(words) == 1
    assert server.uploads() == []


def parts(count: int, size: int) -> list:
    return [("files", (f"{i}.wav", os.urandom(size))) for i in range(count)]


def test_the_size_limit_is_for_the_whole_request(server, client):
    """The server is started with a limit of 1 MB."""
    assert client.post(UPLOAD, files=parts(1, 2**20 + 2**17)).status_code == 413
    response = client.post(UPLOAD, files=parts(15, 2**17))
    assert response.status_code == 413 and "--max-mb" in response.text
    assert server.uploads() == []
    multipart = client.build_request("POST", UPLOAD, files=parts(4, 2**19))
    body = b"".join(multipart.stream)
    kind = {"Content-Type": multipart.headers["Content-Type"]}
    pieces = (body[i : i + 2**16] for i in range(0, len(body), 2**16))
    assert client.post(UPLOAD, content=pieces, headers=kind).status_code == 413
    assert client.post("/gradio_api/queue/join", content=b" " * 2**17).status_code == 413
    spaces = (b" " * 2**14 for _ in range(8))
    assert client.post("/gradio_api/queue/join", content=spaces).status_code == 413
    assert client.post(UPLOAD, files=parts(30, 10)).status_code == 400
    assert client.post(UPLOAD, data={"files": "no file"}).status_code == 400
    assert client.post(UPLOAD).status_code == 400
    assert server.uploads() == []
    # Several files within the limit are accepted.
    for path in client.post(UPLOAD, files=parts(3, 2**17)).json():
        recognise(client, path)


def test_an_interrupted_upload_is_deleted(server):
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n"
        "Content-Type: multipart/form-data; boundary=XX\r\n\r\n--XX\r\n"
        'Content-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    )
    connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    for connection in connections:
        connection.sendall(head.encode() + bytes(700000))
    time.sleep(0.5)
    assert server.uploads() == []
    for connection in connections:
        connection.close()
    time.sleep(0.5)
    assert server.uploads() == []


def test_file_names_are_escaped_and_server_paths_are_hidden(server, client, sound):
    name = "<img src=x onerror=alert(1)>&amp;" + "é" * 200 + ".wav"
    shown = recognise(client, upload(client, sound.read_bytes(), name))
    assert is_transcript(shown) and "<img" not in shown
    for name in ("<b>.wav", "a/../<b>.wav", "C:\\a\\<b>.wav"):
        shown = recognise(client, upload(client, b"no sound", name))
        assert "&lt;b&gt;.wav: " in shown and "<b>" not in shown
        assert str(server.temporary) not in shown
    path = upload(client, b"no sound", "../../../up.wav")
    assert Path(path).resolve().parent == Path(path).parent
    assert "up.wav: " in recognise(client, path)


def test_a_damaged_upload_has_the_clients_name_in_the_error(server, client, sound):
    shown = recognise(client, upload(client, sound.read_bytes()[:-20000], "cut.wav"))
    assert "cut.wav: " in shown and str(server.temporary) not in shown
    # The audio before the damage is recognised.
    assert is_transcript(shown) and "data-start" in shown


def test_only_this_user_can_read_the_uploads(server, client, sound):
    path = Path(upload(client, sound.read_bytes()))
    folder = next(folder for folder in path.parents if folder.parent == server.temporary)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    recognise(client, str(path))
