"""RESULTS.md: one table per decoding, a row per language and corpus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_mlma.evaluation.score.align import Errors, total_errors
from espnet_mlma.files import write
from espnet_mlma.text import order_languages

_COLUMNS = (
    "Language | Corpus | Test set | WER | CER | TER | # Snt | # Wrd | Sub | Del | Ins | Missing"
)


@dataclass(frozen=True)
class ResultRow:
    """A row of the table: counts on the utterances of one language and corpus.

    Attributes:
        lang, corpus, test_set: of the utterances; no set for a sum.
        sentences: number of utterances.
        missing: how many have no hypothesis.
        words, chars, tokens: errors.
        right_languages: utterances whose language was recognised; None: decoding wrote none.
    """

    lang: str
    corpus: str
    test_set: str
    sentences: int
    missing: int
    words: Errors
    chars: Errors
    tokens: Errors
    right_languages: int | None = None


def micro_average(rows: Sequence[ResultRow], lang: str, corpus: str) -> ResultRow:
    """Add up the counts of rows."""
    languages = [row.right_languages for row in rows]
    return ResultRow(
        lang,
        corpus,
        "",
        sum(row.sentences for row in rows),
        sum(row.missing for row in rows),
        total_errors(row.words for row in rows),
        total_errors(row.chars for row in rows),
        total_errors(row.tokens for row in rows),
        None if None in languages else sum(filter(None, languages)),
    )


def section(rows: Sequence[ResultRow], tag: str, scorer: str, checkpoint: str | None = None) -> str:
    """Format one decoding in Markdown.

    Args:
        rows: one per language and corpus.
        tag: name of the decoding folder, which ESPnet makes of configuration and model.
        scorer: program that counted the errors.
        checkpoint: digest; None: unknown.
    """
    config, _, model = tag.partition("_asr_model_")
    languages = order_languages(row.lang for row in rows)
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
        micro.append(micro_average(own, lang, "all"))
        if len(own) > 1:
            lines.append(_cells(micro[-1]))
    total = micro_average(micro, "all", "micro average")
    lines += [_cells(total), _macro(micro)]
    if total.right_languages is not None:
        shares = (
            f"{row.lang} {100 * row.right_languages / row.sentences:.1f}"
            for row in (*micro, total)
            if row.right_languages is not None
        )
        lines += [
            "",
            f"Utterances with the right language (%): {', '.join(shares)}.",
        ]
    return "\n".join(lines) + "\n"


def write_results(decode_dir: Path, text: str) -> Path:
    """Write one decoding's RESULTS.md, then the experiment's, which has those of all decodings.

    Args:
        decode_dir: `<experiment>/<inference tag>`.
        text: the section.

    Returns:
        Path of the experiment's file.
    """
    write(decode_dir / "RESULTS.md", text)
    experiment = decode_dir.resolve().parent
    parts = [path.read_text(encoding="utf-8") for path in sorted(experiment.glob("*/RESULTS.md"))]
    write(experiment / "RESULTS.md", "\n".join([f"# {experiment.name}\n", *parts]))
    return experiment / "RESULTS.md"


def _cells(row: ResultRow) -> str:
    rates = [_rate(errors.rate) for errors in (row.words, row.chars, row.tokens)]
    words = row.words
    counts = [row.sentences, words.reference, words.sub, words.del_, words.ins, row.missing]
    return f"| {' | '.join([row.lang, row.corpus, row.test_set, *rates, *map(str, counts)])} |"


def _macro(languages: Sequence[ResultRow]) -> str:
    rates = []
    for kind in ("words", "chars", "tokens"):
        known = [r for row in languages if not math.isnan(r := getattr(row, kind).rate)]
        rates.append(_rate(sum(known) / len(known) if known else float("nan")))
    name = f"mean of {len(languages)} language" + "s" * (len(languages) != 1)
    return f"| all | {name} | | {' | '.join(rates)} |" + " |" * 6


def _rate(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
