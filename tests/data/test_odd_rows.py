"""Test odd tables and rows of every corpus: read or dropped, never run as a command."""

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data import tables
from espnet_mlma.data.checks import HeldOut
from espnet_mlma.data.corpora import commonvoice, fleurs, librispeech, mini, mls, voxpopuli
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError

Rows = list[tuple[str, str]]  # names of sound files without their suffixes, and sentences
GOOD = [("a1", "ciao mondo"), ("b2", "buona sera")]


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def common_voice(root: Path, rows: Rows) -> tuple[Path, str, str]:
    folder = root / "cv-corpus-20.0-2024-12-06/it"
    header = "client_id\tpath\tsentence\tage"
    body = [f"{i}\t{name}.mp3\t{text}\t" for i, (name, text) in enumerate(rows)]
    write(folder / "test.tsv", [header, *body])
    return folder / "test.tsv", f"{folder}/clips/", ".mp3"


def libri_speech(root: Path, rows: Rows) -> tuple[Path, str, str]:
    table = root / "test/1/2/1-2.trans.txt"
    # A blank would end the name.
    write(table, [f"{name.replace(' ', '_')} {text}" for name, text in rows])
    return table, f"{table.parent}/", ".flac"


def multilingual(root: Path, rows: Rows) -> tuple[Path, str, str]:
    table = root / "mls_italian/test/transcripts.txt"
    write(table, [f"1_2_{name}\t{text}" for name, text in rows])
    return table, f"{table.parent}/audio/1/2/1_2_", ".flac"


def vox_populi(root: Path, rows: Rows) -> tuple[Path, str, str]:
    folder = root / "transcribed_data/it"
    header = "id\tnormalized_text\tspeaker_id\tsplit"
    write(folder / "asr_test.tsv", [header, *(f"2019{n}\t{text}\t1\ttest" for n, text in rows)])
    return folder / "asr_test.tsv", f"{folder}/2019/2019", ".ogg"


def vox_populi_sessions(root: Path, rows: Rows) -> tuple[Path, str, str]:
    table, sessions = root / "transcribed_data/it/asr_it.tsv.gz", root / "raw_audios/original"
    header = "session_id|id_|normed_text|speaker_id|split|vad"
    body = [f"2019{name}|1|{text}|1|test|[[0.0, 1.0]]" for name, text in rows]
    write(table, [header, *body])
    sessions.mkdir(parents=True)
    return table, f"{sessions}/2019/2019", "_original.ogg"


def fleurs_unpacked(root: Path, rows: Rows) -> tuple[Path, str, str]:
    folder = root / "data/it_it"
    body = [f"{i}\t{name}.wav\t{text}\tx\tx\t1\tMALE" for i, (name, text) in enumerate(rows)]
    write(folder / "test.tsv", body)
    (folder / "audio/test").mkdir(parents=True)
    return folder / "test.tsv", f"{folder}/audio/test/", ".wav"


def spoken(root: Path, rows: Rows) -> tuple[Path, str, str]:
    folder = root / "it/test"
    write(folder / "transcripts.tsv", ["id\tspeaker\ttext", *(f"{n}\ts\t{t}" for n, t in rows)])
    return folder / "transcripts.tsv", f"{folder}/audio/", ".flac"


CORPORA = [
    (commonvoice, common_voice, "it"),
    (librispeech, libri_speech, "en"),
    (mls, multilingual, "it"),
    (voxpopuli, vox_populi, "it"),
    (voxpopuli, vox_populi_sessions, "it"),
    (fleurs, fleurs_unpacked, "it"),
    (mini, spoken, "it"),
]
corpora = pytest.mark.parametrize(
    ("reader", "layout", "lang"), CORPORA, ids=[layout.__name__ for _, layout, _ in CORPORA]
)

# Corpora whose tables have names with suffixes.
whole_names = pytest.mark.parametrize(
    ("reader", "layout"), [(commonvoice, common_voice), (fleurs, fleurs_unpacked)]
)


@pytest.fixture
def make(tmp_path: Path) -> Callable:
    """Write a corpus with these rows, and audio for the `GOOD` ones; return its table."""

    def lay_out(layout: Callable, rows: Rows) -> Path:
        table, prefix, suffix = layout(tmp_path / "corpus", rows)
        for name, _ in GOOD:
            clip = Path(f"{prefix}{name}{suffix}")
            clip.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(clip, 0.3 * np.sin(0.1 * np.arange(24000)), 16000)
        return table

    return lay_out


def read(reader, tmp_path: Path, lang: str) -> list[Utterance | Drop]:
    return list(reader.prepare(tmp_path / "corpus", lang, "test"))


def kept(reader, tmp_path: Path, lang: str) -> dict[str, str]:
    """Run stages 1 and 3; return the texts by id."""
    rows = reader.prepare(tmp_path / "corpus", lang, "test")
    write_set(tmp_path / "data", rows, nj=1, scored=True)
    counts = format_folder(tmp_path / "data", tmp_path / "dump", nj=1)
    sound = tables.read(tmp_path / "data/wav.scp", "")
    assert not any(value.endswith("|") for value in sound.values())
    texts = tables.read(tmp_path / "dump/text", "")
    assert counts["kept"] == len(texts)
    return texts


