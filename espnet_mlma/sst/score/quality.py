"""BLEU and chrF of re-segmented output, and the files that COMET reads.

COMET is run in an environment of its own: unbabel-comet needs an older numpy than ESPnet.
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
    """Scores of a corpus.

    Attributes:
        bleu: sacreBLEU.
        chrf: sacreBLEU's chrF2.
        signature: sacreBLEU's, of BLEU.
    """

    bleu: float
    chrf: float
    signature: str


def unit_and_tokeniser(target: str) -> tuple[str, str]:
    """What latency counts in a language, words or characters, and how sacreBLEU cuts it.

    Args:
        target: the language, such as `de` or `zh`.
    """
    return (WORD, "13a") if separator(target) else (CHAR, "zh")


def quality(hypotheses: Sequence[str], references: Sequence[str], tokeniser: str) -> Quality:
    """Score sentences.

    Args:
        hypotheses: a sentence each; empty ones too.
        references: as many.
        tokeniser: sacreBLEU's name of it.

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
    """Write `src.txt`, `mt.txt` and `ref.txt`, a sentence a line.

    Args:
        folder: made when it is not there.
        sources: what was said.
        hypotheses: the output, re-segmented.
        references: the translations.
        inputs: files that must not be replaced.

    Raises:
        MlmaError: a source is empty, or a file cannot be written or is an input.
    """
    unknown = next((n for n, source in enumerate(sources, 1) if not source.strip()), None)
    if unknown is not None:
        raise MlmaError(
            f"{folder}: sentence {unknown} has no source text, which COMET reads; give --sources"
        )
    refuse_inputs([folder / f"{name}.txt" for name in ("src", "mt", "ref")], inputs)
    for name, lines in (("src", sources), ("mt", hypotheses), ("ref", references)):
        text = "".join(" ".join(line.split()) + "\n" for line in lines)
        write(folder / f"{name}.txt", text)
