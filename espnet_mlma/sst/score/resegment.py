"""A talk's output cut into its reference sentences, with the fewest word errors.

The programme of Matusov et al., "Evaluating Machine Translation Output with Automatic Sentence
Segmentation" (IWSLT 2005), as the mweralign package has it, to the last tie, measured on random
texts. Insertions, deletions and substitutions cost one each. A reference before the first word of
the output costs one more than its words, which is so in the package and no part of the paper. Where
costs are equal a deletion comes before an insertion, and that before a substitution or a match, so
that a word that fits nowhere goes to the earlier sentence. Case is ignored in ASCII letters only.
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
    """Where the sentences of a talk's output are.

    Args:
        output: the talk's words, or its characters.
        references: the sentences, in order.
        unit: word or char. Words are compared with words; of characters, runs of Latin-1 are
            compared as one, as simulstream and mweralign's `cj` do.
        ignore_case: of ASCII letters.

    Returns:
        A slice of `output` for each reference; together they are all of it.
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
    """The ends, in tokens of `output`, of the cut that costs least.

    Args:
        output: tokens of a talk.
        references: tokens of its sentences; a sentence may have none.

    Returns:
        As many as references; the last is the length of `output`.
    """
    numbers = {token: n for n, token in enumerate(dict.fromkeys(output))}
    heard = np.array([numbers[token] for token in output], dtype=np.int64)
    ramp = np.arange(len(output) + 1)
    cost = ramp
    starts = []  # for each sentence and end: where it starts in the best cut
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
    """One more word of the references against all prefixes of the output.

    Args:
        cost: (output + 1,), least cost of each prefix so far.
        start: (output + 1,), where the sentence starts for it.
        differs: (output,), whether the word is another than each of the output.
        ramp: (output + 1,), the prefixes' lengths.

    Returns:
        Both, with the word.
    """
    deletion = cost + 1
    best = deletion.copy()
    substitution = cost[:-1] + differs
    np.minimum(best[1:], substitution, out=best[1:])
    new = np.minimum.accumulate(best - ramp) + ramp  # any number of insertions after it
    deleted = new == deletion
    inserted = np.zeros_like(deleted)
    inserted[1:] = new[1:] == new[:-1] + 1
    own = np.where(deleted, start, np.concatenate([start[:1], start[:-1]]))
    # An inserted word has the start of the last prefix before it that ends otherwise.
    source = np.maximum.accumulate(np.where(inserted & ~deleted, 0, ramp))
    return new, own[source]


def _tokens(text: str, unit: str) -> list[str]:
    return units(text, unit) if unit == WORD else _CHAR_TOKEN.findall(text)
