"""Stage 12: resumed runs, finished sets, sets of two models, broken sounds."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import espnet_mlma
from espnet_mlma.claims import claim
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.decode import Decoding
from espnet_mlma.decode.fingerprint import check_alike, check_newest, of_decoding
from espnet_mlma.decode.sets import decode_set
from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import checkpoint

SECONDS = 2.5  # two utterances in a batch


@pytest.fixture
def model(experiment: Path, tmp_path: Path) -> Path:
    """Copy the model, so that a test may change it."""
    shutil.copytree(experiment, tmp_path / "exp")
    return tmp_path / "exp"


@pytest.fixture
def data(make_data, tmp_path: Path) -> Path:
    """Write a set of six utterances, three batches."""
    format_folder(make_data(6), tmp_path / "dump" / "test_a", nj=1)
    return tmp_path / "dump" / "test_a"


class Counting:
    """Load a recogniser that counts its batches."""

    def __init__(self, model: Path):
        self.model = model
        self.batches = 0

    def __call__(self):
        recogniser = espnet_mlma.load(self.model, device="cpu")
        transcribe = recogniser.transcribe_batch

        def counting(utterances):
            self.batches += 1
            return transcribe(utterances)

        recogniser.transcribe_batch = counting
        return recogniser


def made_with(model: Path, **options) -> dict:
    files = (model / "config.yaml", model / "valid.cer_ctc.ave.pth")
    return of_decoding(*files, SECONDS, Decoding(**options))


def decode(model: Path, data: Path, out: Path, **options) -> tuple[int, str]:
    """Decode; return the number of batches decoded, and the line to print."""
    counting = Counting(model)
    line = decode_set(counting, data, SECONDS, out / data.name, made_with(model, **options))
    return counting.batches, line


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def decode_and_die(model: Path, data: Path, out: Path, after: int) -> int:
    """Decode in a forked process that is killed in its last batch; return the exit status."""
    recogniser = Counting(model)()
    transcribe, found = recogniser.transcribe_batch, []
    recogniser.transcribe_batch = lambda samples: found.append(transcribe(samples)) or found[-1]
    decode_set(lambda: recogniser, data, SECONDS, out.with_name("first"), made_with(model))
    calls = iter(found[:after])  # a forked process must not compute with threads of the parent

    def dying(utterances):
        return next(calls, None) or os.kill(os.getpid(), signal.SIGKILL)

    recogniser.transcribe_batch = dying
    process = os.fork()
    if not process:
        with contextlib.suppress(BaseException):
            decode_set(lambda: recogniser, data, SECONDS, out, made_with(model))
        os._exit(0)
    _, status = os.waitpid(process, 0)
    return status


@pytest.mark.slow
def test_a_killed_decoding_resumes_to_the_same_results(model: Path, data: Path, tmp_path: Path):
    out = tmp_path / "killed" / data.name
    assert decode_and_die(model, data, out, after=2) == signal.SIGKILL
    assert not out.exists()
    first = out.with_name("first").rename(tmp_path / "first")
    partial = out.with_name(".test_a.partial")
    torn = partial.read_text()[:-20]
    for text, left in ((partial.read_text(), 1), (torn, 2), (torn + "\0" * 20, 2)):
        partial.write_text(text)
        assert decode(model, data, out.parent)[0] == left
        assert contents(out) == contents(first)
        assert [path.name for path in out.parent.iterdir()] == ["test_a"]
        shutil.rmtree(out)


def new_checkpoint(model: Path) -> None:
    file = model / "valid.cer_ctc.ave.pth"
    state = torch.load(file)
    state["ctc.ctc_lo.weight"][3:] = state["ctc.ctc_lo.weight"][3:].flip(0)
    torch.save(state, file)


def test_batches_of_an_earlier_model_are_not_resumed(model: Path, data: Path, tmp_path: Path):
    decode(model, data, tmp_path / "old")
    old = tmp_path / "out" / ".test_a.partial"
    old.parent.mkdir()
    old.write_text(json.dumps(made_with(model) | {"data": "x"}) + "\n[0, {}]\n")
    new_checkpoint(model)
    assert decode(model, data, tmp_path / "out")[0] == 3
    assert contents(tmp_path / "out/test_a") != contents(tmp_path / "old/test_a")


def add(file: str, text: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        with (folder / file).open("a") as opened:
            opened.write(text)

    return change


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda folder: new_checkpoint(folder / "exp"), {}),
        (add("exp/config.yaml", "# another\n"), {}),
        (add("dump/test_a/utt2num_samples", "other 7\n"), {}),
        (add("dump/test_a/data/shard.00001.ark", "x"), {}),
        (lambda folder: None, {"beam_size": 2}),
        (lambda folder: None, {"hotwords": ("good",)}),
        (lambda folder: (folder / "test_a/text").unlink(), {}),
        (lambda folder: (folder / "test_a/decoding.yaml").write_text("[torn"), {}),
    ],
)
def test_a_finished_set_is_skipped_unless_something_changed(
    model: Path, data: Path, tmp_path: Path, change: Callable[[Path], None], options: dict
):
    decode(model, data, tmp_path)
    batches, line = decode(model, data, tmp_path)
    assert batches == 0
    assert "test_a: decoded before" in line
    change(tmp_path)
    assert decode(model, data, tmp_path, **options)[0] == 3
    assert len((tmp_path / "test_a/text").read_text().splitlines()) == 6


def test_a_broken_sound_is_skipped_and_tried_again(model: Path, data: Path, tmp_path: Path, capsys):
    scp = (data / "wav.scp").read_text()
    broken = scp.replace("mini_en_s1-0003 ", "mini_en_s1-0003 gone/")
    (data / "wav.scp").write_text(broken)
    decode(model, data, tmp_path)
    assert "test_a: skipped 1 of 6 utterances" in capsys.readouterr().out
    assert len((tmp_path / "test_a/text").read_text().splitlines()) == 5
    skipped = yaml.safe_load((tmp_path / "test_a/decoding.yaml").read_text())["skipped"]
    assert list(skipped) == ["mini_en_s1-0003"]
    assert decode(model, data, tmp_path)[0] > 0, "tried again"
    (data / "wav.scp").write_text(scp)
    decode(model, data, tmp_path)
    assert len((tmp_path / "test_a/text").read_text().splitlines()) == 6


def test_decoding_yaml_has_options_parameters_and_seconds(model: Path, data: Path, tmp_path: Path):
    lm = tmp_path / "words.arpa"
    lm.write_text("x")
    made = of_decoding(
        model / "config.yaml", model / "valid.cer_ctc.ave.pth", SECONDS, Decoding(lm=str(lm))
    )
    assert (made["language_model"], made["options"]["beam_size"]) == (str(lm), 1)
    decode(model, data, tmp_path)
    written = yaml.safe_load((tmp_path / "test_a/decoding.yaml").read_text())
    network, _ = checkpoint.build(model)
    assert written["language_model"] is None
    assert written["parameters"] == sum(p.numel() for p in network.parameters())
    assert written["audio_seconds"] == 6
    assert written["options"] == made["options"]


def test_two_decodings_of_a_set_at_once_are_refused(model: Path, data: Path, tmp_path: Path):
    with (
        claim(tmp_path / "test_a", "decodes into it"),
        pytest.raises(MlmaError, match="test_a: process .* decodes into it already"),
    ):
        decode(model, data, tmp_path)


@pytest.fixture
def two_sets(model: Path, data: Path, tmp_path: Path) -> Path:
    """Decode two sets in an experiment."""
    shutil.copytree(data, data.with_name("test_b"))
    for name in ("test_a", "test_b"):
        decode(model, data.with_name(name), model / "dec")
    return model / "dec"


def test_sets_of_two_models_are_refused(two_sets: Path, data: Path, model: Path):
    sets = ["test_a", "test_b"]
    check_alike(two_sets, sets, data.parent)
    check_newest(two_sets, sets)
    new_checkpoint(model)
    with pytest.raises(MlmaError, match=r"test_a: decoded with an earlier valid.cer_ctc.ave.pth"):
        check_newest(two_sets, sets)
    decode(model, data, two_sets)
    with pytest.raises(MlmaError, match="test_a and test_b were decoded with different checkpoi"):
        check_alike(two_sets, sets, data.parent)
    decode(model, data.with_name("test_b"), two_sets, beam_size=2)
    with pytest.raises(MlmaError, match=r"different options; run stage 12 again"):
        check_alike(two_sets, sets, data.parent)
    (two_sets / "test_b/decoding.yaml").unlink()
    with pytest.raises(MlmaError, match=r"test_b: has no decoding.yaml"):
        check_alike(two_sets, sets, data.parent)
    (two_sets / "test_a/decoding.yaml").unlink()
    check_alike(two_sets, sets, data.parent)  # no set has the file


def test_sets_of_other_sounds_than_the_references_are_refused(two_sets: Path, data: Path):
    with (data / "data/shard.00001.ark").open("a") as ark:
        ark.write("x")
    with pytest.raises(MlmaError, match=r"test_a: decoded from other sounds than"):
        check_alike(two_sets, ["test_a", "test_b"], data.parent)
