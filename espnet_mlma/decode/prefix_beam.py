"""CTC prefix beam search: find the most probable texts, each summed over its alignments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from espnet_mlma.decode.best_path import BLANK
from espnet_mlma.decode.fusion import Fusion, State


@dataclass(frozen=True)
class Hypothesis:
    """A text that the search found.

    Attributes:
        token_ids: its symbols.
        score: log-probability, summed over the searched alignments, natural logarithm.
        total: `score` plus the scores of language model and hotwords; ranks the hypotheses.
    """

    token_ids: tuple[int, ...]
    score: float
    total: float


class Prefixes:
    """All prefixes searched so far, as a trie: node 0 is the empty prefix.

    A prefix that left the beam keeps its node, because its continuations may still be in the beam
    and must merge with it if it returns.
    """

    def __init__(self, fusion: Fusion | None):
        self.parents = [-1]
        self._symbols = [BLANK]
        self._children: dict[tuple[int, int], int] = {}
        self._fusion = fusion
        self._states: list[State] = [] if fusion is None else [fusion.start()]

    def child(self, node: int, symbol: int) -> int:
        """Return the node of a prefix and one more symbol."""
        child = self._children.setdefault((node, symbol), len(self.parents))
        if child == len(self.parents):
            self.parents.append(node)
            self._symbols.append(symbol)
            if self._fusion is not None:
                self._states.append(self._fusion.extend(self._states[node], symbol))
        return child

    def ahead(self, nodes: list[int], symbols: np.ndarray) -> np.ndarray:
        """Return what language model and hotwords add to prefixes extended by one symbol.

        Returns:
            (prefixes, symbols).
        """
        if self._fusion is None:
            return np.zeros((len(nodes), len(symbols)))
        return self._fusion.ahead([self._states[node] for node in nodes], symbols)

    def finish(self, node: int) -> float:
        """Return what language model and hotwords add to a prefix as a whole text."""
        return 0.0 if self._fusion is None else self._fusion.finish(self._states[node])

    def token_ids(self, node: int) -> tuple[int, ...]:
        """Return the symbols of a prefix."""
        reverse = []
        while node:
            reverse.append(self._symbols[node])
            node = self.parents[node]
        return tuple(reversed(reverse))


@dataclass(frozen=True)
class Beam:
    """The prefixes kept after a frame, one per row, unordered.

    Attributes:
        nodes: in the trie.
        last: the last symbol of each, the blank for the empty prefix.
        blank: log-probability of the alignments that end in a blank.
        symbol: log-probability of the alignments that end in the last symbol.
        fused: scores of language model and hotwords.
    """

    nodes: list[int]
    last: np.ndarray
    blank: np.ndarray
    symbol: np.ndarray
    fused: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """Return the log-probability of each prefix."""
        return np.logaddexp(self.blank, self.symbol)


def prefix_beam(
    log_probs: np.ndarray,
    width: int,
    token_threshold: float | None = None,
    score_threshold: float | None = None,
    fusion: Fusion | None = None,
    n_best: int = 1,
) -> list[Hypothesis]:
    """Search the best texts, best first.

    Args:
        log_probs: (frames, vocabulary), natural logarithms, symbol 0 is the blank.
        width: prefixes kept from frame to frame.
        token_threshold: symbols with a lower log-probability are not tried in a frame, except the
            frame's best; None: all are tried.
        score_threshold: prefixes this far below the best one of a frame are dropped; None: none.
        fusion: language model and hotwords.
        n_best: most hypotheses returned. If no text has any probability, the result is the empty
            one with score minus infinity.

    Source: Hannun et al., First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs, arXiv 1408.2873, algorithm 1.
    """
    prefixes = Prefixes(fusion)
    reach = math.inf if score_threshold is None else score_threshold
    beam = Beam([0], np.array([BLANK]), np.zeros(1), np.full(1, -np.inf), np.zeros(1))
    for frame, symbols in _frames(log_probs, token_threshold):
        if len(symbols):
            beam = _step(beam, frame, symbols, prefixes, width, reach)
        else:  # only the blank, as in most frames: prefixes and ranks stay
            beam = Beam(
                beam.nodes,
                beam.last,
                beam.scores + frame[BLANK],
                np.full(len(beam.nodes), -np.inf),
                beam.fused,
            )
    rows = [
        Hypothesis(prefixes.token_ids(node), score, score + prefixes.finish(node))
        for node, score in zip(beam.nodes, beam.scores.tolist(), strict=True)
        if score > -math.inf
    ]
    rows.sort(key=lambda hypothesis: -hypothesis.total)
    return rows[:n_best] or [Hypothesis((), -math.inf, -math.inf)]


def _frames(
    log_probs: np.ndarray, token_threshold: float | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each frame its log-probabilities (vocabulary,) and the symbols to try, ascending.

    Symbols that are not tried have minus infinity. The blank is not among the symbols to try.
    """
    tried = log_probs > -np.inf
    if token_threshold is not None:
        tried &= log_probs >= token_threshold
        tried[np.arange(len(log_probs)), log_probs.argmax(1)] = True
    frames = np.where(tried, log_probs.astype(np.float64), -np.inf)
    tried[:, BLANK] = False
    symbols = np.nonzero(tried)[1]
    return zip(frames, np.split(symbols, tried.sum(1).cumsum())[:-1], strict=True)


