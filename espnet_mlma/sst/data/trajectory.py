"""Assign the words of a translation to chunks: a word follows once its source words were heard.

Times are compared in samples, so a word that ends on a chunk boundary belongs to that chunk.

Source: Ouyang et al., CMU's IWSLT 2025 simultaneous speech translation system, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, batched

from espnet_mlma.sst.grid import CHUNK_SAMPLES, SAMPLE_RATE


def chunks_up_to(seconds: float) -> int:
    """Return the number of chunks that cover so much audio, rounded up."""
    return -(-round(seconds * SAMPLE_RATE) // CHUNK_SAMPLES)


def chunk_at(seconds: float) -> int:
    """Return the index of the chunk at a time; a boundary belongs to the later chunk."""
    return round(seconds * SAMPLE_RATE) // CHUNK_SAMPLES


def turn_after(seconds: float) -> int:
    """Return the index of the first turn after all audio up to `seconds` was heard."""
    return max(0, chunks_up_to(seconds) - 1)


def boundaries(ends: Sequence[float], pieces: int, pairs: Iterable[tuple[int, int]]) -> list[float]:
    """Return the earliest time of each piece of a translation (m_i in the paper).

    A piece waits for the last source word that it is aligned to. An unaligned piece waits for the
    next aligned piece, and the last piece waits for the last source word.

    Args:
        ends: end of each source word, seconds.
        pieces: number of pieces of the translation.
        pairs: aligned indices (word, piece).

    Returns:
        One time in seconds for each piece; the times never decrease.
    """
    last_word: dict[int, int] = {pieces - 1: len(ends) - 1}
    for word, piece in pairs:
        last_word[piece] = max(word, last_word.get(piece, 0))
    times = []
    following = ends[-1]
    for piece in reversed(range(pieces)):
        if piece in last_word:
            following = ends[last_word[piece]]
        times.append(following)
    return list(accumulate(reversed(times), max))


def turns(timed: Iterable[tuple[str, float]], first: int, chunks: int) -> list[str]:
    """Collect timed pieces of text into one text per chunk.

    Args:
        timed: pieces with their earliest times in seconds, which never decrease.
        first: index of the first chunk.
        chunks: number of chunks; later pieces are left out.
    """
    texts = [""] * chunks
    for text, seconds in timed:
        turn = turn_after(seconds) - first
        if turn < chunks:
            texts[max(0, turn)] += text
    return texts


def merge(turns: Sequence[str], multiplier: int) -> list[str]:
    """Merge turns for a larger latency multiplier: one turn per `multiplier` chunks.

    The last turn may cover fewer chunks; its audio is padded with silence.
    """
    return ["".join(group) for group in batched(turns, multiplier)]
