"""What is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from espnet_mlma.evaluation.report.data import Pairs


@dataclass(frozen=True)
class Confusion:
    """How often something was taken for something else.

    Attributes:
        spoken: None: an insertion.
        recognised: None: a deletion.
        count: how often.
        of: how often `spoken` occurs, or for an insertion `recognised` among what was recognised.
    """

    spoken: str | None
    recognised: str | None
    count: int
    of: int


@dataclass(frozen=True)
class Matrix:
    """Symbols against symbols.

    Attributes:
        symbols: of the rows, which were said, and of the columns, which were recognised; the last,
            None, is a row of insertions and a column of deletions.
        counts: how often, a list for each row.
        totals: how often each row's symbol was said; of None, how many were inserted.
    """

    symbols: list[str | None]
    counts: list[list[int]]
    totals: list[int]


class Confusions:
    """Counts over alignments.

    Args:
        alignments: pairs of tokens, as `align` gives them.
    """

    def __init__(self, alignments: Iterable[Pairs]):
        self.pairs = Counter(pair for pairs in alignments for pair in pairs)
        self.spoken: Counter[str | None] = Counter()
        self.recognised: Counter[str | None] = Counter()
        for (spoken, recognised), count in self.pairs.items():
            self.spoken[spoken] += count
            self.recognised[recognised] += count

    def substituted(self, most: int) -> list[Confusion]:
        """The most frequent pairs of two different tokens."""
        return self._frequent(most, lambda spoken, recognised: spoken and recognised)

    def deleted(self, most: int) -> list[Confusion]:
        """The tokens most often left out."""
        return self._frequent(most, lambda spoken, recognised: recognised is None)

    def inserted(self, most: int) -> list[Confusion]:
        """The tokens most often written where nothing was said."""
        return self._frequent(most, lambda spoken, recognised: spoken is None)

    def matrix(self, most: int) -> Matrix:
        """The tokens with most errors against each other.

        Args:
            most: how many tokens; they stand in the order of the alphabet.
        """
        errors: Counter[str] = Counter()
        for pair, count in self.pairs.items():
            if pair[0] != pair[1]:
                errors.update({token: count for token in pair if token is not None})
        frequent = sorted(errors, key=lambda token: (-errors[token], token))[:most]
        symbols = [*sorted(frequent), None]
        counts = [[self.pairs[row, column] for column in symbols] for row in symbols]
        return Matrix(symbols, counts, [self.spoken[row] for row in symbols])

    def _frequent(self, most: int, wanted) -> list[Confusion]:
        found = [
            Confusion(
                *pair, count, self.recognised[pair[1]] if pair[0] is None else self.spoken[pair[0]]
            )
            for pair, count in self.pairs.items()
            if pair[0] != pair[1] and wanted(*pair)
        ]
        found.sort(key=lambda one: (-one.count, one.spoken or "", one.recognised or ""))
        return found[:most]
