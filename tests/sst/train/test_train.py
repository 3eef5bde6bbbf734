import argparse
import json
import os
import re
import shutil
import signal
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")

from espnet_mlma.claims import claim  # noqa: E402
from espnet_mlma.errors import MlmaError  # noqa: E402
from espnet_mlma.sst.config import EncoderConfig, StageConfig  # noqa: E402
from espnet_mlma.sst.data.records import line_of  # noqa: E402
from espnet_mlma.sst.grid import CHUNK_SAMPLES, SAMPLE_RATE  # noqa: E402
from espnet_mlma.sst.train.dataset import read_all  # noqa: E402
from espnet_mlma.sst.train.parallel import process_group  # noqa: E402
from espnet_mlma.sst.train.stages import add_arguments, train  # noqa: E402
from espnet_mlma.sst.train.trainer import learning_rate  # noqa: E402

STEPS = 4  # updates of a stage on the fixture `data`


def options(stage, first_stage):
    return first_stage if stage == 2 else None


def losses(folder):
    lines = (folder / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def message(*arguments):
    with pytest.raises(MlmaError) as caught:
        train(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def trained_weights(folder):
    files = ["speech.safetensors", "lora/adapter_model.safetensors"]
    return {
        f"{file} {name}": tensor
        for file in files
        if (folder / file).exists()
        for name, tensor in safetensors.load_file(folder / file).items()
    }


def test_learning_rate():
    rates = [learning_rate(update, 2e-4, 1000, 5000) for update in range(5000)]
    assert rates[0] == pytest.approx(2e-7)
    assert max(rates) == rates[999] == 2e-4
    assert rates[3000] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(0, abs=1e-10)
    assert all(later <= earlier for earlier, later in zip(rates[999:], rates[1000:], strict=False))
    assert learning_rate(6000, 2e-4, 1000, 5000) == 0
    assert learning_rate(5, 1.0, 10, 5) == 0.6


def test_repeated_data_options_accumulate():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    required = ["--stage", "1", "--config", "c.yaml", "--out", "exp"]
    args = parser.parse_args([*required, "--data", "a", "b", "--data", "c"])
    assert args.data == [Path("a"), Path("b"), Path("c")]


@pytest.fixture(scope="module", params=[0, 1, 2])
def undisturbed(request, config, data, first_stage, tmp_path_factory):
    """An uninterrupted stage: its number, its init and its output folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    init = options(request.param, first_stage)
    train(config, request.param, [data], folder, init)
    assert len(losses(folder)) == STEPS
    return request.param, init, folder


class Stopped(BaseException):
    """Interrupt a training like Ctrl-C."""


def stop():
    raise Stopped


def step_until(update, stop):
    """Return an `Adam.step` that calls `stop` at an update, counted from 0."""
    steps, step = [], torch.optim.Adam.step

    def stepping(optimiser):
        if len(steps) == update:
            stop()
        steps.append(1)
        step(optimiser)

    return stepping


@pytest.mark.parametrize("update", range(STEPS))
def test_resume_is_exact_to_the_bit(config, data, undisturbed, tmp_path, monkeypatch, update):
    """Stop before an update's step; checkpoints are written every second update."""
    stage, init, whole = undisturbed
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.Adam, "step", step_until(update, stop))
        with pytest.raises(Stopped):
            train(config, stage, [data], tmp_path, init)
    assert not (tmp_path / "training.json").exists()
    torch.rand(7)  # the state of the generator does not matter
    train(config, stage, [data], tmp_path, init)
    assert losses(tmp_path) == losses(whole)
    expected, found = trained_weights(whole), trained_weights(tmp_path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def work(rank, port, is_sharded, folders, arguments, updates):
    """Train in one of two processes, which is killed after some updates, if a number is given."""
    if updates is not None:
        torch.optim.Adam.step = step_until(updates, kill)
    os.chdir(folders[rank])
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with process_group("cpu", is_sharded) as group:
        train(*arguments, group)


def train_with_two(is_sharded, *arguments, folders=(".", "."), updates=None):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        work, (port, is_sharded, folders, arguments, updates), nprocs=2, start_method="spawn"
    )


@pytest.mark.parametrize("is_sharded", [False, True], ids=["DDP", "FSDP"])
def test_two_processes_train_like_one(config, data, undisturbed, tmp_path, is_sharded):
    """The last update has one batch for two processes, so that one of them only pads."""
    stage, init, alone = undisturbed
    train_with_two(is_sharded, config, stage, [data], tmp_path, init)
    one, two = losses(alone), losses(tmp_path)
    for ours, theirs in zip(one, two, strict=True):
        assert ours["targets"] == theirs["targets"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=2e-3)
    expected, found = trained_weights(alone), trained_weights(tmp_path)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        # Adam turns a gradient of rounding errors into a step as large as any.
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1.5e-3)


