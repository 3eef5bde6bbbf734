"""Pretrain encoder and adapter with CTC on the language model's tokens (stage 0).

The paper has two stages. This one comes before them, for models and data too small to start with
stage 1. CTC symbols are the language model's tokens, and scores are distances to their embeddings.
After it the adapter's vectors lie near the embeddings of the spoken words. The language model
itself is not run.
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
from espnet_mlma.sst.model import SegmentBatch, SpeechTranslator

# Log-odds (nats) of a token against blank at the token's embedding.
_MARGIN = 10.0
# Weight of the distance penalty, in nats per squared embedding length. CTC alone does not constrain
# directions in which embeddings do not differ; a much larger weight stops CTC from learning.
_DISTANCE_WEIGHT = 0.01


class CtcPretraining(nn.Module):
    """Compute the CTC loss of the transcript over the language model's embeddings.

    Args:
        translator: its encoder and adapter are trained.
        segments: the training set; the tokens of its transcripts are the symbols.

    Attributes:
        blank: embedding of the CTC blank, (1, hidden_size).

    Raises:
        MlmaError: a segment has no transcript.
    """

    def __init__(self, translator: SpeechTranslator, segments: Iterable[Segment]):
        super().__init__()
        self.encoder, self.adapter = translator.encoder, translator.adapter
        self._tokenizer = translator.llm.tokenizer
        used: set[int] = set()
        for segment in segments:
            if segment.heard is None:
                raise MlmaError(
                    f"segment '{segment.id}': has no transcript; run the stage build again"
                )
            used.update(self._ids(segment.heard))
        ids = sorted(used)
        self._symbols = {id_: place for place, id_ in enumerate(ids, start=1)}
        table = translator.llm.embedding.weight.detach()
        embeddings = table[torch.tensor(ids, device=table.device)].float()
        self._embeddings: Tensor
        self.register_buffer("_embeddings", embeddings, persistent=False)
        self.blank = nn.Parameter(torch.zeros(1, embeddings.size(1)))
        self._length = embeddings.square().sum(1).mean().sqrt().item()

    def example(self, segment: Segment, multiplier: int) -> Example:
        """Return a training example: speech positions only, labelled with the transcript.

        Args:
            segment: a segment of the training set.
            multiplier: latency multiplier; speech is padded to a multiple of so many chunks.
        """
        vectors = segment.chunks_at(multiplier) * CHUNK_VECTORS
        labels = [self._symbols[id_] for id_ in self._ids(segment.heard or "")]
        places = torch.ones(vectors, dtype=torch.bool)
        return Example(torch.zeros(vectors, dtype=torch.int64), places, torch.tensor(labels))

    def forward(self, batch: SegmentBatch) -> Tensor:
        """Return the loss summed over all segments, in nats; a float32 scalar."""
        vectors = self.adapter(self.encoder(batch.speech, batch.multiplier))
        with torch.autocast(vectors.device.type, enabled=False):
            return self._loss(vectors.float(), batch.tokens.is_speech, batch.tokens.labels)

    def _loss(self, vectors: Tensor, is_speech: Tensor, labels: Tensor) -> Tensor:
        symbols = torch.cat([self.blank, self._embeddings])
        # Minus half the squared distance, without the term that all symbols share.
        near = vectors @ symbols.T - symbols.square().sum(1) / 2
        scores = (2 * _MARGIN / self._length**2 * near).log_softmax(-1)
        ctc = F.ctc_loss(
            scores.transpose(0, 1),
            labels.clamp(min=0),
            is_speech.sum(1),
            (labels != NO_TARGET).sum(1),
            reduction="sum",
            zero_infinity=True,  # no alignment exists above 12.5 tokens per second
        )
        expected = (scores.exp() @ symbols).detach()
        distance = (vectors - expected)[:, : is_speech.size(1)].square().sum(-1) / self._length**2
        return ctc + _DISTANCE_WEIGHT * (distance * is_speech).sum()

    def _ids(self, heard: str) -> list[int]:
        # Tokens within a text start with a space.
        return self._tokenizer(" " + heard, add_special_tokens=False).input_ids
