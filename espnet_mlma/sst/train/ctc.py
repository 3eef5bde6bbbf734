"""Encoder and adapter learn to say what they hear, in the language model's own tokens.

A stage before the paper's two, for models and data too small for those: CTC, whose symbols are
tokens of the language model and whose scores are distances to their embeddings. What the adapter
then gives to the language model is what it would read; the language model itself is not run.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.records import Segment
from espnet_mlma.sst.grid import CHUNK_VECTORS
from espnet_mlma.sst.llm.dialogue import NO_TARGET, Example
from espnet_mlma.sst.model import Batch, SpeechTranslator

# Nats by which a token is likelier than silence where its embedding is.
_MARGIN = 10.0
# Nats that a vector costs that is as far from what it says as embeddings are long. CTC alone leaves
# it free in all directions that tell no tokens apart; much more would keep it from learning at all.
_FAR = 0.01


class Hearing(nn.Module):
    """CTC of the words said, over the language model's embeddings; trained instead of it.

    Args:
        translator: its encoder and adapter are trained.
        segments: the training set; its words are all that can be said.

    Attributes:
        blank: where vectors are that say nothing, (1, hidden_size).

    Raises:
        MlmaError: a segment does not say what is heard in it.
    """

    def __init__(self, translator: SpeechTranslator, segments: Iterable[Segment]):
        super().__init__()
        self.encoder, self.adapter = translator.encoder, translator.adapter
        self._tokenizer = translator.llm.tokenizer
        used: set[int] = set()
        for segment in segments:
            if segment.heard is None:
                raise MlmaError(
                    f"segment '{segment.id}': does not say what is heard in it; run the stage "
                    "build again"
                )
            used.update(self._ids(segment.heard))
        ids = sorted(used)
        self._symbols = {id_: place for place, id_ in enumerate(ids, start=1)}
        table = translator.llm.embedding.weight.detach()
        embeddings = table[torch.tensor(ids, device=table.device)].float()
        self.register_buffer("_embeddings", embeddings, persistent=False)
        self.blank = nn.Parameter(torch.zeros(1, embeddings.size(1)))
        self._length = embeddings.square().sum(1).mean().sqrt().item()

    def example(self, segment: Segment, multiplier: int) -> Example:
        """A segment to learn from: places of its speech alone, and what is heard as labels.

        Args:
            segment: one of the training set.
            multiplier: its speech is filled up to so many chunks.
        """
        vectors = segment.chunks_at(multiplier) * CHUNK_VECTORS
        labels = [self._symbols[id_] for id_ in self._ids(segment.heard)]
        places = torch.ones(vectors, dtype=torch.bool)
        return Example(torch.zeros(vectors, dtype=torch.int64), places, torch.tensor(labels))

    def forward(self, batch: Batch) -> Tensor:
        """The sum over all segments, in nats; a scalar in float32."""
        vectors = self.adapter(self.encoder(batch.speech, batch.multiplier))
        with torch.autocast(vectors.device.type, enabled=False):
            return self._loss(vectors.float(), batch.tokens.is_speech, batch.tokens.labels)

    def _loss(self, vectors: Tensor, is_speech: Tensor, labels: Tensor) -> Tensor:
        symbols = torch.cat([self.blank, self._embeddings])
        # Less half the squared distance, but for what all symbols share.
        near = vectors @ symbols.T - symbols.square().sum(1) / 2
        scores = (2 * _MARGIN / self._length**2 * near).log_softmax(-1)
        said = F.ctc_loss(
            scores.transpose(0, 1),
            labels.clamp(min=0),
            is_speech.sum(1),
            (labels != NO_TARGET).sum(1),
            reduction="sum",
            zero_infinity=True,  # faster speech than 12.5 tokens a second has no path
        )
        meant = (scores.exp() @ symbols).detach()
        away = (vectors - meant)[:, : is_speech.size(1)].square().sum(-1) / self._length**2
        return said + _FAR * (away * is_speech).sum()

    def _ids(self, heard: str) -> list[int]:
        # As words look inside a text: with the space before them.
        return self._tokenizer(" " + heard, add_special_tokens=False).input_ids
