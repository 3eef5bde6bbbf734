"""Test `mlma data label` with a model, on real sessions of VoxPopuli."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espnet_mlma.claims import claim
from espnet_mlma.cli.files import find_sounds
from espnet_mlma.curate.label import LONGEST_SECONDS, list_recordings, main, segments
from espnet_mlma.data.corpora import pseudo
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.decode.transcript import Word
from espnet_mlma.errors import MlmaError


@pytest.fixture(scope="session")
def model(experiment) -> Path:
    """A trained experiment if MLMA_EXPERIMENT names one, else an untrained one."""
    return Path(os.environ.get("MLMA_EXPERIMENT", experiment))


@pytest.fixture
def talks(tmp_path, shared_corpora) -> Path:
    found = sorted(shared_corpora.glob("voxpopuli/raw_audios/original/*/*-it-*_original.ogg"))
    (tmp_path / "talks/2012").mkdir(parents=True)
    for number, clip in enumerate(found[:4]):
        shutil.copy(clip, tmp_path / f"talks/2012/{number}.ogg")
    return tmp_path / "talks"


def argv(talks: Path, model: Path, *options: str) -> list[str]:
    output = talks.with_name("labels")
    return [f"{talks}", "--model", f"{model}", "--output", f"{output}", "--device", "cpu", *options]


def rows_of(manifest: Path) -> list[dict]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def test_labels_become_a_training_set(talks, model, tmp_path):
    main(argv(talks, model, "--language", "it"))
    rows = rows_of(tmp_path / "labels/1-of-1.jsonl")
    assert {row["file"] for row in rows} <= {f"2012/{n}.ogg" for n in range(4)}
    for row in rows:
        assert 0 <= row["start"] < row["end"] and row["end"] - row["start"] <= LONGEST_SECONDS
        assert 0 <= row["confidence"] <= 1 and row["text"] and row["language"] == "it"
        assert row["checkpoint"] and row["options"]["beam_size"] == 1
    (tmp_path / "labels/audio").symlink_to(talks)
    where = {"min_confidence": 0.1}
    items = list(pseudo.prepare(tmp_path / "labels", "it", "train", where=where))
    floor = sum(row["confidence"] >= 0.1 for row in rows)
    found = [item for item in items if isinstance(item, Utterance)]
    assert len(found) == floor > 0 and len(items) == len(rows)
    # An untrained model writes <unk>, which is dropped from training sets only.
    assert write_set(tmp_path / "data/train", found, nj=1, scored=True).kept == floor


def test_a_broken_file_is_named_and_the_others_are_labelled(talks, model, tmp_path, capsys):
    (talks / "broken.wav").write_bytes(b"RIFF and nothing else")
    with pytest.raises(SystemExit) as ended:
        main(argv(talks, model))
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert "broken.wav" in said.err and "1 of 5 recordings failed" in said.out
    assert (tmp_path / "labels/1-of-1.jsonl").exists()


def test_a_killed_job_goes_on(talks, model, tmp_path, capsys):
    whole = tmp_path / "whole"
    main([*argv(talks, model)[:3], "--output", f"{whole}", "--device", "cpu"])
    program = [sys.executable, "-m", "espnet_mlma.cli", "data", "label", *argv(talks, model)]
    job = subprocess.Popen(program, stdout=subprocess.DEVNULL)
    while job.poll() is None and not list(tmp_path.glob("labels/.parts/*/*.jsonl")):
        time.sleep(0.01)
    job.send_signal(signal.SIGKILL)
    job.wait()
    capsys.readouterr()
    main(argv(talks, model))
    finished = int(capsys.readouterr().out.split(" finished")[0].split()[-1])
    assert finished >= 1
    expected = (whole / "1-of-1.jsonl").read_text()
    assert (tmp_path / "labels/1-of-1.jsonl").read_text() == expected
    main(argv(talks, model))
    assert "4 recordings, 4 finished" in capsys.readouterr().out


def test_shards_have_each_recording_once(talks, model, tmp_path):
    parts = [list_recordings(talks, number, 3) for number in (1, 2, 3)]
    assert sorted(sum(parts, [])) == list_recordings(talks, 1, 1)
    for number in (1, 2, 3):
        main(argv(talks, model, "--shard", f"{number}/3"))
    main([*argv(talks, model)[:3], "--output", f"{tmp_path / 'whole'}", "--device", "cpu"])
    shards = [row for n in (1, 2, 3) for row in rows_of(tmp_path / f"labels/{n}-of-3.jsonl")]
    ids = sorted(row["id"] for row in shards)
    assert ids == sorted(row["id"] for row in rows_of(tmp_path / "whole/1-of-1.jsonl"))


def test_another_model_or_option_or_job_is_refused(talks, model, tmp_path):
    main(argv(talks, model))
    with pytest.raises(MlmaError, match="begun with another language"):
        main(argv(talks, model, "--language", "it"))
    with pytest.raises(MlmaError, match="begun with another shards"):
        main(argv(talks, model, "--shard", "1/2"))
    other = tmp_path / "other"
    shutil.copytree(model, other)
    with (other / "config.yaml").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(MlmaError, match="begun with another config, model"):
        main(argv(talks, other))
    with (
        claim(tmp_path / "labels/1-of-1.jsonl", "labels it"),
        pytest.raises(MlmaError, match="labels it already"),
    ):
        main(argv(talks, model))


def test_recordings_are_cut_at_pauses():
    words = [Word("a", 2.0 * n, 2.0 * n + 1.9, 1.0) for n in range(40)]
    words[20:] = [Word("b", word.start + 2, word.end + 2, 1.0) for word in words[20:]]
    found = list(segments(words, 81.5))
    assert [word for _, _, group in found for word in group] == words
    assert all(end - start <= LONGEST_SECONDS for start, end, _ in found)
    assert any(group[-1] is words[19] for _, _, group in found)  # at the pause
    assert found[-1][1] == 81.5
    assert list(segments([Word("long", 0.0, 40.0, 1.0)], 40.0)) == []
    assert list(segments([], 40.0)) == []


def test_the_files_are_those_of_transcribe(tmp_path):
    for name in ("a.CAF", "b/c.mov", "d.amr", "e.wav", "._e.wav", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {str(sound.path.relative_to(tmp_path)) for sound in find_sounds([tmp_path])[0]}
    assert set(list_recordings(tmp_path, 1, 1)) == found == {"a.CAF", "b/c.mov", "d.amr", "e.wav"}
