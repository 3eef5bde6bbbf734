"""Report what stages 1 and 4 exclude from a set, and what training shares with dev and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

NAME = "excluded.md"
MEANINGS = {
    "id_in_test": "has the id of a dev or test utterance",
    "speaker_in_test": "by a speaker of dev or test, in a corpus whose splits share no speakers",
    "span_in_test": "overlaps a dev or test utterance in the same recording",
    "sentence_in_test": "a sentence of dev or test by the same speaker",
    "audio_in_test": "has audio of a dev or test clip, by its fingerprint",
}


def by_reason(counts: Mapping[tuple[str, str, str], int]) -> Counter[str]:
    """Sum counts by (reason, corpus, language) to counts by reason."""
    found: Counter[str] = Counter()
    for (reason, _, _), count in counts.items():
        found[reason] += count
    return found


def counts_table(
    counts: Mapping[tuple[str, str, str], int],
    hours: Mapping[tuple[str, str, str], float] | None = None,
) -> str:
    """Format a Markdown table of what was excluded.

    Args:
        counts: utterances by (reason, corpus, language).
        hours: of the same; None where they are unknown.
    """
    header = ["reason", "corpus", "language", "utterances", *(["hours"] if hours else [])]
    rows: list[Sequence[object]] = []
    for key, count in sorted(counts.items()):
        rows.append([*key, count, *([f"{hours[key]:.3f}"] if hours else [])])
    total = [f"{sum(hours.values()):.3f}"] if hours else []
    rows.append(["all", "", "", sum(counts.values()), *total])
    known = [f"- `{name}`: {of}" for name, of in MEANINGS.items() if name in by_reason(counts)]
    return "\n".join([table(header, rows, 3), *(["", *known] if known else [])])


def table(header: Sequence[str], rows: Iterable[Sequence[object]], texts: int = 1) -> str:
    """Format a Markdown table; the columns after the first `texts` are numbers."""
    aligned = [":--" if number < texts else "--:" for number in range(len(header))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, aligned, *rows))
