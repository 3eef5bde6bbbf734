"""Turn symbols and their frames into words with times and confidence."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from espnet_mlma import digests
from espnet_mlma.decode.best_path import Path as TokenPath
from espnet_mlma.decode.transcript import Token, Word
from espnet_mlma.errors import MlmaError

BPE_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
CHAR_SPACE = "<space>"
# CTC writes a symbol at a peak shortly after it begins, then blanks (arXiv 2406.02560). The values
# were fitted by benchmarks/word_times.py.
LEAD_SECONDS, TAIL_SECONDS = 0.03, 0.02


def space_of(token_type: str) -> str:
    """Return the mark between words: a token for `char`, else the first character of a token."""
    return CHAR_SPACE if token_type == "char" else BPE_SPACE


@dataclass(frozen=True)
class Calibration:
    """A logistic function from a word's log-probabilities to the probability that it is right.

    Attributes:
        total: weight of the sum of the log-probabilities of its symbols.
        mean: weight of their mean.
        bias: added.
    """

    total: float
    mean: float
    bias: float

    def confidence(self, scores: Sequence[float]) -> float:
        """Return the confidence of a word, from its symbols' log-probabilities."""
        total, mean = features(scores)
        z = self.total * total + self.mean * mean + self.bias
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, z))))

    @classmethod
    def read(cls, path: Path, model_file: Path) -> Calibration | None:
        """Read a checkpoint's calibration; None: none exists for this checkpoint.

        Args:
            path: the file that `mlma recipe calibrate` writes.
            model_file: the checkpoint.

        Raises:
            MlmaError: the file is not a calibration.
        """
        if not path.is_file():
            return None
        try:
            options = yaml.safe_load(path.read_text(encoding="utf-8"))
            fitted_to = options.pop("checkpoint")
            calibration = cls(**{name: float(value) for name, value in options.items()})
        except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError):
            raise MlmaError(f"{path}: not a calibration; delete it") from None
        if not all(map(math.isfinite, (calibration.total, calibration.mean, calibration.bias))):
            raise MlmaError(f"{path}: has NaN or Inf; delete it")
        return calibration if fitted_to == digests.of_file(model_file) else None


def features(scores: Sequence[float]) -> tuple[float, float]:
    """Return a word's features for calibration: sum and mean of its symbols' log-probabilities."""
    total = sum(scores)
    return total, total / len(scores)


def raw_confidence(scores: Sequence[float]) -> float:
    """Return the confidence without calibration: the geometric mean of symbol probabilities."""
    return math.exp(sum(scores) / len(scores))


def text_of(tokens: Sequence[str], token_type: str) -> str:
    """Join symbols to a text, words separated by single spaces."""
    space = space_of(token_type)
    return " ".join("".join(tokens).replace(space, " ").split())


def timed_tokens(
    path: TokenPath, tokens: Sequence[str], first_frame: float, frame_seconds: float
) -> tuple[Token, ...]:
    """Convert a path's frames to seconds.

    Args:
        path: symbols and frames.
        tokens: the token list.
        first_frame: the path's frame 0, from the beginning of the audio.
        frame_seconds: from one frame to the next.
    """
    return tuple(
        Token(
            id_,
            tokens[id_],
            (first_frame + first) * frame_seconds,
            (first_frame + end) * frame_seconds,
            score,
        )
        for id_, first, end, score in zip(
            path.token_ids, path.first, path.end, path.token_scores, strict=True
        )
    )


def token_groups(
    tokens: Sequence[Token], token_type: str, special_ids: Collection[int] = ()
) -> list[list[Token]]:
    """Group symbols by word, without spaces and special symbols.

    Args:
        tokens: in order.
        token_type: `char` or `bpe`.
        special_ids: symbols that are not text.
    """
    space = space_of(token_type)
    groups: list[list[Token]] = [[]]
    for token in tokens:
        if token.id in special_ids:
            continue
        if token.text.startswith(space):
            groups.append([])
        if token.text != space:
            groups[-1].append(token)
    return [group for group in groups if group]


def kept_tokens(
    tokens: Sequence[Token],
    keep: Sequence[bool],
    token_type: str,
    special_ids: Collection[int] = (),
) -> tuple[Token, ...]:
    """Drop the symbols of some words; with no word left, drop all symbols.

    Args:
        tokens: in order.
        keep: for each word, in the order of `token_groups`.
        token_type, special_ids: as for `token_groups`.
    """
    if not any(keep):
        return ()
    space = space_of(token_type)
    groups = token_groups(tokens, token_type, special_ids)
    dropped = {
        id(token)
        for group, is_kept in zip(groups, keep, strict=True)
        if not is_kept
        for token in group
    }
    kept: list[Token] = []
    for token in tokens:
        is_second_space = token.text == space and (not kept or kept[-1].text == space)
        if id(token) not in dropped and not is_second_space:
            kept.append(token)
    return tuple(kept[:-1] if kept[-1].text == space else kept)


def timed_words(
    groups: Sequence[Sequence[Token]],
    token_type: str,
    end: float,
    calibration: Calibration | None = None,
    begin: float = 0.0,
) -> tuple[Word, ...]:
    """Time words, from shortly before the first symbol's peak to shortly after the last one's.

    Args:
        groups: the symbols of each word.
        token_type: `char` or `bpe`.
        end: of the audio, seconds; no word ends later.
        calibration: of the confidences; None: they are the symbols' probabilities.
        begin: seconds; no word begins earlier.
    """
    starts = [max(begin, group[0].start - LEAD_SECONDS) for group in groups]
    limits = [*starts[1:], end]
    confidence = raw_confidence if calibration is None else calibration.confidence
    return tuple(
        Word(
            text_of([token.text for token in group], token_type),
            start,
            max(min(group[-1].end + TAIL_SECONDS, limit), start),
            confidence([token.score for token in group]),
        )
        for group, start, limit in zip(groups, starts, limits, strict=False)
    )
