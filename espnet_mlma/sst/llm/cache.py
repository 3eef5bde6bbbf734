"""Cache keys and values of a talk of any length: the system prompt and the most recent turns.

Positions always count from 0, so that a long talk does not leave the positions of training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.extras import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel

cache_utils = require("transformers.cache_utils")

# Memory is allocated in steps of this many tokens.
_TOKENS_PER_STEP = 256


class Rotation:
    """Rotate cached keys of a model with rotary positions (RoPE) to other positions.

    A cached key at position p is T(p) k, where k is the unrotated key and T(p) a matrix of the
    model's own cosines and sines. At position q it is T(q) T(p)^-1 (T(p) k). T comes from the
    model's rounded tables, so the result equals the model's own key at q, also with scaled
    frequencies.

    Args:
        model: causal language model, with or without LoRA; it is run on two single tokens.

    Raises:
        MlmaError: the keys cannot be rotated: the model has no RoPE, pairs channels in another way
            than Llama, rotates only some channels, has frequencies that depend on the length, or
            has layers with sliding windows.

    Source: Su et al., RoFormer, arXiv 2104.09864.
    """

    def __init__(self, model: PreTrainedModel):
        self._rotary = _rotary_of(model)
        near, far = (_keys_of_one_token(model, position) for position in (0, 7))
        for key, expected in zip(near, far, strict=True):
            cos, sin = self.tables(key, torch.tensor([0]), torch.tensor([7]))
            if cos.shape[-1] != key.shape[-1]:
                raise _cannot_rotate(model, "rotates only some channels of its keys")
            allowed = 0.05 * expected.abs().max().item()
            if not torch.allclose(rotate(key, cos, sin), expected, rtol=0, atol=allowed):
                raise _cannot_rotate(model, "rotates keys in another way than Llama and Qwen2")

    def move(self, keys: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """Rotate keys from old to new positions.

        Args:
            keys: (..., tokens, channels), rotated for `old`.
            old, new: positions, (tokens,).
        """
        return rotate(keys, *self.tables(keys, old, new))

    def tables(self, keys: Tensor, old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of the rotation from old to new positions.

        Args:
            keys: keys with the dtype and device of the model.
            old, new: positions, (tokens,).

        Returns:
            Cosines and sines, each (tokens, channels), float32.
        """
        like = keys.new_empty(())

        def model_tables(positions: Tensor) -> tuple[Tensor, Tensor]:
            cos, sin = self._rotary(like, positions[None].to(keys.device))
            return cos[0].double(), sin[0].double()

        (old_cos, old_sin), (new_cos, new_sin) = model_tables(old), model_tables(new)
        # Rounded or scaled cosines and sines are not of norm 1.
        scale = old_cos.square() + old_sin.square()
        cos = (new_cos * old_cos + new_sin * old_sin) / scale
        sin = (new_sin * old_cos - new_cos * old_sin) / scale
        return cos.float(), sin.float()


