"""Encoder and adapter learn to say what they hear, in the language model's own tokens.

A stage before the paper's two, for models and data too small for those: CTC, whose symbols are
tokens of the language model and whose scores are distances to their embeddings. What the adapter
then gives to the language model is close to what it would read; the language model itself is not
run.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.dialogue import NO_TARGET, Example
from espnet_mlma.sst.grid import CHUNK_VECTORS
from espnet_mlma.sst.model import Batch, SpeechTranslator
from espnet_mlma.sst.records import Segment

# Nats by which a token is likelier than silence where its embedding is: no vector need go further.
_MARGIN = 10.0


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
            if not segment.heard:
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
        self._scale = 2 * _MARGIN / embeddings.square().sum(1).mean().item()
        self.blank = nn.Parameter(torch.zeros(1, embeddings.size(1)))

    def example(self, segment: Segment, multiplier: int) -> Example:
        """A segment to learn from: places of its speech alone, and what is heard as labels.

        Args:
            segment: one of the training set.
            multiplier: its speech is filled up to so many chunks.
        """
        vectors = -(-segment.chunks // multiplier) * multiplier * CHUNK_VECTORS
        labels = [self._symbols[id_] for id_ in self._ids(segment.heard)]
        places = torch.ones(vectors, dtype=torch.bool)
        return Example(torch.zeros(vectors, dtype=torch.int64), places, torch.tensor(labels))

    def forward(self, batch: Batch) -> Tensor:
        """CTC loss, the sum over all segments, in nats; a scalar in float32."""
        vectors = self.adapter(self.encoder(batch.speech, batch.multiplier))
        with torch.autocast(vectors.device.type, enabled=False):
            symbols = torch.cat([self.blank, self._embeddings])
            # Less half the squared distance, but for what all symbols share.
            near = vectors.float() @ symbols.T - symbols.square().sum(1) / 2
            labels = batch.tokens.labels
            return F.ctc_loss(
                (self._scale * near).log_softmax(-1).transpose(0, 1),
                labels.clamp(min=0),
                batch.tokens.is_speech.sum(1),
                (labels != NO_TARGET).sum(1),
                reduction="sum",
                zero_infinity=True,  # faster speech than 12.5 tokens a second has no path
            )

    def _ids(self, heard: str) -> list[int]:
        # As words look inside a text: with the space before them.
        return self._tokenizer(" " + heard, add_special_tokens=False).input_ids
