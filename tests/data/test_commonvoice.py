"""Common Voice as it was and as it is distributed, and Spontaneous Speech."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from espnet_mlma.audio import probe
from espnet_mlma.data import tables
from espnet_mlma.data.checks import HeldOut
from espnet_mlma.data.corpora import commonvoice, spontaneous, voxpopuli
from espnet_mlma.data.corpora.commonvoice import ClipDurations
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_lines
from espnet_mlma.text import LANGUAGES

RELEASE_20 = "cv-corpus-20.0-2024-12-06"
RELEASE_27 = "cv-corpus-27.0-2026-09-11"
# Columns of the first and the last releases that are read.
COLUMNS = {
    "13 with accent": "client_id path sentence up_votes down_votes age gender accent locale "
    "segment",
    "13": "client_id path sentence up_votes down_votes age gender accents variant locale segment",
    "17": "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender "
    "accents variant locale segment",
    "27": "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender "
    "accents variant locale segment char_per_sec",
}
TABLES = ("text", "utt2spk", "utt2lang", "utt2dataset", "utt2category")


@pytest.fixture(scope="module")
def release(shared_corpora: Path) -> Path:
    return shared_corpora / "commonvoice" / RELEASE_20


def as_archives(release: Path, root: Path) -> Path:
    """Lay out a release as the unpacked archives of release 27, one folder per language."""
    for lang in LANGUAGES:
        name = f"common-voice-scripted-speech-27-0-{lang}-0a1b2c3d"
        folder = root / name / RELEASE_27
        folder.mkdir(parents=True)
        (folder / lang).symlink_to(release / lang)
        (root / f"{name}.tar.gz").touch()  # the archive may be kept
    return root


def read(root: Path, split: str) -> list[Utterance]:
    rows = list(commonvoice.prepare(root, "it", split))
    assert not [row for row in rows if isinstance(row, Drop)]
    return [row for row in rows if isinstance(row, Utterance)]


def sets(root: Path, out: Path) -> dict[str, list[str]]:
    """Write all sets of all languages and return their tables."""
    found = {}
    for lang in LANGUAGES:
        for split in ("train", "dev", "test"):
            folder = out / f"{split}_{lang}"
            write_set(folder, commonvoice.prepare(root, lang, split), nj=2, scored=True)
            for name in TABLES:
                found[f"{folder.name}/{name}"] = list(read_lines(folder / name))
            audio = [line.split("/clips/")[1] for line in read_lines(folder / "wav.scp")]
            found[f"{folder.name}/wav.scp"] = audio
    return found


def test_a_release_and_the_archives_of_release_27_give_the_same_sets(release, tmp_path):
    archives = as_archives(release, tmp_path / "archives")
    before = sets(release.parent, tmp_path / "old")
    assert sets(archives, tmp_path / "new") == before
    assert sum(len(lines) for name, lines in before.items() if name.endswith("/text")) > 200


def test_each_language_may_have_a_release_of_its_own(release, tmp_path):
    for lang, name in (("it", RELEASE_20), ("nl", RELEASE_27)):
        (tmp_path / name).mkdir()
        (tmp_path / name / lang).symlink_to(release / lang)
    for lang in ("it", "nl"):
        assert list(commonvoice.prepare(tmp_path, lang, "test"))
    with pytest.raises(MlmaError, match=r"no release in .* has 'de' \(found: 20.0, 27.0\)"):
        list(commonvoice.prepare(tmp_path, "de", "test"))
    (tmp_path / RELEASE_27 / "it").symlink_to(release / "it")
    with pytest.raises(MlmaError, match=r"several releases .* have 'it' .*train@20\.0"):
        list(commonvoice.prepare(tmp_path, "it", "test"))
    for split in ("test@27.0", "test@27"):
        (first, *_) = read(tmp_path, split)
        assert RELEASE_27 in str(first.audio)
    with pytest.raises(MlmaError, match=r"no release 25.0 with 'it' .*found: 20.0, 27.0"):
        list(commonvoice.prepare(tmp_path, "it", "test@25.0"))
    with pytest.raises(MlmaError, match=r"'latest' is not a release such as 27\.0"):
        list(commonvoice.prepare(tmp_path, "it", "test@latest"))
    with pytest.raises(MlmaError, match=r"cv-corpus-20\.0-2024-12-06 is not release 27\.0"):
        list(commonvoice.prepare(tmp_path / RELEASE_20, "it", "test@27.0"))


def test_archives_that_are_not_unpacked_are_named(release, tmp_path):
    name = "common-voice-scripted-speech-27-0-german-0a1b2c3d.tar.gz"
    (tmp_path / name).touch()
    with pytest.raises(MlmaError, match=f"nothing at .*; unpack {name} in"):
        list(commonvoice.prepare(tmp_path, "de", "test"))
    italian = name.replace("german", "italian")
    (tmp_path / italian).touch()
    folder = tmp_path / italian.removesuffix(".tar.gz") / RELEASE_27
    folder.mkdir(parents=True)
    (folder / "it").symlink_to(release / "it")
    with pytest.raises(MlmaError, match="has 'de'.*unpack its archive if it is here") as error:
        list(commonvoice.prepare(tmp_path, "de", "test"))
    assert name in str(error.value) and italian not in str(error.value)


def test_rows_of_another_locale_are_dropped(release, tmp_path):
    shutil.copytree(release / "it", tmp_path / "it")
    table = tmp_path / "it" / "test.tsv"
    header, first, second, *rest = (line.split("\t") for line in read_lines(table))
    first[header.index("locale")], second[header.index("locale")] = "de", ""
    lines = ["\t".join(row) for row in (header, first, second, *rest)]
    table.write_text("".join(f"{line}\n" for line in lines))
    one, other, *_ = commonvoice.prepare(tmp_path, "it", "test")
    assert isinstance(one, Drop) and isinstance(other, Utterance)
    assert (one.reason, one.speaker[:6]) == ("other_locale", "cv_it_")
    assert "locale is 'de'" in one.detail


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_columns_of_all_releases_are_read(columns, tmp_path):
    folder = tmp_path / f"cv-corpus-{columns.count(' ')}.0-2023-03-09" / "it"
    folder.mkdir(parents=True)
    values = {"client_id": "ab" * 64, "path": "common_voice_it_17.mp3", "sentence": "Ciao."}
    row = [values.get(column, "") for column in columns.split()]
    lines = ["\t".join(columns.split()), "\t".join(row)]
    (folder / "train.tsv").write_text("".join(f"{line}\n" for line in lines))
    (utterance,) = read(tmp_path, "train")
    assert utterance.id == f"cv_it_{'ab' * 16}-17"
    assert (utterance.text, utterance.seconds) == ("Ciao.", None)


def test_lengths_are_those_of_the_release(release):
    found = [u for u in commonvoice.prepare(release, "it", "train") if isinstance(u, Utterance)]
    assert found
    for utterance in found[:20]:
        assert utterance.seconds == pytest.approx(probe(utterance.audio.path).seconds, abs=0.1)


def edit_lengths(folder: Path, change: Callable[[float], object]) -> None:
    """Change the lengths, in ms, in a release's table."""
    table = folder / commonvoice.DURATIONS
    header, *rows = (line.split("\t") for line in read_lines(table))
    lines = ["\t".join(header), *(f"{name}\t{change(float(ms))}" for name, ms in rows)]
    table.write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_length_cuts_no_sound(release, shared_corpora, tmp_path, factor):
    shutil.copytree(release / "it", tmp_path / "it")
    edit_lengths(tmp_path / "it", lambda ms: round(ms * factor))
    clips = commonvoice.prepare(tmp_path, "it", "test")
    spans = voxpopuli.prepare(shared_corpora / "voxpopuli", "it", "dev")
    write_set(tmp_path / "set", chain(clips, spans), nj=1, scored=True)
    assert (tmp_path / "set" / "segments").exists()  # because of the spans
    format_folder(tmp_path / "set", tmp_path / "dump", nj=1)
    samples = tables.read(tmp_path / "dump" / "utt2num_samples", "")
    sounds = tables.read(tmp_path / "set" / "wav.scp", "")
    clip_samples = {id_: count for id_, count in samples.items() if id_.startswith("cv_")}
    assert len(clip_samples) == 15
    for id_, count in clip_samples.items():
        assert int(count) / 16000 == pytest.approx(probe(Path(sounds[id_])).seconds, abs=0.1)


