import pytest
import torch

from espnet_mlma.errors import MlmaError

pytest.importorskip("transformers")

from transformers.cache_utils import Cache, DynamicLayer
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from espnet_mlma.sst.llm.cache import Rotation, SlidingCache

PROMPT, CLOSING = 7, 2


class RawKeys:
    """Implement InfiniSST's scheme for comparison: store unrotated keys, rotate at each read."""

    def __init__(self, model):
        self.raw = {}
        for number, layer in enumerate(model.model.layers):
            heads, channels = layer.self_attn.config.num_key_value_heads, layer.self_attn.head_dim

            def catch(module, args, output, number=number, shape=(heads, channels)):
                self.raw[number] = output.unflatten(-1, shape).transpose(1, 2)

            layer.self_attn.k_proj.register_forward_hook(catch)
        raw = self.raw

        class Layer(DynamicLayer):
            def update(self, key_states, value_states, *args, **kwargs):
                number = next(n for n, layer in enumerate(cache.layers) if layer is self)
                _, values = super().update(raw[number], value_states)
                positions = torch.arange(self.keys.shape[2])[None]
                cos, sin = model.model.rotary_emb(value_states, positions)
                return apply_rotary_pos_emb(self.keys, self.keys, cos, sin)[0], values

        self.cache = cache = Cache(layer_class_to_replicate=Layer)
        self.ends = []

    def end_turn(self, max_tokens: int, keep_tokens: int) -> None:
        length = self.cache.get_seq_length()
        self.ends.append(length + CLOSING)
        if length <= max_tokens or len(self.ends) < 2:
            return
        while len(self.ends) > 1 and length > keep_tokens:
            gone = self.ends.pop(0) - PROMPT
            for layer in self.cache.layers:
                layer.keys, layer.values = (
                    torch.cat([x[:, :, :PROMPT], x[:, :, PROMPT + gone :]], dim=2)
                    for x in (layer.keys, layer.values)
                )
            self.ends = [end - gone for end in self.ends]
            length -= gone


def talk(model, turns: int, cache, end_turn) -> list[torch.Tensor]:
    """Return the logits of turns of different lengths."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for turn in range(turns):
        length = int(torch.randint(9, 40, (), generator=generator)) + PROMPT * (turn == 0)
        embeddings = torch.randn(1, length, model.config.hidden_size, generator=generator)
        found.append(model(inputs_embeds=embeddings, past_key_values=cache).logits)
        end_turn()
    return found


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "options", "keep_tokens", "turns", "evictions"),
    [
        ("Qwen2", {}, None, 140, 100),
        ("Qwen2", {}, 60, 60, 15),
        ("Llama", {"rope_parameters": LLAMA3_ROPE}, None, 60, 40),
        ("Qwen2", {"rope_parameters": YARN}, None, 60, 40),
    ],
)
def test_logits_equal_those_with_unrotated_keys(
    make_model, family, options, keep_tokens, turns, evictions
):
    model = make_model(family, initializer_range=0.02, **options)
    cache = SlidingCache(Rotation(model), PROMPT, CLOSING, 120, keep_tokens)
    evicted = []
    found = talk(model, turns, cache, lambda: evicted.append(cache.end_turn()))
    reference = RawKeys(model)
    expected = talk(
        model, turns, reference.cache, lambda: reference.end_turn(120, keep_tokens or 120)
    )
    assert sum(map(bool, evicted)) > evictions
    assert max((a - b).abs().max() for a, b in zip(found, expected, strict=True)) < 1e-6
    assert max(e.abs().max() for e in expected) > 0.1


@torch.no_grad()
def test_memory_is_constant(make_model):
    model = make_model()
    cache = SlidingCache(Rotation(model), PROMPT, CLOSING, 600)
    lengths, sizes = [], []

    def end_turn():
        cache.end_turn()
        lengths.append(cache.get_seq_length())
        sizes.append(cache.nbytes)

    talk(model, 70, cache, end_turn)
    assert max(lengths) <= 600 and min(lengths[40:]) > 600 - 45
    assert len(set(sizes[40:])) == 1
    # Keys twice, values once, 3 layers of 2 heads of 8 channels in fp32, 256 tokens at a time.
    assert sizes[-1] == 3 * 3 * 2 * 8 * 4 * 768


@torch.no_grad()
def test_last_turn_is_never_evicted(make_model):
    model = make_model()
    cache = SlidingCache(Rotation(model), PROMPT, CLOSING, 20)
    for length, evicted in ((PROMPT + 40, 0), (30, 42), (5, 30)):
        model(inputs_embeds=torch.randn(1, length, 32), past_key_values=cache)
        assert cache.end_turn() == evicted


@torch.no_grad()
def test_smaller_keep_tokens_gives_fewer_evictions(make_model):
    model = make_model()
    counts = {}
    for keep in (200, 100):
        cache, evicted = SlidingCache(Rotation(model), PROMPT, CLOSING, 200, keep), []
        talk(model, 60, cache, lambda c=cache, f=evicted: f.append(c.end_turn()))
        counts[keep] = sum(map(bool, evicted))
    assert counts[100] < counts[200] / 2


@pytest.mark.parametrize("rope", [None, LLAMA3_ROPE, YARN, LINEAR])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moved_keys_equal_the_models_keys_there(make_model, rope, dtype):
    model = make_model(**({"rope_parameters": rope} if rope else {})).to(dtype)
    rotation = Rotation(model)
    raw = torch.randn(1, 2, 1000, 8).to(dtype)

    def at(positions):
        cos, sin = model.model.rotary_emb(raw, positions[None])
        return apply_rotary_pos_emb(raw, raw, cos, sin)[0]

    old = torch.arange(1000)
    new = (old - 400).clamp(min=0)
    error = (rotation.move(at(old), old, new) - at(new)).abs().max()
    # In bfloat16, keys are rounded when written and again when moved.
    assert error < (4e-6 if dtype == torch.float32 else 2**-8 * 3 * raw.abs().max())


@pytest.mark.parametrize(
    ("family", "options", "why"),
    [
        ("GPT2", {}, "has 0 rotary embeddings"),
        ("GPTNeoX", {}, "rotates only some channels"),
        ("Cohere", {}, "rotates keys in another way"),
        ("SmolLM3", {"no_rope_layer_interval": 2}, "rotates keys in another way"),
        ("Llama", {"rope_parameters": LINEAR | {"rope_type": "dynamic"}}, "depends on the length"),
        (
            "Qwen2",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "has layers of full_attention, sliding_attention",
        ),
    ],
)
def test_models_with_unsupported_rotation_are_refused(make_model, family, options, why):
    with pytest.raises(MlmaError, match=why):
        Rotation(make_model(family, **options))


@pytest.mark.parametrize(("most", "keep"), [(100, 120), (7, None), (100, 5)])
def test_inconsistent_sizes_are_refused(make_model, most, keep):
    with pytest.raises(MlmaError, match="keep_tokens"):
        SlidingCache(Rotation(make_model()), PROMPT, CLOSING, most, keep)
