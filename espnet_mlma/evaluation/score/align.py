"""Align a reference with a hypothesis, with NIST sclite's weights and tie-breaking.

sclite minimises 4 substitutions + 3 insertions + 3 deletions, not the number of errors. Alignments
of equal cost may differ in errors: three substitutions, or one match, two insertions and two
deletions. Libraries do not reproduce its counts: rapidfuzz and jiwer use unit weights; kaldialign
has the weights but breaks ties differently, which changed 2.4 % of random pairs of ten symbols.
Tracing back from the end, with match or substitution before insertion before deletion, gives
sclite's counts on all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import reduce

import numpy as np

# Pairs of reference and hypothesis token; None marks an insertion or a deletion.
Alignment = Sequence[tuple[str | None, str | None]]

_SUB, _INS, _DEL = 4, 3, 3


@dataclass(frozen=True)
class Errors:
    """Counts over one or more utterances."""

    correct: int = 0
    sub: int = 0
    del_: int = 0
    ins: int = 0

    @property
    def reference(self) -> int:
        """Tokens in the reference."""
        return self.correct + self.sub + self.del_

    @property
    def total(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.sub + self.del_ + self.ins

    @property
    def rate(self) -> float:
        """Errors per reference token, in per cent; NaN without a reference token."""
        return 100 * self.total / self.reference if self.reference else float("nan")

    def __add__(self, other: Errors) -> Errors:
        return Errors(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def total_errors(counts: Iterable[Errors]) -> Errors:
    """Add up counts."""
    return reduce(Errors.__add__, counts, Errors())


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> Alignment:
    """Pair the tokens of a reference with those of a hypothesis.

    Args:
        reference: spoken tokens.
        hypothesis: recognised tokens.
    """
    if reference == hypothesis:
        return [(token, token) for token in reference]
    cost = _costs(reference, hypothesis)
    i, j = len(reference), len(hypothesis)
    pairs: list[tuple[str | None, str | None]] = []
    while i or j:
        if i and j:
            step = 0 if reference[i - 1] == hypothesis[j - 1] else _SUB
            if cost[i][j] == cost[i - 1][j - 1] + step:
                i, j = i - 1, j - 1
                pairs.append((reference[i], hypothesis[j]))
                continue
        if j and cost[i][j] == cost[i][j - 1] + _INS:
            j -= 1
            pairs.append((None, hypothesis[j]))
        else:
            i -= 1
            pairs.append((reference[i], None))
    return pairs[::-1]


def count_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Errors:
    """Count correct, substituted, deleted and inserted tokens as sclite does.

    Args:
        reference: spoken tokens.
        hypothesis: recognised tokens.
    """
    return count_alignment(align(reference, hypothesis))


def count_alignment(alignment: Alignment) -> Errors:
    """Count correct, substituted, deleted and inserted tokens of an alignment."""
    correct = sub = deleted = inserted = 0
    for spoken, recognised in alignment:
        if spoken is None:
            inserted += 1
        elif recognised is None:
            deleted += 1
        elif spoken == recognised:
            correct += 1
        else:
            sub += 1
    return Errors(correct, sub, deleted, inserted)


def _costs(reference: Sequence[str], hypothesis: Sequence[str]) -> list[list[int]]:
    """Return the least cost of each pair of prefixes, (reference + 1, hypothesis + 1)."""
    numbers = {token: n for n, token in enumerate({*reference, *hypothesis})}
    columns = np.array([numbers[token] for token in hypothesis], dtype=np.int64)
    ramp = _INS * np.arange(len(hypothesis) + 1)
    row = ramp
    rows = [row.tolist()]
    for token in reference:
        best = row + _DEL
        np.minimum(best[1:], row[:-1] + _SUB * (columns != numbers[token]), out=best[1:])
        row = np.minimum.accumulate(best - ramp) + ramp  # any number of insertions after it
        rows.append(row.tolist())
    return rows
