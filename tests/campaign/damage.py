"""Damages of any file's bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def byte_damages(
    content: bytes, seed: Sequence[int], count: int = 8
) -> Iterator[tuple[str, bytes]]:
    """Cut, flip, overwrite and lengthen, the same for the same seed.

    Args:
        content: of the whole file.
        seed: of the places.
        count: places of each kind.

    Yields:
        What was done, and the damaged content.
    """
    rng = np.random.default_rng([*seed, len(content)])
    size = len(content)
    yield "empty", b""
    yield "1 byte", content[:1]
    yield "cut before the last byte", content[:-1]
    for place in sorted(rng.integers(1, max(2, size), count)):
        yield f"cut at {place}", content[:place]
    for place in sorted(rng.integers(0, size, count)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        yield f"a bit flipped at {place}", bytes(flipped)
    for place in sorted(rng.integers(0, size, count // 2)):
        noise = rng.integers(0, 256, 64, np.uint8).tobytes()
        yield (
            f"64 random bytes at {place}",
            (content[:place] + noise + content[place + 64 :])[:size],
        )
        zeros = content[:place] + bytes(512) + content[place + 512 :]
        yield f"512 zeros at {place}", zeros[:size]
        yield f"64 bytes missing at {place}", content[:place] + content[place + 64 :]
    yield "only zeros", bytes(size)
    yield "the first half twice", content[: size // 2] * 2
