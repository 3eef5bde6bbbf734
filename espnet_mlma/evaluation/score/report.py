"""RESULTS.md: one table per decoding, a row per language and corpus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_mlma.evaluation.score.align import Errors, total_errors
from espnet_mlma.files import write
from espnet_mlma.text import LANGUAGES

_COLUMNS = (
    "Language | Corpus | Test set | WER | CER | TER | # Snt | # Wrd | Sub | Del | Ins | Missing"
)


@dataclass(frozen=True)
class Row:
    """What was counted on some utterances of a test set.

    Args:
        lang: their language.
        corpus: their corpus.
        test_set: the set they come from; empty for a sum.
        sentences: how many there are.
        missing: how many of them have no hypothesis.
        words: errors in words.
        chars: errors in characters.
        tokens: errors in the tokens of the model.
        languages: how many were taken for their language; None: not known.
    """

    lang: str
    corpus: str
    test_set: str
    sentences: int
    missing: int
    words: Errors
    chars: Errors
    tokens: Errors
    languages: int | None = None


def add(rows: Sequence[Row], lang: str, corpus: str) -> Row:
    """The micro average: one row with the counts of all."""
    languages = [row.languages for row in rows]
    return Row(
        lang,
        corpus,
        "",
        sum(row.sentences for row in rows),
        sum(row.missing for row in rows),
        total_errors(row.words for row in rows),
        total_errors(row.chars for row in rows),
        total_errors(row.tokens for row in rows),
        None if None in languages else sum(languages),
    )


def section(rows: Sequence[Row], tag: str, scorer: str, checkpoint: str | None = None) -> str:
    """The Markdown of one decoding.

    Args:
        rows: one per language and corpus.
        tag: name of the decoding folder; ESPnet writes configuration and model into it.
        scorer: what counted the errors.
        checkpoint: its digest; None: not known.
    """
    config, _, model = tag.partition("_asr_model_")
    languages = [lang for lang in LANGUAGES if any(row.lang == lang for row in rows)]
    lines = [
        f"## {tag}",
        "",
        f"- decoding: `{config}`" + (f", model: `{model}`" if model else ""),
        *([f"- checkpoint: sha256 `{checkpoint}`"] if checkpoint else []),
        "- text: reference and hypothesis through the normaliser of `espnet_mlma.text`",
        f"- scorer: {scorer}; joined by utterance id, a missing hypothesis is all deletions",
        "- Sub, Del and Ins are words; rates are per cent",
        "",
        f"| {_COLUMNS} |",
        "|:--|:--|:--|" + "--:|" * 9,
    ]
    micro = []
    for lang in languages:
        own = sorted((row for row in rows if row.lang == lang), key=lambda row: row.test_set)
        lines += [_cells(row) for row in own]
        micro.append(add(own, lang, "all"))
        if len(own) > 1:
            lines.append(_cells(micro[-1]))
    total = add(micro, "all", "micro average")
    lines += [_cells(total), _macro(micro)]
    if total.languages is not None:
        shares = (
            f"{row.lang} {100 * row.languages / row.sentences:.1f}" for row in (*micro, total)
        )
        lines += ["", f"Utterances taken for their language, per cent: {', '.join(shares)}."]
    return "\n".join(lines) + "\n"


def write_results(decode_dir: Path, text: str) -> Path:
    """Put one decoding's section beside its sets and gather the experiment's RESULTS.md.

    Args:
        decode_dir: `<experiment>/<inference tag>`.
        text: the section.

    Returns:
        The path of the experiment's file.
    """
    write(decode_dir / "RESULTS.md", text)
    experiment = decode_dir.resolve().parent
    parts = [path.read_text(encoding="utf-8") for path in sorted(experiment.glob("*/RESULTS.md"))]
    write(experiment / "RESULTS.md", "\n".join([f"# {experiment.name}\n", *parts]))
    return experiment / "RESULTS.md"


def _cells(row: Row) -> str:
    rates = [_rate(errors.rate) for errors in (row.words, row.chars, row.tokens)]
    words = row.words
    counts = [row.sentences, words.reference, words.sub, words.del_, words.ins, row.missing]
    return f"| {' | '.join([row.lang, row.corpus, row.test_set, *rates, *map(str, counts)])} |"


def _macro(languages: Sequence[Row]) -> str:
    rates = []
    for kind in ("words", "chars", "tokens"):
        known = [r for row in languages if not math.isnan(r := getattr(row, kind).rate)]
        rates.append(_rate(sum(known) / len(known) if known else float("nan")))
    name = f"mean of {len(languages)} language" + "s" * (len(languages) != 1)
    return f"| all | {name} | | {' | '.join(rates)} |" + " |" * 6


def _rate(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
