"""mini_en: the English of `mini`, with so many sentences that none is learnt by heart.

For the demonstration of translation; layout and voices are those of `mini.py`.
"""

from __future__ import annotations

from pathlib import Path

from espnet_mlma.data.corpora import mini

_SENTENCES = 1200  # of some two thousand that there are


def generate(root: Path, *, nj: int = 2) -> None:
    """Make the corpus, unless that is done; arguments as of `mini.generate`."""
    mini.generate(root, train=_SENTENCES, languages=["en"], nj=nj)


prepare = mini.prepare
