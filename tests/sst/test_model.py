from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")

from espnet_mlma.errors import MlmaError  # noqa: E402
from espnet_mlma.sst import model as models  # noqa: E402
from espnet_mlma.sst.config import Config, EncoderConfig, LlmConfig, LoraConfig  # noqa: E402
from espnet_mlma.sst.encoder.weights import load_wav2vec2  # noqa: E402
from espnet_mlma.sst.grid import CHUNK_SAMPLES, CHUNK_VECTORS  # noqa: E402
from espnet_mlma.sst.llm.dialogue import NO_TARGET  # noqa: E402
from espnet_mlma.sst.model import SpeechTranslator, build, build_encoder, load, save  # noqa: E402
from espnet_mlma.sst.train.dataset import collate  # noqa: E402

WAV2VEC2 = EncoderConfig(
    "wav2vec2",
    options={
        "conv_channels": [8] * 7,
        "d_model": 16,
        "num_layers": 2,
        "num_heads": 2,
        "linear_units": 24,
        "dropout": 0.2,
    },
)
CONMAMBA = EncoderConfig(
    "conmamba",
    options={
        "encoder_conf": {
            "output_size": 16,
            "num_blocks": 2,
            "linear_units": 32,
            "bimamba": "none",
            "dropout_rate": 0.2,
        },
        "frontend_conf": {"hop_length": 160, "win_length": 400, "center": False},
    },
)
ENCODERS = pytest.mark.parametrize("encoder", [WAV2VEC2, CONMAMBA], ids=lambda e: e.kind)
TEXTS = ["", "Guten Morgen", "", "meine Damen und Herren", "das ist", ""]


@pytest.fixture
def config(llm_folder):
    def made(encoder=WAV2VEC2, **llm):
        return Config(
            encoder, LlmConfig(str(llm_folder), dtype="float32", **llm), lora=LoraConfig(4, 8.0)
        )

    return made


def batch_of(model, turns=(3, 2), multiplier=3):
    """Make a batch of noise; a segment depends only on its number of turns."""
    dialogue = model.dialogue(multiplier)
    examples = [dialogue.example(TEXTS[:n], multiplier * CHUNK_VECTORS) for n in turns]
    speech = [
        0.1
        * torch.randn(n * multiplier * CHUNK_SAMPLES, generator=torch.Generator().manual_seed(n))
        for n in turns
    ]
    return collate(examples, speech, multiplier)


def trained(model):
    """Return the names of parameters with gradients."""
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


@ENCODERS
@torch.no_grad()
def test_loss_equals_cross_entropy_by_hand(config, encoder):
    model = build(config(encoder))
    batch = batch_of(model)
    expected = targets = 0.0
    for row in range(len(batch.speech)):
        tokens = batch.tokens
        vectors = model.adapter(model.encoder(batch.speech[row : row + 1], batch.multiplier))[0]
        embeddings, place = [], 0
        for id_, is_speech in zip(tokens.ids[row], tokens.is_speech[row], strict=True):
            embeddings.append(vectors[place] if is_speech else model.llm.embedding.weight[id_])
            place += int(is_speech)
        logits = model.llm.model(inputs_embeds=torch.stack(embeddings)[None]).logits[0]
        for place, label in enumerate(tokens.labels[row].tolist()):
            if label != NO_TARGET:
                expected -= logits[place - 1].softmax(-1)[label].log()
                targets += 1
    assert batch.targets == targets
    torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=0)


@ENCODERS
@pytest.mark.parametrize("multiplier", [1, 2, 3])
@torch.no_grad()
def test_loss_of_a_batch_is_the_sum_over_its_segments(config, encoder, multiplier):
    model = build(config(encoder))
    together = model(batch_of(model, (6, 2), multiplier))
    separate = model(batch_of(model, (6,), multiplier)) + model(batch_of(model, (2,), multiplier))
    torch.testing.assert_close(together, separate, rtol=1e-5, atol=0)


@ENCODERS
def test_trained_parameters_of_each_stage(config, encoder):
    """Stage 1 trains encoder and adapter, stage 2 only LoRA, at all linear layers."""
    model = build(config(encoder))
    model.prepare(1)
    model.train()
    model(batch_of(model)).backward()
    names = {name for name, _ in model.named_parameters()}
    assert trained(model) == {name for name in names if name.startswith(("encoder.", "adapter."))}
    model.zero_grad()
    model.prepare(2)
    model.train()
    # While lora_B is zero, lora_A has no gradient.
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model(batch_of(model)).backward()
    names = {name for name, _ in model.named_parameters()}
    assert trained(model) == {name for name in names if "lora_" in name}
    assert len(trained(model)) == 3 * 7 * 2  # layers, linear layers, A and B


@ENCODERS
def test_dropout_acts_only_on_trained_parts(config, encoder):
    model = build(config(encoder))
    batch = batch_of(model)

    def differs():
        model.train()
        with torch.no_grad():
            frames = [model.encoder(batch.speech, batch.multiplier) for _ in range(2)]
            return not torch.equal(*frames)

    model.prepare(1)
    assert differs()
    model.prepare(2)
    assert not differs()


