"""Add a speech corpus of one's own, in any of five formats and any language.

    mlma data add corpus/data --name mine --lang pl --output db/mine --yes
    mlma data add corpus --name mine --lang pl --output db/mine --split train=a.json test=b.json

Only tables are written; the audio stays where it is.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import batched
from pathlib import Path
from types import ModuleType

import yaml

from espnet_mlma.arguments import ArgumentParser, first_line, refuse_to_replace
from espnet_mlma.audio import AudioInfo
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.claims import claim
from espnet_mlma.curate.alphabets import Letters
from espnet_mlma.curate.formats import datasets, kaldi, lhotse, nemo, table
from espnet_mlma.curate.formats.row import Row
from espnet_mlma.curate.splits import draw
from espnet_mlma.data import tables
from espnet_mlma.data.checks import SPAN_TOLERANCE
from espnet_mlma.data.corpora import own
from espnet_mlma.data.mixtures import CORPORA, reader_of
from espnet_mlma.data.probing import probe_all
from espnet_mlma.data.utterance import Drop, path_problem
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_lines, replace_folder, write
from espnet_mlma.text import LANGUAGES, check_code, normalise, order_languages

FORMATS = {"kaldi": kaldi, "lhotse": lhotse, "nemo": nemo, "datasets": datasets, "table": table}
_BATCH = 10_000  # rows whose audio is measured at once
_OTHER_NAMES = {"dev": ("dev", "valid", "validation"), "train": ("train",), "test": ("test",)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run `mlma data add`."""
    args = _arguments(argv)
    _check_name(args.name)
    if args.lang:
        check_code(args.lang)
    if not args.source.exists():
        raise MlmaError(f"{args.source}: does not exist; give a folder or a manifest")
    sources = _sources(args.source, args.split)
    for source in sources.values():
        refuse_to_replace(args.output, [source])
    _check_output(args.output)
    formats = {split: _format(source, args.format) for split, source in sources.items()}
    for split, source in sources.items():
        print(f"{source}: {formats[split]}{f', split {split}' if split else ''}", flush=True)
    with claim(args.output, "adds a corpus there"):
        kept = _kept_alphabets(args.output)
        replace_folder(args.output, lambda new: _fill(new, args, sources, formats, kept))
    print(f"wrote {args.output}; train with ./run.sh --mixture {args.name}")


