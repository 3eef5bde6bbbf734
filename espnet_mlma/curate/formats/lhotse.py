"""Manifests of lhotse: `recordings` and `supervisions`, or `cuts`; JSON lines, gzip or not.

The manifests are read without lhotse. Audio that is not a plain file (commands, URLs, memory,
shar archives), and cuts that are mixed, padded or changed, are refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espnet_mlma.curate.formats.row import Row, bad_row, json_lines, seconds, string
from espnet_mlma.data.utterance import Drop
from espnet_mlma.errors import MlmaError


def matches(source: Path) -> bool:
    """Say whether a folder has such manifests, or a file is one of cuts."""
    return bool(_find(source, "cuts") or _find(source, "supervisions"))


def rows(source: Path) -> Iterator[Row | Drop]:
    """Read the supervisions.

    Raises:
        MlmaError: a manifest is missing, not the only one of its kind, or cannot be read.
    """
    if cuts := _only(source, "cuts"):
        yield from _cuts(cuts)
        return
    supervisions, manifest = _only(source, "supervisions"), _only(source, "recordings")
    if supervisions is None or manifest is None:
        raise MlmaError(f"{source}: supervisions without recordings; put both there")
    recordings: dict[str, str | Drop] = {}
    for place, recording in json_lines(manifest):
        if isinstance(recording, Drop):
            yield recording
        else:
            recordings[string(recording.get("id"))] = _file(recording, place)
    for place, supervision in json_lines(supervisions):
        if isinstance(supervision, Drop):
            yield supervision
            continue
        of = recordings.get(string(supervision.get("recording_id")))
        yield _row(supervision, bad_row(place, "no such recording") if of is None else of, place, 0)


def _cuts(manifest: Path) -> Iterator[Row | Drop]:
    for place, cut in json_lines(manifest):
        if isinstance(cut, Drop):
            yield cut
            continue
        recording, start = cut.get("recording"), seconds(cut.get("start"))
        supervisions = cut.get("supervisions")
        if cut.get("type") not in ("MonoCut", "MultiCut") or not isinstance(recording, dict):
            yield Drop(place.rpartition("/")[2], "unsupported", f"{place}: not a cut of one file")
        elif start is None or not isinstance(supervisions, list):
            yield bad_row(place, "a cut without start or supervisions")
        else:
            for supervision in supervisions:
                is_object = isinstance(supervision, dict)
                of = _file(recording, place) if is_object else bad_row(place, "not an object")
                yield _row(supervision if is_object else {}, of, place, start)


def _row(supervision: dict[str, Any], of: str | Drop, place: str, offset: float) -> Row | Drop:
    key = string(supervision.get("id"))
    if isinstance(of, Drop):
        return Drop(key or of.id, of.reason, of.detail)
    begin, length = (seconds(supervision.get(name)) for name in ("start", "duration"))
    if not key or begin is None or not length:
        return bad_row(place, "a supervision without id, start or duration")
    text, speaker, lang = (string(supervision.get(k)) for k in ("text", "speaker", "language"))
    start = offset + begin
    return Row(key, of, text, place, start, start + length, speaker, lang)


def _file(recording: dict[str, Any], place: str) -> str | Drop:
    sources = recording.get("sources")
    only = sources[0] if isinstance(sources, list) and len(sources) == 1 else None
    if not isinstance(only, dict) or only.get("type") != "file":
        kind = only.get("type") if isinstance(only, dict) else "several or none"
        detail = f"{place}: source {string(kind)[:40]!r}, not one file; save the audio to files"
        return Drop(place.rpartition("/")[2], "unsupported", detail)
    if recording.get("transforms"):
        return Drop(place.rpartition("/")[2], "unsupported", f"{place}: has transforms; save it")
    return string(only.get("source"))


def _find(source: Path, kind: str) -> list[Path]:
    if source.is_file():
        is_one = kind == "cuts" and "cuts" in source.name and ".jsonl" in source.name
        return [source] if is_one else []
    names = (f"*{kind}*.jsonl", f"*{kind}*.jsonl.gz")
    return sorted(path for name in names for path in source.glob(name))


def _only(source: Path, kind: str) -> Path | None:
    found = _find(source, kind)
    if len(found) > 1:
        raise MlmaError(
            f"{source}: {len(found)} manifests of {kind}; put each split into a folder and name "
            "them with --split"
        )
    return found[0] if found else None
