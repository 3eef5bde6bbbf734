"""Kaldi-style data folders, written whole or not at all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet_mlma.audio import AudioInfo
from espnet_mlma.audio.archives import scp_value
from espnet_mlma.data import tables as datadir
from espnet_mlma.data.limits import HeldOut, drop_by_path, drop_by_sound, drop_by_text, span
from espnet_mlma.data.probing import Audio, probe_all
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder
from espnet_mlma.text import normalise


@dataclass(frozen=True)
class SetReport:
    """What became of a set.

    Attributes:
        folder: where it is.
        speakers: how many utterances of each were kept.
        seconds: kept, by (language, corpus).
        dropped: how many utterances, by reason.
    """

    folder: Path
    speakers: Mapping[str, int]
    seconds: Mapping[tuple[str, str], float]
    dropped: Mapping[str, int]

    @property
    def kept(self) -> int:
        """How many utterances there are."""
        return sum(self.speakers.values())

    def __str__(self) -> str:
        hours = sum(self.seconds.values()) / 3600
        lines = [f"{self.folder.name}: {self.kept} utterances, {hours:.2f} h, in {self.folder}"]
        for lang in dict.fromkeys(lang for lang, _ in self.seconds):
            parts = {c: s / 3600 for (of, c), s in self.seconds.items() if of == lang}
            shares = ", ".join(f"{corpus} {part:.3f}" for corpus, part in parts.items())
            lines.append(f"  {lang} {sum(parts.values()):.3f} h ({shares})")
        if self.dropped:
            counts = ", ".join(f"{reason} {n}" for reason, n in sorted(self.dropped.items()))
            lines.append(f"  dropped: {counts}; listed in {self.folder / 'dropped.tsv'}")
        return "\n".join(lines)

    def heard_in(self, training: SetReport) -> str | None:
        """A line about the speakers of this set whom training hears as well; None without any."""
        shared = self.speakers.keys() & training.speakers
        if not shared:
            return None
        theirs = sum(self.speakers[speaker] for speaker in shared)
        return (
            f"{self.folder.name}: training hears {len(shared)} of its {len(self.speakers)} "
            f"speakers, whose are {theirs} of its {self.kept} utterances"
        )


def write_set(
    folder: Path,
    utterances: Iterable[Utterance | Drop],
    *,
    nj: int,
    scored: bool = False,
    held_out: HeldOut | None = None,
) -> SetReport:
    """Normalise, filter and write one set.

    Args:
        folder: the data folder; one that exists is replaced once the new one is whole.
        utterances: what the readers yield; what they drop is counted with the rest.
        nj: threads that read the lengths of the sound files.
        scored: a test set, from which only what cannot be scored is dropped.
        held_out: what training may not hear; None for a set that is not trained on.

    Raises:
        MlmaError: two utterances share an id, nothing is left, or the folder cannot be written.
    """
    drops: list[Drop] = []
    wanted = []
    for utterance in _unique(utterances):
        if isinstance(utterance, Drop):
            drops.append(utterance)
            continue
        drop = held_out.drop(utterance) if held_out else None
        drop = drop or drop_by_path(utterance) or drop_by_text(utterance, scored)
        if drop:
            drops.append(drop)
        else:
            wanted.append(utterance)
    infos = probe_all({utterance.audio for utterance in wanted}, nj, folder.name)
    kept = []
    for utterance in wanted:
        drop = drop_by_sound(utterance, infos[utterance.audio], scored)
        if drop:
            drops.append(drop)
        else:
            kept.append(utterance)
    reasons = Counter(drop.reason for drop in drops)
    if not kept:
        raise MlmaError(_nothing_left(folder.name, drops, reasons))
    kept.sort(key=lambda utterance: utterance.id)
    replace_folder(folder, lambda new: _write_files(new, kept, infos, drops))
    speakers = Counter(utterance.speaker for utterance in kept)
    return SetReport(folder, speakers, _seconds(kept, infos), reasons)


def _unique(utterances: Iterable[Utterance | Drop]) -> Iterable[Utterance | Drop]:
    places: dict[str, Audio] = {}
    for utterance in utterances:
        if isinstance(utterance, Drop):
            yield utterance
            continue
        if utterance.id in places:
            raise MlmaError(
                f"{utterance.id}: two utterances have this id: {places[utterance.id]} and "
                f"{utterance.audio}; remove one"
            )
        places[utterance.id] = utterance.audio
        yield utterance


def _nothing_left(name: str, drops: list[Drop], reasons: Counter[str]) -> str:
    if not drops:
        return f"{name}: its corpora have no utterances; look at the folders they are read from"
    counts = ", ".join(f"{reason} {number}" for reason, number in sorted(reasons.items()))
    first = drops[0]
    return f"{name}: nothing left, dropped {counts}; for one {first.id}: {first.detail}"


def _seconds(kept: list[Utterance], infos: Mapping[Audio, AudioInfo]) -> dict:
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for utterance in kept:
        start, end = span(utterance, infos[utterance.audio])
        seconds[utterance.lang, utterance.corpus] += end - start
    return dict(sorted(seconds.items()))


def _write_files(
    folder: Path, kept: list[Utterance], infos: Mapping[Audio, AudioInfo], drops: list[Drop]
) -> None:
    speakers = {u.id: u.speaker for u in kept}
    datadir.write(folder / "text", ((u.id, normalise(u.text, u.lang)) for u in kept))
    datadir.write(folder / "utt2spk", speakers.items())
    datadir.write(folder / "spk2utt", datadir.spk2utt(speakers))
    datadir.write(folder / "utt2lang", ((u.id, u.lang) for u in kept))
    # ESPnet's sampler draws a "dataset" and then a "category" in it; here that has to be a
    # language and then a corpus in the language.
    datadir.write(folder / "utt2dataset", ((u.id, u.lang) for u in kept))
    datadir.write(folder / "utt2category", ((u.id, u.corpus) for u in kept))
    _write_sound(folder, kept, infos)
    dropped = ((drop.id, drop.reason, drop.detail) for drop in drops)
    datadir.write_dropped(folder / "dropped.tsv", dropped)


def _write_sound(folder: Path, kept: list[Utterance], infos: Mapping[Audio, AudioInfo]) -> None:
    """Write `wav.scp`, and `segments` as soon as one utterance is a span of a recording."""
    recordings = {u.recording or u.id: scp_value(u.audio) for u in kept}
    datadir.write(folder / "wav.scp", sorted(recordings.items()))
    if any(u.recording for u in kept):
        rows = ((u, *span(u, infos[u.audio])) for u in kept)
        datadir.write(
            folder / "segments",
            ((u.id, f"{u.recording or u.id} {start:.4f} {end:.4f}") for u, start, end in rows),
        )
