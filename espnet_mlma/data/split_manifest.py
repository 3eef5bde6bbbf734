"""Split manifests: hashes of the clips, speakers and sentences of a corpus's splits.

`docs/reference/split-manifest.md` describes the file. The three columns of a split are sorted
independently, so a manifest does not say which speaker read which sentence.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
import re
import unicodedata
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from espnet_mlma import files
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.errors import MlmaError

SCHEMA = "espnet-mlma/split-manifest/1"
SALT = "mlma-split-manifest-1"
HASH = "sha256-64"
_BYTES = 8
_COLUMNS = ("clips", "speakers", "sentences")
_REMEDY = "get it again, or make it with mlma data manifest"
_RELEASE = re.compile(r"(?:cv-corpus|common-voice-scripted-speech)-(\d+(?:\.\d+)*)")


@dataclass(frozen=True, eq=False)
class Split:
    """Hashes of one split in one language; each column is sorted and has one value a clip.

    Attributes:
        lang, split: as the corpus's reader takes them.
        release: such as `20.0`; empty: unknown.
        clips: of speaker and sentence together, uint64 (clips,).
        speakers: uint64 (clips,).
        sentences: uint64 (clips,).
    """

    lang: str
    split: str
    release: str
    clips: np.ndarray
    speakers: np.ndarray
    sentences: np.ndarray

    @property
    def role(self) -> str:
        """`train`, `dev` or `test`: the split's name up to a hyphen."""
        return self.split.partition("-")[0]


@dataclass(frozen=True)
class Manifest:
    """The splits of a corpus."""

    corpus: str
    splits: tuple[Split, ...]


def hashed(kind: str, *values: str) -> int:
    """Return the first 8 bytes of SHA-256 of salt, kind and values, joined by NUL, big-endian."""
    data = "\0".join((SALT, kind, *values)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:_BYTES], "big")


def split_of(
    utterances: Iterable[Utterance | Drop], lang: str, split: str, release: str, drops: list[Drop]
) -> Split:
    """Hash the utterances of a split.

    Args:
        utterances: of a corpus reader.
        lang, split: names.
        release: empty: take it from the path of the first clip, as Common Voice names its folders.
        drops: gets the dropped rows.

    Raises:
        MlmaError: the split has no utterance.
    """
    columns = [array("Q") for _ in _COLUMNS]
    for utterance in utterances:
        if isinstance(utterance, Drop):
            drops.append(utterance)
            continue
        if not columns[0] and not release:
            found = _RELEASE.findall(str(utterance.audio))
            release = found[-1] if found else ""
        sentence = unicodedata.normalize("NFC", utterance.text).strip()
        columns[0].append(hashed("clip", utterance.speaker, sentence))
        columns[1].append(hashed("speaker", utterance.speaker))
        columns[2].append(hashed("sentence", lang, sentence))
    if not columns[0]:
        raise MlmaError(f"{lang} {split}: no utterances; check the corpus's table")
    return Split(lang, split, release, *(np.sort(np.frombuffer(c, np.uint64)) for c in columns))


def write(path: Path, manifest: Manifest) -> None:
    """Write a manifest whole or not at all, gzip-compressed if the name ends in `.gz`.

    Raises:
        MlmaError: it cannot be written.
    """
    digest = hashlib.sha256()
    for line in _lines(manifest):
        digest.update(line)
    header = {
        "schema": SCHEMA,
        "corpus": manifest.corpus,
        "salt": SALT,
        "hash": HASH,
        "sha256": digest.hexdigest(),
        "splits": [
            {"lang": s.lang, "split": s.split, "release": s.release, "clips": len(s.clips)}
            | {"speakers": len(np.unique(s.speakers)), "sentences": len(np.unique(s.sentences))}
            for s in manifest.splits
        ],
    }
    lines = chain([json.dumps(header).encode() + b"\n"], _lines(manifest))
    with files.whole(path) as new, open(new, "wb") as raw:
        if path.suffix != ".gz":
            raw.writelines(lines)
            return
        # Without name and time, so that equal manifests are equal files.
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            packed.writelines(lines)


def read(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        MlmaError: it is damaged, cut off, of another version, or hashed with another salt.
    """
    try:
        lines = files.read_lines(path)
        header = _header(path, next(lines, ""))
        return _contents(path, header, lines)
    except (OSError, EOFError, zlib.error) as error:
        raise MlmaError(f"{path}: cannot read the manifest ({error}); {_REMEDY}") from None


def _lines(manifest: Manifest) -> Iterator[bytes]:
    for split in manifest.splits:
        for column in _COLUMNS:
            yield base64.b64encode(getattr(split, column).astype(">u8").tobytes()) + b"\n"


def _header(path: Path, line: str) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or "split-manifest/" not in str(header.get("schema")):
        raise MlmaError(f"{path}:1: not the header of a split manifest; {_REMEDY}")
    for key, wanted in (("schema", SCHEMA), ("salt", SALT), ("hash", HASH)):
        if header.get(key) != wanted:
            found = ascii(header.get(key))[:80]
            raise MlmaError(f"{path}:1: {key} is {found}, but only {wanted!r} is read; {_REMEDY}")
    names = ("lang", "split", "release")
    splits = header.get("splits")
    if (
        not isinstance(header.get("corpus"), str)
        or not isinstance(splits, list)
        or not splits
        or not all(
            isinstance(s, dict)
            and all(isinstance(s.get(name), str) and s[name].isprintable() for name in names)
            and all(type(s.get(name)) is int and s[name] > 0 for name in _COLUMNS)
            for s in splits
        )
    ):
        raise MlmaError(
            f"{path}:1: the header lacks the corpus or a valid list of splits; {_REMEDY}"
        )
    if len({(s["lang"], s["split"]) for s in splits}) < len(splits):
        raise MlmaError(f"{path}:1: a split is listed twice; {_REMEDY}")
    return header


def _contents(path: Path, header: dict[str, Any], lines: Iterator[str]) -> Manifest:
    digest = hashlib.sha256()
    splits = []
    number = 1
    for entry in header["splits"]:
        columns = []
        for column in _COLUMNS:
            number += 1
            line = next(lines, None)
            if line is None:
                raise MlmaError(f"{path}: ends before line {number}; it is cut off, {_REMEDY}")
            digest.update(line.encode() + b"\n")
            try:
                data = base64.b64decode(line, validate=True)
            except (binascii.Error, ValueError):
                data = b""
            if len(data) != _BYTES * entry["clips"]:
                raise MlmaError(
                    f"{path}:{number}: not {entry['clips']} hashes of {column}; {_REMEDY}"
                )
            columns.append(np.sort(np.frombuffer(data, ">u8").astype(np.uint64)))
        splits.append(Split(entry["lang"], entry["split"], entry["release"], *columns))
    if next(lines, None) is not None:
        raise MlmaError(f"{path}:{number + 1}: more lines than the header lists; {_REMEDY}")
    if digest.hexdigest() != header.get("sha256"):
        raise MlmaError(f"{path}: the contents do not match their SHA-256; {_REMEDY}")
    return Manifest(header["corpus"], tuple(splits))
