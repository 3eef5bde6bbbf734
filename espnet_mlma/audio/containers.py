"""Identify a file by its first bytes, and find its parts and their true lengths.

Lengths in headers are wrong if files were joined with `cat`, a recorder was killed, or a download
was cut off.

Source: for RIFF, RF64, AIFF and CAF the specifications of Microsoft, EBU (Tech 3306) and Apple.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from espnet_mlma.audio import mpeg, ogg
from espnet_mlma.audio.files import FilePart, read_at

# A writer to a pipe cannot write the length into the header afterwards; these mean "to the end".
_OPEN_ENDED = {4: 0x7FFF0000, 8: 2**62}
# Fewer bytes than this after the audio are a tag or padding.
_SHORT_TAIL = 4096
# A damaged header may declare any number of chunks.
_MOST_CHUNKS = 1000
_MOST_BOXES = 10**6
_CHUNK_NAME = re.compile(rb"[A-Za-z0-9 _()]{4}")
_TEXT_CHUNKS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML")  # may be cut off
# Headers that are long enough to be unique, of kinds whose decoders stop at a second header.
_HEADERS = {
    "FLAC": re.compile(rb"fLaC[\x00\x80]\x00\x00\x22"),
    "FLV": re.compile(rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09"),
    "TTA": re.compile(rb"TTA1[\x01-\x03]\x00[\x01-\x08]\x00"),
    "VOC": re.compile(rb"Creative Voice File\x1a"),
}
_LONGEST_HEADER = 20
_BLOCK = 2**20

# First bytes of each kind: alternatives, each of (offset, bytes) that must all match.
_MAGIC = {
    "WAV": [((0, b"RIFF"), (8, b"WAVE")), ((0, b"RIFX"), (8, b"WAVE"))],
    "RF64": [((0, b"RF64"), (8, b"WAVE")), ((0, b"BW64"), (8, b"WAVE"))],
    "AIFF": [((0, b"FORM"), (8, b"AIFF")), ((0, b"FORM"), (8, b"AIFC"))],
    "AVI": [((0, b"RIFF"), (8, b"AVI "))],
    "W64": [((0, b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"),)],
    "CAF": [((0, b"caff\x00\x01"),)],
    "AU": [((0, b".snd\x00\x00"),)],
    "FLAC": [((0, b"fLaC\x00\x00\x00\x22"),), ((0, b"fLaC\x80\x00\x00\x22"),)],
    "Ogg": [((0, b"OggS\x00\x02"),)],
    "MP3": [((0, b"ID3\x02"),), ((0, b"ID3\x03"),), ((0, b"ID3\x04"),)],
    "AMR": [((0, b"#!AMR"),)],
    "MP4": [((0, b"\0\0\0"), (4, b"ftyp"))],
    "WebM or Matroska": [((0, b"\x1aE\xdf\xa3"),)],
    "WMA": [((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),)],
    "FLV": [((0, b"FLV\x01"),)],
    "WavPack": [((0, b"wvpk"),)],
    "NIST": [((0, b"NIST_1A"),)],
    "TTA": [((0, b"TTA1"),)],
    "VOC": [((0, b"Creative Voice File"),)],
}


def kind_of(head: bytes, is_all: bool = False) -> str | None:
    """Identify the kind of a file by its first bytes.

    Args:
        head: the first bytes, any number of them.
        is_all: no bytes follow.

    Returns:
        The name of the kind; "" for an unknown kind; None if more bytes are needed.
    """
    is_open = False
    for name, ways in _MAGIC.items():
        for way in ways:
            found = [magic.startswith(head[at : at + len(magic)]) for at, magic in way]
            if all(found):
                at, magic = way[-1]
                if len(head) >= at + len(magic):
                    return name
                is_open = True
    for name, begins in (("MP3", mpeg.begins_with_frames), ("AAC", _begins_with_adts)):
        is_kind = begins(head)
        if is_kind:
            return name
        is_open |= is_kind is None
    return None if is_open and not is_all else ""


def _begins_with_adts(data: bytes) -> bool | None:
    """Say whether data begins with three frames of AAC; None: more bytes are needed.

    Source: ISO/IEC 13818-7, section 6.2.
    """
    at = 0
    for _ in range(3):
        head = data[at : at + 6]
        if not b"\xff".startswith(head[:1]) or (len(head) > 1 and head[1] & 0xF6 != 0xF0):
            return False
        if not data[:3].startswith(head[:3]):  # other profile or rate
            return False
        if len(head) < 6:
            return None
        size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        if size < 7 or head[2] >> 2 & 15 > 12:
            return False
        at += size
    return True


def parts(file: BinaryIO, is_quick: bool = False) -> list[FilePart]:
    """Find the recordings in a file, one per joined file, with corrected lengths.

    Args:
        file: seekable; its position is reset to the beginning.
        is_quick: do not search the whole file for a second FLAC.
    """
    size = file.seek(0, 2)
    head = read_at(file, 0, 4 * _SHORT_TAIL)
    tag = mpeg.tag_size(head)
    if tag:
        head = read_at(file, tag, 4 * _SHORT_TAIL)
    kind = kind_of(head, is_all=True)
    found: list[FilePart] = []
    if kind in _HEADERS and not is_quick:
        found = _split(file, size, _HEADERS[kind])
    elif kind == "MP3":
        found = mpeg.parts(file, size)
    elif kind == "Ogg":
        found = ogg.parts(file, size)
    elif kind in _ONE_BY_ONE:
        start = 0
        while start < size and len(found) < _MOST_CHUNKS:
            found.append(_ONE_BY_ONE[kind](file, start, size))
            start = found[-1].end
    file.seek(0)
    return found or [FilePart(0, size, is_ffmpeg=bool(tag) or kind in (*_HEADERS, "MP3", "AAC"))]


@dataclass(frozen=True)
class _Chunks:
    """Layout of the chunks in a container."""

    first: int  # offset of the first
    width: int  # bytes of a chunk's size
    order: Literal["little", "big"]
    audio: bytes  # name of the chunk with the samples
    own: int  # bytes in it before the samples
    begins: Callable[[bytes], bool]  # whether another file begins


def _riff(file: BinaryIO, start: int, size: int) -> FilePart:
    order: Literal["little", "big"] = "big" if read_at(file, start, 4) == b"RIFX" else "little"
    return _chunked(file, start, size, _Chunks(12, 4, order, b"data", 0, _is_any("WAV", "RF64")))


def _aiff(file: BinaryIO, start: int, size: int) -> FilePart:
    return _chunked(file, start, size, _Chunks(12, 4, "big", b"SSND", 8, _is_any("AIFF")))


def _caf(file: BinaryIO, start: int, size: int) -> FilePart:
    return _chunked(file, start, size, _Chunks(8, 8, "big", b"data", 4, _is_any("CAF")))


def _is_any(*kinds: str) -> Callable[[bytes], bool]:
    return lambda head: kind_of(head, is_all=True) in kinds


def _chunked(file: BinaryIO, start: int, size: int, layout: _Chunks) -> FilePart:
    """Return the part of a file with chunks, with the true length of its samples."""
    at, long_size = start + layout.first, None
    name, declared = b"", 0
    for _ in range(_MOST_CHUNKS):
        name, declared, behind = _chunk(file, at, layout)
        if name == b"ds64":
            long_size = at + 16
        if name == layout.audio or at >= size:
            break
        at = behind
    if name != layout.audio:
        return FilePart(start, size)
    place, width = at + 4, layout.width
    if long_size is not None and declared == 0xFFFFFFFF:
        place, width = long_size, 8
        declared = int.from_bytes(read_at(file, place, 8), "little")
    first = at + 4 + layout.width
    available = size - first
    end, real, missing = size, available, 0.0
    is_unknown = declared <= layout.own or declared >= _OPEN_ENDED[width]
    if not is_unknown and declared > available:
        missing = (declared - available) / max(1, available)
    elif declared <= available:
        padding = declared % 2 if layout.width == 4 else 0
        behind = _behind(file, min(first + declared + padding, size), size, layout)
        is_tail = behind is not None and (behind < size or available - declared <= _SHORT_TAIL)
        if behind is not None and (is_tail or not is_unknown):
            end, real = behind, declared
    if real == declared or real >= _OPEN_ENDED[width]:
        return FilePart(start, end, missing=missing)
    order = "little" if width == 8 and layout.width == 4 else layout.order
    return FilePart(start, end, ((place, real.to_bytes(width, order)),), missing)


def _chunk(file: BinaryIO, at: int, layout: _Chunks) -> tuple[bytes, int, int]:
    """Read a chunk's name, its declared size and the offset of the next chunk."""
    head = read_at(file, at, 4 + layout.width)
    declared = int.from_bytes(head[4:], layout.order)
    padding = declared % 2 if layout.width == 4 else 0
    return head[:4], declared, at + 4 + layout.width + declared + padding