def _step(
    beam: Beam,
    frame: np.ndarray,
    symbols: np.ndarray,
    prefixes: Prefixes,
    width: int,
    reach: float,
) -> Beam:
    """Advance one frame: each prefix stays or gets one of `symbols`; the best are kept."""
    scores = beam.scores
    blank = scores + frame[BLANK]
    symbol = beam.symbol + frame[beam.last]
    # A symbol is repeated only after a blank.
    repeated = beam.last[:, None] == symbols
    longer = np.where(repeated, beam.blank[:, None], scores[:, None]) + frame[symbols]
    _merge(beam, prefixes, frame, symbols, symbol, longer)

    ahead = prefixes.ahead(beam.nodes, symbols)
    totals = np.concatenate([np.logaddexp(blank, symbol) + beam.fused, (longer + ahead).ravel()])
    kept = _best(totals, width, reach)
    split = np.searchsorted(kept, len(beam.nodes))
    stay = kept[:split]
    row, column = np.divmod(kept[split:] - len(beam.nodes), len(symbols))
    added = zip(row.tolist(), symbols[column].tolist(), strict=True)
    return Beam(
        [beam.nodes[i] for i in stay.tolist()]
        + [prefixes.child(beam.nodes[i], new) for i, new in added],
        np.concatenate([beam.last[stay], symbols[column]]),
        np.concatenate([blank[stay], np.full(len(row), -np.inf)]),
        np.concatenate([symbol[stay], longer[row, column]]),
        np.concatenate([beam.fused[stay], ahead[row, column]]),
    )


def _merge(
    beam: Beam,
    prefixes: Prefixes,
    frame: np.ndarray,
    symbols: np.ndarray,
    symbol: np.ndarray,
    longer: np.ndarray,
) -> None:
    """Add an extended prefix to the same prefix in the beam, in place.

    Args:
        symbol: (prefixes,) log-probability of staying and ending in the last symbol.
        longer: (prefixes, symbols) log-probability of one more symbol; merged ones become minus
            infinity.
    """
    rows = {node: row for row, node in enumerate(beam.nodes)}
    parents = np.array([rows.get(prefixes.parents[node], -1) for node in beam.nodes], dtype=int)
    children = np.flatnonzero((parents >= 0) & (frame[beam.last] > -np.inf))
    parents = parents[children]
    columns = np.searchsorted(symbols, beam.last[children])
    symbol[children] = np.logaddexp(symbol[children], longer[parents, columns])
    longer[parents, columns] = -np.inf


def _best(totals: np.ndarray, width: int, reach: float) -> np.ndarray:
    """Return the indices, ascending, of the `width` highest totals within reach of the highest."""
    floor = totals.max(initial=-np.inf) - reach
    kept = np.flatnonzero((totals >= floor) & (totals > -np.inf))
    if len(kept) > width:
        kept = np.sort(kept[np.argpartition(totals[kept], -width)[-width:]])
    return kept