@pytest.mark.parametrize("stage", [1, 2])
def test_gradient_checkpointing_gives_the_same_gradients(config, stage):
    encoder = replace(WAV2VEC2, options=WAV2VEC2.options | {"dropout": 0.0})
    found = []
    for recompute in (False, True):
        of = replace(encoder, options=encoder.options | {"gradient_checkpointing": recompute})
        model = build(replace(config(of, gradient_checkpointing=recompute), lora=LoraConfig(4)))
        torch.manual_seed(0)
        model.prepare(stage)
        model.train()
        torch.manual_seed(0)
        model(batch_of(model)).backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-5)


def shake(model):
    """Change all trained parameters; return the state."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return {n: p.detach() for n, p in model.state_dict().items()}


@ENCODERS
@torch.no_grad()
def test_each_stage_saves_what_it_trained(config, encoder, tmp_path):
    model = build(config(encoder))
    batch = batch_of(model)
    before = model(batch)
    model.prepare(1)
    save(model, 1, shake(model), tmp_path / "one")
    after_one = model.eval()(batch)
    assert abs(after_one - before) > 1e-2
    names = safetensors.load_file(tmp_path / "one" / "speech.safetensors").keys()
    assert all(name.startswith(("encoder.", "adapter.")) for name in names)
    assert {file.name for file in (tmp_path / "one").iterdir()} == {
        "config.yaml",
        "speech.safetensors",
    }
    torch.testing.assert_close(load(tmp_path / "one")(batch), after_one, rtol=0, atol=0)

    model = models.resumed(model.config, tmp_path / "one")
    model.prepare(2)
    save(model, 2, shake(model), tmp_path / "two", tmp_path / "one")
    after_two = model.eval()(batch)
    assert abs(after_two - after_one) > 1e-2
    size = sum(file.stat().st_size for file in (tmp_path / "two" / "lora").glob("*.safetensors"))
    assert size < 200_000
    # Separate and merged LoRA are equal up to rounding.
    torch.testing.assert_close(load(tmp_path / "two")(batch), after_two, rtol=1e-4, atol=0)
    further = models.resumed(model.config, tmp_path / "two", trainable=True)
    torch.testing.assert_close(further(batch), after_two, rtol=0, atol=0)


def test_saved_translator_does_not_need_the_initial_weights(config, tmp_path):
    weights = tmp_path / "hf"
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Wav2Vec2Config(
        conv_dim=[8] * 7,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    transformers.Wav2Vec2Model(theirs).save_pretrained(weights)
    encoder = EncoderConfig("wav2vec2", str(weights), {"window_chunks": 4})
    model = build(config(encoder))
    expected = load_wav2vec2(weights)[0].state_dict()
    assert all(torch.equal(model.encoder.state_dict()[name], t) for name, t in expected.items())
    model.prepare(1)
    save(model, 1, model.state_dict(), tmp_path / "out")
    (weights / "model.safetensors").unlink()
    again = load(tmp_path / "out")
    assert again.encoder.config.window_chunks == 4
    assert all(torch.equal(again.encoder.state_dict()[name], t) for name, t in expected.items())


def test_random_weights_are_reproducible(config):
    first, second = (build(config(random={"num_hidden_layers": 1})) for _ in range(2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def message(action, *arguments):
    with pytest.raises(MlmaError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_speech_parameters_are_refused(config, tmp_path):
    model = build(config())
    model.prepare(1)
    state = model.state_dict()
    lacking = {name: t for name, t in state.items() if name != "adapter.projection.bias"}
    save(model, 1, lacking, tmp_path)
    assert "adapter.projection.bias and 0 more" in message(load, tmp_path)
    save(model, 1, state | {"encoder.more": torch.zeros(1)}, tmp_path)
    assert "encoder.more and 0 more" in message(load, tmp_path)
    save(model, 1, state | {"adapter.projection.bias": torch.zeros(5)}, tmp_path)
    assert "adapter.projection.bias and 0 more" in message(load, tmp_path)
    file = tmp_path / "speech.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "speech.safetensors: cannot be read" in message(load, tmp_path)
    file.unlink()
    assert "speech.safetensors: cannot be read" in message(load, tmp_path)


def test_wrong_encoder_options_are_refused():
    unknown = replace(WAV2VEC2, options={"d_modle": 16})
    assert "unknown key d_modle; did you mean d_model?" in message(build_encoder, unknown)
    unknown = replace(CONMAMBA, options={"encoder_config": {}})
    assert "unknown key encoder_config; did you mean encoder_conf?" in message(
        build_encoder, unknown
    )
    both = replace(CONMAMBA, weights="exp/asr")
    assert "the recogniser exp/asr has its own" in message(build_encoder, both)


def test_names_latency_puts_the_multiplier_in_the_prompt(config):
    model = build(config())
    assert model.dialogue(2).prompt_ids == model.dialogue(3).prompt_ids
    named = replace(model.config, dialogue=replace(model.config.dialogue, names_latency=True))
    model = SpeechTranslator(named, model.encoder, model.llm)
    assert model.dialogue(2).prompt_ids != model.dialogue(3).prompt_ids