def _behind(file: BinaryIO, at: int, size: int, layout: _Chunks) -> int | None:
    """Find the end of a part after its samples and other chunks; None: more samples follow."""
    for _ in range(_MOST_CHUNKS):
        if size - at <= 12 or layout.begins(read_at(file, at, 16)):
            return size if size - at <= 12 else at
        name, _, behind = _chunk(file, at, layout)
        is_chunk = _CHUNK_NAME.fullmatch(name) and (behind <= size + 1 or name in _TEXT_CHUNKS)
        if not is_chunk:
            return size if size - at <= _SHORT_TAIL else None
        at = min(behind, size)
    return size


def _au(file: BinaryIO, start: int, size: int) -> FilePart:
    head = read_at(file, start, 12)
    first, declared = start + int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:], "big")
    available = size - first
    to_the_end = ((start + 8, b"\xff" * 4),)
    if declared == 0 or declared >= _OPEN_ENDED[4]:
        return FilePart(start, size, to_the_end)
    if declared >= available:
        missing = (declared - available) / max(1, available)
        return FilePart(start, size, to_the_end if missing else (), missing)
    if kind_of(read_at(file, first + declared, 16), is_all=True) == "AU":
        return FilePart(start, first + declared)
    return FilePart(start, size, to_the_end if available - declared > _SHORT_TAIL else ())


