"""What the LLM remembers of a talk: the system prompt and the latest whole turns, as keys and
values at positions from 0 on, so that a talk without end stays at the positions of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.extras import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel

cache_utils = require("transformers.cache_utils")

# Memory grows by this many tokens at a time.
_TOKENS_AT_ONCE = 256


class Rotation:
    """Moves keys of a model with rotary positions (RoPE) from one position to another.

    Attention hands keys to its cache rotated. A key at position p is T(p) k, with k the raw key and
    T(p) a matrix of the cosines and sines that the model itself uses; at q it is T(q) T(p)^-1 of
    that. Taken from the model's own tables, as they are rounded, this is what the model would have
    made of k at q, whatever the scaling of its frequencies.

    Args:
        model: a causal language model, with or without adapters; it is run on two single tokens.

    Raises:
        MlmaError: its keys cannot be moved: no RoPE, one that pairs channels otherwise than Llama's
            does or turns only some of them, one whose frequencies depend on the length, or layers
            with windows of their own.

    Source: Su et al., RoFormer, arXiv 2104.09864.
    """

    def __init__(self, model: PreTrainedModel):
        self._rotary = _rotary_of(model)
        near, far = (_keys_of_one_token(model, position) for position in (0, 7))
        for key, expected in zip(near, far, strict=True):
            cos, sin = self.tables(key, torch.tensor([0]), torch.tensor([7]))
            if cos.shape[-1] != key.shape[-1]:
                raise _cannot_move(model, "turns only some channels of its keys")
            allowed = 0.05 * expected.abs().max().item()
            if not torch.allclose(rotate(key, cos, sin), expected, rtol=0, atol=allowed):
                raise _cannot_move(model, "turns keys otherwise than Llama and Qwen2 do")

    def move(self, keys: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """Keys (..., tokens, channels) rotated for positions `old` as they are for `new`, both
        (tokens,)."""
        return rotate(keys, *self.tables(keys, old, new))

    def tables(self, keys: Tensor, old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (tokens, channels) in float32, of the turn from `old` to `new`.

        Args:
            keys: for their dtype and device.
            old, new: positions, (tokens,).
        """
        like = keys.new_empty(())

        def of(positions: Tensor) -> tuple[Tensor, Tensor]:
            cos, sin = self._rotary(like, positions[None].to(keys.device))
            return cos[0].double(), sin[0].double()

        (old_cos, old_sin), (new_cos, new_sin) = of(old), of(new)
        # Rounded cosines and sines, or scaled ones, do not have the length of 1.
        scale = old_cos.square() + old_sin.square()
        cos = (new_cos * old_cos + new_sin * old_sin) / scale
        sin = (new_sin * old_cos - new_cos * old_sin) / scale
        return cos.float(), sin.float()


