"""Tests of safe loading: no code of a model runs, and NaN is refused."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from espnet_mlma.errors import MlmaError

pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import load_file, save_file

from espnet_mlma.sst.data.align import EncoderAligner
from espnet_mlma.sst.llm.model import LanguageModel, add_lora, load, load_lora, save_lora

CODE = """
import pathlib
pathlib.Path({mark!r}).touch()
from transformers import PretrainedConfig, Qwen2ForCausalLM, PreTrainedTokenizerFast
class OwnConfig(PretrainedConfig): model_type = "own"
class OwnModel(Qwen2ForCausalLM): config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def folder(tmp_path, llm_folder) -> Path:
    return Path(shutil.copytree(llm_folder, tmp_path / "model"))


def change(file: Path, **entries) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.parametrize("model_type", ["own", "qwen2"])
@pytest.mark.parametrize("random", [None, {}, {"trust_remote_code": True}])
def test_python_files_of_a_model_are_not_run(folder, tmp_path, monkeypatch, model_type, random):
    mark = tmp_path / "run"
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change(folder / "config.json", model_type=model_type, auto_map=classes)
    own = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}
    change(folder / "tokenizer_config.json", auto_map=own, tokenizer_class="OwnTokenizer")
    # transformers may ask whether to trust the code.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with contextlib.suppress(MlmaError):
        load(str(folder), random=random)
    with contextlib.suppress(MlmaError):
        EncoderAligner(str(folder), layer=1, device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize("key", ["trust_remote_code", "cache_dir", "code_revision", "no_such"])
def test_random_accepts_only_configuration_keys(folder, key):
    with pytest.raises(MlmaError, match=f"configuration has no {key}"):
        load(str(folder), random={key: True})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_language_model_with_nan_is_refused(folder, value):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MlmaError, match=r"'model\.norm\.weight' has NaN or Inf"):
        load(str(folder))


@pytest.fixture
def adapters(make_model, chatml_tokenizer, tmp_path) -> tuple[LanguageModel, Path]:
    """Make a model without LoRA, and a folder of LoRA for it."""
    save_lora(add_lora(LanguageModel(make_model(), chatml_tokenizer)), tmp_path / "lora")
    return LanguageModel(make_model(), chatml_tokenizer), tmp_path / "lora"


ADAPTERS = {
    "module to import": {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
    "another method": {"peft_type": "PROMPT_TUNING"},
    "classes": {"auto_mapping": {"parent_library": "antigravity", "base_model_class": "A"}},
    "layers copied": {"layer_replication": [[0, 10**9]]},
    "other arithmetic": {"use_rslora": True},
    "unknown": {"of_tomorrow": 1},
    "text": {"r": "16"},
    "infinite": {"lora_alpha": float("inf")},
    "a pattern": {"target_modules": "(a+)+$"},
    "no list": {"target_modules": [1]},
    "a huge rank": {"r": 10**15},
    "a rank of 0": {"r": 0},
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_foreign_lora_is_refused(adapters, kind):
    llm, folder = adapters
    change(folder / "adapter_config.json", **ADAPTERS[kind])
    with pytest.raises(MlmaError, match="lora"):
        load_lora(llm, folder)


@pytest.mark.parametrize("content", [None, "", "[]", "{", "3", "[" * 99999])
def test_damaged_lora_configuration_is_named(adapters, content):
    llm, folder = adapters
    file = folder / "adapter_config.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(MlmaError, match=r"adapter_config\.json: not LoRA of our training"):
        load_lora(llm, folder)


def test_lora_with_nan_is_refused(adapters):
    llm, folder = adapters
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    weights[min(weights)] *= torch.nan
    save_file(weights, file)
    with pytest.raises(MlmaError, match=r"adapter_model\.safetensors: .* has NaN or Inf"):
        load_lora(llm, folder)
