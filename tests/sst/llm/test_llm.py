import shutil

import pytest
import torch

from espnet_mlma.errors import MlmaError

pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import load_file, save_file

from espnet_mlma.sst.llm.dialogue import Dialogue, Tokens
from espnet_mlma.sst.llm.model import LanguageModel, add_lora, load, load_lora, save_lora


@pytest.fixture
def folder(tmp_path, llm_folder):
    """Copy a saved model, so that tests can damage it."""
    return shutil.copytree(llm_folder, tmp_path / "model")


@pytest.fixture
def llm(make_model, chatml_tokenizer) -> LanguageModel:
    return LanguageModel(make_model(), chatml_tokenizer)


def logits(llm: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return llm.model(torch.arange(3, 30)[None]).logits


def trained(llm: LanguageModel) -> LanguageModel:
    """Add LoRA with an effect; new LoRA has none."""
    llm = add_lora(llm, rank=4)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in llm.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    llm.model.eval()
    return llm


def test_load_folder(folder, make_model):
    found = load(str(folder))
    assert not found.model.training
    expected = make_model()
    assert found.model(torch.tensor([[5, 6]])).logits.equal(expected(torch.tensor([[5, 6]])).logits)
    assert Dialogue(found.tokenizer).end_id == 2
    assert load(str(folder), dtype=torch.bfloat16).embedding.weight.dtype == torch.bfloat16


def test_random_weights_with_a_changed_configuration(folder):
    (folder / "model.safetensors").unlink()
    torch.manual_seed(3)
    found = load(str(folder), random={"num_hidden_layers": 2, "hidden_size": 16})
    assert found.hidden_size == 16 and len(found.model.model.layers) == 2
    torch.manual_seed(3)
    again = load(str(folder), random={"num_hidden_layers": 2, "hidden_size": 16})
    assert logits(found).equal(logits(again))
    found.rotation  # noqa: B018  does not raise


def test_load_gguf(smollm2):
    assert smollm2.hidden_size == 576
    assert smollm2.model.config.rope_parameters["rope_theta"] == 100000
    assert Dialogue(smollm2.tokenizer).end_id == 2


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere/model", "hf download nowhere/model --local-dir FOLDER"),
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            "Instruct --local-dir FOLDER`, after accepting its licence",
        ),
        ("/nowhere/here/model", "hf download Qwen/Qwen2.5-7B-Instruct"),
    ],
)
def test_missing_model_names_the_download(monkeypatch, name, why):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MlmaError, match="no such folder or GGUF file") as error:
        load(name)
    assert why in str(error.value) and "\n" not in str(error.value)


def test_incomplete_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    whole = load_file(weights)
    save_file(
        {k: v for k, v in whole.items() if k != "model.norm.weight"}, weights, {"format": "pt"}
    )
    with pytest.raises(MlmaError, match=r"missing weights model\.norm\.weight"):
        load(str(folder))
    save_file(whole | {"model.extra": torch.zeros(2)}, weights, {"format": "pt"})
    with pytest.raises(MlmaError, match=r"unexpected weights model\.extra"):
        load(str(folder))
    weights.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(MlmaError, match="cannot be loaded"):
        load(str(folder))
    weights.unlink()
    with pytest.raises(MlmaError, match="cannot be loaded"):
        load(str(folder))


def test_embed_inserts_speech_and_passes_gradients(llm):
    ids = torch.tensor([[5, 2, 2, 7], [2, 8, 9, 2]])
    is_speech = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1]]).bool()
    vectors = torch.randn(4, 32, requires_grad=True)
    found = llm.embed(Tokens(ids, is_speech), vectors)
    expected = llm.embedding(ids).clone()
    expected[0, 1], expected[0, 2], expected[1, 0], expected[1, 3] = vectors
    assert found.equal(expected)
    found.pow(2).sum().backward()
    assert vectors.grad.equal(2 * vectors)


def test_lora_trains_all_linear_layers_but_the_output_layer(llm):
    before = logits(llm)
    adapted = add_lora(llm)
    adapted.model.eval()
    assert logits(adapted).equal(before)
    named = [n for n, p in adapted.model.named_parameters() if p.requires_grad]
    assert all(".lora_" in name for name in named) and not any("lm_head" in n for n in named)
    assert len(named) == 3 * 7 * 2
    config = adapted.model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (32, 16, 0.1)
    assert adapted.hidden_size == 32
    adapted.rotation  # noqa: B018  does not raise


@pytest.mark.parametrize("trainable", [True, False])
def test_lora_round_trip(llm, make_model, tmp_path, trainable):
    adapted = trained(llm)
    save_lora(adapted, tmp_path / "lora")
    save_lora(adapted, tmp_path / "lora")  # replaces the folder
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]
    found = load_lora(LanguageModel(make_model(), llm.tokenizer), tmp_path / "lora", trainable)
    found.model.eval()
    torch.testing.assert_close(logits(found), logits(adapted), rtol=0, atol=2e-4)
    assert any("lora_" in name for name, _ in found.model.named_parameters()) == trainable
    if trainable:
        assert any(parameter.requires_grad for parameter in found.model.parameters())


def test_lora_of_another_model_is_refused(llm, make_model, tmp_path):
    with pytest.raises(MlmaError, match="no such file"):
        load_lora(llm, tmp_path / "lora")
    save_lora(trained(llm), tmp_path / "lora")
    deeper = LanguageModel(make_model(num_hidden_layers=4), llm.tokenizer)
    with pytest.raises(MlmaError, match="not LoRA of this model"):
        load_lora(deeper, tmp_path / "lora")
    wider = LanguageModel(make_model(hidden_size=64), llm.tokenizer)
    with pytest.raises(MlmaError, match="not LoRA of this model"):
        load_lora(wider, tmp_path / "lora")
