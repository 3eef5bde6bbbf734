"""mini_en: the English part of `mini` with more sentences, too many to memorise.

For the demonstration of translation. Layout and voices are those of `mini.py`.
"""

from __future__ import annotations

from pathlib import Path

from espnet_mlma.data.corpora import mini

TAG = "minien"
_SENTENCES = 1200  # the grammar has about 2000


def generate(root: Path, *, nj: int = 2) -> None:
    """Make the corpus unless it is finished; arguments as in `mini.generate`."""
    mini.generate(root, train=_SENTENCES, languages=["en"], nj=nj)


prepare = mini.prepare
