import json
import os
import re
import shutil
import signal
import socket
from dataclasses import replace
from itertools import chain, groupby

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")

from espnet_mlma.claims import claim  # noqa: E402
from espnet_mlma.errors import MlmaError  # noqa: E402
from espnet_mlma.evaluation.score.align import count_errors  # noqa: E402
from espnet_mlma.sst.config import (  # noqa: E402
    Config,
    EncoderConfig,
    LlmConfig,
    LoraConfig,
    StageConfig,
    TrainingConfig,
)
from espnet_mlma.sst.data.records import Part, Segment, line_of  # noqa: E402
from espnet_mlma.sst.grid import CHUNK_SAMPLES, SAMPLE_RATE  # noqa: E402
from espnet_mlma.sst.model import build  # noqa: E402
from espnet_mlma.sst.train.ctc import Hearing  # noqa: E402
from espnet_mlma.sst.train.dataset import Batches, dialogues, read_all, sound_of  # noqa: E402
from espnet_mlma.sst.train.parallel import joined  # noqa: E402
from espnet_mlma.sst.train.trainer import learning_rate, train  # noqa: E402

TONES = {"Guten": 400, "Morgen": 700, "Damen": 1100, "Tag": 1600}
STEPS = 4  # updates of a short training


@pytest.fixture(scope="module")
def config(llm_folder):
    """A translator with dropout in all its parts."""
    sizes = {"d_model": 32, "num_layers": 1, "num_heads": 2, "linear_units": 48, "dropout": 0.1}
    return Config(
        EncoderConfig("wav2vec2", options={"conv_channels": [8] * 7} | sizes),
        LlmConfig(str(llm_folder), dtype="float32"),
        lora=LoraConfig(8),
        training=TrainingConfig(
            batch_tokens=500,
            batch_segments=1,
            batches_per_update=3,
            largest_multiplier=3,
            warmup_updates=3,
            precision="float32",
            save_updates=2,
        ),
        stage0=StageConfig(3e-4),
        stage1=StageConfig(3e-4),
        stage2=StageConfig(3e-4),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tone for each word; as many segments as make a last update of one batch."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(3 * STEPS - 2):
        words = rng.choice(list(TONES), 3)
        time = np.arange(CHUNK_SAMPLES) / SAMPLE_RATE
        samples = np.concatenate([0.3 * np.sin(2 * np.pi * TONES[word] * time) for word in words])
        path = folder / f"{number}.wav"
        soundfile.write(path, samples, SAMPLE_RATE)
        part = Part(str(path), 0.0, len(samples) / SAMPLE_RATE, 0.0)
        heard = " ".join(words)
        lines.append(line_of(Segment(str(number), (part,), 3, tuple(words), "en", "de", heard)))
    file = folder / "train.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def first_stage(config, data, tmp_path_factory):
    """What stage 1 wrote."""
    folder = tmp_path_factory.mktemp("one")
    train(config, 1, [data], folder)
    return folder


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


def learn(model, batches, rate, updates):
    """Everything in one batch, again and again."""
    (batch,) = batches.load(batches.plan(0))
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(updates):
        optimiser.zero_grad()
        (model(batch) / batch.targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


@pytest.fixture(scope="module")
def by_heart(config, data, tmp_path_factory):
    """A configuration that learns all data in one batch, and a model that has learnt to hear."""
    training = replace(
        config.training,
        largest_multiplier=1,
        batch_segments=99,
        batch_tokens=9999,
        batches_per_update=1,
    )
    encoder = replace(config.encoder, options=config.encoder.options | {"dropout": 0.0})
    plans = ((1e-2, 60), (4e-3, 120), (1e-2, 30))
    stages = {f"stage{n}": StageConfig(*plan) for n, plan in enumerate(plans)}
    config = replace(config, encoder=encoder, training=training, **stages)
    model = build(config)
    model.requires_grad_(True)
    batches = Batches(read_all([data], config.dialogue), dialogues(model.dialogue), training)
    learn(model, batches, 3e-3, 150)
    folder = tmp_path_factory.mktemp("hears")
    model.llm.model.save_pretrained(folder)
    model.llm.tokenizer.save_pretrained(folder)
    return config, str(folder)


def test_stage_0_gives_the_model_words_to_read(by_heart, data):
    """What the adapter says is nearest to the embeddings of what is heard, in their order."""
    config, name = by_heart
    model = build(replace(config, llm=replace(config.llm, name=name)))
    segments = read_all([data], config.dialogue)
    hearing = Hearing(model, segments)
    model.prepare(0)
    learn(hearing, Batches(segments, hearing.example, config.training), 3e-3, 250)
    wrong, embeddings = 0, model.llm.embedding.weight
    spoken = [model.llm.tokenizer(" " + segment.heard).input_ids for segment in segments]
    ids = sorted(set(chain.from_iterable(spoken)))
    places = torch.cat([hearing.blank, embeddings[ids]])
    for segment, expected in zip(segments, spoken, strict=True):
        sound = torch.from_numpy(sound_of(segment))[None]
        nearest = torch.cdist(model.adapter(model.encoder(sound, 1))[0], places).argmin(1)
        said = [ids[place - 1] for place, _ in groupby(nearest.tolist()) if place]
        wrong += count_errors(expected, said).total
    assert wrong < 0.4 * sum(map(len, spoken))


def test_stage_1_learns_to_speak_to_a_model(by_heart, data, tmp_path):
    """A model that knows the texts, but not what this encoder says."""
    config, hears = by_heart
    config = replace(config, llm=replace(config.llm, name=hears))
    config = replace(config, training=replace(config.training, seed=2))
    train(config, 1, [data], tmp_path)
    found = [line["loss"] for line in losses(tmp_path)]
    assert len(found) == 120
    assert np.mean(found[-5:]) < 0.2 * found[0]


def test_stage_2_learns_by_heart(by_heart, data, first_stage, tmp_path):
    train(by_heart[0], 2, [data], tmp_path, first_stage)
    found = [line["loss"] for line in losses(tmp_path)]
    assert np.mean(found[-5:]) < 0.2 * found[0]


@pytest.fixture(scope="module", params=[0, 1, 2])
def undisturbed(request, config, data, first_stage, tmp_path_factory):
    """A stage, what it starts from, and what it writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    init = options(request.param, first_stage)
    train(config, request.param, [data], folder, init)
    assert len(losses(folder)) == STEPS
    return request.param, init, folder


class Stopped(BaseException):
    """Like Ctrl-C, caught by nobody."""


def stop():
    raise Stopped


def step_until(update, stop):
    """Adam's step, which stops the training in an update, counted from 0."""
    steps, step = [], torch.optim.Adam.step

    def stepping(optimiser):
        if len(steps) == update:
            stop()
        steps.append(1)
        step(optimiser)

    return stepping


@pytest.mark.parametrize("update", range(STEPS))
def test_stopped_anywhere_it_goes_on_to_the_bit(
    config, data, undisturbed, tmp_path, monkeypatch, update
):
    """Stopped before an update's step; checkpoints are at every second."""
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


def work(rank, port, is_sharded, folders, arguments):
    """One of two processes."""
    os.chdir(folders[rank])
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with joined("cpu", is_sharded) as group:
        train(*arguments, group)


def train_with_two(is_sharded, *arguments, folders=(".", ".")):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        work, (port, is_sharded, folders, arguments), nprocs=2, start_method="fork"
    )


@pytest.mark.parametrize("is_sharded", [False, True], ids=["DDP", "FSDP"])
def test_two_processes_are_one(config, data, undisturbed, tmp_path, is_sharded):
    """Of three batches an update; the last has one, so that a process has none."""
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
def test_one_process_goes_on_where_two_were_killed(
    config, data, first_stage, tmp_path, monkeypatch, is_sharded
):
    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.Adam, "step", step_until(3, kill))
        with pytest.raises(torch.multiprocessing.ProcessExitedException):
            train_with_two(is_sharded, config, 1, [data], tmp_path, None)
    assert (tmp_path / "checkpoint.pt").exists()
    train(config, 1, [data], tmp_path)
    found, expected = losses(tmp_path), losses(first_stage)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_the_same_command_again(config, data, first_stage, capsys):
    files = {file: file.read_bytes() for file in first_stage.iterdir()}
    capsys.readouterr()
    train(config, 1, [data], first_stage)
    assert "done before" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in first_stage.iterdir()} == files
    assert not (first_stage / "checkpoint.pt").exists()
    other = replace(config, stage1=StageConfig(1e-3))
    assert "holds another training" in message(other, 1, [data], first_stage)
    # What changes nothing in what is learnt may change.
    quiet = replace(config, training=replace(config.training, log_updates=3, save_updates=9))
    train(quiet, 1, [data], first_stage)
    assert "done before" in capsys.readouterr().out


