"""Print the table of corpora, which docs/pages.py writes into docs/reference/corpora.md.

    python tools/corpora.py

A row has what the docstring of the corpus's reader says; CONTRIBUTING.md has the rules.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from espnet_mlma.data.mixtures import CORPORA, reader_of
from espnet_mlma.errors import MlmaError, run_cli

MARK = "<!-- corpora -->"  # in the page, where the table goes
HEADER = ("corpus", "what it is", "hours", "layout", "licence", "from", "what the reader does")
_SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z0-9])")
_HOURS = re.compile(r"\bh\b|\b[Hh]ours?\b")
_LICENCE = re.compile(r"\bCC0\b|\bCC[ -]BY\b|\b[Ll]icen[cs]es?\b")


@dataclass(frozen=True)
class CorpusFacts:
    """What the documentation says about a corpus.

    Attributes:
        name: in mixtures.
        title: first paragraph of the docstring.
        hours: sentence with the hours per language; empty if the corpus is made or the user's.
        layout: paths below the corpus's folder.
        licence: sentences about the licence; empty likewise.
        home: address, or who makes it.
        reader: what the reader does.
    """

    name: str
    title: str
    hours: str
    layout: tuple[str, ...]
    licence: str
    home: str
    reader: str

    def row(self) -> str:
        """Format a row of the table."""
        layout = "<br>".join(f"`{path}`" for path in self.layout)
        home = f"<{self.home}>" if self.home.startswith("https:") else self.home
        found = (f"`{self.name}`", self.title, self.hours, layout, self.licence, home, self.reader)
        return f"| {' | '.join(_escaped(cell) or '-' for cell in found)} |"


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def facts(corpus: str, reader: ModuleType) -> CorpusFacts:
    """Read the facts about a corpus from the docstrings of its reader.

    Raises:
        MlmaError: a corpus with a `HOME` has no hours, licence or layout in its docstring.
    """
    blocks = inspect.cleandoc(reader.__doc__ or "").split("\n\n")
    layouts = [number for number, block in enumerate(blocks) if block.startswith("    ")]
    lines = [line for number in layouts for line in blocks[number].splitlines()]
    layout = [" ".join(line.split()) for line in lines]
    prose = {n: " ".join(of.split()) for n, of in enumerate(blocks) if n not in layouts}
    sentences = [sentence for block in prose.values() for sentence in _SENTENCE.split(block)]
    hours = next((sentence for sentence in sentences[1:] if _HOURS.search(sentence)), "")
    licence = " ".join(sentence for sentence in sentences if _LICENCE.search(sentence))
    home = getattr(reader, "HOME", "")
    for what, found in {"hours": hours, "licence": licence, "layout": layout}.items():
        if home and not found:
            raise MlmaError(
                f"corpora/{corpus}.py: no {what} in its docstring; add it as CONTRIBUTING.md says"
            )
    first = min(layouts, default=len(blocks))
    remarks = [of for number, of in prose.items() if number > first and not of.endswith(":")]
    prepare = getattr(reader.prepare, "func", reader.prepare)  # of a partial function
    summary = inspect.cleandoc(prepare.__doc__ or "").partition("\n\n")[0]
    return CorpusFacts(
        corpus,
        " ".join(blocks[0].partition("\n\n")[0].split()),
        hours,
        tuple(layout),
        licence,
        home or ("stage 1 makes it" if hasattr(reader, "generate") else "yours"),
        " ".join([" ".join(summary.split()), *remarks]),
    )


def rows() -> Iterator[CorpusFacts]:
    """Yield the facts about each corpus of the mixtures."""
    for corpus in CORPORA:
        yield facts(corpus, reader_of(corpus))


def table() -> str:
    """Format the table of corpora as Markdown."""
    head = f"| {' | '.join(HEADER)} |\n|{':--|' * len(HEADER)}"
    return "\n".join([head, *(of.row() for of in rows())])


if __name__ == "__main__":
    run_cli(lambda: print(table()))
