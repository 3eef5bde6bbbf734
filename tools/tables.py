"""Write the tables of benchmarks and experiments into the documents.

    python tools/tables.py [DOCUMENT ...]

A table stands below a comment `<!-- table: FILE: TITLE -->`. The file, relative to the repository,
was written by a script with --json. Tables of `benchmarks/` get a caption with the machine.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))
from common import table  # noqa: E402

from espnet_mlma.arguments import ArgumentParser, first_line  # noqa: E402
from espnet_mlma.errors import MlmaError, run_cli  # noqa: E402
from espnet_mlma.files import write  # noqa: E402

DOCUMENTS = ("benchmarks/README.md", "docs/explanation/experiments.md")
# The marker, a blank line, the table, a blank line, the caption.
PLACE = re.compile(r"(<!-- table: (\S+\.json): (.*) -->\n)(\n(\|.*\n)+(\n.*, commit .*\n)?)?")


def with_tables(text: str, root: Path = ROOT) -> str:
    """Return a document with its tables replaced.

    Args:
        text: of the document, in Markdown.
        root: the files of results are relative to this folder.

    Raises:
        MlmaError: a file or a table in it does not exist.
    """

    def replaced(place: re.Match) -> str:
        marker, file, title = place[1], root / place[2], place[3]
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if title not in found:
            raise MlmaError(f"{file}: has no table {title!r}; run the benchmark with --json")
        entry = found[title]
        figures = table(entry["header"], entry["rows"])
        is_timed = place[2].startswith("benchmarks/")
        return f"{marker}\n{figures}\n" + (f"\n{caption(entry['machine'])}\n" if is_timed else "")

    return PLACE.sub(replaced, text)


def caption(machine: dict[str, str]) -> str:
    """Describe where and when a table was measured."""
    processor = machine.get("gpu", machine["cpu"])
    threads = machine.get("threads")
    number = f", {threads} thread{'' if threads == '1' else 's'}" if threads else ""
    return (
        f"{processor}{number}, torch {machine['torch']}, commit {machine['commit']}, "
        f"{machine['date']}."
    )


def main() -> None:
    parser = ArgumentParser(description=first_line(__doc__))
    own = [ROOT / name for name in DOCUMENTS]
    parser.add_argument("documents", nargs="*", type=Path, default=own, metavar="DOCUMENT")
    for document in parser.parse_args().documents:
        write(document, with_tables(document.read_text(encoding="utf-8")))


if __name__ == "__main__":
    run_cli(main)
