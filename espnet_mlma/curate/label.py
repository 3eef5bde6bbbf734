"""Label audio with a recogniser: text, times and confidence, as a manifest to train on.

    mlma data label talks --model exp/asr_x --output labels
    mlma data label talks --model exp/asr_x --output labels --shard 2/4    # one of four jobs

A recording is cut at its pauses into segments of at most 30 s, by the times of its words. Each
shard has its own manifest `<output>/<i>-of-<n>.jsonl`, and each finished recording is kept in
`<output>/.parts/`, so that a killed job goes on. The corpus `pseudo` reads the manifests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from espnet_mlma.arguments import ArgumentParser, first_line, refuse_to_replace
from espnet_mlma.claims import claim
from espnet_mlma.data.utterance import name_problem
from espnet_mlma.errors import MlmaError, one_line
from espnet_mlma.files import SOUND_SUFFIXES, read_text, whole, write
from espnet_mlma.numbers import positive, shard

if TYPE_CHECKING:
    from espnet_mlma.decode import Recogniser, Transcript, Word

LONGEST_SECONDS = 30.0
# A segment ends at a pause of this length; a longer segment is cut at its longest pause.
PAUSE_SECONDS = 0.5
# Sound kept before the first and after the last word: CTC's times are narrow.
MARGIN_SECONDS = 0.2
OPTIONS = "label.json"
_PARTS = ".parts"


def main(argv: Sequence[str] | None = None) -> None:
    """Label a folder from the command line.

    Raises:
        SystemExit: 1 if a recording could not be read, and the others were labelled.
    """
    args = _arguments(argv)
    number, count = args.shard
    refuse_to_replace(args.output, [args.folder, Path(args.model)])
    names = list_recordings(args.folder, number, count)
    manifest = args.output / f"{number}-of-{count}.jsonl"
    with claim(manifest, "labels it"):
        failed = label_shard(args, names, manifest)
    if failed:
        raise SystemExit(1)


def label_shard(args: argparse.Namespace, names: Sequence[str], manifest: Path) -> int:
    """Label the recordings of a shard that are not labelled yet, then write its manifest.

    Args:
        args: the command line.
        names: of the recordings in the folder.
        manifest: of the shard.

    Returns:
        Number of recordings that could not be read.

    Raises:
        MlmaError: the model cannot be loaded, or the output was begun with another model or other
            options.
    """
    from espnet_mlma.decode import Decoding, load
    from espnet_mlma.decode.fingerprint import of_decoding
    from espnet_mlma.espnet.imports import import_espnet
    from espnet_mlma.evaluation.compare.measure import WindowedRecogniser, with_language
    from espnet_mlma.loading.paths import located
    from espnet_mlma.memory import keep_freed_memory

    import_espnet()
    keep_freed_memory()
    with located(Path(args.model)) as (config, model_file):
        made_with = of_decoding(config, model_file, args.batch_seconds, Decoding())
        made_with["revision"] = _revision(config)
    made_with |= {"model": args.model, "language": args.language, "shards": args.shard[1]}
    refuse_change(args.output / OPTIONS, made_with)
    todo = [name for name in names if not _part(args.output, args.folder, name).exists()]
    print(f"{manifest}: {len(names)} recordings, {len(names) - len(todo)} finished", flush=True)
    failed = 0
    if todo:
        loaded = load(args.model, device=args.device, batch_seconds=args.batch_seconds)
        chosen = with_language(loaded, args.language)
        recogniser = chosen.recogniser if isinstance(chosen, WindowedRecogniser) else chosen
        for name in todo:
            failed += not _label(recogniser, args, name, made_with)
    rows = write_manifest(args, names, manifest)
    print(f"{manifest}: {rows} segments; {failed} of {len(names)} recordings failed", flush=True)
    return failed


def list_recordings(folder: Path, number: int, count: int) -> list[str]:
    """Return the sound files of a shard, by path below the folder, sorted.

    A file belongs to a shard by the digest of its name, so that files added later move no others.

    Raises:
        MlmaError: the folder is missing or has no sound.
    """
    if not folder.is_dir():
        raise MlmaError(f"{folder}: no such folder; name the folder with the audio")
    names = []
    for below, _, files in os.walk(folder):
        for file in files:
            if os.path.splitext(file)[1].lower() in SOUND_SUFFIXES and file[0] != ".":
                names.append(os.path.relpath(os.path.join(below, file), folder))
    if not names:
        raise MlmaError(f"{folder}: no sound file in or below this folder")
    return sorted(name for name in names if _digest(name) % count == number - 1)


def segments(words: Sequence[Word], duration: float) -> Iterator[tuple[float, float, list[Word]]]:
    """Cut a recording at its pauses into segments of at most 30 s.

    Args:
        words: with times.
        duration: of the recording, in seconds.

    Yields:
        Start and end in seconds, and the words between. A word of 30 s or more is left out.
    """
    longest = LONGEST_SECONDS - 2 * MARGIN_SECONDS
    todo = [list(words)]
    while todo:
        group = todo.pop()
        if not group:
            continue
        gaps = [after.start - before.end for before, after in zip(group, group[1:], strict=False)]
        is_long = group[-1].end - group[0].start > longest
        widest = max(range(len(gaps)), key=gaps.__getitem__, default=None)
        if widest is not None and (is_long or gaps[widest] >= PAUSE_SECONDS):
            # The first cut is at the widest pause, so that short ones are cut only when needed.
            todo += [group[widest + 1 :], group[: widest + 1]]
        elif not is_long:
            start = max(0.0, group[0].start - MARGIN_SECONDS)
            yield start, min(duration, group[-1].end + MARGIN_SECONDS), group


def refuse_change(path: Path, made_with: Mapping[str, Any]) -> None:
    """Write what an output is made with, or check that it was begun alike.

    Raises:
        MlmaError: it was begun with another model or other options.
    """
    with claim(path, "writes it", wait=True):
        if not path.exists():
            write(path, json.dumps(made_with, indent=1, ensure_ascii=False) + "\n")
            return
        try:
            found = json.loads(read_text(path, "label into another --output"))
        except ValueError:
            found = None
    before = found if isinstance(found, dict) else {}
    changed = sorted(key for key in {*before, *made_with} if before.get(key) != made_with.get(key))
    if changed:
        raise MlmaError(
            f"{path}: begun with another {', '.join(changed)}; give another --output, or the "
            "model and options of before"
        )


def write_manifest(args: argparse.Namespace, names: Iterable[str], manifest: Path) -> int:
    """Join the finished recordings to the manifest of a shard; return its number of rows."""
    count = 0
    with whole(manifest) as new, open(new, "w", encoding="utf-8", newline="\n") as file:
        for name in names:
            part = _part(args.output, args.folder, name)
            if part.exists():
                for line in part.read_text(encoding="utf-8").splitlines():
                    file.write(line + "\n")
                    count += 1
    return count


def _label(
    recogniser: Recogniser, args: argparse.Namespace, name: str, made_with: Mapping[str, Any]
) -> bool:
    """Label a recording; report one that cannot be read, and return whether it was labelled."""
    try:
        if problem := name_problem(name):
            raise MlmaError(f"{problem}; rename it")
        transcript = recogniser.transcribe(args.folder / name)
    except (MlmaError, OSError) as error:
        print(f"error: {one_line(f'{args.folder / name}: {error}')}", file=sys.stderr)
        return False
    rows = [json.dumps(row, ensure_ascii=False) for row in _rows(transcript, name, args, made_with)]
    write(_part(args.output, args.folder, name), "".join(f"{row}\n" for row in rows))
    return True


def _rows(
    transcript: Transcript, name: str, args: argparse.Namespace, made_with: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for start, end, words in segments(transcript.words, transcript.duration):
        yield {
            "id": f"{name}-{round(start * 100):08d}-{round(end * 100):08d}",
            "file": name,
            "start": round(start, 3),
            "end": round(end, 3),
            "text": " ".join(word.text for word in words),
            "confidence": round(fmean(word.confidence for word in words), 4),
            "language": args.language or transcript.language,
            "model": args.model,
            "revision": made_with["revision"],
            "checkpoint": made_with["checkpoint"],
            "options": made_with["options"],
        }


def _part(output: Path, folder: Path, name: str) -> Path:
    """Return the file of a recording's rows; it changes with the recording's size and time."""
    status = os.stat(folder / name)
    key = f"{name}\0{status.st_size}\0{status.st_mtime_ns}".encode(errors="surrogateescape")
    digest = hashlib.blake2b(key, digest_size=16).hexdigest()
    return output / _PARTS / digest[:2] / f"{digest}.jsonl"


def _digest(name: str) -> int:
    key = name.encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())


def _revision(config: Path) -> str | None:
    """Return the commit of a model from the hub, whose cache names its folder; else None."""
    parts = config.resolve().parts
    absolute = config.absolute().parts
    for places in (absolute, parts):
        if "snapshots" in places[:-1]:
            return places[places.index("snapshots") + 1]
    return None


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="mlma data label", description=first_line(__doc__))
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with the audio, at any depth")
    parser.add_argument(
        "--model", required=True, metavar="PATH|ZIP|HUB_ID", help="any model of `mlma transcribe`"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the manifests, one for each shard"
    )
    parser.add_argument(
        "--shard", type=shard, default=(1, 1), metavar="I/N", help="label this part (default: 1/1)"
    )
    parser.add_argument(
        "--language", metavar="CODE", help="spoken language (default: recognised, or guessed)"
    )
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--batch-seconds", type=positive, default=60.0, help="audio in a batch (default: 60)"
    )
    return parser.parse_args(argv)
