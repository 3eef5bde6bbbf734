"""Load pretrained wav2vec 2.0 from Hugging Face folders and fairseq files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import tensors
from espnet_mlma.sst.encoder.wav2vec2 import ChunkWav2Vec2, Wav2Vec2Config
from espnet_mlma.sst.extras import require

# Our module: (Hugging Face's module, fairseq's module).
_CNN = "feature_extractor.conv_layers.#"
_LAYER = "encoder.layers.#"
_MODULES = {
    "cnn.#.conv": (f"{_CNN}.conv", f"{_CNN}.0"),
    "cnn.#.norm": (f"{_CNN}.layer_norm", f"{_CNN}.2.1"),
    "projection_norm": ("feature_projection.layer_norm", "layer_norm"),
    "projection": ("feature_projection.projection", "post_extract_proj"),
    "layers.#.attention_norm": (f"{_LAYER}.layer_norm", f"{_LAYER}.self_attn_layer_norm"),
    "layers.#.attention.query": (f"{_LAYER}.attention.q_proj", f"{_LAYER}.self_attn.q_proj"),
    "layers.#.attention.key": (f"{_LAYER}.attention.k_proj", f"{_LAYER}.self_attn.k_proj"),
    "layers.#.attention.value": (f"{_LAYER}.attention.v_proj", f"{_LAYER}.self_attn.v_proj"),
    "layers.#.attention.out": (f"{_LAYER}.attention.out_proj", f"{_LAYER}.self_attn.out_proj"),
    "layers.#.ffn_norm": (f"{_LAYER}.final_layer_norm",) * 2,
    "layers.#.ffn_in": (f"{_LAYER}.feed_forward.intermediate_dense", f"{_LAYER}.fc1"),
    "layers.#.ffn_out": (f"{_LAYER}.feed_forward.output_dense", f"{_LAYER}.fc2"),
    "norm": ("encoder.layer_norm",) * 2,
}
_HUGGING_FACE, _FAIRSEQ = 0, 1
# Prefix of wav2vec 2.0 in models with a head.
_PREFIX = re.compile(r"^(wav2vec2|w2v_encoder(\.w2v_model)?)\.")
# Parameters that are not used: convolutional positions, masking, CTC head, pretraining targets.
_DROPPED = (
    "encoder.pos_conv_embed.",
    "encoder.pos_conv.",
    "masked_spec_embed",
    "mask_emb",
    "lm_head.",
    "proj.",
    "quantizer.",
    "project_q.",
    "project_hid.",
    "final_proj.",
)
_GROUP_NORM = (
    "cannot be streamed: its first convolution has a GroupNorm over the whole recording; use a "
    "model with feat_extract_norm layer, such as wav2vec 2.0 Large (LV-60)"
)
_REMEDY = (
    "give the folder of `hf download facebook/wav2vec2-large-960h-lv60-self --local-dir FOLDER`, "
    "or a fairseq .pt"
)


def load_wav2vec2(path: Path, **options: Any) -> tuple[ChunkWav2Vec2, list[str]]:
    """Load the streaming encoder on the CPU, in float32 and evaluation mode.

    Args:
        path: folder of a Hugging Face model (config.json and model.safetensors or
            pytorch_model.bin), with or without a head; or a fairseq checkpoint, pretrained or
            fine-tuned. A fairseq checkpoint has the sizes of wav2vec 2.0 Large unless `options`
            gives others.
        options: fields of `Wav2Vec2Config`; they override those of the folder.

    Returns:
        The model, and the names of the checkpoint's parameters that are not used.

    Raises:
        MlmaError: a file is missing or damaged, the model cannot be streamed, or names or shapes of
            parameters do not match; the message names them.
    """
    path = Path(path)
    if path.is_dir():
        config, source, state = _read_config(path), _HUGGING_FACE, _read_hugging_face(path)
    else:
        config, source, state = Wav2Vec2Config(), _FAIRSEQ, _read_fairseq(path)
    if not isinstance(state, dict):
        raise MlmaError(f"{path}: its weights are not a dictionary of tensors; {_REMEDY}")
    state = {_PREFIX.sub("", str(name)): tensor for name, tensor in state.items()}
    try:
        with torch.device("meta"):
            model = ChunkWav2Vec2(replace(config, **options))
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise MlmaError(f"{path}: inconsistent sizes ({error}); {_REMEDY}") from None
    parameters = model.state_dict()
    wanted = {_their_name(ours, source): ours for ours in parameters}
    dropped = sorted(name for name in state if name.startswith(_DROPPED))
    expected = {name: parameters[ours] for name, ours in wanted.items()}
    sizes = f"a wav2vec 2.0 of the configured sizes; {_REMEDY}"
    tensors.check(state, expected, path, sizes, dropped)
    # assign=True avoids a second copy of 300 million parameters.
    parameters = {ours: state[name].float() for name, ours in wanted.items()}
    model.load_state_dict(parameters, assign=True)
    return model.eval(), dropped


def _their_name(ours: str, source: int) -> str:
    """Return the name of our parameter in a checkpoint.

    Args:
        ours: name in `ChunkWav2Vec2`.
        source: `_HUGGING_FACE` or `_FAIRSEQ`.
    """
    module, kind = ours.rsplit(".", 1)
    number = re.search(r"\d+", module)
    if number is None:
        return f"{_MODULES[module][source]}.{kind}"
    pattern = module.replace(number[0], "#", 1)
    return f"{_MODULES[pattern][source]}.{kind}".replace("#", number[0])


def _read_config(folder: Path) -> Wav2Vec2Config:
    """Read the sizes from a Hugging Face config.json."""
    file = folder / "config.json"
    if not file.is_file():
        raise MlmaError(f"{file}: no such file; {_REMEDY}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["feat_extract_norm"] == "group":
            raise MlmaError(f"{file}: {_GROUP_NORM}")
        needed = {
            "model_type": "wav2vec2",
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,  # LayerNorm before attention and feed-forward
            "feat_extract_activation": "gelu",
            "hidden_act": "gelu",
        }
        for key, value in needed.items():
            if found[key] != value:
                raise MlmaError(f"{file}: {key} is {found[key]!r}, not {value!r}; {_REMEDY}")
        return Wav2Vec2Config(
            conv_channels=tuple(found["conv_dim"]),
            conv_kernels=tuple(found["conv_kernel"]),
            conv_strides=tuple(found["conv_stride"]),
            conv_bias=found["conv_bias"],
            d_model=found["hidden_size"],
            num_layers=found["num_hidden_layers"],
            num_heads=found["num_attention_heads"],
            linear_units=found["intermediate_size"],
            layer_norm_eps=found["layer_norm_eps"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise MlmaError(
            f"{file}: not a configuration of wav2vec 2.0 ({error!r}); {_REMEDY}"
        ) from None


def _read_hugging_face(folder: Path) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    if not file.is_file():
        return _read(folder / "pytorch_model.bin")
    safetensors = require("safetensors.torch")
    try:
        return safetensors.load_file(file)
    except Exception as error:  # safetensors has its own error type
        raise MlmaError(f"{file}: damaged ({error}); download it again") from None


def _read_fairseq(file: Path) -> dict[str, Tensor]:
    """Read the parameters of a fairseq checkpoint, without fairseq."""
    checkpoint = _read(file, foreign=True)
    state = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise MlmaError(f"{file}: not a fairseq checkpoint, `model` is missing; {_REMEDY}")
    if any(str(name).endswith("feature_extractor.conv_layers.0.2.weight") for name in state):
        raise MlmaError(f"{file}: {_GROUP_NORM}")
    return state


def _read(file: Path, foreign: bool = False) -> Any:
    if not file.is_file():
        raise MlmaError(f"{file}: no such file; {_REMEDY}")
    return tensors.read(file, foreign)