@pytest.mark.parametrize("length", ["1e300", "1e40", "86400000", "4", "0.01"])
def test_a_length_that_does_not_fit_the_file_is_measured(release, tmp_path, capsys, length):
    shutil.copytree(release / "it", tmp_path / "it")
    edit_lengths(tmp_path / "it", lambda _: length)
    report = write_set(tmp_path / "a", commonvoice.prepare(tmp_path, "it", "test"), nj=1)
    assert "note: a: 15 of 15 given lengths do not fit" in capsys.readouterr().out
    whole = write_set(tmp_path / "b", commonvoice.prepare(release, "it", "test"), nj=1)
    assert report.speakers == whole.speakers
    assert sum(report.seconds.values()) == pytest.approx(sum(whole.seconds.values()), rel=0.02)


def test_stage_3_drops_a_damaged_clip_of_known_length(release, tmp_path):
    shutil.copytree(release / "it", tmp_path / "it")
    first = read(tmp_path, "test")[0]
    first.audio.path.write_bytes(b"no sound" * 1000)
    report = write_set(tmp_path / "set", commonvoice.prepare(tmp_path, "it", "test"), nj=1)
    assert report.kept == 15  # stage 1 does not open it
    counts = format_folder(tmp_path / "set", tmp_path / "dump", nj=1)
    assert counts == {"kept": 14, "broken_audio": 1}
    assert first.id in (tmp_path / "dump" / "dropped.tsv").read_text()


