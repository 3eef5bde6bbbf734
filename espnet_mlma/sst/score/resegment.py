"""Split a talk's output at its reference sentences so that word errors are minimal.

Algorithm of Matusov et al., "Evaluating Machine Translation Output with Automatic Sentence
Segmentation" (IWSLT 2005). Results equal those of the mweralign package, ties included; tests
compare them on random texts. We do not import mweralign because its licence is GPL-3.0-or-later.

Insertions, deletions and substitutions cost 1. A reference before the first output word costs 1
more than its words, as in mweralign; the paper does not have this. On equal cost, deletion is
preferred to insertion, and insertion to substitution or match. A word that fits nowhere therefore
goes to the earlier sentence. Only the case of ASCII letters is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase

import numpy as np

from espnet_mlma.sst.score.logs import WORD, joined, units

# A run of Latin-1 characters with its spaces, or any other character.
_CHAR_TOKEN = re.compile(r"[\x00-\xff]+|[^\x00-\xff]")
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def resegment(
    output: Sequence[str], references: Sequence[str], unit: str, ignore_case: bool
) -> list[slice]:
    """Return the slice of a talk's output for each reference sentence.

    Args:
        output: words or characters of the talk.
        references: reference sentences, in order.
        unit: word or char. With char, a run of Latin-1 characters is one token, as in simulstream
            and mweralign's `cj`.
        ignore_case: ignore case of ASCII letters.

    Returns:
        One slice of `output` per reference; together they cover all of it.
    """
    tokens, *wanted = (_tokens(text, unit) for text in (joined(output, unit), *references))
    if ignore_case:
        tokens, *wanted = ([t.translate(_LOWER) for t in text] for text in (tokens, *wanted))
    ends = boundaries(tokens, wanted)
    if unit != WORD:
        position = np.concatenate([[0], np.cumsum([len(token) for token in tokens], dtype=int)])
        ends = position[ends].tolist()
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def boundaries(output: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """Return the end of each sentence in the segmentation of least cost.

    Args:
        output: tokens of a talk.
        references: tokens of its sentences; may be empty.

    Returns:
        One index into `output` per reference; the last is the length of `output`.
    """
    numbers = {token: n for n, token in enumerate(dict.fromkeys(output))}
    heard = np.array([numbers[token] for token in output], dtype=np.int64)
    ramp = np.arange(len(output) + 1)
    cost = ramp
    starts = []  # per sentence and end: its start in the best segmentation
    for sentence, words in enumerate(references):
        start = ramp if sentence else np.zeros_like(ramp)
        for word in words:
            cost, start = _next_word(cost, start, heard != numbers.get(word, -1), ramp)
        starts.append(start)
        cost = cost.copy()
        cost[0] += 1
    ends = [len(output)]
    for start in starts[:0:-1]:
        ends.append(int(start[ends[-1]]))
    return ends[::-1]


def _next_word(
    cost: np.ndarray, start: np.ndarray, differs: np.ndarray, ramp: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add one reference word to the dynamic programme over all prefixes of the output.

    Args:
        cost: least cost of each prefix so far, (output + 1,).
        start: start of the sentence in each prefix, (output + 1,).
        differs: whether each output token differs from the word, (output,).
        ramp: lengths of the prefixes, (output + 1,).

    Returns:
        Updated `cost` and `start`.
    """
    deletion = cost + 1
    best = deletion.copy()
    substitution = cost[:-1] + differs
    np.minimum(best[1:], substitution, out=best[1:])
    new = np.minimum.accumulate(best - ramp) + ramp  # allow insertions after it
    deleted = new == deletion
    inserted = np.zeros_like(deleted)
    inserted[1:] = new[1:] == new[:-1] + 1
    own = np.where(deleted, start, np.concatenate([start[:1], start[:-1]]))
    # Inserted words inherit the start of the last prefix that does not end with an insertion.
    source = np.maximum.accumulate(np.where(inserted & ~deleted, 0, ramp))
    return new, own[source]


def _tokens(text: str, unit: str) -> list[str]:
    return units(text, unit) if unit == WORD else _CHAR_TOKEN.findall(text)
