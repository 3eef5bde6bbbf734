"""Test stages 2 to 5 with damaged tables: a one-line error, and no partial output."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from espnet_mlma.data import filter as filter_
from espnet_mlma.data import format_audio, mix, speed_perturb, tokens
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.errors import run_cli

PER_UTTERANCE = ("text", "utt2spk", "utt2lang", "utt2dataset", "utt2category")
# Stage -> program, options, tables that it reads.
PROGRAMS = {
    "stage 2": (
        speed_perturb.main,
        ["--data", "data/train", "--output", "out", "--factors", "0.9 1.0"],
        [f"data/train/{name}" for name in (*PER_UTTERANCE, "wav.scp")],
    ),
    "stage 3": (
        format_audio.main,
        ["--data", "data/train", "--output", "out", "--nj", "1"],
        [f"data/train/{name}" for name in (*PER_UTTERANCE, "wav.scp", "utt2speed", "segments")],
    ),
    "stage 4": (
        filter_.main,
        ["--data", "org", "--output", "out", "--min_seconds", "0.3", "--max_seconds", "30"],
        [f"org/{name}" for name in (*PER_UTTERANCE, "wav.scp", "utt2num_samples")],
    ),
    "mix": (
        mix.main,
        ["--dump", "org"],
        [f"org/{name}" for name in ("utt2num_samples", "utt2category", "utt2dataset")],
    ),
    "stage 5": (
        tokens.main,
        ["--text", "org/text", "--output", "out", "--token_type", "char"],
        ["org/text"],
    ),
}
READ = [(stage, table) for stage, (_, _, tables) in PROGRAMS.items() for table in tables]


def missing(table: Path) -> None:
    table.unlink()


def a_folder(table: Path) -> None:
    table.unlink()
    table.mkdir()


def empty(table: Path) -> None:
    table.write_bytes(b"")


def a_key_twice(table: Path) -> None:
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join([*lines, lines[0]]))


def a_key_less(table: Path) -> None:
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:-1]))


def a_key_more(table: Path) -> None:
    table.write_bytes(table.read_bytes() + b"zzz 1\n")


def an_empty_line(table: Path) -> None:
    table.write_bytes(table.read_bytes() + b"\n")


def latin_1(table: Path) -> None:
    table.write_bytes(table.read_bytes() + "x per\xf2\n".encode("latin-1"))


def utf_16(table: Path) -> None:
    table.write_bytes(table.read_text().encode("utf-16"))


def nul(table: Path) -> None:
    table.write_bytes(table.read_bytes().replace(b"\n", b"\0\n"))


def not_readable(table: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    table.chmod(0)


DAMAGES = (
    missing, a_folder, empty, a_key_twice, a_key_less, a_key_more, an_empty_line, latin_1, utf_16,
    nul, not_readable,
)  # fmt: skip
OPTIONAL = ("segments", "utt2speed")


@pytest.fixture(scope="module")
def stages(tmp_path_factory, tone) -> Path:
    """Run stages 1 and 3, and add their optional tables."""
    import soundfile

    from espnet_mlma.audio.archives import AudioFile
    from espnet_mlma.data.utterance import Utterance
    from espnet_mlma.data.writer import write_set

    root = tmp_path_factory.mktemp("stages")
    utterances = []
    for number in range(3):
        path = root / f"{number}.wav"
        soundfile.write(path, tone(1.0), 16000)
        id_ = f"mini_en_a-{number}"
        utterances.append(Utterance(id_, AudioFile(path), "good day", "mini_en_a", "en"))
    data = root / "data/train"
    write_set(data, utterances, nj=1)
    format_folder(data, root / "org", nj=1)
    ids = [utterance.id for utterance in utterances]
    (data / "utt2speed").write_text("".join(f"{id_} 1.0\n" for id_ in ids))
    (data / "segments").write_text("".join(f"{id_} {id_} 0.0 1.0\n" for id_ in ids))
    return root


def run(stage: str, monkeypatch, capsys) -> tuple[int, str]:
    """Run a stage; return its exit status and standard error."""
    main, options, _ = PROGRAMS[stage]
    monkeypatch.setattr(sys, "argv", ["program", *options])
    try:
        run_cli(main)
        status = 0
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr().err


@pytest.fixture
def copied(stages: Path, tmp_path: Path, monkeypatch) -> Path:
    shutil.copytree(stages, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("stage", "table"), READ)
def test_a_damaged_table_is_a_one_line_error(
    copied, monkeypatch, capsys, stage, table, damage
) -> None:
    if stage == "stage 2":
        (copied / "data/train/segments").unlink()
    damage(copied / table)
    status, message = run(stage, monkeypatch, capsys)
    allowed = (
        (damage is missing and table.endswith(OPTIONAL))
        or (damage is a_key_more and table.endswith("utt2speed"))
        or (damage in (a_key_more, a_key_less) and stage in ("stage 5",))
        or (damage is a_key_more and stage == "stage 3" and table.endswith("wav.scp"))
    )
    if allowed and status == 0:
        assert message == ""
        return
    assert status == 1
    assert message.startswith("error: ") and message.count("\n") == 1
    assert "data/train/" in message or "org/" in message
    assert not (copied / "out/wav.scp").exists() and not (copied / "out/tokens.txt").exists()


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "-1", "0", "1e400", "9" * 5000])
@pytest.mark.parametrize(
    ("stage", "table"), [("stage 3", "data/train/utt2speed"), ("stage 4", "org/utt2num_samples")]
)
def test_an_invalid_number_is_an_error_with_its_line(
    copied, monkeypatch, capsys, stage, table, value
) -> None:
    lines = (copied / table).read_text().splitlines()
    lines[1] = f"{lines[1].split()[0]} {value}"
    (copied / table).write_text("\n".join(lines))
    status, message = run(stage, monkeypatch, capsys)
    assert status == 1
    assert message.startswith(f"error: {table}:2: ") and message.count("\n") == 1


@pytest.mark.parametrize("span", ["0.0", "0 1 2", "x 1", "nan 1", "0 inf", "-1 1", "1 0", "0 0"])
def test_an_invalid_segment_is_an_error_with_its_line(copied, monkeypatch, capsys, span) -> None:
    table = copied / "data/train/segments"
    lines = table.read_text().splitlines()
    lines[1] = f"mini_en_a-1 mini_en_a-1 {span}"
    table.write_text("\n".join(lines))
    status, message = run("stage 3", monkeypatch, capsys)
    assert status == 1
    assert message.startswith("error: data/train/segments:2: ") and message.count("\n") == 1


@pytest.mark.parametrize("stage", ["stage 2", "stage 3", "stage 4", "stage 5"])
def test_an_output_name_that_is_not_utf8_works_or_is_a_one_line_error(
    copied, monkeypatch, capsys, stage
) -> None:
    odd = os.fsdecode(b"per\xf2")
    main, options, tables = PROGRAMS[stage]
    options = [odd if option == "out" else option for option in options]
    monkeypatch.setitem(PROGRAMS, stage, (main, options, tables))
    status, message = run(stage, monkeypatch, capsys)
    assert status == 0 or (message.startswith("error: ") and message.count("\n") == 1)
    assert (status == 0) == (stage != "stage 3")  # its tables contain the name


@pytest.mark.parametrize("value", ["", "rm -rf x |", "tar -xzOf 'a |", "|"])
def test_an_unknown_pipe_is_an_error_with_its_line(copied, monkeypatch, capsys, value) -> None:
    table = copied / "data/train/wav.scp"
    lines = table.read_text().splitlines()
    lines[2] = f"mini_en_a-2 {value}"
    table.write_text("\n".join(lines))
    status, message = run("stage 3", monkeypatch, capsys)
    assert status == 1
    assert message.startswith("error: data/train/wav.scp:3: ") and message.count("\n") == 1
