"""Stage 1's checks: what cannot be read, scored or trained on, whatever its length.

Reasons: `bad_row`, `bad_span`, `unsafe_name`, `broken_audio`, `empty_text`; and for training only
`digits`, `out_of_alphabet`, `id_in_test`, `speaker_in_test`. Limits of length are in `filter.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from espnet_mlma.audio import AudioInfo
from espnet_mlma.data.utterance import Drop, Utterance, corpus_of, path_problem
from espnet_mlma.text import training_problem

_SPAN_TOLERANCE = 0.1  # seconds by which a span may exceed its recording
# Corpora whose speaker ids hold across splits, and whose test speakers must not be trained on.
_SPEAKER_DISJOINT = ("cv",)


@dataclass
class HeldOut:
    """The utterances and speakers of dev and test, which must not be trained on."""

    _ids: set[str] = field(default_factory=set)
    _speakers: set[str] = field(default_factory=set)

    def add(self, utterance: Utterance | Drop) -> None:
        """Add an utterance of dev or test, also one that is dropped there."""
        self._ids.add(utterance.id)
        if corpus_of(utterance.speaker) in _SPEAKER_DISJOINT:
            self._speakers.add(utterance.speaker)

    def drop(self, utterance: Utterance) -> Drop | None:
        """Drop a training utterance that is held out, or whose speaker is."""
        if utterance.id in self._ids:
            return Drop(utterance.id, "id_in_test", str(utterance.audio))
        if utterance.speaker in self._speakers:
            return Drop(utterance.id, "speaker_in_test", utterance.speaker)
        return None


def drop_by_path(utterance: Utterance) -> Drop | None:
    """Drop an utterance whose path cannot stand in a `wav.scp`."""
    audio = utterance.audio
    paths = (str(audio.path.absolute()), audio.member or "")
    problem = next(filter(None, map(path_problem, paths)), None)
    return Drop(utterance.id, "unsafe_name", problem, utterance.speaker) if problem else None


def drop_by_text(utterance: Utterance, words: str, scored: bool) -> Drop | None:
    """Drop an utterance by its transcript.

    Args:
        utterance: the utterance.
        words: its transcript, normalised.
        scored: keep all that has words, as for a test set.
    """
    reason = training_problem(utterance.text, words, utterance.lang)
    if reason is None or (scored and reason != "empty_text"):
        return None
    return Drop(utterance.id, reason, utterance.text)


def drop_by_audio(utterance: Utterance, info: AudioInfo | Exception) -> Drop | None:
    """Drop an utterance whose audio is unreadable, or whose span is not in the recording.

    Args:
        utterance: the utterance.
        info: length of its audio file, or why it has none.
    """
    if isinstance(info, Exception):
        return Drop(utterance.id, "broken_audio", str(info))
    start, end = span(utterance, info)
    if not 0 <= start < end or (utterance.end or 0.0) > info.seconds + _SPAN_TOLERANCE:
        detail = (
            f"{utterance.audio}: span {utterance.start}-{utterance.end} s of {info.seconds:.2f} s"
        )
        return Drop(utterance.id, "broken_audio", detail)
    return None


def span(utterance: Utterance, info: AudioInfo) -> tuple[float, float]:
    """Return start and end of an utterance in its audio file, in seconds."""
    end = info.seconds if utterance.end is None else min(utterance.end, info.seconds)
    return utterance.start or 0.0, end
