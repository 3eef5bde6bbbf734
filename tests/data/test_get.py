"""`mlma data get` with the official client, against a server that speaks its API."""

import hashlib
import io
import json
import random
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from espnet_mlma.curate.get import main
from espnet_mlma.data.corpora import commonvoice
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.errors import MlmaError

pytest.importorskip("datacollective")

NAME = "common-voice-scripted-speech-27-0-italian-0a1b2c3d.tar.gz"
RELEASE = "cv-corpus-27.0-2026-09-11"


def archive(member: str = f"{RELEASE}/it/test.tsv") -> bytes:
    """Make an archive with one clip."""
    table = f"client_id\tpath\tsentence\n{'ab' * 64}\tcommon_voice_it_1.mp3\tCiao.\n".encode()
    with io.BytesIO() as whole:
        with tarfile.open(fileobj=whole, mode="w:gz") as tar:
            for name, content in (
                (member, table),
                (
                    f"{member.removesuffix('test.tsv')}clips/x.mp3",
                    random.Random(0).randbytes(300000),
                ),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return whole.getvalue()


class Site:
    """Serves a catalogue and an archive, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.content = archive()
        self.checksum: str | None = None
        self.break_at: int | None = None
        self.status = 200
        self.locales: dict[int, str] = {}
        self.publishers: dict[int, str] = {}
        self.ranges: list[str | None] = []
        self.keys: list[str | None] = []
        self.names = [
            ("Common Voice Scripted Speech 27.0 - Italian", NAME),
            ("Common Voice Scripted Speech 26.0 - Italian", NAME.replace("27-0", "26-0")),
            ("Common Voice Spontaneous Speech 5.0 - Italian", "sps-corpus-5.0-it.tar.gz"),
        ]

    def dataset(self, number: int) -> dict:
        name, filename = self.names[number]
        checksum = self.checksum or hashlib.sha256(self.content).hexdigest()
        return {
            "id": f"set{number}",
            "name": name,
            "filename": filename,
            "checksum": checksum,
            "locale": self.locales.get(number, "it"),
            "organization": {"name": self.publishers.get(number, "Common Voice")},
        }


@pytest.fixture
def site(monkeypatch):
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

        def answer(self, value: dict, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/api/datasets":
                items = [found.dataset(n) for n in range(len(found.names))]
                self.answer({"items": items, "total": len(items)})
            elif path.startswith("/api/datasets/set"):
                self.answer(found.dataset(int(path[-1])))
            elif path == "/archive":
                self.send_archive()
            else:
                self.answer({"error": "not found"}, 404)

        def send_archive(self) -> None:
            found.ranges.append(self.headers["Range"])
            first = int((self.headers["Range"] or "bytes=0-")[6:-1])
            rest = found.content[first:]
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest if found.break_at is None else rest[: found.break_at])

        def do_POST(self) -> None:
            found.keys.append(self.headers["Authorization"])
            url = f"http://127.0.0.1:{self.server.server_address[1]}/archive"
            size = len(found.content)
            checksum = found.dataset(0)["checksum"]
            self.answer({"downloadUrl": url, "sizeBytes": size, "checksum": checksum}, found.status)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MDC_API_URL", f"http://127.0.0.1:{server.server_address[1]}/api")
    monkeypatch.setenv("MDC_API_KEY", "secret")
    yield found
    server.shutdown()
    server.server_close()


def get(output: Path, *options: str) -> None:
    main(["commonvoice", "--lang", "it", "--output", str(output), *options])


def read(root: Path, split: str) -> list[Utterance]:
    rows = list(commonvoice.prepare(root, "it", split))
    assert not [row for row in rows if isinstance(row, Drop)]
    return [row for row in rows if isinstance(row, Utterance)]


def test_a_release_is_downloaded_and_can_be_read(site, tmp_path, capsys):
    get(tmp_path, "--release", "27.0")
    folder = tmp_path / NAME.removesuffix(".tar.gz")
    assert f"has {folder}\n" in capsys.readouterr().out
    assert [entry.name for entry in tmp_path.iterdir() if entry.name[0] != "."] == [folder.name]
    (utterance,) = read(tmp_path, "test")
    assert utterance.text == "Ciao."
    assert site.keys == ["Bearer secret"]
    get(tmp_path, "--release", "27")
    assert len(site.ranges) == 1  # nothing is downloaded twice


def test_a_broken_download_is_resumed(site, tmp_path):
    site.break_at = 200000
    with pytest.raises(MlmaError, match="run this again to resume"):
        get(tmp_path)
    assert not list(tmp_path.glob("*.tar.gz"))
    site.break_at = None
    get(tmp_path)
    first, second = site.ranges
    assert first is None and 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 200000
    assert list(commonvoice.prepare(tmp_path, "it", "test"))


def test_a_wrong_checksum_is_refused(site, tmp_path):
    site.checksum = "0" * 64
    with pytest.raises(MlmaError, match=f"{NAME}: the checksum differs"):
        get(tmp_path)
    assert not [entry for entry in tmp_path.iterdir() if entry.name[0] != "."]
    site.checksum = "unknown"
    with pytest.raises(MlmaError, match="no SHA-256 is published"):
        get(tmp_path)


def test_an_archive_cannot_write_elsewhere(site, tmp_path):
    site.content = archive("../../evil.tsv")
    with pytest.raises(MlmaError, match="cannot unpack it"):
        get(tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("evil.tsv"))
    assert not (tmp_path / "a" / "b" / NAME.removesuffix(".tar.gz")).exists()


def test_a_name_that_leads_elsewhere_is_refused(site, tmp_path):
    site.names[0] = (site.names[0][0], "../x.tar.gz")
    with pytest.raises(MlmaError, match="is not a .tar.gz"):
        get(tmp_path)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--release", "25.0"], r"no data set matches .*26.0 - Italian \(set1\)"),
        (["--release", "latest"], "not a release such as 27.0"),
        (["--dataset-id", "nothing"], "not found"),
    ],
)
def test_what_is_not_there_is_one_line(site, tmp_path, options, problem):
    with pytest.raises(MlmaError, match=problem) as error:
        get(tmp_path, *options)
    assert "\n" not in str(error.value)


def test_a_dataset_may_be_named_by_its_id(site, tmp_path):
    get(tmp_path, "--dataset-id", "set1")
    assert (tmp_path / NAME.replace("27-0", "26-0").removesuffix(".tar.gz")).is_dir()
    with pytest.raises(MlmaError, match=r"set1 is .*26.0 - Italian, not release 27.0"):
        get(tmp_path, "--dataset-id", "set1", "--release", "27.0")


def test_selections_of_other_publishers_and_other_languages_are_not_taken(site, tmp_path):
    selection = ("Common Voice Scripted Speech 27.0 - Italian, women", "other-0.tar.gz")
    german = ("Common Voice Scripted Speech 27.0 - German", "german-0.tar.gz")
    site.names += [selection, german]
    site.publishers[3] = "Curators"
    site.locales[4] = "de"
    get(tmp_path)
    assert (tmp_path / NAME.removesuffix(".tar.gz")).is_dir()
    site.publishers[3] = "Common Voice"
    with pytest.raises(
        MlmaError, match=r"several data sets match .*\(set0\).*\(set3\).*--dataset-id"
    ):
        get(tmp_path / "new")


def test_an_archive_of_another_language_is_an_error(site, tmp_path):
    site.content = archive(f"{RELEASE}/de/test.tsv")
    with pytest.raises(MlmaError, match=r"has no cv-corpus-\*/it \(languages: de\)") as error:
        get(tmp_path)
    assert "\n" not in str(error.value)


def test_real_clips_are_the_same_set_after_a_download(site, shared_corpora, tmp_path):
    old = shared_corpora / "commonvoice" / "cv-corpus-20.0-2024-12-06"
    with io.BytesIO() as whole:
        with tarfile.open(fileobj=whole, mode="w:gz") as tar:
            tar.add((old / "it").resolve(), f"{RELEASE}/it")
        site.content = whole.getvalue()
    site.break_at = len(site.content) // 2
    with pytest.raises(MlmaError, match="run this again to resume"):
        get(tmp_path)
    site.break_at = None
    get(tmp_path)
    for split in ("train", "dev", "test"):
        before, after = read(old, split), read(tmp_path, split)
        assert [(u.id, u.text, u.seconds) for u in after] == [
            (u.id, u.text, u.seconds) for u in before
        ]
        for one, other in zip(before, after, strict=True):
            assert one.audio.path.read_bytes() == other.audio.path.read_bytes()


@pytest.mark.parametrize("status", [401, 403, 429])
def test_refusals_of_the_site_are_one_line(site, tmp_path, status):
    site.status = status
    with pytest.raises(MlmaError) as error:
        get(tmp_path)
    assert "\n" not in str(error.value)


def test_without_a_key_the_way_to_one_is_named(site, tmp_path, monkeypatch):
    monkeypatch.setenv("MDC_API_KEY", "")
    with pytest.raises(MlmaError, match="MDC_API_KEY is not set; make an account on https"):
        get(tmp_path)
