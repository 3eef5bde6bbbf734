"""Write the data folder of a set, complete or not at all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from espnet_mlma.audio import AudioInfo
from espnet_mlma.audio.archives import AudioFile, scp_value
from espnet_mlma.data import exclusions, tables
from espnet_mlma.data.checks import HeldOut, drop_by_audio, drop_by_path, drop_by_text, span
from espnet_mlma.data.probing import lengths
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder
from espnet_mlma.text import normalise


@dataclass(frozen=True)
class SetReport:
    """What a set holds, and what was dropped from it.

    Attributes:
        folder: its data folder.
        speakers: number of utterances of each speaker.
        seconds: length by (language, corpus).
        drops: number of dropped utterances by (reason, corpus, language).
    """

    folder: Path
    speakers: Mapping[str, int]
    seconds: Mapping[tuple[str, str], float]
    drops: Mapping[tuple[str, str, str], int]

    @property
    def dropped(self) -> Counter[str]:
        """Number of dropped utterances by reason."""
        return exclusions.by_reason(self.drops)

    @property
    def kept(self) -> int:
        """Number of utterances."""
        return sum(self.speakers.values())

    def __str__(self) -> str:
        hours = sum(self.seconds.values()) / 3600
        lines = [f"{self.folder.name}: {self.kept} utterances, {hours:.2f} h, in {self.folder}"]
        for lang in dict.fromkeys(lang for lang, _ in self.seconds):
            parts = {c: s / 3600 for (of, c), s in self.seconds.items() if of == lang}
            shares = ", ".join(f"{corpus} {part:.3f}" for corpus, part in parts.items())
            lines.append(f"  {lang} {sum(parts.values()):.3f} h ({shares})")
        if self.dropped:
            counts = tables.list_counts(self.dropped)
            lines.append(f"  dropped: {counts}; listed in {self.folder / 'dropped.tsv'}")
        return "\n".join(lines)

    def shared_speakers(self, training: SetReport) -> tuple[int, int]:
        """Count the speakers that this set shares with a training set, and their utterances."""
        shared = self.speakers.keys() & training.speakers
        return len(shared), sum(self.speakers[speaker] for speaker in shared)

    def speaker_overlap(self, training: SetReport) -> str | None:
        """Describe the speakers that this set shares with a training set; None: there are none."""
        shared, theirs = self.shared_speakers(training)
        if not shared:
            return None
        return (
            f"{self.folder.name}: {shared} of {len(self.speakers)} speakers are also in "
            f"training; they have {theirs} of {self.kept} utterances"
        )


def write_set(
    folder: Path,
    utterances: Iterable[Utterance | Drop],
    *,
    nj: int,
    scored: bool = False,
    held_out: HeldOut | None = None,
) -> SetReport:
    """Normalise, check and write one set.

    Args:
        folder: the data folder; an existing one is replaced when the new one is complete.
        utterances: what the readers yield; their drops are counted too.
        nj: threads that read the lengths of the audio files.
        scored: a test set, from which only what cannot be scored is dropped.
        held_out: what must not be trained on; None for a set that is not trained on.

    Raises:
        MlmaError: two utterances share an id, nothing is left, or the folder cannot be written.
    """
    drops: list[Drop] = []
    words: dict[str, str] = {}  # normalised transcripts
    wanted: list[Utterance] = []
    for utterance in _unique(utterances):
        if isinstance(utterance, Drop):
            drops.append(utterance)
            continue
        words[utterance.id] = normalise(utterance.text, utterance.lang)
        drop = held_out.drop(utterance, words[utterance.id]) if held_out else None
        drop = drop or drop_by_path(utterance)
        drop = drop or drop_by_text(utterance, words[utterance.id], scored)
        if drop:
            drops.append(replace(drop, corpus=utterance.corpus, lang=utterance.lang))
        else:
            wanted.append(utterance)
    found = lengths(wanted, nj, folder.name)
    kept = []
    for utterance in wanted:
        drop = drop_by_audio(utterance, found[utterance.audio])
        if drop:
            drops.append(replace(drop, corpus=utterance.corpus, lang=utterance.lang))
            continue
        kept.append(utterance)
        if held_out:
            held_out.hear(utterance.lang, words[utterance.id])
    counts = Counter((drop.reason, drop.corpus, drop.lang) for drop in drops)
    if not kept:
        raise MlmaError(_nothing_left(folder.name, drops, exclusions.by_reason(counts)))
    kept.sort(key=lambda utterance: utterance.id)
    infos = {audio: info for audio, info in found.items() if isinstance(info, AudioInfo)}

    def fill(new: Path) -> None:
        _write_tables(new, kept, words)
        _write_audio(new, kept, infos)
        tables.write_dropped(new / "dropped.tsv", ((d.id, d.reason, d.detail) for d in drops))

    replace_folder(folder, fill)
    speakers = Counter(utterance.speaker for utterance in kept)
    return SetReport(folder, speakers, _seconds(kept, infos), counts)


def _unique(utterances: Iterable[Utterance | Drop]) -> Iterator[Utterance | Drop]:
    places: dict[str, AudioFile] = {}
    for utterance in utterances:
        if isinstance(utterance, Utterance):
            if utterance.id in places:
                raise MlmaError(
                    f"{utterance.id}: duplicate id of {places[utterance.id]} and "
                    f"{utterance.audio}; remove one"
                )
            places[utterance.id] = utterance.audio
        yield utterance


def _nothing_left(name: str, drops: list[Drop], reasons: Counter[str]) -> str:
    if not drops:
        return f"{name}: its corpora have no utterances; check their folders"
    first = drops[0]
    counts = tables.list_counts(reasons)
    return f"{name}: nothing left, dropped {counts}; the first, {first.id}: {first.detail}"


def _seconds(
    kept: list[Utterance], infos: Mapping[AudioFile, AudioInfo]
) -> dict[tuple[str, str], float]:
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for utterance in kept:
        start, end = span(utterance, infos[utterance.audio])
        seconds[utterance.lang, utterance.corpus] += end - start
    return dict(sorted(seconds.items()))


def _write_tables(folder: Path, kept: list[Utterance], words: Mapping[str, str]) -> None:
    speakers = {u.id: u.speaker for u in kept}
    tables.write(folder / "text", ((u.id, words[u.id]) for u in kept))
    tables.write(folder / "utt2spk", speakers.items())
    tables.write(folder / "spk2utt", tables.spk2utt(speakers))
    tables.write(folder / "utt2lang", ((u.id, u.lang) for u in kept))
    # ESPnet's sampler draws a "dataset" and then a "category" of it; these are a language and one
    # of its corpora.
    tables.write(folder / "utt2dataset", ((u.id, u.lang) for u in kept))
    tables.write(folder / "utt2category", ((u.id, u.corpus) for u in kept))


def _write_audio(folder: Path, kept: list[Utterance], infos: Mapping[AudioFile, AudioInfo]) -> None:
    """Write `wav.scp`, and `segments` if any utterance is a span of a recording.

    A file that is used whole ends at -1, as in Kaldi: a corpus's own length may be too short, and
    stage 3 would cut the sound there.
    """
    recordings = {u.recording or u.id: scp_value(u.audio) for u in kept}
    tables.write(folder / "wav.scp", sorted(recordings.items()))
    if any(u.recording for u in kept):
        tables.write(folder / "segments", ((u.id, _segment(u, infos[u.audio])) for u in kept))


def _segment(utterance: Utterance, info: AudioInfo) -> str:
    start, end = span(utterance, info)
    shown_end = "-1" if utterance.end is None else f"{end:.4f}"
    return f"{utterance.recording or utterance.id} {start:.4f} {shown_end}"