def rotate(keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn keys (..., tokens, channels) by angles given for each token; float32 inside."""
    wide = keys.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(keys.dtype)


class SlidingLayer(cache_utils.DynamicLayer):
    """Keys and values of one layer, in memory that is there already and shared with no batch.

    Beside the keys that attention reads lie the same keys as they were first written: what is
    rotated again and again drifts, so every rotation starts from these.
    """

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._memory = [s[:, :, :0].clone() for s in (key_states, key_states, value_states)]
        self._show(0)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        """Append (1, heads, tokens, channels); returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        self._reserve(end)
        for memory, new in zip(self._memory, (key_states, key_states, value_states), strict=True):
            memory[:, :, start:end] = new
        self._show(end)
        return self.keys, self.values

    def choose(self, start: int, rows: Tensor) -> None:
        """After the first `start` tokens only those in `rows` stay, in this order."""
        end = start + len(rows)
        for memory in self._memory:
            memory[:, :, start:end] = memory[:, :, rows]
        self._show(end)

    def drop(self, start: int, end: int, cos: Tensor, sin: Tensor) -> None:
        """Forget tokens `start` to `end`; later keys turn from where they were first written.

        Args:
            cos, sin: of the later tokens' turns; see `Rotation.tables`.
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
        """Of memory."""
        return sum(m.numel() * m.element_size() for m in self._memory) if self.is_initialized else 0

    def _reserve(self, tokens: int) -> None:
        present = self._memory[0].shape[2]
        if tokens <= present:
            return
        more = -(-(tokens - present) // _TOKENS_AT_ONCE) * _TOKENS_AT_ONCE
        self._memory = [
            torch.cat([m, m.new_zeros(*m.shape[:2], more, m.shape[3])], dim=2) for m in self._memory
        ]

    def _show(self, length: int) -> None:
        keys, _, values = self._memory
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]


class SlidingCache(cache_utils.Cache):
    """Keys and values of one dialogue, for any model of transformers that `Rotation` takes.

    Turns are marked as they end. At such an end, and only then, the oldest turns are forgotten
    whole if there are more than `max_tokens`: the system prompt moves up to the next turn, and
    positions are 0, 1, 2, ... again.

    Args:
        rotation: of the model.
        prompt_tokens: the first tokens, which stay.
        closing_tokens: tokens that end a turn but are fed with the next.
        max_tokens: of prompt and turns at the end of a turn.
        keep_tokens: as many are left at most by forgetting; fewer than `max_tokens`, turns are
            forgotten less often and more at a time. None: `max_tokens`, as InfiniSST has it.

    Raises:
        MlmaError: the sizes are not in order.

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
                f"the LLM's cache: keep_tokens {self.keep_tokens} must be more than the "
                f"{prompt_tokens} tokens of the system prompt and at most max_tokens, {max_tokens}"
            )
        self._written_at: list[int] = []
        self._turn_ends: list[int] = []

    def choose(self, start: int, rows: Tensor) -> None:
        """After the first `start` tokens only those in `rows` stay, in this order, as if no other
        had been there; each was written at the position that it now has."""
        for layer in self.layers:
            layer.choose(start, rows.to(layer.device))

    def end_turn(self) -> int:
        """Mark the end of a turn, and forget the oldest if there are too many tokens.

        The turn that ends stays, however long it is.

        Returns:
            Tokens forgotten.
        """
        length = self.get_seq_length()
        self._written_at += range(len(self._written_at), length)
        self._turn_ends.append(length + self.closing_tokens)
        *earlier, _ = self._turn_ends
        if length <= self.max_tokens or not earlier:
            return 0
        surplus = length - self.keep_tokens
        end = next((e for e in earlier if e - self.prompt_tokens >= surplus), earlier[-1])
        self._forget(end)
        return end - self.prompt_tokens

    def reset(self) -> None:
        """Forget everything, the prompt too."""
        super().reset()
        self._written_at.clear()
        self._turn_ends.clear()

    @property
    def nbytes(self) -> int:
        """Of memory."""
        return sum(layer.nbytes for layer in self.layers)

    def _forget(self, end: int) -> None:
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
        raise _cannot_move(model, f"has {len(found)} rotary embeddings where one is wanted")
    kind = getattr(found[0], "rope_type", "default")
    if not isinstance(kind, str) or "dynamic" in kind or kind == "longrope":
        raise _cannot_move(model, f"has RoPE of type {kind}, which depends on the length")
    layers = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        raise _cannot_move(model, f"has layers of {', '.join(sorted(layers))}")
    return found[0]


@torch.no_grad()
def _keys_of_one_token(model: PreTrainedModel, position: int) -> list[Tensor]:
    """Of each layer; a token alone has the same raw keys at every position."""
    weight = model.get_input_embeddings().weight
    # Of no token in particular: the embedding of padding is often zero, and so are its keys.
    token = torch.randn(1, 1, weight.shape[1], generator=torch.Generator().manual_seed(0))
    cache = cache_utils.DynamicCache()
    model(
        inputs_embeds=token.to(weight),
        position_ids=torch.tensor([[position]], device=weight.device),
        past_key_values=cache,
        use_cache=True,
    )
    return [layer.keys for layer in cache.layers]


def _cannot_move(model: PreTrainedModel, why: str) -> MlmaError:
    return MlmaError(
        f"a talk without end cannot be given to {model.config.model_type}: this model {why}; "
        "take a model like Qwen2.5 or Llama 3"
    )