def _fill(
    new: Path,
    args: argparse.Namespace,
    sources: dict[str, Path],
    formats: dict[str, str],
    kept: dict[str, str],
) -> None:
    drops: list[Drop] = []
    letters: dict[str, Letters] = defaultdict(Letters)
    groups: Counter[tuple[str, str]] = Counter()  # (language, speaker)
    unnamed, staged = 0, new / "rows.tsv"

    def found() -> Iterator[tuple[str, ...]]:
        nonlocal unnamed
        seen: set[bytes] = set()
        for split, row, seconds in _checked(args, sources, formats, drops):
            key = hashlib.sha256(f"{row.lang}\0{row.key}".encode()).digest()[:12]
            if key in seen:
                raise MlmaError(f"{row.place}: duplicate id {row.key!r}; remove one")
            seen.add(key)
            speaker = " ".join(row.speaker.split())
            unnamed += not speaker
            speaker = speaker or Path(row.path).stem
            letters[row.lang].add(normalise(row.text, row.lang))
            groups[row.lang, speaker] += 1
            start, end = ("" if of is None else f"{of:.4f}" for of in (row.start, row.end))
            text = " ".join(row.text.split())
            id_ = " ".join(row.key.split())
            yield split, row.lang, id_, row.path, start, end, f"{seconds:.4f}", speaker, text

    _write_rows(staged, found())
    if not groups:
        raise MlmaError(_nothing_left(args.source, drops))
    if unnamed:
        print(f"note: {unnamed} rows have no speaker; each recording counts as one speaker")
    of_speaker = {} if "" not in sources else draw(groups, args.name)
    if of_speaker:
        print("the splits are drawn by speaker; no speaker is in two")
    counts = _distribute(staged, new, of_speaker)
    staged.unlink()
    _approve(new, args, letters, kept)
    tables.write_dropped(new / "dropped.tsv", ((d.id, d.reason, d.detail) for d in drops))
    reasons = Counter(drop.reason for drop in drops)
    record = {
        "name": args.name,
        "languages": order_languages(letters),
        "date": datetime.date.today().isoformat(),
        "sources": {split or "all": str(source.absolute()) for split, source in sources.items()},
        "formats": {split or "all": of for split, of in formats.items()},
        "splits": "drawn by speaker" if of_speaker else "given",
        "counts": counts,
        "dropped": dict(sorted(reasons.items())),
        "sha256": {
            str(path.relative_to(new)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(new.glob("*/*.tsv"))
        },
    }
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
    (new / own.RECORD).write_text(text, encoding="utf-8")
    for lang, splits in counts.items():
        sizes = ", ".join(f"{s} {n['rows']} ({n['hours']} h)" for s, n in splits.items())
        print(f"{lang}: {sizes}")
    if reasons:
        print(f"dropped: {tables.list_counts(reasons)}; listed in {args.output}/dropped.tsv")


def _checked(
    args: argparse.Namespace,
    sources: dict[str, Path],
    formats: dict[str, str],
    drops: list[Drop],
) -> Iterator[tuple[str, Row, float]]:
    """Yield split, row and seconds of each usable row; collect the others."""
    for split, source in sources.items():
        rows = FORMATS[formats[split]].rows(source)
        folder = source if source.is_dir() else source.parent
        for batch in batched(rows, _BATCH):
            good: list[Row] = []
            for row in batch:
                checked = row if isinstance(row, Drop) else _usable(row, args.lang, folder)
                drops.append(checked) if isinstance(checked, Drop) else good.append(checked)
            infos = probe_all({AudioFile(Path(row.path)) for row in good}, args.nj, source.name)
            for row in good:
                info = infos[AudioFile(Path(row.path))]
                seconds = _seconds(row, info)
                if isinstance(seconds, Drop):
                    drops.append(seconds)
                else:
                    yield split, row, seconds


def _usable(row: Row, lang: str | None, folder: Path) -> Row | Drop:
    key, path = " ".join(row.key.split()), row.path
    code = lang or row.lang
    problem = path_problem(path) if path.strip() else "the name of the audio file is empty"
    if problem is None and ".." in path.split("/"):
        problem = f"{ascii(path[:100])}: has .., which leads out of the folder"
    if problem is not None:
        return Drop(key or row.place, "unsafe_name", f"{row.place}: {problem}")
    if "\0" in row.text + row.key + row.speaker:
        return Drop(row.place, "bad_row", f"{row.place}: NUL character")
    try:
        check_code(code)
    except MlmaError as error:
        return Drop(key, "unknown_language", f"{row.place}: {error}, or give --lang")
    if not normalise(row.text, code):
        return Drop(key, "empty_text", row.place)
    whole = os.path.abspath(folder / path)
    return Row(row.key, whole, row.text, row.place, row.start, row.end, row.speaker, code)


def _seconds(row: Row, info: AudioInfo | MlmaError) -> float | Drop:
    if not isinstance(info, AudioInfo):
        return Drop(row.key, "broken_audio", str(info))
    start, end = row.start or 0.0, info.seconds if row.end is None else row.end
    if not start < end <= info.seconds + SPAN_TOLERANCE:
        detail = f"{row.place}: span {start}-{end} s of {info.seconds:.2f} s"
        return Drop(row.key, "bad_span", detail)
    return min(end, info.seconds) - start


def _write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join(row) + "\n" for row in rows)


def _distribute(staged: Path, new: Path, of_speaker: dict[tuple[str, str], str]) -> dict:
    """Write the table of each language and split; return rows and hours of each."""
    totals: dict[str, dict[str, list[float]]] = {}
    with_files = {}
    try:
        for line in read_lines(staged):
            split, lang, *values = line.split("\t")
            split = split or of_speaker[lang, values[-2]]
            if (lang, split) not in with_files:
                (new / lang).mkdir(exist_ok=True)
                path = new / lang / f"{split}.tsv"
                file = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115
                with_files[lang, split] = file
                with_files[lang, split].write("\t".join(own.COLUMNS) + "\n")
            with_files[lang, split].write("\t".join(values) + "\n")
            total = totals.setdefault(lang, {}).setdefault(split, [0, 0.0])
            total[0] += 1
            total[1] += float(values[4])
    finally:
        for file in with_files.values():
            file.close()
    for lang, splits in totals.items():
        if missing := [split for split in own.SPLITS if split not in splits]:
            raise MlmaError(f"{lang}: no rows in {', '.join(missing)}; give it with --split")
    return {
        lang: {
            split: {"rows": int(splits[split][0]), "hours": round(splits[split][1] / 3600, 3)}
            for split in own.SPLITS
        }
        for lang, splits in sorted(totals.items())
    }


