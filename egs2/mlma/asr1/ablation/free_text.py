"""Sentences in six languages from the GNOME desktop's manual, for the mixture `synthetic`.

    apt-get install gnome-user-docs
    python egs2/mlma/asr1/ablation/free_text.py --out DIR [--sentences 1000]

Writes DIR/<lang>.txt. The manual is CC BY-SA 3.0 (https://help.gnome.org). All languages have the
same sentences, except those not translated yet.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from espnet_mlma.arguments import ArgumentParser, first_line
from espnet_mlma.data.corpora.synthetic import sentences
from espnet_mlma.text import LANGUAGES

MALLARD = "{http://projectmallard.org/1.0/}"


def paragraphs(folder: Path) -> Iterator[str]:
    """Yield the paragraphs of all pages without mark-up."""
    for page in sorted(folder.glob("*.page")):
        for paragraph in ElementTree.parse(page).iter(f"{MALLARD}p"):
            yield " ".join("".join(paragraph.itertext()).split())


def main() -> None:
    parser = ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--manual", type=Path, default=Path("/usr/share/help"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=1000, help="maximum of each language")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for lang in LANGUAGES:
        folder = args.manual / ("C" if lang == "en" else lang) / "gnome-help"
        if not folder.is_dir():
            parser.error(f"{folder}: no such folder; apt-get install gnome-user-docs")
        found, dropped = sentences("\n".join(paragraphs(folder)), lang)
        chosen = np.random.default_rng(1).permutation(len(found))[: args.sentences]
        text = "\n".join(found[i] for i in sorted(chosen))
        (args.out / f"{lang}.txt").write_text(text + "\n", encoding="utf-8")
        print(f"{lang}: {len(chosen)} of {len(found)} sentences; dropped {dict(dropped)}")


if __name__ == "__main__":
    main()
