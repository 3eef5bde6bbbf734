"""Hold the paper's published scores, which `score` prints beside ours.

Source: Ouyang et al., "CMU's IWSLT 2025 Simultaneous Speech Translation System", Table 2: ACL 60/60
development set, latency multiplier 3 for Chinese and 2 for German, StreamLAAL v1 in milliseconds.
Training data: LS LibriSpeech, CV Common Voice, VP VoxPopuli.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedScore:
    """Hold a row of Table 2 for one target language.

    Attributes:
        system: language model and training data.
        target: target language.
        bleu: BLEU in percent, tokeniser 13a for German and zh for Chinese.
        stream_laal: StreamLAAL in milliseconds.
        stream_laal_ca: computation-aware StreamLAAL in milliseconds, on the paper's machine.
    """

    system: str
    target: str
    bleu: float
    stream_laal: int
    stream_laal_ca: int


TABLE_2 = (
    PublishedScore("Llama-3.1-8B-Instruct, LS+CV", "zh", 39.3, 2092, 2691),
    PublishedScore("Llama-3.1-8B-Instruct, LS+CV+VP", "zh", 40.8, 2159, 2673),
    PublishedScore("Qwen2.5-7B-Instruct, LS+CV+VP", "zh", 44.3, 2189, 2739),
    PublishedScore("Llama-3.1-8B-Instruct, LS+CV", "de", 21.1, 1430, 2183),
    PublishedScore("Llama-3.1-8B-Instruct, LS+CV+VP", "de", 23.7, 1503, 2109),
    PublishedScore("Qwen2.5-7B-Instruct, LS+CV+VP", "de", 25.1, 1689, 2306),
)
