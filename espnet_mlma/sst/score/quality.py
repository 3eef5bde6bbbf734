"""Compute BLEU and chrF of re-segmented output, and write input files for COMET.

COMET needs its own environment, because unbabel-comet requires an older numpy than ESPnet.
`comet-score -s src.txt -t mt.txt -r ref.txt` reads what `export` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_mlma.arguments import refuse_inputs
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import write
from espnet_mlma.sst.extras import require
from espnet_mlma.sst.languages import separator
from espnet_mlma.sst.score.logs import CHAR, WORD


@dataclass(frozen=True)
class Quality:
    """Hold the scores of a corpus.

    Attributes:
        bleu: BLEU in percent.
        chrf: chrF2 in percent.
        signature: sacreBLEU's signature of BLEU.
    """

    bleu: float
    chrf: float
    signature: str


def unit_and_tokeniser(target: str) -> tuple[str, str]:
    """Return a language's unit of latency (word or char) and its sacreBLEU tokeniser.

    Args:
        target: language, such as `de` or `zh`.
    """
    return (WORD, "13a") if separator(target) else (CHAR, "zh")


def quality(hypotheses: Sequence[str], references: Sequence[str], tokeniser: str) -> Quality:
    """Compute BLEU and chrF of sentences.

    Args:
        hypotheses: sentences; may be empty strings.
        references: equally many sentences.
        tokeniser: name of sacreBLEU's tokeniser.

    Raises:
        MlmaError: sacrebleu is not installed.
    """
    metrics = require("sacrebleu.metrics")
    bleu = metrics.BLEU(tokenize=tokeniser)
    score = bleu.corpus_score(hypotheses, [references]).score
    chrf = metrics.CHRF().corpus_score(hypotheses, [references]).score
    return Quality(score, chrf, str(bleu.get_signature()))


def export(
    folder: Path,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    inputs: Sequence[Path | None] = (),
) -> None:
    """Write `src.txt`, `mt.txt` and `ref.txt`, one sentence per line.

    Args:
        folder: output folder; created if missing.
        sources: transcripts.
        hypotheses: re-segmented output.
        references: translations.
        inputs: files that must not be overwritten.

    Raises:
        MlmaError: a transcript is empty, or a file cannot be written or is an input.
    """
    unknown = next((n for n, source in enumerate(sources, 1) if not source.strip()), None)
    if unknown is not None:
        raise MlmaError(
            f"{folder}: sentence {unknown} has no source text; COMET needs it, give --sources"
        )
    refuse_inputs([folder / f"{name}.txt" for name in ("src", "mt", "ref")], inputs)
    for name, lines in (("src", sources), ("mt", hypotheses), ("ref", references)):
        text = "".join(" ".join(line.split()) + "\n" for line in lines)
        write(folder / f"{name}.txt", text)
