"""One turn of the dialogue: speech goes in, beam search finds its translation, the cache keeps what
was said."""

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

# Not said by interpreters; and what is left of a character of which not all bytes were said.
_UNSPOKEN = str.maketrans("", "", '()（）"“”\N{REPLACEMENT CHARACTER}')


@dataclass(frozen=True)
class Turn:
    """What was said in a turn.

    Attributes:
        text: without space around it, and without what interpreters do not say; often empty.
        ids: its tokens as they came, without the one that ends a turn.
        is_complete: False if the turn was stopped at its most tokens.
        forgotten: tokens that left the cache after it.
    """

    text: str
    ids: tuple[int, ...]
    is_complete: bool
    forgotten: int


class Conversation:
    """The LLM's side of one talk. All that it remembers is in here.

    Args:
        llm: the model; it is put into evaluation mode.
        dialogue: how turns are written, with the same tokenizer.
        decoding: how text is searched for, and how much is remembered.

    Raises:
        MlmaError: the model's keys cannot be moved, or the sizes are not in order.
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
        """Forget the talk; the next turn is the first of another."""
        self.cache.reset()
        self._recent.clear()

    @torch.no_grad()
    def turn(self, vectors: Tensor) -> Turn:
        """Hear some speech and say its translation.

        Args:
            vectors: (12 * chunks, hidden_size) of the adapter.

        Raises:
            MlmaError: these are not whole chunks.
        """
        chunks, rest = divmod(len(vectors), CHUNK_VECTORS)
        if rest or not chunks:
            raise MlmaError(
                f"a turn of {len(vectors)} vectors; give {CHUNK_VECTORS} for each chunk of speech"
            )
        is_first = not self.cache.get_seq_length()
        write = self.dialogue.first_turn if is_first else self.dialogue.next_turn
        tokens = write(len(vectors))
        logits = self.llm.model(
            inputs_embeds=self.llm.embed(tokens, vectors)[None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[0]
        fed = torch.where(tokens.is_speech, -1, tokens.ids).tolist()
        penalties = Penalties(self.decoding, fed, list(self._recent), self.dialogue.end_id)
        limit = self.decoding.tokens_per_chunk * chunks
        tree = Tree(self.llm, self.cache)
        best = search(tree, logits, penalties, self.decoding, self.dialogue.end_id, limit)
        return self._finish(tree, best)

    def _finish(self, tree: Tree, best: Hypothesis) -> Turn:
        """Keep the winner in the cache, up to but without the token that ends the turn."""
        is_complete = best.ids[-1] == self.dialogue.end_id
        tree.keep(best, with_last=not is_complete)
        ids = best.ids[:-1] if is_complete else best.ids
        self._recent.extend(ids)
        text = self.llm.tokenizer.decode(ids, skip_special_tokens=True)
        return Turn(clean(text), tuple(ids), is_complete, self.cache.end_turn())


def clean(text: str) -> str:
    """Text without brackets, double quotes, broken characters, and space around it."""
    return text.translate(_UNSPOKEN).strip()


@dataclass(frozen=True)
class Hypothesis:
    """A text being searched for.

    Attributes:
        ids: its tokens.
        score: sum of their log-probabilities after penalties.
        parent: number of the beam that its last token was added to.
    """

    ids: list[int]
    score: float
    parent: int = 0


def search(
    tree: Tree,
    logits: Tensor,
    penalties: Penalties,
    decoding: TurnDecoding,
    end_id: int,
    limit: int,
) -> Hypothesis:
    """The best text by beam search, as transformers does it without `early_stopping`.

    Args:
        tree: at the start of the text.
        logits: (1, vocabulary), of its first token.
        penalties: for what was said before.
        decoding: how to search.
        end_id: what ends the text.
        limit: most tokens, with that.

    Returns:
        A text that ends with `end_id` or has `limit` tokens.
    """
    beams, running = decoding.beams, [Hypothesis([], 0.0)]
    finished: list[tuple[float, Hypothesis]] = []
    for length in range(1, limit + 1):
        # Each beam may end, and there are still as many to go on with.
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
    beams: Sequence[Hypothesis], logits: Tensor, penalties: Penalties, count: int
) -> list[Hypothesis]:
    """The best hypotheses of one more token, best first.

    Args:
        beams: what they continue.
        logits: (beams, vocabulary).
        penalties: for what was said before.
        count: how many.
    """
    log_probs = penalties(logits.float().log_softmax(dim=-1), [beam.ids for beam in beams])
    scores = log_probs + log_probs.new_tensor([beam.score for beam in beams])[:, None]
    best = scores.flatten().topk(count)
    vocabulary = scores.shape[1]
    return [
        Hypothesis(
            beams[place // vocabulary].ids + [place % vocabulary], score, place // vocabulary
        )
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


class Penalties:
    """Lowers the log-probabilities of what was said before.

    Args:
        decoding: by how much.
        fed: what the model was fed in this turn; -1 in places of speech.
        recent: the last tokens said in earlier turns.
        end_id: what ends a turn.
    """

    def __init__(self, decoding: TurnDecoding, fed: list[int], recent: list[int], end_id: int):
        self._decoding = decoding
        self._fed = fed
        self._recent = recent
        self._end_id = end_id

    def __call__(self, log_probs: Tensor, texts: Sequence[list[int]]) -> Tensor:
        """Penalised log-probabilities.

        Args:
            log_probs: (beams, vocabulary).
            texts: of each beam, the tokens said in this turn.
        """
        penalised = log_probs.clone()
        factor, size = self._decoding.repetition_penalty, self._decoding.no_repeat_ngram
        for beam, text in enumerate(texts):
            said = self._fed + text
            if factor != 1:
                seen = {token for token in said if token >= 0}
                if not self._decoding.penalize_eos:
                    seen.discard(self._end_id)
                ids = torch.tensor(sorted(seen), device=log_probs.device)
                penalised[beam, ids] *= factor
            if size:
                banned = repeating(said, said, size) | repeating(said, self._recent, size)
                ids = torch.tensor(sorted(banned), dtype=torch.long, device=log_probs.device)
                penalised[beam, ids] = -torch.inf
        return penalised


def repeating(text: list[int], earlier: list[int], size: int) -> set[int]:
    """Tokens that would make the end of a text `size` tokens that are in `earlier` in a row."""
    if len(text) < size - 1:
        return set()
    end = text[len(text) - size + 1 :]
    starts = range(len(earlier) - size + 1)
    return {earlier[i + size - 1] for i in starts if earlier[i : i + size - 1] == end} - {-1}


class Tree:
    """The beams of one turn in one row of the model's batch, behind what they have in common.

    The cache holds once what was before the turn's text, and after it the tokens of all beams as
    they were tried; each token attends to those of its own beam alone. Nothing is copied when a
    beam branches or dies.

    Args:
        llm: the model.
        cache: holds all that comes before the text.
    """

    def __init__(self, llm: LanguageModel, cache: SlidingCache):
        self._llm = llm
        self._cache = cache
        self._start = cache.get_seq_length()
        # After each step, which of the tokens tried so far each beam sees: (beams, tried).
        self._seen = [torch.zeros((1, 0), dtype=torch.bool, device=llm.device)]

    def advance(self, beams: Sequence[Hypothesis]) -> Tensor:
        """Feed the last token of each beam; their parents are the beams of the step before.

        Returns:
            Logits (beams, vocabulary).
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

    def keep(self, best: Hypothesis, with_last: bool) -> None:
        """Leave this text in the cache, and no other; its last token only if `with_last`."""
        path = self._seen[len(best.ids) - 1][best.parent].nonzero().flatten()
        self._cache.choose(self._start, self._start + path)
        if with_last:
            ids = torch.tensor([best.ids[-1:]], device=path.device)
            self._llm.model(input_ids=ids, past_key_values=self._cache, use_cache=True)

    def _mask(self, seen: Tensor) -> Tensor | None:
        """What is added to attention's scores, (1, 1, beams, tokens); None: all is seen."""
        if len(seen) == 1:
            return None
        dtype = self._llm.model.dtype
        hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        hidden.masked_fill_(~seen, torch.finfo(dtype).min)
        return torch.nn.functional.pad(hidden, (self._start, 0))[None, None]
