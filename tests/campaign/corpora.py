"""Damaged corpora: each reader, through stage 1's writer and stage 3."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np

from tests.campaign import fixtures
from tests.campaign.cases import Campaign
from tests.campaign.damage import byte_damages
from tests.campaign.forked import Ended, fault, run
from tests.campaign.trees import SENTENCES, TREES, Tree

PART = "corpora"
# What stands in a field of a row of its own; the other rows are good and have to be kept.
FIELDS = {
    "nothing": "",
    "a blank": " ",
    "blanks around": "  x y  ",
    "a no-break space": "a\u00a0b",
    "a tab in quotes": '"a\tb"',
    "a quote": '"a b',
    "two quotes": 'he said "a" and b',
    "a pipe": "touch PWNED |",
    "a command": "$(touch PWNED)|",
    "a backquote": "`touch PWNED`",
    "a semicolon": "a; touch PWNED",
    "NUL": "a\0b",
    "carriage return": "a\rb",
    "form feed": "a\fb",
    "U+0085": "a\u0085b",
    "U+2028": "a\u2028b",
    "a byte order mark": "\ufeffa b",
    "a zero-width space": "a\u200bb",
    "combining letters": "cafe\u0301",
    "an emoji": "a \U0001f600 b",
    "right to left": "\u202eabc",
    "300 letters": "a" * 300,
    "200000 letters": "ab " * 70000,
    "a slash": "and/or",
    "two dots": "../../x",
    "an absolute path": "/etc/passwd",
    "a hyphen first": "-rf",
    "a percent": "100%s %n",
    "braces": "{0} {x}",
    "nan": "nan",
    "1e999": "1e999",
    "minus": "-5",
    "None": "None",
    "digits": "12 345",
    "angle brackets": "<unk> <blank>",
}
SPANS = (
    "[]", "[[]]", "[[1]]", "[[0.0, 1.0]", "nan", "[['nan', 2.0]]", "[[0.0, 'nan']]",
    "[[-1e999, 2.0]]", "[[0.0, 1e999]]", "[[2.0, 1.0]]", "[[-3.0, 1.0]]", "[[50.0, 60.0]]",
    "[[1.0, 1.0]]", "[[0, 99999999999999999999]]", "[['a', 'b']]", "[[None, 1.0]]", "{}", "5",
    "__import__('os').system('touch PWNED')", "-" * 100000 + "1", "(" * 300, "[[True, 2]]",
    "[[0.0, 1.0], [0.5]]", "[[0.0, 1j]]", "1" * 5000, "[[0.0, 1.0]]" * 2,
)  # fmt: skip


def campaign(report: Campaign, folder: Path) -> None:
    """Try every reader.

    Args:
        report: gets the cases.
        folder: to work in; empty.
    """
    fixtures.import_readers()
    for tree in TREES:
        import_module(f"espnet_mlma.data.corpora.{tree.reader}")
    for number, tree in enumerate(TREES):
        source = folder / "source"
        shutil.rmtree(source, ignore_errors=True)
        made = run(lambda tree=tree, source=source: tree.make(source))
        assert made.status == 0, made.err
        ended, texts = _prepare(tree, source, folder)
        if fault(ended) or len(texts) != len(SENTENCES):
            report.add(PART, tree.name, "whole", fault(ended) or f"kept {sorted(texts)}")
            continue
        tried = [
            *_rows(tree, source),
            *_whole_tables(tree, source, [report.seed, number]),
            *_sounds(tree, source, [report.seed, number]),
            *_places(tree, source),
        ]
        for name, damage, good in tried[number % 17 :: 17] if report.quick else tried:
            root = folder / "root"
            _remove(root)
            shutil.copytree(source, root, symlinks=True)
            damage(root)
            ended, kept = _prepare(tree, root, folder)
            report.add(PART, tree.name, name, _verdict(ended, kept, texts, good, folder))


Damaged = tuple[str, Callable[[Path], object], int | None]


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _prepare(tree: Tree, root: Path, folder: Path) -> tuple[Ended, dict[str, str]]:
    """Stages 1 and 3; how it ended, and the texts that were kept, by id."""
    for name in ("data", "dump"):
        _remove(folder / name)

    def work() -> None:
        from espnet_mlma.data.format_audio import format_folder
        from espnet_mlma.data.writer import write_set
        from espnet_mlma.errors import run_cli

        def stages() -> None:
            write_set(folder / "data", tree.read(root), nj=1, scored=True)
            format_folder(folder / "data", folder / "dump", 1)

        run_cli(stages)

    ended = run(work, cwd=str(folder))
    table = folder / "dump/text"
    rows = []
    if table.exists() and (folder / "dump/wav.scp").exists():
        rows = table.read_text(encoding="utf-8").split("\n")
    return ended, dict((*row.split(" ", 1), "")[:2] for row in rows if row)


def _verdict(
    ended: Ended, kept: dict[str, str], texts: dict[str, str], good: int | None, folder: Path
) -> str | None:
    """What is wrong.

    Args:
        ended: how it ended.
        kept: texts by id.
        texts: those of the undamaged corpus.
        good: how many rows are undamaged and have to be kept; None: the table as a whole may be
            refused, or else the texts have to be right; -1: it may have become another corpus.
        folder: where it ran.
    """
    wrong = fault(ended)
    if wrong:
        return wrong
    if next(folder.rglob("PWNED"), None):
        return "a command in the data ran"
    commands = [
        line
        for table in folder.glob("data/wav.scp")
        for line in table.read_text(encoding="utf-8").splitlines()
        if line.rstrip().endswith("|") and " tar -xzOf '" not in line
    ]
    if commands:
        return f"a command in wav.scp: {commands[0][-60:]}"
    right = sum(texts.get(id_) == text for id_, text in kept.items())
    if good == -1:
        return None
    if good is None:
        strange = [id_ for id_, text in kept.items() if id_ in texts and texts[id_] != text]
        return f"exit status 0 and another text of {strange[0]}" if strange else None
    if ended.status:
        return f"{good} good rows are refused: {ended.errors[0][:200]}"
    return None if right >= good else f"{right} of {good} good rows are kept"


def _read(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _on_table(tree: Tree, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        _put(root / tree.table, change(_read(root / tree.table)))

    return damage


def _rows(tree: Tree, source: Path) -> Iterator[Damaged]:
    """Rows of a table, each damaged by itself: the others are kept."""
    lines = _read(source / tree.table).decode().splitlines()
    first = int(tree.header)
    victim = first + 2
    fields = lines[victim].split(tree.separator)
    good = len(SENTENCES) - 1

    def row(*new: str) -> Callable[[Path], object]:
        def change(_: bytes) -> bytes:
            rows = [*lines[:victim], *new, *lines[victim + 1 :]]
            return "".join(f"{line}\n" for line in rows).encode("utf-8", "surrogateescape")

        return _on_table(tree, change)

    for place in range(len(fields)):
        for name, value in FIELDS.items():
            edited = [*fields[:place], value, *fields[place + 1 :]]
            yield f"{name} in field {place + 1}", row(tree.separator.join(edited)), good
    last = len(fields) - 1
    if tree.name == "VoxPopuli, sessions":
        for span in SPANS:
            edited = [*fields[:last], span]
            yield f"span {span[:30]}", row(tree.separator.join(edited)), good
    yield "a row twice", row(lines[victim], lines[victim]), None
    yield "an empty row", row("", lines[victim]), good + 1
    yield "a row of blanks", row("   ", lines[victim]), good + 1
    yield "a row of separators", row(tree.separator * last, lines[victim]), good + 1
    yield "a short row", row(fields[0]), good
    yield "a long row", row(tree.separator.join([*fields, *["x"] * 5])), good
    yield "a row cut within", row(lines[victim][: len(lines[victim]) // 2]), good
    yield "a row of 10 MB", row("x" * 10_000_000), good
    yield "the sound of another row", row(lines[victim].replace(fields[0], fields[0] + "9")), good
    raw = lines[victim].encode()
    for name, byte in {"latin-1": b"\xe9", "half a letter": b"\xc3", "0xff": b"\xff"}.items():

        def change(_: bytes, byte=byte) -> bytes:
            rows = [line.encode() for line in lines]
            rows[victim] = raw[:-1] + byte
            return b"\n".join(rows) + b"\n"

        yield f"{name} at the end of a row", _on_table(tree, change), None


def _whole_tables(tree: Tree, source: Path, seed: list[int]) -> Iterator[Damaged]:
    everything = len(SENTENCES)
    whole = _read(source / tree.table)
    text = whole.decode()
    rows = text.splitlines()
    same = {
        "a byte order mark": b"\xef\xbb\xbf" + whole,
        "lines that end in CR LF": whole.replace(b"\n", b"\r\n"),
        "a byte order mark and CR LF": b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"),
        "no newline at the end": whole.rstrip(b"\n"),
        "empty lines at the end": whole + b"\n\n\n",
        "blanks at the end": whole + b"   \n",
    }
    for name, content in same.items():
        yield name, _on_table(tree, lambda _, content=content: content), everything
    refused = {
        "UTF-16": text.encode("utf-16"),
        "UTF-16 without a mark": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32"),
        "lines that end in CR": whole.replace(b"\n", b"\r"),
        "NULs at the end": whole + bytes(4096),
        "only a newline": b"\n",
        "only a byte order mark": b"\xef\xbb\xbf",
        "two byte order marks": b"\xef\xbb\xbf" * 2 + whole,
        "the table twice": whole + whole,
        "rows in another order": ("\n".join([rows[0], *rows[:0:-1]]) + "\n").encode(),
    }
    if tree.header:
        cells = rows[0].split(tree.separator)
        for place, name in enumerate(cells):
            heads = cells.copy()
            heads[place] = "other"
            refused[f"no column {name}"] = "\n".join(
                [tree.separator.join(heads), *rows[1:]]
            ).encode()
        refused["no header"] = "\n".join(rows[1:]).encode()
        refused["a column twice"] = "\n".join(
            f"{row}{tree.separator}{row.split(tree.separator)[-1]}" for row in rows
        ).encode()
        refused["columns in capitals"] = "\n".join([rows[0].upper(), *rows[1:]]).encode()
    other = "," if tree.separator != "," else ";"
    refused["another separator"] = text.replace(tree.separator, other).encode()
    for name, content in refused.items():
        yield name, _on_table(tree, lambda _, content=content: content), None
    stored = (source / tree.table).read_bytes()
    for name, damaged in byte_damages(stored, [*seed, 1], 6):

        def write(root: Path, damaged=damaged) -> None:
            (root / tree.table).write_bytes(damaged)

        # A letter may become another one without anybody being able to tell.
        yield f"table: {name}", write, -1


def _sounds(tree: Tree, source: Path, seed: list[int]) -> Iterator[Damaged]:
    first = sorted(source.glob(tree.sounds))[0].relative_to(source)
    is_shared = tree.name in ("VoxPopuli, sessions", "FLEURS")
    good = None if is_shared else len(SENTENCES) - 1
    content = (source / first).read_bytes()
    for name, damaged in byte_damages(content, [*seed, 2], 6):

        def write(root: Path, damaged=damaged) -> None:
            (root / first).write_bytes(damaged)

        yield f"sound: {name}", write, good
    makers: dict[str, Callable[[Path], object]] = {
        "missing": lambda path: None,
        "a folder": Path.mkdir,
        "a link to nothing": lambda path: path.symlink_to("nowhere"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a named pipe": os.mkfifo,
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a text": lambda path: path.write_text("no sound\n" * 99),
        "5 samples": lambda path: _wav(path, np.zeros(5)),
        "an hour of zeros": lambda path: _wav(path, np.zeros(3600 * 16000, np.int16)),
        "NaN": lambda path: _wav(path, np.full(16000, np.nan, np.float32), "FLOAT"),
        "1 Hz": lambda path: _wav(path, np.zeros(9000, np.int16), rate=1),
        "a million Hz": lambda path: _wav(path, np.zeros(2000000, np.int16), rate=10**6),
        "100 channels": lambda path: _wav(path, np.zeros((16000, 100), np.int16)),
    }
    for name, make in makers.items():

        def replace(root: Path, make=make) -> None:
            (root / first).unlink()
            make(root / first)

        yield f"sound: {name}", replace, good


def _wav(path: Path, samples: np.ndarray, subtype: str = "PCM_16", rate: int = 16000) -> None:
    import soundfile

    soundfile.write(path, samples, rate, format="WAV", subtype=subtype)


def _places(tree: Tree, source: Path) -> Iterator[Damaged]:
    makers: dict[str, Callable[[Path], object]] = {
        "missing": lambda path: None,
        "a folder": Path.mkdir,
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to nothing": lambda path: path.symlink_to("nowhere"),
    }
    for name, make in makers.items():

        def replace(root: Path, make=make) -> None:
            (root / tree.table).unlink()
            make(root / tree.table)

        yield f"the table is {name}", replace, None
    yield "an empty root", lambda root: (_remove(root), root.mkdir()), None
    yield "no root", lambda root: _remove(root), None

    def stray(root: Path) -> None:
        for folder in {root, (root / tree.table).parent}:
            (folder / os.fsdecode(b"caf\xe9.tsv")).write_text("x\n")
            (folder / "._x.tsv").write_text("x\n")
            (folder / ".DS_Store").write_bytes(b"\0\1")

    yield "stray files, a name that is not UTF-8", stray, len(SENTENCES)
    if tree.name == "Common Voice":
        archive = "cv-corpus-20.0-2024-12-06-en.tar.gz"
        yield "the archive beside", lambda root: (root / archive).write_bytes(b"x"), len(SENTENCES)

    def elsewhere(root: Path) -> None:
        odd = root.parent / os.fsdecode(b"caf\xe9 'a' b")
        _remove(odd)
        root.rename(odd)
        root.symlink_to(odd)

    yield "a root whose name has blanks, quotes and is not UTF-8", elsewhere, len(SENTENCES)
