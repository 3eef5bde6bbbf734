"""Many files: batches, processes, shards, and re-runs."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import soundfile
from babble import babble

from espnet_mlma.cli.archive import RECORD
from espnet_mlma.decode import load
from espnet_mlma.decode.many_files import transcribe_files

SECONDS = (0.5, 3.0, 1.0, 13.5, 0.02, 2.0, 1.5, 0.7)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of sounds of different lengths; one is longer than an utterance, two are damaged."""
    folder = tmp_path_factory.mktemp("many")
    for number, seconds in enumerate(SECONDS):
        soundfile.write(folder / f"{number}.wav", babble(round(16000 * seconds)), 16000)
    soundfile.write(folder / "cut.wav", babble(32000), 16000)
    whole = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) * 3 // 4])
    (folder / "odd.wav").write_bytes(b"not a sound at all")
    return folder


@pytest.fixture
def texts(experiment, many):
    """The text of each sound by itself."""
    recogniser = load(experiment, device="cpu")
    return {f"{n}.wav": recogniser.transcribe(many / f"{n}.wav").text for n in range(len(SECONDS))}


def test_batches_change_no_text(experiment, many, texts):
    recogniser = load(experiment, device="cpu", batch_seconds=8)
    encoded = []
    encode = recogniser.acoustic.emissions
    recogniser.acoustic.emissions = lambda sounds: encoded.append(len(sounds)) or encode(sounds)
    files = [many / name for name in texts]
    found = list(transcribe_files(recogniser, [*files, many / "cut.wav", many / "odd.wav"]))
    assert [transcript.text for transcript in found[: len(texts)]] == list(texts.values())
    assert [type(error).__name__ for error in found[len(texts) :]] == ["DamagedAudio", "MlmaError"]
    assert found[-2].transcript.duration == pytest.approx(1.5, abs=0.01)
    assert max(encoded) > 2


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_all_files_are_printed_in_order_and_counted(mlma, experiment, many, texts, jobs):
    code, out, err = mlma("transcribe", many, "--model", experiment, "--jobs", jobs)
    assert code == 1
    lines = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
    assert {f"{many / name}": text for name, text in texts.items() if text}.items() <= lines.items()
    assert list(lines) == sorted(lines)
    *errors, summary = err.splitlines()
    assert [error.split(":")[1].strip() for error in errors] == [
        str(many / "cut.wav"),
        str(many / "odd.wav"),
    ]
    assert summary.startswith("8 of 10 files (1 damaged, 1 unreadable), ")


def test_shards_have_each_file_once_and_a_re_run_does_the_rest(mlma, experiment, many, tmp_path):
    options = ["transcribe", many, "--model", experiment, "--format", "txt,json", "-o", tmp_path]
    done = set()
    for number in (1, 2, 3):
        mlma(*options, "--shard", f"{number}/3")
        now = {file.name for file in tmp_path.glob("*.txt")}
        assert len(now - done) == 3  # nine of ten files have a transcript
        done = now
    wanted = {name: (tmp_path / name).stat().st_mtime_ns for name in sorted(done)[1:]}
    (tmp_path / sorted(done)[0]).unlink()
    code, _, err = mlma(*options)
    assert code == 1
    assert "8 of 10 files, 7 of them by an earlier run (1 damaged, 1 unreadable), " in err
    changed = {name for name, at in wanted.items() if (tmp_path / name).stat().st_mtime_ns != at}
    assert changed == {"cut.txt"}  # it might be whole now
    assert "cut off or damaged" in (tmp_path / "cut.damaged").read_text()


def test_a_changed_sound_is_recognised_again(mlma, experiment, sounds, tmp_path):
    sound = shutil.copy(sounds / "b.wav", tmp_path / "b.wav")
    options = ["transcribe", sound, "--model", experiment, "--format", "json", "-o", tmp_path / "o"]
    assert mlma(*options)[0] == 0
    assert mlma(*options)[2].startswith("1 of 1 files, 1 of them by an earlier run, 0.0 s")
    shutil.copy(sounds / "a.flac", sound)
    os.utime(sound)
    assert mlma(*options)[2].startswith("1 of 1 files, 2.0 s")
    assert json.loads((tmp_path / "o" / "b.json").read_text())["duration"] == pytest.approx(2.0)


def test_transcripts_of_two_runs_are_not_mixed(mlma, experiment, sounds, tmp_path):
    options = ["transcribe", sounds, "--model", experiment, "--format", "txt", "-o", tmp_path]
    assert mlma(*options)[0] == 0
    code, _, err = mlma(*options, "--beam-size", 4)
    assert code == 1
    assert err.startswith(f"error: {tmp_path}: has transcripts of other options (search); give")
    other = tmp_path / "other"
    shutil.copytree(experiment, other)
    config = other / "config.yaml"
    config.write_text(config.read_text() + "\n# changed\n")
    options[3] = other
    code, _, err = mlma(*options)
    assert code == 1
    assert err.startswith(f"error: {tmp_path}: has transcripts of another model; give")
    assert mlma(*options, "--overwrite")[0] == 0
    assert mlma(*options)[2].startswith("3 of 3 files, 3 of them by an earlier run")


def test_files_that_were_there_before_are_replaced_once(mlma, experiment, sounds, tmp_path):
    (tmp_path / "b.txt").write_text("of another program")
    options = ["transcribe", sounds / "b.wav", "--model", experiment, "--format", "txt"]
    assert mlma(*options, "-o", tmp_path)[0] == 0
    assert (tmp_path / "b.txt").read_text() != "of another program"
    assert (tmp_path / RECORD).exists()


def test_a_file_that_cannot_be_written_is_counted_and_the_rest_done(
    mlma, experiment, sounds, tmp_path
):
    (tmp_path / "a.txt").mkdir()
    options = ["transcribe", sounds, "--model", experiment, "--format", "txt", "-o", tmp_path]
    code, _, err = mlma(*options)
    assert code == 1
    assert "2 of 3 files (1 not written), " in err
    assert (tmp_path / "b.txt").is_file() and (tmp_path / "below" / "C.txt").is_file()


def test_another_calibration_is_another_model(mlma, experiment, sounds, tmp_path):
    model = shutil.copytree(experiment, tmp_path / "model")
    options = ["transcribe", sounds, "--model", model, "--format", "txt", "-o", tmp_path / "out"]
    assert mlma(*options)[0] == 0
    (model / "calibration.yaml").write_text("changed: true\n")
    assert "has transcripts of another model" in mlma(*options)[2]


def test_options_without_effect_are_refused(mlma, sounds):
    for options in (["--overwrite"], ["--shard", "3/2"], ["--shard", "0/2"], ["--jobs", "0"]):
        code, _, err = mlma("transcribe", sounds, *options)
        assert (code, err.count("\n")) == (2, 1)
    assert mlma("transcribe", "-", "--jobs", 2)[0] == 2


@pytest.mark.slow
def test_a_killed_run_is_resumed(experiment, many, tmp_path):
    command = [sys.executable, "-m", "espnet_mlma.cli", "transcribe", many, "--format", "txt"]
    command += ["--model", experiment, "-o", tmp_path / "o", "--jobs", "2", "--batch-seconds", "1"]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while run.poll() is None and not list((tmp_path / "o").glob("*.txt")):
        pass
    run.kill()
    run.wait()
    end = subprocess.run(command, capture_output=True, text=True)
    assert end.returncode == 1
    assert " by an earlier run (1 damaged, 1 unreadable), " in end.stderr
    assert len(list((tmp_path / "o").glob("*.txt"))) == 9