@pytest.mark.parametrize("is_sharded", [False, True], ids=["DDP", "FSDP"])
def test_one_process_resumes_a_training_of_two(config, data, first_stage, tmp_path, is_sharded):
    with pytest.raises(torch.multiprocessing.ProcessExitedException):
        train_with_two(is_sharded, config, 1, [data], tmp_path, None, updates=3)
    assert (tmp_path / "checkpoint.pt").exists()
    train(config, 1, [data], tmp_path)
    found, expected = losses(tmp_path), losses(first_stage)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_finished_stage_is_not_repeated(config, data, first_stage, capsys):
    files = {file: file.read_bytes() for file in first_stage.iterdir()}
    capsys.readouterr()
    train(config, 1, [data], first_stage)
    assert "finished before" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in first_stage.iterdir()} == files
    assert not (first_stage / "checkpoint.pt").exists()
    other = replace(config, stage1=StageConfig(1e-3))
    assert "holds another training" in message(other, 1, [data], first_stage)
    # Options without effect on the weights may change.
    quiet = replace(config, training=replace(config.training, log_updates=3, save_updates=9))
    train(quiet, 1, [data], first_stage)
    assert "finished before" in capsys.readouterr().out


def touch(file):
    """Give a file another date, as re-training does."""
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


def recogniser(make_experiment, folder):
    """Make a recogniser with a causal encoder; return its checkpoint."""
    from espnet2.tasks.asr import ASRTask

    made = make_experiment(
        ASRTask,
        encoder="conmamba",
        encoder_conf={"output_size": 16, "num_blocks": 1, "linear_units": 32, "bimamba": "none"},
        token_list=["<blank>", "<unk>", "a", "<sos/eos>"],
        token_type="char",
        model_conf={"ctc_weight": 1.0},
        frontend_conf={"hop_length": 160, "win_length": 400, "center": False},
        normalize=None,
    )
    shutil.copytree(made, folder)
    return folder / "valid.cer_ctc.ave.pth"