def test_a_clip_of_known_length_must_exist(release, tmp_path):
    folder = shutil.copytree(release / "it", tmp_path / "it")
    (first, second, third, *rest) = read(tmp_path, "test")
    first.audio.path.unlink()
    second.audio.path.write_bytes(b"")
    third.audio.path.unlink()
    third.audio.path.mkdir()
    report = write_set(tmp_path / "set", commonvoice.prepare(tmp_path, "it", "test"), nj=1)
    assert report.dropped["broken_audio"] == 3
    lines = (tmp_path / "set" / "dropped.tsv").read_text().splitlines()
    assert any("No such file" in line for line in lines)
    assert any("empty file" in line for line in lines)
    assert folder.is_dir() and rest


@pytest.mark.parametrize(
    "value",
    ["-5", "nan", "inf", "0", "", "1.5 s", "2514\t7", "1e999"],
)
def test_rows_without_a_length_are_counted(value, tmp_path, capsys):
    table = tmp_path / "clip_durations.tsv"
    table.write_text(f"clip\tduration[ms]\nb.mp3\t1500\na.mp3\t{value}\n")
    durations = ClipDurations(table)
    assert (durations.of("a.mp3"), durations.of("b.mp3")) == (None, 1.5)
    note = capsys.readouterr().out
    assert note == f"note: {table}: 1 rows have no length; these clips are measured\n"


@pytest.mark.parametrize(
    "data",
    [b"", b"clip\tduration[s]\na.mp3\t2\n", b"\xff\xfec\0", b"clip\tduration[ms]\n\xe9\t3\n"],
)
def test_clips_are_measured_if_the_table_of_lengths_is_damaged(data, tmp_path, capsys):
    (tmp_path / "clip_durations.tsv").write_bytes(data)
    assert ClipDurations(tmp_path / "clip_durations.tsv").of("a.mp3") is None
    note = capsys.readouterr().out
    assert (
        note.startswith("note: ") and note.endswith("measured instead\n") and note.count("\n") == 1
    )


def test_a_release_without_a_table_of_lengths_has_none(tmp_path, capsys):
    assert ClipDurations(tmp_path / "missing.tsv").of("a.mp3") is None
    assert not capsys.readouterr().out


def test_lengths_are_found_by_the_names_of_the_columns(tmp_path):
    table = tmp_path / "clip_durations.tsv"
    table.write_text("votes\tduration[ms]\tclip\n7\t1500\ta.mp3\n")
    assert ClipDurations(table).of("a.mp3") == 1.5


def spontaneous_release(shared_corpora: Path, root: Path, rows: list[str]) -> Path:
    """Lay out real clips as Spontaneous Speech."""
    clips = shared_corpora / "commonvoice" / RELEASE_20 / "it" / "clips"
    folder = root / "sps-corpus-5.0-2026-09-11-it"
    (folder / "audios").mkdir(parents=True)
    for number, clip in enumerate(sorted(clips.glob("*.mp3"))[: len(rows)]):
        shutil.copy(clip, folder / "audios" / f"spontaneous-speech-it-{number}.mp3")
    header = "client_id audio_id audio_file duration_ms prompt_id prompt transcription votes split"
    lines = ["\t".join(header.split()), *rows]
    (folder / "ss-corpus-it.tsv").write_text("".join(f"{line}\n" for line in lines), "utf-8-sig")
    return root


def test_spontaneous_speech_is_read_by_its_splits(shared_corpora, tmp_path):
    def row(number: int, split: str, text: str = "Allora, [laugh] non so.") -> str:
        name = f"spontaneous-speech-it-{number}.mp3"
        return f"{'cd' * 64}\t{number}\t{name}\t2000\t1\tPerche?\t{text}\t2\t{split}"

    rows = [
        row(0, "train"),
        row(1, "dev"),
        row(2, "test"),
        row(3, ""),
        row(4, "unassigned"),
        "short",
    ]
    root = spontaneous_release(shared_corpora, tmp_path, rows)
    train = list(spontaneous.prepare(root, "it", "train"))
    kept = [one for one in train if isinstance(one, Utterance)]
    assert [one.reason for one in train if isinstance(one, Drop)] == ["no_split"] * 2 + ["bad_row"]
    (utterance,) = kept
    assert utterance.id == f"ss_it_{'cd' * 16}-spontaneous-speech-it-0"
    assert "laugh" not in utterance.text
    assert utterance.seconds == 2.0
    held_out = HeldOut()
    held_out.add(utterance, "test")
    drop = held_out.drop(replace(utterance, id="ss_it_new-1", text="Altro."), "altro")
    assert drop is not None and drop.reason == "speaker_in_test"
    for split in ("dev", "test"):
        assert len(list(spontaneous.prepare(root, "it", split))) == 1
    report = write_set(tmp_path / "set", spontaneous.prepare(root, "it", "train"), nj=1)
    assert (report.kept, report.dropped["no_split"]) == (1, 2)
    with pytest.raises(MlmaError, match="Spontaneous Speech: nothing at .*ss-corpus-nl.tsv"):
        list(spontaneous.prepare(root, "nl", "train"))