def rotate(keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate keys by an angle per token and channel, computed in float32.

    Args:
        keys: (..., tokens, channels).
        cos, sin: (tokens, channels); see `Rotation.tables`.
    """
    wide = keys.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(keys.dtype)


class SlidingLayer(cache_utils.DynamicLayer):
    """Hold keys and values of one layer in preallocated memory, for a batch of one.

    Each key is stored twice: as attention reads it, and as first written. Repeated rotation would
    accumulate rounding errors, so every rotation starts from the key as first written.
    """

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate memory with the shapes of the first keys and values."""
        super().lazy_initialization(key_states, value_states)
        self._memory = [s[:, :, :0].clone() for s in (key_states, key_states, value_states)]
        self._show(0)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, (1, heads, tokens, channels), and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        self._reserve(end)
        for memory, new in zip(self._memory, (key_states, key_states, value_states), strict=True):
            memory[:, :, start:end] = new
        self._show(end)
        return self.keys, self.values

    def select(self, start: int, rows: Tensor) -> None:
        """Keep the first `start` tokens and those in `rows`, in this order."""
        end = start + len(rows)
        for memory in self._memory:
            memory[:, :, start:end] = memory[:, :, rows]
        self._show(end)

    def drop(self, start: int, end: int, cos: Tensor, sin: Tensor) -> None:
        """Remove tokens `start` to `end`, and rotate the keys after them.

        Args:
            start, end: slice of tokens.
            cos, sin: rotation of the tokens after `end`; see `Rotation.tables`.
        """
        length = self.get_seq_length()
        after = start + length - end
        keys, written, values = self._memory
        for memory in (written, values):
            memory[:, :, start:after] = memory[:, :, end:length].clone()
        keys[:, :, start:after] = rotate(written[:, :, start:after], cos, sin)
        self._show(after)

    @property
    def nbytes(self) -> int:
        """Allocated memory in bytes."""
        return sum(m.numel() * m.element_size() for m in self._memory) if self.is_initialized else 0

    def _reserve(self, tokens: int) -> None:
        reserved = self._memory[0].shape[2]
        if tokens <= reserved:
            return
        more = -(-(tokens - reserved) // _TOKENS_PER_STEP) * _TOKENS_PER_STEP
        self._memory = [
            torch.cat([m, m.new_zeros(*m.shape[:2], more, m.shape[3])], dim=2) for m in self._memory
        ]

    def _show(self, length: int) -> None:
        keys, _, values = self._memory
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]


class SlidingCache(cache_utils.Cache):
    """Hold keys and values of one dialogue, for any model that `Rotation` supports.

    If there are more than `max_tokens` tokens at the end of a turn, the oldest turns are evicted as
    a whole. The remaining turns then follow the system prompt directly, at positions 0, 1, 2, ...

    Args:
        rotation: rotation of the model's keys.
        prompt_tokens: length of the system prompt, which is never evicted.
        closing_tokens: number of tokens that end a turn but are fed with the next one.
        max_tokens: maximum tokens after a turn, prompt included.
        keep_tokens: maximum tokens after eviction. Below `max_tokens`, evictions are larger and
            less frequent. None: `max_tokens`, as in InfiniSST.

    Raises:
        MlmaError: not prompt_tokens < keep_tokens <= max_tokens.

    Source: Ouyang et al., InfiniSST, arXiv 2503.02969.
    """

    def __init__(
        self,
        rotation: Rotation,
        prompt_tokens: int,
        closing_tokens: int,
        max_tokens: int = 1000,
        keep_tokens: int | None = None,
    ):
        super().__init__(layer_class_to_replicate=SlidingLayer)
        self.rotation = rotation
        self.prompt_tokens = prompt_tokens
        self.closing_tokens = closing_tokens
        self.max_tokens = max_tokens
        self.keep_tokens = max_tokens if keep_tokens is None else keep_tokens
        if not prompt_tokens < self.keep_tokens <= max_tokens:
            raise MlmaError(
                f"keep_tokens is {self.keep_tokens}; it must be above the {prompt_tokens} tokens "
                f"of the system prompt and at most max_tokens, {max_tokens}"
            )
        self._written_at: list[int] = []
        self._turn_ends: list[int] = []

    def select(self, start: int, rows: Tensor) -> None:
        """Keep the first `start` tokens and those in `rows`, in this order.

        Keys are not rotated: row i must have been written at position `start` + i.
        """
        for layer in self.layers:
            layer.select(start, rows.to(layer.device))

    def end_turn(self) -> int:
        """End a turn and evict the oldest turns if there are too many tokens.

        The turn that ends is never evicted, however long it is.

        Returns:
            Number of evicted tokens.
        """
        length = self.get_seq_length()
        self._written_at += range(len(self._written_at), length)
        self._turn_ends.append(length + self.closing_tokens)
        *earlier, _ = self._turn_ends
        if length <= self.max_tokens or not earlier:
            return 0
        surplus = length - self.keep_tokens
        end = next((e for e in earlier if e - self.prompt_tokens >= surplus), earlier[-1])
        self._evict(end)
        return end - self.prompt_tokens

    def reset(self) -> None:
        """Remove all tokens, including the prompt."""
        super().reset()
        self._written_at.clear()
        self._turn_ends.clear()

    @property
    def nbytes(self) -> int:
        """Allocated memory in bytes."""
        return sum(layer.nbytes for layer in self.layers)

    def _evict(self, end: int) -> None:
        start = self.prompt_tokens
        del self._written_at[start:end]
        self._turn_ends = [e - (end - start) for e in self._turn_ends if e > end]
        old = torch.tensor(self._written_at[start:])
        new = torch.arange(start, start + len(old))
        tables: dict[torch.device, tuple[Tensor, Tensor]] = {}
        for layer in self.layers:
            if layer.device not in tables:
                tables[layer.device] = self.rotation.tables(layer.keys, old, new)
            layer.drop(start, end, *tables[layer.device])


def _rotary_of(model: PreTrainedModel) -> torch.nn.Module:
    found = [m for name, m in model.named_modules() if name.rpartition(".")[2] == "rotary_emb"]
    if len(found) != 1:
        raise _cannot_rotate(model, f"has {len(found)} rotary embeddings, not 1")
    kind = getattr(found[0], "rope_type", "default")
    if not isinstance(kind, str) or "dynamic" in kind or kind == "longrope":
        raise _cannot_rotate(model, f"has RoPE of type {kind}, which depends on the length")
    layers = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        raise _cannot_rotate(model, f"has layers of {', '.join(sorted(layers))}")
    return found[0]


@torch.no_grad()
def _keys_of_one_token(model: PreTrainedModel, position: int) -> list[Tensor]:
    """Return each layer's keys of one token; without context they differ only by the rotation."""
    weight: Any = model.get_input_embeddings().weight
    # A random embedding, because that of padding is often zero, and so are its keys.
    token = torch.randn(1, 1, weight.shape[1], generator=torch.Generator().manual_seed(0))
    cache = cache_utils.DynamicCache()
    model(
        inputs_embeds=token.to(weight),
        position_ids=torch.tensor([[position]], device=weight.device),
        past_key_values=cache,
        use_cache=True,
    )
    return [layer.keys for layer in cache.layers]


def _cannot_rotate(model: PreTrainedModel, why: str) -> MlmaError:
    return MlmaError(
        f"{model.config.model_type} does not support a sliding cache: it {why}; use a model like "
        "Qwen2.5 or Llama 3"
    )