def _w64(file: BinaryIO, start: int, size: int) -> FilePart:
    declared = int.from_bytes(read_at(file, start + 16, 8), "little")
    behind = start + declared + -declared % 8
    if declared and behind < size and kind_of(read_at(file, behind, 16), is_all=True) == "W64":
        return FilePart(start, behind)
    missing = max(0, declared - (size - start)) if declared < _OPEN_ENDED[8] else 0
    return FilePart(start, size, missing=missing / (size - start))


def _mp4(file: BinaryIO, start: int, size: int) -> FilePart:
    at = start
    for _ in range(_MOST_BOXES):
        head = read_at(file, at, 16)
        declared, name = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) < 8 or (name == b"ftyp" and at > start):
            return FilePart(start, min(at, size) if name == b"ftyp" else size)
        if declared == 1:
            declared = int.from_bytes(head[8:], "big")
        if declared < 8:  # 0: to the end
            break
        at += declared
    return FilePart(start, size, missing=_share(at, start, size))


def _share(end: int, start: int, size: int) -> float:
    """Return the missing bytes of a part that should end at `end`, per byte of it."""
    return max(0, end - size) / (size - start)


def _avi(file: BinaryIO, start: int, size: int) -> FilePart:
    declared = int.from_bytes(read_at(file, start + 4, 4), "little")
    if not 0 < declared < _OPEN_ENDED[4]:
        return FilePart(start, size)
    # Long files continue after it: OpenDML.
    return FilePart(start, size, missing=_share(start + 8 + declared, start, size))


def _matroska(file: BinaryIO, start: int, size: int) -> FilePart:
    """Return the part with one header and one segment.

    Source: RFC 8794, sections 4 to 6, and RFC 9559.
    """
    at = start
    declared = width = 0
    for _ in range(_MOST_CHUNKS):
        head = read_at(file, at, 12)
        width = _width(head[:1])
        name, rest = head[:width], head[width:]
        if not name or not rest:
            return FilePart(start, size)
        width = _width(rest[:1])
        declared = int.from_bytes(rest[:width], "big") & ((1 << 7 * width) - 1)
        at += len(name) + width
        if name == b"\x18\x53\x80\x67":
            break
        at += declared
    if declared == (1 << 7 * width) - 1:  # live stream
        return FilePart(start, size)
    end = at + declared
    if end < size and kind_of(read_at(file, end, 16), is_all=True) == "WebM or Matroska":
        return FilePart(start, end)
    return FilePart(start, size, missing=_share(end, start, size))


def _width(first: bytes) -> int:
    """Return the number of bytes of a variable-length number."""
    return 9 - first[0].bit_length() if first and first[0] else 8


def _nist(file: BinaryIO, start: int, size: int) -> FilePart:
    head = read_at(file, start, 1024)
    found = dict(re.findall(rb"^(\w+) -i (\d{1,18})\s", head, re.MULTILINE))
    if not found.keys() >= {b"sample_count", b"sample_n_bytes"}:
        return FilePart(start, size)
    names = (b"sample_count", b"sample_n_bytes", b"channel_count")
    declared = math.prod(int(found.get(name, 1)) for name in names)
    return FilePart(start, size, missing=_share(start + len(head) + declared, start, size))


def _split(file: BinaryIO, size: int, header: re.Pattern[bytes]) -> list[FilePart]:
    """Find parts that each begin with a header."""
    starts, at = [], 0
    while at < size:
        block = read_at(file, at, _BLOCK + _LONGEST_HEADER)
        found = (match.start() for match in header.finditer(block))
        starts += [at + place for place in found if place < _BLOCK]
        at += _BLOCK
    ends = [*starts, size][1:]
    return [FilePart(start, end, is_ffmpeg=True) for start, end in zip(starts, ends, strict=True)]


_ONE_BY_ONE = {
    "WAV": _riff,
    "RF64": _riff,
    "AIFF": _aiff,
    "CAF": _caf,
    "AU": _au,
    "W64": _w64,
    "AVI": _avi,
    "MP4": _mp4,
    "WebM or Matroska": _matroska,
    "NIST": _nist,
}
