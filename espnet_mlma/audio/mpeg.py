"""Frames of MPEG audio (mp1, mp2, mp3), counted without decoding.

Source: ISO/IEC 11172-3, section 2.4; the tags of the first frame as in LAME's and Fraunhofer's
encoders, http://gabriel.mp3-tech.org/mp3infotag.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from espnet_mlma.audio.files import FilePart, read_at

_V1, _V2, _V25 = 3, 2, 0
_RATES = {_V1: (44100, 48000, 32000), _V2: (22050, 24000, 16000), _V25: (11025, 12000, 8000)}
_KBPS = {  # by MPEG 1 or not, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_TAGS = (b"Xing", b"Info")
_Tag = tuple[int | None, int]  # declared frames, and padding samples
_BLOCK = 2**20
# A frame is shorter, with its tag.
_LONGEST_FRAME = 8192
# Consecutive valid frames that identify MPEG audio.
_CONFIRMING_FRAMES = 3


@dataclass(frozen=True)
class _Frame:
    size: int  # bytes
    samples: int
    rate: int
    tags: tuple[int, int]  # offset of a tag, if stereo and if mono


def _frames() -> dict[int, _Frame]:
    """Map each valid second and third byte of a frame, as one number, to the frame."""
    found = {}
    for first in range(0xE0, 0x100):
        version, layer, is_crc = first >> 3 & 3, 4 - (first >> 1 & 3), not first & 1
        for second in range(256):
            kbps, rate = second >> 4, second >> 2 & 3
            if version == 1 or layer == 4 or kbps in (0, 15) or rate == 3:
                continue
            is_v1, padding = version == _V1, second >> 1 & 1
            bits, hertz = 1000 * _KBPS[is_v1, layer][kbps - 1], _RATES[version][rate]
            samples = 384 if layer == 1 else 1152 if is_v1 or layer == 2 else 576
            slot = 4 if layer == 1 else 1
            size = (samples // 8 * bits // slot // hertz + padding) * slot
            side = (32, 17) if is_v1 else (17, 9)
            tags = 4 + 2 * is_crc + side[0], 4 + 2 * is_crc + side[1]
            found[first << 8 | second] = _Frame(size, samples, hertz, tags)
    return found


_FRAMES = _frames()
_SYNC = re.compile(rb"\xff[\xe0-\xff]|ID3")


def begins_with_frames(data: bytes, frames: int = _CONFIRMING_FRAMES, at: int = 0) -> bool | None:
    """Say whether data has so many consecutive frames of one kind; None: more bytes are needed."""
    like = None
    for _ in range(frames):
        if at + 3 > len(data):
            is_start = b"\xff".startswith(data[at : at + 1])
            return None if is_start else False
        frame = _FRAMES.get(data[at + 1] << 8 | data[at + 2]) if data[at] == 0xFF else None
        if frame is None or like not in (None, (frame.rate, frame.tags)):
            return False
        at, like = at + frame.size, (frame.rate, frame.tags)
    return True


def tag_size(data: bytes) -> int:
    """Return the size in bytes of an ID3v2 tag at the beginning of data; 0 without one."""
    if len(data) < 10 or data[:3] != b"ID3" or max(data[6:10]) > 0x7F:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte
    return 10 + size + (10 if data[5] & 0x10 else 0)


def parts(file: BinaryIO, size: int) -> list[FilePart]:
    """Find the streams in a file; each begins with an ID3v2 tag or a frame with a length tag.

    Returns:
        Parts with their length in seconds; none if there are no frames.
    """
    found: list[FilePart] = []
    counted, declared, trimmed = 0.0, None, 0.0
    start = end = rate = 0
    is_new = True

    def close(until: int) -> None:
        if counted:
            seconds = max(0.0, counted - trimmed)
            found.append(
                FilePart(
                    start, until, rate=rate, seconds=seconds, declared=declared, is_ffmpeg=True
                )
            )

    for offset, frame, tag in _walk(file, size):
        if frame is None or (tag is not None and not is_new):
            close(end if frame is None else offset)
            counted, declared, trimmed, is_new = 0.0, None, 0.0, True
        if frame is None:
            continue
        if is_new:
            start, rate, is_new = offset, frame.rate, False
        end = offset + frame.size
        if tag is None:
            counted += frame.samples / frame.rate
            continue
        frames, padding = tag
        trimmed = padding / frame.rate
        declared = frames and max(0.0, frames * frame.samples / frame.rate - trimmed)
    close(size)
    return found


def _walk(file: BinaryIO, size: int) -> Iterator[tuple[int, _Frame | None, _Tag | None]]:
    """Yield each offset, frame and content of its tag; an ID3v2 tag is yielded without a frame."""
    data, base, at, safe = b"", 0, 0, -1
    is_sure = False  # the previous bytes were a frame
    while at + 4 <= size:
        if at > safe:
            data, base = read_at(file, at, _BLOCK), at
            safe = base + len(data) - _LONGEST_FRAME if base + len(data) < size else size
        i = at - base
        frame = _FRAMES.get(data[i + 1] << 8 | data[i + 2]) if data[i] == 0xFF else None
        if frame is not None and (is_sure or _is_confirmed(data, i, frame)):
            place = i + frame.tags[data[i + 3] >> 6 == 3]
            is_tag = data[place : place + 4] in _TAGS or data[i + 36 : i + 40] == b"VBRI"
            yield at, frame, _read_tag(data[i : i + frame.size], place - i) if is_tag else None
            at, is_sure = at + frame.size, True
            continue
        is_sure = False
        if skipped := tag_size(data[i : i + 10]):
            yield at, None, None
            at += skipped
            continue
        next_ = _SYNC.search(data, i + 1)
        at = max(at + 1, base + (next_.start() if next_ else len(data) - 2))


def _is_confirmed(data: bytes, at: int, frame: _Frame) -> bool:
    """Say whether a first frame is followed by another frame, a tag or the end."""
    behind = at + frame.size
    is_tag = data[behind : behind + 3] in (b"TAG", b"ID3", b"APE")
    return is_tag or behind + 4 > len(data) or begins_with_frames(data, 1, behind) is True


def _read_tag(frame: bytes, place: int) -> _Tag:
    """Read the number of frames that a tag declares, and of the encoder's padding samples."""
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big"), 0
    flags = int.from_bytes(frame[place + 4 : place + 8], "big")
    at = place + 8
    frames = int.from_bytes(frame[at : at + 4], "big") if flags & 1 else None
    # Optional fields: frames, bytes, seek table of 100 bytes, quality.
    at += 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2
    if frame[at : at + 4] not in (b"LAME", b"Lavf", b"Lavc"):
        return frames, 0
    delays = int.from_bytes(frame[at + 21 : at + 24], "big")
    return frames, (delays >> 12) + (delays & 0xFFF)
