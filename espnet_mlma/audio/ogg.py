"""Find the chained streams of Ogg files, and whether they are complete.

Source: RFC 3533, sections 4 and 6.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

from espnet_mlma.audio.files import FilePart, read_at

_BEGIN_OF_STREAM, _END_OF_STREAM = 2, 4
_HEAD = 27
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_BLOCK = 2**20


def parts(file: BinaryIO, size: int) -> list[FilePart]:
    """Find the links of a chain; each begins with the first pages of its streams.

    A file that ends within a page, or without an end-of-stream flag, is cut off. A page with a
    wrong checksum is damaged; decoders skip it silently.
    """
    starts, at, is_head, is_cut = [], 0, False, False
    damaged: list[int] = []
    while 0 <= at < size:
        head = read_at(file, at, _HEAD + 255)
        segments = head[_HEAD : _HEAD + head[26]] if len(head) >= _HEAD else b""
        if len(head) >= _HEAD and head[:4] != b"OggS":
            at = _next_page(file, at + 1, size)
            continue
        is_beginning = len(head) > 5 and bool(head[5] & _BEGIN_OF_STREAM)
        if is_beginning and not is_head:
            starts.append(at)
        is_head = is_beginning
        is_page = len(head) >= _HEAD and len(segments) == head[26]
        is_cut = not is_page or not head[5] & _END_OF_STREAM
        length = _HEAD + len(segments) + sum(segments)
        if is_page and at + length <= size and not _is_whole(read_at(file, at, length)):
            damaged.append(at)
        at += length
    is_cut |= at > size
    if not starts:
        return [FilePart(0, size, is_cut=is_cut or bool(damaged))]
    found = []
    for start, end in zip(starts, [*starts[1:], size], strict=True):
        is_damaged = any(start <= page < end for page in damaged)
        found.append(FilePart(start, end, is_cut=is_damaged or (is_cut and end == size)))
    return found


def _is_whole(page: bytes) -> bool:
    """Say whether the checksum of a page is right.

    It is zlib's CRC with the bits of each byte reversed, and with other initial and final values.
    """
    bits = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    declared = int.from_bytes(page[22:26].translate(_REVERSED), "big")
    return zlib.crc32(bits, 0xFFFFFFFF) ^ 0xFFFFFFFF == declared


def _next_page(file: BinaryIO, at: int, size: int) -> int:
    while at < size:
        block = read_at(file, at, _BLOCK)
        found = block.find(b"OggS")
        if found >= 0:
            return at + found
        at += max(1, len(block) - 3)
    return size
