"""Confusions: substitutions, deletions and insertions by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from espnet_mlma.evaluation.score.align import Alignment


@dataclass(frozen=True)
class Confusion:
    """Number of times a token was recognised as another.

    Attributes:
        spoken: None: an insertion.
        recognised: None: a deletion.
        count: of this confusion.
        of: count of `spoken` in the references, or for an insertion of `recognised` in hypotheses.
    """

    spoken: str | None
    recognised: str | None
    count: int
    of: int


@dataclass(frozen=True)
class Matrix:
    """Confusion matrix.

    Attributes:
        symbols: of the rows (spoken) and columns (recognised); None, the last, is a row of
            insertions and a column of deletions.
        counts: a list for each row.
        totals: count of each row's symbol in the references; for None, of insertions.
    """

    symbols: list[str | None]
    counts: list[list[int]]
    totals: list[int]


class Confusions:
    """Counts over alignments.

    Args:
        alignments: see `score.align`.
    """

    def __init__(self, alignments: Iterable[Alignment]):
        self.pairs = Counter(pair for pairs in alignments for pair in pairs)
        self.spoken: Counter[str | None] = Counter()
        self.recognised: Counter[str | None] = Counter()
        for (spoken, recognised), count in self.pairs.items():
            self.spoken[spoken] += count
            self.recognised[recognised] += count

    def substituted(self, most: int) -> list[Confusion]:
        """List the most frequent substitutions."""
        return self._frequent(most, lambda spoken, recognised: spoken and recognised)

    def deleted(self, most: int) -> list[Confusion]:
        """List the tokens deleted most often."""
        return self._frequent(most, lambda spoken, recognised: recognised is None)

    def inserted(self, most: int) -> list[Confusion]:
        """List the tokens inserted most often."""
        return self._frequent(most, lambda spoken, recognised: spoken is None)

    def matrix(self, most: int) -> Matrix:
        """Return the confusion matrix of the tokens with most errors, in alphabetical order.

        Args:
            most: maximum number of tokens.
        """
        errors: Counter[str] = Counter()
        for pair, count in self.pairs.items():
            if pair[0] != pair[1]:
                errors.update({token: count for token in pair if token is not None})
        frequent = sorted(errors, key=lambda token: (-errors[token], token))[:most]
        symbols = [*sorted(frequent), None]
        counts = [[self.pairs[row, column] for column in symbols] for row in symbols]
        return Matrix(symbols, counts, [self.spoken[row] for row in symbols])

    def _frequent(
        self, most: int, wanted: Callable[[str | None, str | None], object]
    ) -> list[Confusion]:
        found = [
            Confusion(
                *pair, count, self.recognised[pair[1]] if pair[0] is None else self.spoken[pair[0]]
            )
            for pair, count in self.pairs.items()
            if pair[0] != pair[1] and wanted(*pair)
        ]
        found.sort(key=lambda one: (-one.count, one.spoken or "", one.recognised or ""))
        return found[:most]
