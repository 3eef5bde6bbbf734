"""Translate one turn of the dialogue by beam search, and keep the result in the cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.config import TurnDecoding
from espnet_mlma.sst.grid import CHUNK_VECTORS
from espnet_mlma.sst.llm.cache import SlidingCache
from espnet_mlma.sst.llm.dialogue import Dialogue
from espnet_mlma.sst.llm.model import LanguageModel

# Brackets and double quotes, which interpreters do not speak, and incomplete characters.
_UNSPOKEN = str.maketrans("", "", '()（）"“”\N{REPLACEMENT CHARACTER}')


@dataclass(frozen=True)
class Turn:
    """Hold the output of a turn.

    Attributes:
        text: text after `clean`; often empty.
        ids: tokens of the output, without the end-of-turn token.
        is_complete: False if the turn reached its maximum number of tokens.
        evicted: number of tokens evicted from the cache after the turn.
    """

    text: str
    ids: tuple[int, ...]
    is_complete: bool
    evicted: int


class Conversation:
    """Hold the language model's state of one talk.

    Args:
        llm: language model; it is put into evaluation mode.
        dialogue: format of the turns, with the same tokenizer.
        decoding: search and memory; None: the defaults.

    Raises:
        MlmaError: the model does not support a sliding cache, or the cache sizes are inconsistent.
    """

    def __init__(
        self,
        llm: LanguageModel,
        dialogue: Dialogue,
        decoding: TurnDecoding | None = None,
    ):
        self.llm = llm
        self.dialogue = dialogue
        self.decoding = decoding or TurnDecoding()
        llm.model.eval()
        self.cache = SlidingCache(
            llm.rotation,
            len(dialogue.prompt_ids),
            len(dialogue.closing_ids),
            self.decoding.max_tokens,
            self.decoding.keep_tokens,
        )
        self._recent: deque[int] = deque(maxlen=self.decoding.lookback)

    def reset(self) -> None:
        """Discard the talk; the next turn starts a new one."""
        self.cache.reset()
        self._recent.clear()

    @torch.no_grad()
    def translate(self, vectors: Tensor) -> Turn:
        """Translate the speech of one turn.

        Args:
            vectors: vectors of the adapter, (12 * chunks, hidden_size).

        Raises:
            MlmaError: the vectors are not whole chunks.
        """
        chunks, rest = divmod(len(vectors), CHUNK_VECTORS)
        if rest or not chunks:
            raise MlmaError(
                f"a turn has {len(vectors)} vectors; give {CHUNK_VECTORS} per chunk of speech"
            )
        is_first = not self.cache.get_seq_length()
        make_turn = self.dialogue.first_turn if is_first else self.dialogue.next_turn
        tokens = make_turn(len(vectors))
        logits = self.llm.model(
            inputs_embeds=self.llm.embed(tokens, vectors)[None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[0]
        fed = torch.where(tokens.is_speech, -1, tokens.ids).tolist()
        penalties = Penalties(self.decoding, fed, list(self._recent), self.dialogue.end_id)
        limit = self.decoding.tokens_per_chunk * chunks
        tree = BeamTree(self.llm, self.cache)
        best = search(tree, logits, penalties, self.decoding, self.dialogue.end_id, limit)
        return self._finish(tree, best)

    def _finish(self, tree: BeamTree, best: TurnHypothesis) -> Turn:
        """Keep the best hypothesis in the cache, without the end-of-turn token."""
        is_complete = best.ids[-1] == self.dialogue.end_id
        tree.keep(best, with_last=not is_complete)
        ids = best.ids[:-1] if is_complete else best.ids
        self._recent.extend(ids)
        text = self.llm.tokenizer.decode(ids, skip_special_tokens=True)
        return Turn(clean(text), tuple(ids), is_complete, self.cache.end_turn())


def clean(text: str) -> str:
    """Remove brackets, double quotes, incomplete characters and surrounding spaces."""
    return text.translate(_UNSPOKEN).strip()


@dataclass(frozen=True)
class TurnHypothesis:
    """Hold a hypothesis of the beam search.

    Attributes:
        ids: tokens.
        score: sum of their log-probabilities after penalties.
        parent: index of the beam that the last token extends.
    """

    ids: list[int]
    score: float
    parent: int = 0


def search(
    tree: BeamTree,
    logits: Tensor,
    penalties: Penalties,
    decoding: TurnDecoding,
    end_id: int,
    limit: int,
) -> TurnHypothesis:
    """Return the best hypothesis by beam search, like transformers without `early_stopping`.

    Args:
        tree: beams at the start of the text.
        logits: logits of the first token, (1, vocabulary).
        penalties: penalties of repeated tokens.
        decoding: beam width and length penalty.
        end_id: token that ends the text.
        limit: maximum number of tokens, `end_id` included.

    Returns:
        A hypothesis that ends with `end_id` or has `limit` tokens.
    """
    beams, running = decoding.beams, [TurnHypothesis([], 0.0)]
    finished: list[tuple[float, TurnHypothesis]] = []
    for length in range(1, limit + 1):
        # Twice as many, so that `beams` candidates continue even if all others end.
        candidates = continuations(running, logits, penalties, 2 * beams)
        divisor = length**decoding.length_penalty
        finished += [
            (beam.score / divisor, beam)
            for beam in candidates[:beams]
            if beam.ids[-1] == end_id or length == limit
        ]
        finished = sorted(finished, key=itemgetter(0), reverse=True)[:beams]
        running = [beam for beam in candidates if beam.ids[-1] != end_id][:beams]
        is_full = len(finished) == beams
        if length == limit or (is_full and running[0].score / divisor <= finished[-1][0]):
            break
        logits = tree.advance(running)
    return finished[0][1]


def continuations(
    beams: Sequence[TurnHypothesis], logits: Tensor, penalties: Penalties, count: int
) -> list[TurnHypothesis]:
    """Return the best hypotheses with one more token, best first.

    Args:
        beams: hypotheses to extend.
        logits: logits of the next token, (beams, vocabulary).
        penalties: penalties of repeated tokens.
        count: number of hypotheses to return.
    """
    log_probs = penalties(logits.float().log_softmax(dim=-1), [beam.ids for beam in beams])
    scores = log_probs + log_probs.new_tensor([beam.score for beam in beams])[:, None]
    best = scores.flatten().topk(count)
    vocabulary = scores.shape[1]
    return [
        TurnHypothesis(
            beams[place // vocabulary].ids + [place % vocabulary], score, place // vocabulary
        )
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


class Penalties:
    """Lower the log-probabilities of repeated tokens and ban repeated n-grams.

    Args:
        decoding: `repetition_penalty`, `no_repeat_ngram` and `penalize_eos`.
        fed: input tokens of this turn; -1 at speech positions.
        recent: last output tokens of earlier turns.
        end_id: end-of-turn token.
    """

    def __init__(self, decoding: TurnDecoding, fed: list[int], recent: list[int], end_id: int):
        self._decoding = decoding
        self._fed = fed
        self._recent = recent
        self._end_id = end_id

    def __call__(self, log_probs: Tensor, texts: Sequence[list[int]]) -> Tensor:
        """Return penalised log-probabilities, (beams, vocabulary).

        Args:
            log_probs: (beams, vocabulary).
            texts: output tokens of each beam in this turn.
        """
        penalised = log_probs.clone()
        factor, size = self._decoding.repetition_penalty, self._decoding.no_repeat_ngram
        for beam, text in enumerate(texts):
            context = self._fed + text
            if factor != 1:
                seen = {token for token in context if token >= 0}
                if not self._decoding.penalize_eos:
                    seen.discard(self._end_id)
                ids = torch.tensor(sorted(seen), device=log_probs.device)
                penalised[beam, ids] *= factor
            if size:
                banned = repeated(context, context, size) | repeated(context, self._recent, size)
                ids = torch.tensor(sorted(banned), dtype=torch.long, device=log_probs.device)
                penalised[beam, ids] = -torch.inf
        return penalised


def repeated(text: list[int], earlier: list[int], size: int) -> set[int]:
    """Return the tokens that would complete, at the end of a text, an n-gram that is in `earlier`.

    Args:
        text: tokens so far.
        earlier: tokens to search; -1 stands for speech and is never returned.
        size: length of the n-grams.
    """
    if len(text) < size - 1:
        return set()
    end = text[len(text) - size + 1 :]
    starts = range(len(earlier) - size + 1)
    return {earlier[i + size - 1] for i in starts if earlier[i : i + size - 1] == end} - {-1}


class BeamTree:
    """Run all beams of a turn in one sequence, with a shared cache.

    The cache holds the common context once, followed by the tokens of all beams in the order they
    were tried. An attention mask limits each token to its own beam. No keys are copied when a beam
    branches or ends.

    Args:
        llm: language model.
        cache: cache that holds the context before the text.
    """

    def __init__(self, llm: LanguageModel, cache: SlidingCache):
        self._llm = llm
        self._cache = cache
        self._start = cache.get_seq_length()
        # For each step: which of the tokens so far each beam sees, (beams, tokens).
        self._seen = [torch.zeros((1, 0), dtype=torch.bool, device=llm.device)]

    def advance(self, beams: Sequence[TurnHypothesis]) -> Tensor:
        """Feed the last token of each beam.

        Args:
            beams: hypotheses whose parents are the beams of the previous step.

        Returns:
            Logits of the next token, (beams, vocabulary).
        """
        seen = self._seen[-1][[beam.parent for beam in beams]]
        itself = torch.eye(len(beams), dtype=torch.bool, device=seen.device)
        seen = torch.cat([seen, itself], dim=1)
        ids = torch.tensor([[beam.ids[-1] for beam in beams]], device=seen.device)
        logits = self._llm.model(
            input_ids=ids,
            position_ids=torch.full_like(ids, self._start + len(self._seen) - 1),
            attention_mask=self._mask(seen),
            past_key_values=self._cache,
            use_cache=True,
        ).logits
        self._seen.append(seen)
        return logits[0]

    def keep(self, best: TurnHypothesis, with_last: bool) -> None:
        """Keep only one hypothesis in the cache.

        Args:
            best: hypothesis to keep.
            with_last: include its last token.
        """
        path = self._seen[len(best.ids) - 1][best.parent].nonzero().flatten()
        self._cache.select(self._start, self._start + path)
        if with_last:
            ids = torch.tensor([best.ids[-1:]], device=path.device)
            self._llm.model(input_ids=ids, past_key_values=self._cache, use_cache=True)

    def _mask(self, seen: Tensor) -> Tensor | None:
        """Return the additive attention mask, (1, 1, beams, tokens); None: all is visible."""
        if len(seen) == 1:
            return None
        dtype = self._llm.model.dtype
        hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        hidden.masked_fill_(~seen, torch.finfo(dtype).min)
        return torch.nn.functional.pad(hidden, (self._start, 0))[None, None]
