"""What is said after each chunk: the words of a translation whose source words have been heard.

All times are counted in samples, so that a word that ends where a chunk does is in that chunk.

Source: Ouyang et al., CMU's IWSLT 2025 simultaneous speech translation system, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, batched

from espnet_mlma.sst.grid import CHUNK_SAMPLES, SAMPLE_RATE


def chunks_up_to(seconds: float) -> int:
    """Chunks that hold so much audio, the last one perhaps in part."""
    return -(-round(seconds * SAMPLE_RATE) // CHUNK_SAMPLES)


def chunk_at(seconds: float) -> int:
    """The chunk that a moment is in, from 0; a moment between two is in the later one."""
    return round(seconds * SAMPLE_RATE) // CHUNK_SAMPLES


def turn_after(seconds: float) -> int:
    """The first turn, from 0, before which all that ends at `seconds` was heard."""
    return max(0, chunks_up_to(seconds) - 1)


def boundaries(ends: Sequence[float], pieces: int, pairs: Iterable[tuple[int, int]]) -> list[float]:
    """When each piece of a translation may be said: m_i of the paper, which never falls.

    A piece waits for the last of the words that it stands for, one without any for the next piece
    that has one, and the last piece of all for the last word.

    Args:
        ends: of each source word, seconds.
        pieces: of the translation.
        pairs: indices of a word and a piece.

    Returns:
        A time in seconds for each piece.
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
    """Timed pieces of text as one text for each of some chunks.

    Args:
        timed: text and the earliest time it may be said, seconds; the times never fall.
        first: index of the first chunk.
        chunks: how many; what is later than they are is left out.
    """
    texts = [""] * chunks
    for text, seconds in timed:
        turn = turn_after(seconds) - first
        if turn < chunks:
            texts[max(0, turn)] += text
    return texts


def merge(turns: Sequence[str], multiplier: int) -> list[str]:
    """The turns of a larger latency multiplier: what is said after every `multiplier` chunks.

    The last one may be of fewer chunks; its audio is padded with silence.
    """
    return ["".join(group) for group in batched(turns, multiplier)]
