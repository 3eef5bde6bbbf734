"""Odd Parquet files: a bad row is dropped and counted, a bad file is one line."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import hub
import pyarrow as pa
import pytest
from pyarrow import parquet

from espnet_mlma.audio.archives import AudioFile, iter_archive, parse_scp_value, scp_value
from espnet_mlma.data import tables
from espnet_mlma.data.corpora import eurospeech, fleurs, mls, voxpopuli
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.data.mixtures import load
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError

ROOT = Path(__file__).resolve().parents[2]
READERS = [(fleurs, "it_it", "FLEURS"), (mls, "italian", "MLS"), (voxpopuli, "it", "VoxPopuli")]
readers = pytest.mark.parametrize(("reader", "language", "corpus"), READERS)


@pytest.fixture(scope="module")
def clips(shared_corpora: Path) -> list[Utterance]:
    return list(mls.prepare(shared_corpora / "mls", "it", "dev"))


@pytest.fixture(scope="module")
def sound(clips: list[Utterance]) -> bytes:
    return hub.content(clips[0])


def mls_file(root: Path, rows: list[dict], name: str = "dev-00000-of-00001") -> Path:
    return hub.write(root / f"italian/{name}.parquet", hub.MLS, rows, in_group=2)


def row(number: int, sound: bytes | None, **values) -> dict:
    name = f"1_2_{number:06d}"
    audio = {"bytes": sound, "path": f"{name}.opus"}
    return {"id": name, "transcript": "ciao mondo", "audio": audio, "audio_duration": 1.0} | values


def written(root: Path, folder: Path) -> dict[str, str]:
    """Reasons of drops by stages 1 and 3, by utterance."""
    write_set(folder, mls.prepare(root, "it", "dev"), nj=1, scored=True)
    format_folder(folder, folder.with_name("dump"), nj=1)
    found = {}
    for dropped in (folder / "dropped.tsv", folder.with_name("dump") / "dropped.tsv"):
        lines = dropped.read_text(encoding="utf-8").splitlines()
        found |= {line.split("\t")[0]: line.split("\t")[1] for line in lines[1:]}
    return found


def test_odd_rows_are_dropped_and_counted(tmp_path: Path, sound: bytes) -> None:
    rows = [
        row(0, sound),
        row(1, None),
        row(2, b""),
        row(3, sound, audio=None),
        row(4, sound, transcript=None),
        row(5, sound, transcript=""),
        row(6, sound, id=None),
        row(7, sound, id="1_2_000000"),
        row(8, sound, id="no name"),
        row(9, b"no sound"),
        row(10, sound, audio_duration=None),
        row(11, sound, audio={"bytes": sound, "path": None}),
        row(12, sound, audio={"bytes": sound, "path": "../../a|"}),
        row(13, sound, transcript="ciao\nmondo\0"),
        row(14, sound, audio={"bytes": sound, "path": "a\nb.opus"}),
        row(15, sound, id=" ", audio={"bytes": sound, "path": "a\nb\t.opus"}),
    ]
    mls_file(tmp_path / "hub", rows)
    dropped = written(tmp_path / "hub", tmp_path / "data")
    file = "dev-00000-of-00001.parquet"
    assert dropped == {
        "mls_it_1-2_000001": "broken_audio",
        "mls_it_1-2_000002": "broken_audio",
        "mls_it_1-2_000003": "broken_audio",
        "mls_it_1-2_000004": "empty_text",
        "mls_it_1-2_000005": "empty_text",
        f"{file}:3/0/1_2_000006.opus": "bad_row",
        f"{file}:3/1/1_2_000007.opus": "bad_row",
        "mls_it_no_name-": "bad_row",
        "mls_it_1-2_000009": "broken_audio",
        "mls_it_1-2_000012": "unsafe_name",
        "mls_it_1-2_000014": "unsafe_name",
        f"{file}:7/1/a b .opus": "bad_row",
    }
    text = tables.read(tmp_path / "dump/text", "")
    kept = (0, 10, 11, 13)
    assert text == {f"mls_it_1-2_{number:06d}": "ciao mondo" for number in kept}


def errors_of(reader, root: Path, split: str = "dev") -> str:
    with pytest.raises(MlmaError) as error:
        list(reader.prepare(root, "it", split))
    assert "\n" not in str(error.value)
    return str(error.value)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda data: LFS, "is a Git LFS pointer; run git lfs pull"),
        (lambda data: b"id\ttext\n1\tciao\n", "is not a Parquet file; download it again"),
        (lambda data: b"", "is not a Parquet file; download it again"),
        (lambda data: b"PAR1", "not a whole Parquet file (.*); download it again"),
        (lambda data: data[:-1], "not a whole Parquet file (.*); download it again"),
        (lambda data: data[: len(data) // 2], "not a whole Parquet file (.*); download it again"),
        (lambda data: data[:-40] + data[-8:], "not a whole Parquet file (.*); download it again"),
    ],
)
@readers
def test_a_bad_file_is_one_line(tmp_path, sound, reader, language, corpus, damage, expected):
    path = tmp_path / language / "dev/0000.parquet"
    hub.write(path, hub.MLS, [row(0, sound), row(1, sound)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MlmaError, match=f"dev/0000.parquet: {expected}$"):
        list(reader.prepare(tmp_path, "it", "dev"))


def test_damaged_bytes_are_read_or_refused(tmp_path: Path, sound: bytes) -> None:
    path = mls_file(tmp_path, [row(number, sound) for number in range(5)])
    whole, random = path.read_bytes(), Random(1)
    metadata = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for number in range(300):
        damaged = bytearray(whole)
        place = random.randrange(metadata if number % 2 else 0, len(whole))
        damaged[place] ^= 1 << random.randrange(8)
        path.write_bytes(damaged)
        try:
            found = [
                one for one in mls.prepare(tmp_path, "it", "dev") if isinstance(one, Utterance)
            ]
            list(iter_archive(path, [utterance.audio.member or "" for utterance in found]))
        except MlmaError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert 0 < refused < 300


def test_a_wrong_checksum_of_a_page_is_an_error(tmp_path: Path, sound: bytes) -> None:
    path = mls_file(tmp_path, [row(0, sound)])
    table = parquet.read_table(path)
    parquet.write_table(table, path, write_page_checksum=True, compression="none")
    whole = path.read_bytes()
    assert whole.count(b"ciao mondo") > 0
    path.write_bytes(whole.replace(b"ciao mondo", b"ciao mondi"))
    with pytest.raises(MlmaError, match="not a whole Parquet file .*CRC"):
        list(mls.prepare(tmp_path, "it", "dev"))


@readers
def test_missing_columns_are_named(tmp_path: Path, reader, language: str, corpus: str) -> None:
    path = tmp_path / language / "dev/0000.parquet"
    path.parent.mkdir(parents=True)
    parquet.write_table(pa.table({"a": [1], "audio": [{"bytes": b"", "path": ""}]}), path)
    assert "0000.parquet: column '" in (error := errors_of(reader, tmp_path))
    assert error.endswith("' is missing (found: a audio.bytes audio.path); check the file")


def test_columns_of_other_types_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "italian/dev/0000.parquet"
    path.parent.mkdir(parents=True)
    audio = [{"bytes": b"", "path": ""}]
    parquet.write_table(pa.table({"id": [b"a"], "transcript": ["a"], "audio": audio}), path)
    assert "column 'id' has values of type binary; check" in errors_of(mls, tmp_path)
    parquet.write_table(pa.table({"id": [["a"]], "transcript": ["a"], "audio": audio}), path)
    assert "column 'id' is missing (found: id.list.element" in errors_of(mls, tmp_path)
    parquet.write_table(pa.table({"id": ["a"], "transcript": ["a"], "audio": [b""]}), path)
    assert "column 'audio.bytes' is missing (found: id transcript audio)" in errors_of(
        mls, tmp_path
    )
    bad = pa.array([b"\xff"]).view(pa.string())
    parquet.write_table(pa.table({"id": ["a"], "transcript": bad, "audio": audio}), path)
    assert "0000.parquet: has text that is not UTF-8" in errors_of(mls, tmp_path)


def test_categories_are_text(tmp_path: Path, sound: bytes) -> None:
    path = mls_file(tmp_path, [row(0, sound)])
    table = parquet.read_table(path)
    at = table.column_names.index("transcript")
    table = table.set_column(at, "transcript", table["transcript"].dictionary_encode())
    parquet.write_table(table, path)
    assert [u.text for u in mls.prepare(tmp_path, "it", "dev")] == ["ciao mondo"]


@readers
def test_a_missing_split_names_the_others(tmp_path, sound, reader, language, corpus) -> None:
    for name in ("train-00000-of-00001", "test/0000", "partial-dev/0000"):
        hub.write(tmp_path / language / f"{name}.parquet", hub.MLS, [row(0, sound)])
    error = errors_of(reader, tmp_path)
    assert error.startswith(f"{corpus}: no split 'dev' of {language} near {tmp_path}")
    assert "(there: partial-dev, test, train); partial-dev is only its beginning" in error
    assert "download it from https://huggingface.co/datasets/" in error


@readers
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("dev-00000-of-00004", "dev-00003-of-00004"), "2 of 4 files are missing .*: 1, 2; down"),
        (("dev/0001", "dev/0003"), "2 of 4 files are missing .*: 0, 2; download"),
        (("dev-00000-of-00001", "dev-00000-of-00002"), "are of two editions; remove one"),
        (("dev-00000-of-00001", "dev/0000"), "are of two editions; remove one"),
        (("dev-00000-of-00001", "dev"), "are of two editions; remove one"),
        (("dev-00000-of-999999",), "999998 of 999999 files are missing .*: 1, 2, 3, ...; down"),
    ],
)
def test_a_split_with_missing_files_is_an_error(
    tmp_path, sound, reader, language, corpus, names, expected
) -> None:
    for name in names:
        hub.write(tmp_path / language / f"{name}.parquet", hub.MLS, [row(0, sound)])
    with pytest.raises(MlmaError, match=f"^{corpus}: .*{expected}"):
        reader.prepare(tmp_path, "it", "dev")


def test_a_named_pipe_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "italian").mkdir()
    os.mkfifo(tmp_path / "italian/dev.parquet")
    assert errors_of(mls, tmp_path).endswith("dev.parquet: not a file; download it again")


def test_a_file_replaced_after_stage_1_is_an_error(tmp_path: Path, sound: bytes) -> None:
    path = mls_file(tmp_path, [row(0, sound), row(1, sound)])
    utterances = list(mls.prepare(tmp_path, "it", "dev"))
    write_set(tmp_path / "data", utterances, nj=1)
    mls_file(tmp_path, [row(5, sound), row(6, sound)])
    with pytest.raises(MlmaError, match=f"{path}: has 0/0/1_2_000005.opus in place of 0/0/1_2_000"):
        format_folder(tmp_path / "data", tmp_path / "dump", nj=1)
    mls_file(tmp_path, [row(0, sound)])
    assert format_folder(tmp_path / "data", tmp_path / "dump", nj=1) == {
        "kept": 1,
        "broken_audio": 1,
    }


def test_the_pipe_of_wav_scp_writes_the_audio(tmp_path: Path, sound: bytes) -> None:
    [name] = mls_file(tmp_path / "it's $(a) b", [row(0, sound)]).parent.glob("*.parquet")
    audio = AudioFile(name, "0/0/1_2_000000.opus")
    value = scp_value(audio)
    assert parse_scp_value(value) == audio
    command = value.removesuffix("|").replace("python3", sys.executable, 1)
    assert subprocess.check_output(["sh", "-c", command], cwd=ROOT) == sound
    command = command.replace("0/0/1", "0/1/1")
    failed = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.count("\n") == 1 and "has no row 0/1/1_2_000000.opus" in failed.stderr


def test_rows_of_many_row_groups_are_read_in_the_order_of_the_file(tmp_path, clips) -> None:
    rows = [row(number, hub.content(clip)) for number, clip in enumerate(clips[:13])]
    path = hub.write(tmp_path / "italian/dev.parquet", hub.MLS, rows, in_group=1)
    members = [utterance.audio.member for utterance in mls.prepare(tmp_path, "it", "dev")]
    wanted = [members[i] for i in (12, 3, 2, 11)] + ["99/0/x", "0/7", "../x", "0/0/1_2_000000.opus"]
    found = [(member, file.read()) for member, file in iter_archive(path, wanted)]
    order = (0, 2, 3, 11, 12)
    assert found == [(members[i], rows[i]["audio"]["bytes"]) for i in order]


def test_fleurs_takes_the_name_of_the_column_path(tmp_path: Path, sound: bytes) -> None:
    audio = {"bytes": sound, "path": None}
    rows = [
        {"id": 7, "path": "/a/b/123.wav", "audio": audio, "raw_transcription": "Sì."},
        {"id": 7, "path": None, "audio": audio, "raw_transcription": "Sì."},
    ]
    hub.write(tmp_path / "it_it/validation/0000.parquet", hub.FLEURS, rows)
    found, drop = fleurs.prepare(tmp_path, "it", "dev")
    assert (found.id, found.seconds) == ("fl_it_123-7", None)
    assert isinstance(drop, Drop) and drop.reason == "bad_row"


def test_fleurs_with_floats_and_without_the_columns_path_and_num_samples(tmp_path, sound) -> None:
    schema = pa.schema(
        [("id", pa.float64()), ("raw_transcription", pa.string()), ("audio", hub.AUDIO)]
    )
    rows = [
        {"id": number, "raw_transcription": "Sì.", "audio": {"bytes": sound, "path": name}}
        for number, name in ((7.0, "1.wav"), (7.0, None), (7.0, "2.wav"))
    ]
    hub.write(tmp_path / "it_it/test-00000-of-00001.parquet", schema, rows)
    first, drop, last = fleurs.prepare(tmp_path, "it", "test")
    assert (first.id, last.id, drop.reason) == ("fl_it_1-7", "fl_it_2-7", "bad_row")


@pytest.mark.parametrize("seconds", [None, 0.0, -1.0, float("nan"), float("inf"), 2.5])
def test_only_a_possible_length_is_taken(tmp_path: Path, sound: bytes, seconds) -> None:
    mls_file(tmp_path, [row(0, sound, audio_duration=seconds)])
    [found] = mls.prepare(tmp_path, "it", "dev")
    assert found.seconds == (2.5 if seconds == 2.5 else None)


@pytest.mark.parametrize("speaker", [None, "None", ""])
def test_an_unknown_speaker_of_voxpopuli_is_named_after_the_session(tmp_path, sound, speaker):
    values = {"normalized_text": "ja", "speaker_id": speaker, "audio": {"bytes": sound}}
    values["audio_id"] = "20090112-0900-PLENARY-3-nl_20090112-17:17:22_1"
    hub.write(tmp_path / "nl/validation/0000.parquet", hub.VOXPOPULI, [values])
    [found] = voxpopuli.prepare(tmp_path, "nl", "dev")
    assert found.speaker == "vp_nl_20090112_0900_PLENARY_3_nl"
    assert found.id == f"{found.speaker}-20090112-0900-PLENARY-3-nl-20090112-17:17:22_1"


def test_eurospeech_drops_a_high_cer(tmp_path: Path, clips: list[Utterance]) -> None:
    cers = [0.0, 0.1, 0.11, None, float("nan"), 0.03]
    rows = hub.eurospeech_rows(clips[:6], cers)
    hub.write_named(tmp_path / "italy", "train", hub.EUROSPEECH, rows)
    found = list(eurospeech.prepare(tmp_path, "it", "train"))
    reasons = [one.reason if isinstance(one, Drop) else "kept" for one in found]
    assert reasons == ["kept", "kept", "high_cer", "high_cer", "high_cer", "kept"]
    assert "italy/train-00000-of-00002.parquet:0/2/2.opus: cer 0.110 above 0.1" in found[2].detail
    assert (found[5].id, found[5].speaker) == ("euro_it_video2-video2_5", "euro_it_video2")
    assert (found[5].text, found[5].seconds) == (clips[5].text, 6.0)
    strict = [
        one.id
        for one in eurospeech.prepare(tmp_path, "it", "train@0.05")
        if isinstance(one, Utterance)
    ]
    assert strict == [found[0].id, found[5].id]
    report = write_set(tmp_path / "data", found, nj=1, scored=True)
    assert report.dropped == {"high_cer": 3}
    assert format_folder(tmp_path / "data", tmp_path / "dump", nj=1) == {"kept": 3}


@pytest.mark.parametrize("limit", ["", "x", "nan", "-1", "2", "0.1@0.2"])
def test_eurospeech_refuses_other_limits(tmp_path: Path, limit: str) -> None:
    with pytest.raises(MlmaError, match="is not a CER from 0 to 1"):
        eurospeech.prepare(tmp_path, "it", f"train@{limit}")


def test_eurospeech_errors(tmp_path: Path) -> None:
    with pytest.raises(MlmaError, match="unknown language 'nl'; choose one of it fr de en"):
        eurospeech.prepare(tmp_path, "nl", "train")
    with pytest.raises(
        MlmaError, match=f"no Parquet files in {tmp_path}/uk; download it from http"
    ):
        eurospeech.prepare(tmp_path, "en", "train")


def test_a_mixture_may_name_eurospeech_with_a_limit(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "a:\n  train: [eurospeech it train@0.05]\n  valid: [eurospeech it dev]\n"
        "  test: [eurospeech it test]\n"
    )
    mixture = load(tmp_path / "m.yaml", "a")
    assert mixture.train[0].split == "train@0.05"
    assert list(mixture.test_sets) == ["test_euro_it"]
