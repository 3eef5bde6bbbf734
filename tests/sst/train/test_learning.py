"""Tests that each stage learns its task."""

import json
from dataclasses import replace
from itertools import chain, groupby

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from espnet_mlma.evaluation.score.align import count_errors  # noqa: E402
from espnet_mlma.sst.config import StageConfig  # noqa: E402
from espnet_mlma.sst.model import build  # noqa: E402
from espnet_mlma.sst.train.ctc import CtcPretraining  # noqa: E402
from espnet_mlma.sst.train.dataset import Batches, dialogues, read_all, sound_of  # noqa: E402
from espnet_mlma.sst.train.stages import train  # noqa: E402


def loss_curve(folder):
    lines = (folder / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


def learn(model, batches, rate, updates):
    """Train on one batch that holds all data."""
    (batch,) = batches.load(batches.plan(0))
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(updates):
        optimiser.zero_grad()
        (model(batch) / batch.targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


@pytest.fixture(scope="module")
def overfitted(config, data, tmp_path_factory):
    """Make a configuration with one batch, and a language model trained on the texts."""
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
    folder = tmp_path_factory.mktemp("llm")
    model.llm.model.save_pretrained(folder)
    model.llm.tokenizer.save_pretrained(folder)
    return config, str(folder)


@pytest.mark.slow
def test_stage_0_maps_speech_to_token_embeddings(overfitted, data):
    """The nearest embeddings of the adapter's vectors are the transcript, in order."""
    config, name = overfitted
    model = build(replace(config, llm=replace(config.llm, name=name)))
    segments = read_all([data], config.dialogue)
    pretraining = CtcPretraining(model, segments)
    model.prepare(0)
    learn(pretraining, Batches(segments, pretraining.example, config.training), 3e-3, 250)
    wrong, embeddings = 0, model.llm.embedding.weight
    spoken = [model.llm.tokenizer(" " + segment.heard).input_ids for segment in segments]
    ids = sorted(set(chain.from_iterable(spoken)))
    places = torch.cat([pretraining.blank, embeddings[ids]])
    for segment, expected in zip(segments, spoken, strict=True):
        sound = torch.from_numpy(sound_of(segment))[None]
        nearest = torch.cdist(model.adapter(model.encoder(sound, 1))[0], places).argmin(1)
        found = [ids[place - 1] for place, _ in groupby(nearest.tolist()) if place]
        wrong += count_errors(expected, found).total
    assert wrong < 0.4 * sum(map(len, spoken))


@pytest.mark.slow
def test_stage_1_learns_with_a_trained_language_model(overfitted, data, tmp_path):
    """The language model knows the texts but not this encoder's vectors."""
    config, name = overfitted
    config = replace(config, llm=replace(config.llm, name=name))
    config = replace(config, training=replace(config.training, seed=2))
    train(config, 1, [data], tmp_path)
    found = loss_curve(tmp_path)
    assert len(found) == 120
    assert np.mean(found[-5:]) < 0.2 * found[0]


@pytest.mark.slow
def test_stage_2_overfits(overfitted, data, first_stage, tmp_path):
    train(overfitted[0], 2, [data], tmp_path, first_stage)
    found = loss_curve(tmp_path)
    assert np.mean(found[-5:]) < 0.2 * found[0]