def _approve(
    new: Path, args: argparse.Namespace, letters: dict[str, Letters], kept: dict[str, str]
) -> None:
    """Write the alphabets of languages beyond the table, once they are approved."""
    proposals = {lang: found.table() for lang, found in letters.items() if lang not in LANGUAGES}
    for lang, proposal in proposals.items():
        text = kept.get(lang, proposal)
        whose = f"that of {args.output / lang / own.ALPHABET}" if lang in kept else "proposed"
        print(f"alphabet of {lang} ({whose}):\n{text}", end="", flush=True)
        if not args.yes and not _is_confirmed(lang):
            place = args.output / lang / own.ALPHABET
            if lang not in kept:
                write(place, text)
            raise MlmaError(f"{place}: not approved; read and edit it, then run again with --yes")
        (new / lang / own.ALPHABET).write_text(text, encoding="utf-8")


def _is_confirmed(lang: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"train on {lang} with this alphabet? [y/N] ").strip().lower() in ("y", "yes")


def _kept_alphabets(output: Path) -> dict[str, str]:
    """Return the alphabets that a user may have edited."""
    return {
        path.parent.name: path.read_text(encoding="utf-8")
        for path in sorted(output.glob(f"*/{own.ALPHABET}"))
    }


def _check_name(name: str) -> None:
    tags = {reader_of(corpus).TAG for corpus in CORPORA}
    if not own.NAME.fullmatch(name) or name in CORPORA.keys() | tags:
        raise MlmaError(
            f"--name {name}: not free or not a name; use up to 20 of a-z and 0-9, a letter first"
        )


def _check_output(output: Path) -> None:
    """Refuse to replace a folder that is neither a corpus nor a proposed alphabet."""
    if not output.is_dir() or (output / own.RECORD).is_file():
        return
    others = [path for path in output.rglob("*") if path.is_file() and path.name != own.ALPHABET]
    if others:
        raise MlmaError(f"{output}: holds {others[0].name}, would be replaced; name another folder")


def _sources(source: Path, assignments: list[str]) -> dict[str, Path]:
    """Return the place of each split; key "" for a source whose splits are to be drawn."""
    if not assignments:
        found = {
            split: source / name
            for split, names in _OTHER_NAMES.items()
            for name in names
            if (source / name).is_dir() and _recognised(source / name)
        }
        return found if len(found) == len(own.SPLITS) else {"": source}
    places = {}
    for assignment in assignments:
        split, _, name = assignment.partition("=")
        if split not in own.SPLITS or not name:
            raise MlmaError(f"--split {assignment}: not train=NAME, dev=NAME or test=NAME")
        places[split] = (source if source.is_dir() else source.parent) / name
        if not places[split].exists():
            raise MlmaError(f"--split {assignment}: {places[split]} does not exist")
    if missing := [split for split in own.SPLITS if split not in places]:
        raise MlmaError(f"--split: {', '.join(missing)} is missing; give train, dev and test")
    return places


def _recognised(source: Path) -> list[str]:
    def is_it(reader: ModuleType) -> bool:
        return reader.matches(source)

    return [name for name, reader in FORMATS.items() if is_it(reader)]


def _format(source: Path, given: str | None) -> str:
    if given:
        return given
    found = _recognised(source)
    if len(found) != 1:
        what = "in more than one format" if found else "in no known format"
        raise MlmaError(f"{source}: {what}; name it with --format {'|'.join(found or FORMATS)}")
    return found[0]


def _nothing_left(source: Path, drops: list[Drop]) -> str:
    if not drops:
        return f"{source}: has no rows; check it"
    counts = tables.list_counts(Counter(drop.reason for drop in drops))
    return f"{source}: nothing left, dropped {counts}; the first, {drops[0].id}: {drops[0].detail}"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="mlma data add", description=first_line(__doc__))
    parser.add_argument("source", type=Path, help="folder or manifest")
    parser.add_argument("--name", required=True, help="of the corpus: a-z and 0-9")
    parser.add_argument("--lang", help="language code of all rows; without it, the source's")
    parser.add_argument("--format", choices=FORMATS, help="instead of recognising it")
    parser.add_argument(
        "--split", nargs="+", default=[], metavar="SPLIT=NAME", help="in the source's folder"
    )
    parser.add_argument("--output", type=Path, required=True, help="<db_root>/<name>")
    parser.add_argument("--yes", action="store_true", help="accept the alphabets")
    parser.add_argument("--nj", type=int, default=4, help="threads")
    return parser.parse_args(argv)
