"""What is kept out of a set, and why.

Reasons: `bad_row`, `bad_span`, `unsafe_name`, `broken_audio`, `empty_text`, `digits`,
`out_of_alphabet`, `too_short`, `too_long`, `too_many_symbols`, and for training `id_in_test` and
`speaker_in_test`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from espnet_mlma.audio import AudioInfo
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.utterance import Drop, Utterance, corpus_of, path_problem
from espnet_mlma.text import check, normalise

_FRAMES_PER_SECOND = 25  # 10 ms frames, subsampled by 4
_SPAN_TOLERANCE = 0.1  # seconds by which a span may run over its recording's end
# Corpora whose speakers are known across splits and whose test speakers are not to be trained on.
_SPEAKER_DISJOINT = ("cv",)


@dataclass(frozen=True)
class Limits:
    """Shortest and longest utterance that is trained on, in seconds."""

    min_seconds: float = 0.3
    max_seconds: float = 30.0

    def reason(self, seconds: float, text: str) -> tuple[str, str] | None:
        """Why an utterance is left out, and the detail; None if it is kept.

        Args:
            seconds: its length.
            text: its transcript, normalised; one CTC symbol per character, as a piece of BPE is no
                shorter.
        """
        if not text:
            return "empty_text", "no words"
        if seconds < self.min_seconds:
            return "too_short", f"{seconds:.2f} s"
        if seconds > self.max_seconds:
            return "too_long", f"{seconds:.2f} s"
        needed, frames = ctc_frames(text), int(seconds * _FRAMES_PER_SECOND)
        if needed > frames:
            return "too_many_symbols", f"{needed} for {frames} frames"
        return None


@dataclass
class HeldOut:
    """The utterances of dev and test, none of which training may hear."""

    _ids: set[str] = field(default_factory=set)
    _speakers: set[str] = field(default_factory=set)

    def add(self, utterance: Utterance | Drop) -> None:
        """Note an utterance of dev or test, also one that is left out there."""
        self._ids.add(utterance.id)
        if corpus_of(utterance.speaker) in _SPEAKER_DISJOINT:
            self._speakers.add(utterance.speaker)

    def drop(self, utterance: Utterance) -> Drop | None:
        """Say whether a training utterance is a held-out one, or by a held-out speaker."""
        if utterance.id in self._ids:
            return Drop(utterance.id, "id_in_test", str(utterance.audio))
        if utterance.speaker in self._speakers:
            return Drop(utterance.id, "speaker_in_test", utterance.speaker)
        return None


def drop_by_path(utterance: Utterance) -> Drop | None:
    """Check that the path of the sound fits into a `wav.scp`."""
    audio = utterance.audio
    is_file = isinstance(audio, AudioFile)
    paths = [audio.path.absolute()] if is_file else [audio.archive.absolute(), audio.member]
    problem = next(filter(None, (path_problem(str(path)) for path in paths)), None)
    return problem and Drop(utterance.id, "unsafe_name", problem, utterance.speaker)


def drop_by_text(utterance: Utterance, scored: bool) -> Drop | None:
    """Look at the transcript; a set that is `scored` keeps all that has words."""
    reason = check(utterance.text, utterance.lang)
    if reason is None or (scored and reason != "empty_text"):
        return None
    return Drop(utterance.id, reason, utterance.text)


def drop_by_sound(utterance: Utterance, info: AudioInfo | Exception, scored: bool) -> Drop | None:
    """Look at the length; a set that is `scored` keeps all that has sound."""
    if isinstance(info, Exception):
        return Drop(utterance.id, "broken_audio", str(info))
    start, end = span(utterance, info)
    whole = info.seconds
    if not 0 <= start < end or (utterance.end or 0.0) > whole + _SPAN_TOLERANCE:
        detail = f"{utterance.audio}: span {utterance.start}-{utterance.end} s of {whole:.2f} s"
        return Drop(utterance.id, "broken_audio", detail)
    if scored:
        return None
    reason = Limits().reason(end - start, normalise(utterance.text, utterance.lang))
    return reason and Drop(utterance.id, *reason)


def span(utterance: Utterance, info: AudioInfo) -> tuple[float, float]:
    """Start and end of an utterance in its sound file, in seconds."""
    end = info.seconds if utterance.end is None else min(utterance.end, info.seconds)
    return utterance.start or 0.0, end


def ctc_frames(symbols: Sequence[str]) -> int:
    """The fewest frames CTC can write symbols in: one each, and a blank between equal ones."""
    return len(symbols) + sum(a == b for a, b in pairwise(symbols))
