import argparse
import json
import sys
import types

import pytest
import torch

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.encoder.wav2vec2 import ChunkWav2Vec2, Wav2Vec2Config
from espnet_mlma.sst.encoder.weights import load_wav2vec2
from espnet_mlma.sst.grid import CHUNK_SAMPLES

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "conv_bias": True,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 5,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
OURS = {"conv_channels": (8,) * 7, "d_model": 16, "num_layers": 2, "num_heads": 2}
OURS |= {"linear_units": 24}


def theirs(kind=transformers.Wav2Vec2ForCTC, **options):
    torch.manual_seed(0)
    model = kind(transformers.Wav2Vec2Config(**SIZES | options)).eval()
    with torch.no_grad():  # so that LayerNorms and biases are not 1 and 0
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def like_theirs(ours, model):
    """Restore the original positions: no rotation, but convolutional positional embedding."""
    channels = ours.config.d_model // ours.config.num_heads // 2
    ours.rotation = lambda frames: (torch.ones(frames, channels), torch.zeros(frames, channels))
    ours.projection.register_forward_hook(
        lambda module, inputs, frames: frames + model.encoder.pos_conv_embed(frames)
    )
    return ours.eval()


def assert_same_frames(ours, model):
    """Compare frames in one block, where attention is full."""
    generator = torch.Generator().manual_seed(3)
    speech = torch.randn(2, 3 * CHUNK_SAMPLES, generator=generator)
    with torch.no_grad():
        expected = model(torch.nn.functional.pad(speech, (399, 0))).last_hidden_state
        frames = like_theirs(ours, model)(speech, 3)
    assert expected.std() > 0.1
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", ["Wav2Vec2Model", "Wav2Vec2ForCTC", "Wav2Vec2ForPreTraining"])
@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_hugging_face_weights_give_the_same_frames(tmp_path, head, form):
    model = theirs(getattr(transformers, head))
    model.save_pretrained(tmp_path)
    if form == "pytorch_model.bin":
        torch.save(model.state_dict(), tmp_path / form)
        (tmp_path / "model.safetensors").unlink()
    ours, dropped = load_wav2vec2(tmp_path)
    assert_same_frames(ours, getattr(model, "wav2vec2", model))
    assert any(name.startswith("encoder.pos_conv_embed.conv") for name in dropped)
    assert ("lm_head.weight" in dropped) == (head == "Wav2Vec2ForCTC")
    assert ("quantizer.codevectors" in dropped) == (head == "Wav2Vec2ForPreTraining")
    kept = sum(parameter.numel() for parameter in ours.parameters())
    left = sum(model.state_dict()[name].numel() for name in as_stored(model, dropped))
    assert kept + left == sum(tensor.numel() for tensor in model.state_dict().values())


def test_defaults_are_wav2vec2_large():
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    large |= {"intermediate_size": 4096, "conv_dim": (512,) * 7}
    with torch.device("meta"):
        model = theirs(transformers.Wav2Vec2Model, **large)
        ours = ChunkWav2Vec2(Wav2Vec2Config())
    left = ("encoder.pos_conv_embed.", "masked_spec_embed")
    kept = [p.shape for name, p in model.named_parameters() if not name.startswith(left)]
    assert sorted(kept) == sorted(p.shape for p in ours.parameters())
    assert (ours.config.receptive_field, ours.config.stride) == (400, 320)


def as_stored(model, names):
    return [n for n in model.state_dict() if n.removeprefix("wav2vec2.") in names]


FAIRSEQ_NAMES = {
    "wav2vec2.masked_spec_embed": "mask_emb",
    "wav2vec2.feature_projection.layer_norm": "layer_norm",
    "wav2vec2.feature_projection.projection": "post_extract_proj",
    "wav2vec2.": "",
    ".conv.": ".0.",
    ".attention.": ".self_attn.",
    ".feed_forward.intermediate_dense.": ".fc1.",
    ".feed_forward.output_dense.": ".fc2.",
    "pos_conv_embed.0.parametrizations.weight.original0": "pos_conv.0.weight_g",
    "pos_conv_embed.0.parametrizations.weight.original1": "pos_conv.0.weight_v",
    "pos_conv_embed.": "pos_conv.",
}


