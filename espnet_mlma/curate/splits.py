"""Draw train, dev and test of a corpus by speaker."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from espnet_mlma.errors import MlmaError

_SHARE = 0.1  # of the rows, in dev and in test


def draw(groups: Mapping[tuple[str, str], int], seed: str) -> dict[tuple[str, str], str]:
    """Assign the speakers of each language to splits; a hash orders them.

    A speaker is named the same in all languages, and gets the same split in all.

    Args:
        groups: number of rows by (language, speaker).
        seed: name of the corpus.

    Returns:
        `train`, `dev` or `test` by (language, speaker).

    Raises:
        MlmaError: a language has fewer than three speakers, or one split of it stays empty.
    """
    rows: dict[str, dict[str, int]] = defaultdict(dict)
    for (lang, speaker), count in groups.items():
        rows[lang][speaker] = count
    chosen: dict[str, str] = {}
    for lang, counts in sorted(rows.items()):
        if len(counts) < 3:
            raise MlmaError(f"{lang}: {len(counts)} speakers, too few to draw splits; use --split")
        wanted = _SHARE * sum(counts.values())
        order = sorted(counts, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
        # A speaker with many rows stays in training while there are others.
        order.sort(key=lambda name: counts[name] > 2 * wanted)
        for split in ("test", "dev"):
            held = sum(counts[name] for name in order if chosen.get(name) == split)
            for name in order:
                if held >= wanted:
                    break
                if name not in chosen:
                    chosen[name] = split
                    held += counts[name]
        for name in order:
            chosen.setdefault(name, "train")
        if missing := {"train", "dev", "test"} - {chosen[name] for name in order}:
            raise MlmaError(f"{lang}: {', '.join(sorted(missing))} would be empty; use --split")
    return {(lang, speaker): chosen[speaker] for lang, speaker in groups}