def written_anew(file):
    """Give a file another date, as a training does that is run again."""
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


def recogniser(make_experiment, folder):
    """One whose encoder hears no later than it is spoken, and its checkpoint."""
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
    """One of Hugging Face's, and its weights."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 48, "conv_dim": [8] * 7, "conv_bias": True}
    sizes |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    sizes |= {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**sizes)).save_pretrained(folder)
    return folder / "model.safetensors"


@pytest.mark.parametrize(("kind", "make"), [("conmamba", recogniser), ("wav2vec2", wav2vec2)])
def test_encoders_trained_anew_are_another_training(
    config, data, make_experiment, tmp_path, capsys, kind, make
):
    """Where they are loaded: a later stage goes on with the encoder of the one before."""
    weights = make(make_experiment, tmp_path / "weights")
    config = replace(config, encoder=EncoderConfig(kind, str(weights.parent)))
    one, two = tmp_path / "one", tmp_path / "two"
    train(config, 1, [data], one)
    train(config, 2, [data], two, one)
    train(config, 1, [data], one)
    written_anew(weights)
    assert "holds another training" in message(config, 1, [data], one)
    capsys.readouterr()
    train(config, 2, [data], two, one)
    assert "stage 2: done before" in capsys.readouterr().out


def test_a_language_model_trained_anew_is_another_training(config, data, tmp_path):
    folder = shutil.copytree(config.llm.name, tmp_path / "llm")
    config = replace(config, llm=replace(config.llm, name=str(folder)))
    out = tmp_path / "out"
    train(config, 1, [data], out)
    train(config, 1, [data], out)
    written_anew(folder / "model.safetensors")
    assert "holds another training" in message(config, 1, [data], out)


def test_each_machine_may_have_its_own_copy_of_the_language_model(config, data, tmp_path):
    """At the same place of two disks, and not of the same date."""
    disks = [tmp_path / "first", tmp_path / "second"]
    for disk in disks:
        shutil.copytree(config.llm.name, disk / "llm")
    written_anew(disks[1] / "llm" / "model.safetensors")
    config = replace(config, llm=replace(config.llm, name="llm"))
    out = tmp_path / "out"
    train_with_two(False, config, 1, [data], out, None, folders=disks)
    train_with_two(False, config, 1, [data], out, None, folders=disks)
    assert len(losses(out)) == STEPS


def test_stage_0_needs_what_is_heard_and_a_configuration(config, data, tmp_path):
    deaf = tmp_path / "deaf.jsonl"
    segments = [replace(one, heard=None) for one in read_all([data], config.dialogue)]
    deaf.write_text("".join(map(line_of, segments)), encoding="utf-8")
    assert "segment '0': does not say what is heard" in message(config, 0, [deaf], tmp_path / "a")
    without = replace(config, stage0=None)
    assert "has no stage0" in message(without, 0, [data], tmp_path / "a")


def test_stage_0_leaves_out_what_says_nothing(config, data, first_stage, tmp_path, capsys):
    segments = read_all([data], config.dialogue)
    lines = [line_of(replace(one, heard="") if one.id == "0" else one) for one in segments]
    mixed, rest = tmp_path / "mixed.jsonl", tmp_path / "rest.jsonl"
    mixed.write_text("".join(lines), encoding="utf-8")
    rest.write_text("".join(lines[1:]), encoding="utf-8")
    train(config, 0, [mixed], tmp_path / "mixed")
    assert "left out 1 segments" in capsys.readouterr().out
    train(config, 0, [rest], tmp_path / "rest")
    assert losses(tmp_path / "mixed") == losses(tmp_path / "rest")


def test_what_a_stage_starts_from(config, data, first_stage, tmp_path):
    assert "give its --out as --init" in message(config, 2, [data], tmp_path / "a")
    assert "no finished training" in message(config, 2, [data], tmp_path / "a", tmp_path)
    train(config, 2, [data], tmp_path / "two", first_stage)
    assert "stage 1 does not follow" in message(config, 1, [data], tmp_path / "a", tmp_path / "two")


def test_checkpoints_that_are_damaged_or_of_another_training(config, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.Adam, "step", step_until(3, stop))
        with pytest.raises(Stopped):
            train(config, 1, [data], tmp_path)
    other = replace(config, training=replace(config.training, seed=2))
    assert "of another configuration" in message(other, 1, [data], tmp_path)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "checkpoint.pt: damaged" in message(config, 1, [data], tmp_path)
    with claim(tmp_path, "trains in it"):
        assert "trains in it already" in message(config, 1, [data], tmp_path)


def test_a_damaged_checkpoint_gives_way_to_the_previous_one(
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
    assert "goes on from the previous one" in capsys.readouterr().out
    assert losses(tmp_path) == losses(first_stage)
    expected, found = trained_weights(first_stage), trained_weights(tmp_path)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_audio_that_is_lost(config, data, tmp_path):
    lines = data.read_text().splitlines(True)
    file = tmp_path / "train.jsonl"
    lost = json.loads(lines[4])
    lost["parts"][0]["audio"] = "nowhere.wav"
    file.write_text("".join(lines[:4]) + json.dumps(lost) + "\n")
    assert "segment '4': nowhere.wav: no such file" in message(config, 1, [file], tmp_path / "o")


def test_audio_that_is_not_a_number(config, data, tmp_path):
    sound = tmp_path / "a.wav"
    soundfile.write(sound, np.full(3 * CHUNK_SAMPLES, np.nan), SAMPLE_RATE, "FLOAT")
    bad = json.loads(data.read_text().splitlines()[0]) | {"id": "bad"}
    bad["parts"][0]["audio"] = str(sound)
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(bad) + "\n")
    text = message(config, 1, [file], tmp_path / "o")
    assert text.startswith(f"segment 'bad': {sound}: contains NaN or Inf")


def test_a_gradient_that_is_no_number(config, data, tmp_path):
    steep = replace(config, stage1=StageConfig(1e38))
    text = message(steep, 1, [data], tmp_path / "o")
    said = re.match(r"update [2-4]: the gradient is (?:nan|inf), .* its segments are (.*)", text)
    known = {json.loads(line)["id"] for line in data.read_text().splitlines()}
    named = re.findall(r"\d+", said[1].partition(":")[0])
    assert named and set(named) <= known