def as_fairseq(model):
    """Rename the parameters of a Wav2Vec2ForCTC to those of a fine-tuned fairseq model."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("lm_head."):
            state[name.replace("lm_head.", "w2v_encoder.proj.")] = tensor
            continue
        in_cnn = "conv_layers" in name
        for before, after in FAIRSEQ_NAMES.items():
            name = name.replace(before, after)
        old, new = (
            (".layer_norm.", ".2.1.") if in_cnn else (".layer_norm.", ".self_attn_layer_norm.")
        )
        if in_cnn or ".layers." in name:
            name = name.replace(old, new)
        state[f"w2v_encoder.w2v_model.{name}"] = tensor
    return state


@pytest.fixture
def fairseq_meter(monkeypatch):
    """Make an object of a package that is missing when the file is read."""
    module = types.ModuleType("fairseq_of_the_test")
    module.Meter = type("Meter", (list,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.Meter([1, 2])


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("is_half", [True, False])
def test_fairseq_weights_give_the_same_frames(
    tmp_path, monkeypatch, fairseq_meter, is_zip, is_half
):
    model, file = theirs(), tmp_path / "wav2vec.pt"
    model = model.half().float() if is_half else model
    state = as_fairseq(model)
    assert "w2v_encoder.w2v_model.feature_extractor.conv_layers.3.2.1.weight" in state
    assert "w2v_encoder.w2v_model.encoder.layers.1.self_attn.q_proj.bias" in state
    if is_half:
        state = {name: tensor.half() for name, tensor in state.items()}
    everything = {
        "model": state,
        "args": argparse.Namespace(arch="wav2vec_ctc", layers=[1, {2: 3}]),
        "extra_state": {"meters": fairseq_meter, "device": torch.device("cpu")},
        "optimizer_history": [{"lr": 1e-4, "of": {1, 2}}],
    }
    torch.save(everything, file, _use_new_zipfile_serialization=is_zip)
    monkeypatch.delitem(sys.modules, "fairseq_of_the_test")
    ours, dropped = load_wav2vec2(file, **OURS)
    assert {"mask_emb", "proj.weight", "proj.bias", "encoder.pos_conv.0.weight_g"} <= set(dropped)
    assert all(parameter.dtype == torch.float32 for parameter in ours.parameters())
    assert_same_frames(ours, model.wav2vec2)


class Harm:
    """Write a file when unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_fairseq_file_is_not_run(tmp_path, is_zip):
    file, harmed = tmp_path / "wav2vec.pt", tmp_path / "harmed"
    everything = {"model": as_fairseq(theirs()), "args": Harm(harmed)}
    torch.save(everything, file, _use_new_zipfile_serialization=is_zip)
    load_wav2vec2(file, **OURS)
    assert not harmed.exists()


def test_options_override_the_folder(tmp_path):
    theirs().save_pretrained(tmp_path)
    ours, _ = load_wav2vec2(tmp_path, window_chunks=12, window_unit="frame", dropout=0.0)
    assert (ours.config.window_chunks, ours.config.window_unit) == (12, "frame")
    assert ours.config.d_model == 16 and ours.config.conv_channels == (8,) * 7
    assert all(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feat_extract_norm": "group"}, "GroupNorm over the whole recording"),
        ({"do_stable_layer_norm": False}, "do_stable_layer_norm is False, not True"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
    ],
)
def test_model_that_cannot_be_streamed_is_refused(tmp_path, options, message):
    theirs(**options).save_pretrained(tmp_path)
    with pytest.raises(MlmaError, match=message):
        load_wav2vec2(tmp_path)


def test_fairseq_with_group_norm_is_refused(tmp_path):
    state = {"feature_extractor.conv_layers.0.2.weight": torch.ones(8)}
    torch.save({"model": state}, tmp_path / "wav2vec_small.pt")
    with pytest.raises(MlmaError, match=r"wav2vec_small\.pt: .* GroupNorm"):
        load_wav2vec2(tmp_path / "wav2vec_small.pt")


def change(folder, edit):
    file = folder / "pytorch_model.bin"
    state = theirs().state_dict()
    edit(state)
    torch.save(state, file)
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda state: state.pop("wav2vec2.encoder.layers.1.attention.k_proj.bias"),
            r"lacks 1 parameters, first 'encoder\.layers\.1\.attention\.k_proj\.bias",
        ),
        (
            lambda state: state.update({"wav2vec2.adapter.layers.0.conv.bias": torch.ones(3)}),
            r"has unknown 1 parameters, first 'adapter\.layers\.0\.conv\.bias",
        ),
        (
            lambda state: state.update({"wav2vec2.encoder.layer_norm.bias": torch.ones(3)}),
            r"'encoder\.layer_norm\.bias' is \[3\], the model's is \[16\]",
        ),
    ],
)
def test_names_and_shapes_are_checked(tmp_path, edit, message):
    theirs().save_pretrained(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(MlmaError, match=message):
        load_wav2vec2(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(MlmaError, match=r"wav2vec\.pt: no such file; give the folder"):
        load_wav2vec2(tmp_path / "wav2vec.pt")
    with pytest.raises(MlmaError, match=r"config\.json: no such file"):
        load_wav2vec2(tmp_path)
    config = transformers.Wav2Vec2Config(**SIZES)
    config.save_pretrained(tmp_path)
    with pytest.raises(MlmaError, match=r"pytorch_model\.bin: no such file"):
        load_wav2vec2(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"half a file")
    with pytest.raises(MlmaError, match=r"pytorch_model\.bin: a damaged checkpoint"):
        load_wav2vec2(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(MlmaError, match=r"model\.safetensors: damaged"):
        load_wav2vec2(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(MlmaError, match=r"config\.json: not a configuration of wav2vec 2\.0"):
        load_wav2vec2(tmp_path)
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(MlmaError, match=r"other\.pt: not a fairseq checkpoint"):
        load_wav2vec2(tmp_path / "other.pt")
