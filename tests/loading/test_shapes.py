"""Shapes of parameters and frames of audio, known without building the model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from espnet2.tasks.asr import ASRTask

from espnet_mlma.decode.owsm import acoustic_model
from espnet_mlma.loading import checkpoint, configuration, shapes

WEIGHTS = "valid.cer_ctc.ave.pth"
TOKENS = ["<blank>", "<unk>", "<space>", *"abcdefg", "<sos/eos>"]


@pytest.fixture(scope="module")
def hybrid(make_experiment, tmp_path_factory) -> Path:
    """A Conformer with running statistics, normalised features and an attention decoder."""
    statistics = tmp_path_factory.mktemp("stats") / "feats_stats.npz"
    np.savez(statistics, count=10, sum=np.zeros(80), sum_square=np.ones(80) * 10)
    size = {"attention_heads": 2, "linear_units": 16, "num_blocks": 1}
    return make_experiment(
        ASRTask,
        token_list=TOKENS,
        token_type="char",
        model_conf={"ctc_weight": 0.5},
        encoder="conformer",
        encoder_conf=size | {"output_size": 16, "cnn_module_kernel": 7},
        decoder="transformer",
        decoder_conf=size,
        normalize="global_mvn",
        normalize_conf={"stats_file": str(statistics)},
    )


@pytest.fixture(params=["experiment", "s2t_experiment", "hybrid"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


def test_shapes_are_those_of_the_models_parameters(folder, tmp_path):
    network, _ = checkpoint.build(folder)
    expected = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert shapes.read(folder / WEIGHTS) == expected
    old = tmp_path / "old.pth"
    torch.save(network.state_dict(), old, _use_new_zipfile_serialization=False)
    assert shapes.read(old) == expected


def test_a_shared_parameter_is_listed_once(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2, 3))
    torch.save({"a": weight, "b": weight, "c": weight[1]}, tmp_path / "shared.pth")
    assert shapes.read(tmp_path / "shared.pth") == {"a": (2, 3), "c": (3,)}


def test_the_configurations_frame_is_the_models(folder):
    network, config = checkpoint.build(folder)
    measured = acoustic_model(network, config, "cpu").frame_samples
    assert configuration.frame_samples(config) == measured


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "vgg_rnn"},
        {"frontend": "sliding_window"},
        {"frontend_conf": {"hop_length": "many"}},
        {"postencoder": "length_adaptor"},
    ],
)
def test_an_unusual_frame_is_unknown(options):
    assert configuration.frame_samples({"encoder": "conmamba"} | options) is None
