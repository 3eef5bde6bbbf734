"""Stage 1's checks: what cannot be read, scored or trained on, whatever its length.

Reasons: `bad_row`, `bad_span`, `unsafe_name`, `broken_audio`, `empty_text`; and for training only
`digits`, `out_of_alphabet`, and those of `HeldOut`. Limits of length, and audio that is held out,
are in `filter.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from espnet_mlma.audio import AudioInfo
from espnet_mlma.data.utterance import Drop, Utterance, corpus_of, path_problem
from espnet_mlma.text import normalise, training_problem

SPAN_TOLERANCE = 0.1  # seconds by which a span may exceed its recording, or overlap another
# Corpora whose speaker ids hold across splits, and whose test speakers must not be trained on.
_SPEAKER_DISJOINT = ("cv", "ls", "ss")
# Corpora whose speakers are named by LibriVox's reader ids (LibriSpeech's SPEAKERS.TXT, MLS's
# metainfo.txt), so that equal names are one person.
_LIBRIVOX = ("ls", "mls")
# File of a session of the European Parliament: the floor, or the channel of a language.
_SESSION = re.compile(r"(\d{8}-\d{4}-PLENARY-.+?)(_original|_[a-z]{2})?")


@dataclass
class HeldOut:
    """The utterances and speakers of dev and test, which must not be trained on.

    Reasons of its drops: `id_in_test`, `speaker_in_test`; `span_in_test`: part of the same
    recording; `sentence_in_test`: the same sentence by the same speaker.
    """

    _ids: set[str] = field(default_factory=set)
    _speakers: set[str] = field(default_factory=set)
    _spans: dict[tuple[str, str], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _spoken: set[tuple[str, str]] = field(default_factory=set)
    _sentences: dict[str, Counter[tuple[str, str]]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    _heard: set[tuple[str, str]] = field(default_factory=set)

    def add(self, utterance: Utterance | Drop, name: str = "") -> None:
        """Add an utterance of dev or test, also one that is dropped there.

        Args:
            utterance: the utterance.
            name: of its set, for `shared_sentences`.
        """
        self._ids.add(utterance.id)
        if corpus_of(utterance.speaker) in _SPEAKER_DISJOINT:
            self._speakers.add(_person(utterance.speaker))
        if isinstance(utterance, Drop):
            return
        place, start, end = _place(utterance)
        self._spans[place].append((start, end))
        if words := normalise(utterance.text, utterance.lang):
            self._spoken.add((_person(utterance.speaker), words))
            self._sentences[name][utterance.lang, words] += 1

    def drop(self, utterance: Utterance, words: str) -> Drop | None:
        """Drop a training utterance that is held out, or whose speaker is.

        Args:
            utterance: the utterance.
            words: its transcript, normalised.
        """
        person = _person(utterance.speaker)
        if utterance.id in self._ids:
            return Drop(utterance.id, "id_in_test", str(utterance.audio))
        if person in self._speakers:
            return Drop(utterance.id, "speaker_in_test", utterance.speaker)
        place, start, end = _place(utterance)
        for held_start, held_end in self._spans.get(place, ()):
            if min(end, held_end) - max(start, held_start) > SPAN_TOLERANCE:
                detail = f"{utterance.audio}: {start}-{end} s, and held out {held_start}-{held_end}"
                return Drop(utterance.id, "span_in_test", detail)
        if (person, words) in self._spoken:
            return Drop(utterance.id, "sentence_in_test", utterance.text)
        return None

    def hear(self, lang: str, words: str) -> None:
        """Note a sentence that stays in training, for `shared_sentences`."""
        if any((lang, words) in of for of in self._sentences.values()):
            self._heard.add((lang, words))

    def shared_sentences(self) -> dict[str, int]:
        """Count the utterances of each set whose sentence stays in training, by other speakers."""
        return {
            name: sum(count for sentence, count in of.items() if sentence in self._heard)
            for name, of in self._sentences.items()
        }


def _person(speaker: str) -> str:
    """Return an id that is equal for a language's speakers who are one person."""
    corpus, _, rest = speaker.partition("_")
    return f"librivox_{rest}" if corpus in _LIBRIVOX else speaker


def _place(utterance: Utterance) -> tuple[tuple[str, str], float, float]:
    """Return the recording of an utterance, and its span in seconds.

    A session of parliament has one name for all corpora. Its channels share the time, and the
    channel of a language is the floor's where that is spoken.
    """
    audio = utterance.audio
    start, end = utterance.start or 0.0, math.inf if utterance.end is None else utterance.end
    session = _SESSION.fullmatch(Path(audio.member or audio.path).stem)
    name = session[1] if session and utterance.end is not None else str(audio)
    return (utterance.lang, name), start, end


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
    if not 0 <= start < end or (utterance.end or 0.0) > info.seconds + SPAN_TOLERANCE:
        detail = (
            f"{utterance.audio}: span {utterance.start}-{utterance.end} s of {info.seconds:.2f} s"
        )
        return Drop(utterance.id, "broken_audio", detail)
    return None


def span(utterance: Utterance, info: AudioInfo) -> tuple[float, float]:
    """Return start and end of an utterance in its audio file, in seconds."""
    end = info.seconds if utterance.end is None else min(utterance.end, info.seconds)
    return utterance.start or 0.0, end