def wav2vec2(make_experiment, folder):
    """Make a Hugging Face wav2vec 2.0; return its weights file."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 48, "conv_dim": [8] * 7, "conv_bias": True}
    sizes |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    sizes |= {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**sizes)).save_pretrained(folder)
    return folder / "model.safetensors"


@pytest.mark.parametrize(("kind", "make"), [("conmamba", recogniser), ("wav2vec2", wav2vec2)])
def test_changed_encoder_weights_are_another_training(
    config, data, make_experiment, tmp_path, capsys, kind, make
):
    """Only in the stage that loads them: later stages use the trained encoder."""
    weights = make(make_experiment, tmp_path / "weights")
    config = replace(config, encoder=EncoderConfig(kind, str(weights.parent)))
    one, two = tmp_path / "one", tmp_path / "two"
    train(config, 1, [data], one)
    train(config, 2, [data], two, one)
    train(config, 1, [data], one)
    touch(weights)
    assert "holds another training" in message(config, 1, [data], one)
    capsys.readouterr()
    train(config, 2, [data], two, one)
    assert "stage 2: finished before" in capsys.readouterr().out


def test_changed_language_model_is_another_training(config, data, tmp_path):
    folder = shutil.copytree(config.llm.name, tmp_path / "llm")
    config = replace(config, llm=replace(config.llm, name=str(folder)))
    out = tmp_path / "out"
    train(config, 1, [data], out)
    train(config, 1, [data], out)
    touch(folder / "model.safetensors")
    assert "holds another training" in message(config, 1, [data], out)


def test_copies_of_the_language_model_may_differ_in_date(config, data, tmp_path):
    """The copies have the same path on two machines and different dates."""
    disks = [tmp_path / "first", tmp_path / "second"]
    for disk in disks:
        shutil.copytree(config.llm.name, disk / "llm")
    touch(disks[1] / "llm" / "model.safetensors")
    config = replace(config, llm=replace(config.llm, name="llm"))
    out = tmp_path / "out"
    train_with_two(False, config, 1, [data], out, None, folders=disks)
    train_with_two(False, config, 1, [data], out, None, folders=disks)
    assert len(losses(out)) == STEPS


def test_stage_0_needs_transcripts_and_a_configuration(config, data, tmp_path):
    deaf = tmp_path / "deaf.jsonl"
    segments = [replace(one, heard=None) for one in read_all([data], config.dialogue)]
    deaf.write_text("".join(map(line_of, segments)), encoding="utf-8")
    assert "segment '0': has no transcript" in message(config, 0, [deaf], tmp_path / "a")
    without = replace(config, stage0=None)
    assert "has no stage0" in message(without, 0, [data], tmp_path / "a")


def test_stage_0_skips_segments_without_words(config, data, first_stage, tmp_path, capsys):
    segments = read_all([data], config.dialogue)
    lines = [line_of(replace(one, heard="") if one.id == "0" else one) for one in segments]
    mixed, rest = tmp_path / "mixed.jsonl", tmp_path / "rest.jsonl"
    mixed.write_text("".join(lines), encoding="utf-8")
    rest.write_text("".join(lines[1:]), encoding="utf-8")
    train(config, 0, [mixed], tmp_path / "mixed")
    assert "skipped 1 segments" in capsys.readouterr().out
    train(config, 0, [rest], tmp_path / "rest")
    assert losses(tmp_path / "mixed") == losses(tmp_path / "rest")


def test_stage_refuses_a_wrong_init(config, data, first_stage, tmp_path):
    assert "give its --out as --init" in message(config, 2, [data], tmp_path / "a")
    assert "no finished training" in message(config, 2, [data], tmp_path / "a", tmp_path)
    train(config, 2, [data], tmp_path / "two", first_stage)
    assert "stage 1 cannot start from it" in message(
        config, 1, [data], tmp_path / "a", tmp_path / "two"
    )


def test_damaged_or_foreign_checkpoints_are_refused(config, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.Adam, "step", step_until(3, stop))
        with pytest.raises(Stopped):
            train(config, 1, [data], tmp_path)
    other = replace(config, training=replace(config.training, seed=2))
    assert "another configuration" in message(other, 1, [data], tmp_path)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "checkpoint.pt: damaged" in message(config, 1, [data], tmp_path)
    with claim(tmp_path, "trains in it"):
        assert "trains in it already" in message(config, 1, [data], tmp_path)


def test_damaged_checkpoint_falls_back_to_the_previous_one(
    config, data, first_stage, tmp_path, monkeypatch, capsys
):
    often = replace(config, training=replace(config.training, save_updates=1))
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.Adam, "step", step_until(3, stop))
        with pytest.raises(Stopped):
            train(often, 1, [data], tmp_path)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    train(config, 1, [data], tmp_path)
    assert "resuming from the previous one" in capsys.readouterr().out
    assert losses(tmp_path) == losses(first_stage)
    expected, found = trained_weights(first_stage), trained_weights(tmp_path)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_missing_audio_names_the_segment(config, data, tmp_path):
    lines = data.read_text().splitlines(True)
    file = tmp_path / "train.jsonl"
    lost = json.loads(lines[4])
    lost["parts"][0]["audio"] = "nowhere.wav"
    file.write_text("".join(lines[:4]) + json.dumps(lost) + "\n")
    assert "segment '4': nowhere.wav: no such file" in message(config, 1, [file], tmp_path / "o")


def test_audio_with_nan_names_the_segment(config, data, tmp_path):
    sound = tmp_path / "a.wav"
    soundfile.write(sound, np.full(3 * CHUNK_SAMPLES, np.nan), SAMPLE_RATE, "FLOAT")
    bad = json.loads(data.read_text().splitlines()[0]) | {"id": "bad"}
    bad["parts"][0]["audio"] = str(sound)
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(bad) + "\n")
    text = message(config, 1, [file], tmp_path / "o")
    assert text.startswith(f"segment 'bad': {sound}: contains NaN or Inf")


def test_gradient_with_nan_names_the_segments(config, data, tmp_path):
    steep = replace(config, stage1=StageConfig(1e38))
    text = message(steep, 1, [data], tmp_path / "o")
    match = re.match(r"update [2-4]: the gradient is (?:nan|inf), .* its segments are (.*)", text)
    known = {json.loads(line)["id"] for line in data.read_text().splitlines()}
    named = re.findall(r"\d+", match[1].partition(":")[0])
    assert named and set(named) <= known