@corpora
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_and_line_ends_are_ignored(
    make, tmp_path, reader, layout, lang, end
) -> None:
    table = make(layout, GOOD)
    before = read(reader, tmp_path, lang)
    assert len(before) == 2 and not any(isinstance(row, Drop) for row in before)
    is_gzip = table.suffix == ".gz"
    data = gzip.decompress(table.read_bytes()) if is_gzip else table.read_bytes()
    data = b"\xef\xbb\xbf" + data.rstrip(b"\n").replace(b"\n", end.encode())
    table.write_bytes(gzip.compress(data) if is_gzip else data)
    assert read(reader, tmp_path, lang) == before


@corpora
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_a_one_line_error(
    make, tmp_path, reader, layout, lang, encoding
) -> None:
    table = make(layout, [("a1", "perché")])
    is_gzip = table.suffix == ".gz"
    data = gzip.decompress(table.read_bytes()) if is_gzip else table.read_bytes()
    data = data.decode().encode(encoding)
    table.write_bytes(gzip.compress(data) if is_gzip else data)
    with pytest.raises(MlmaError, match=rf"{table.name}:?.*UTF-") as error:
        read(reader, tmp_path, lang)
    assert "\n" not in str(error.value)


ODD_NAMES = {
    "300 letters": "c" * 300,
    "too many bytes": "ł" * 140,
    "NUL": "c\0d",
    "control": "c\x07d",
    "carriage return": "c\rd",
    "next line": "c\u0085d",
    "line separator": "c\u2028d",
    "up": "../../../../c",
}


@corpora
@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_an_invalid_file_name_drops_only_its_row(
    make, tmp_path, reader, layout, lang, name
) -> None:
    make(layout, [GOOD[0], (name, "tre"), GOOD[1]])
    assert sorted(kept(reader, tmp_path, lang).values()) == ["buona sera", "ciao mondo"]
    [dropped] = (tmp_path / "data/dropped.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    assert dropped.split("\t")[1] in ("unsafe_name", "bad_row")


@pytest.mark.parametrize(
    ("reader", "layout"), [(commonvoice, common_voice), (fleurs, fleurs_unpacked)]
)
@pytest.mark.parametrize("name", ["c3.wav|", "$(touch PWNED).wav|", "c3.wav| ", " ", "", "/c.wav"])
def test_a_file_name_that_is_a_command_or_empty_is_dropped(
    make, tmp_path, monkeypatch, reader, layout, name
) -> None:
    monkeypatch.chdir(tmp_path)
    table = make(layout, [*GOOD, ("odd", "tre")])
    suffix = ".mp3" if reader is commonvoice else ".wav"
    table.write_text(table.read_text().replace(f"odd{suffix}", name))
    if name.strip():
        shutil.copy(tmp_path / "corpus" / next((tmp_path / "corpus").rglob("a1.*")), "c.wav")
    assert len(kept(reader, tmp_path, "it")) == 2
    assert "unsafe_name" in (tmp_path / "data/dropped.tsv").read_text()
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("name", ["c 3", "c  3", "it's", 'say "c"', "c[0:3]", "c:3", "#c", "è"])
@pytest.mark.parametrize(
    ("reader", "layout"), [(commonvoice, common_voice), (fleurs, fleurs_unpacked)]
)
def test_blanks_and_symbols_in_a_file_name_are_kept(make, tmp_path, reader, layout, name) -> None:
    table = make(layout, [*GOOD, (f"v_{name}", "tre")])
    clip = next((tmp_path / "corpus").rglob("a1.*"))
    shutil.copy(clip, clip.with_stem(f"v_{name}"))
    assert sorted(kept(reader, tmp_path, "it").values()) == ["buona sera", "ciao mondo", "tre"]
    assert table.exists()


@pytest.mark.parametrize("make_odd", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])
def test_a_path_that_is_not_a_file_is_dropped(make, tmp_path, make_odd) -> None:
    make(common_voice, [*GOOD, ("c3", "tre")])
    make_odd(next((tmp_path / "corpus").rglob("a1.*")).with_stem("c3"))
    assert len(kept(commonvoice, tmp_path, "it")) == 2
    assert "\tbroken_audio\t" in (tmp_path / "data/dropped.tsv").read_text()


def test_the_speaker_of_a_dropped_test_row_is_not_trained_on(make, tmp_path) -> None:
    make(common_voice, [*GOOD, ("c" * 300, "tre")])
    held_out = HeldOut()
    for row in read(commonvoice, tmp_path, "it"):
        held_out.add(row)
    theirs = Utterance("cv_it_2-9", AudioFile(tmp_path / "x"), "tre", "cv_it_2", "it")
    assert held_out.drop(theirs, "").reason == "speaker_in_test"


def test_a_folder_name_that_is_not_utf8_is_a_one_line_error(make, tmp_path) -> None:
    make(common_voice, GOOD)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/per\xf2"))
    (tmp_path / "corpus").rename(odd)
    rows = commonvoice.prepare(odd, "it", "test")
    with pytest.raises(MlmaError, match="unsafe_name 2; .* a byte that is not UTF-8"):
        write_set(tmp_path / "data", rows, nj=1)


@pytest.mark.parametrize(
    "character", ["\r", "\u0085", "\u2028", "\u2029", "\x0b", "\x1c", "/", "\xa0"]
)
@corpora
def test_no_character_in_a_sentence_ends_it(
    make, tmp_path, reader, layout, lang, character
) -> None:
    make(layout, [GOOD[0], ("b2", f"buona{character}sera")])
    assert sorted(kept(reader, tmp_path, lang).values()) == ["buona sera", "ciao mondo"]
