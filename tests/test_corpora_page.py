"""The table of corpora in the documentation has what the readers' docstrings say."""

import inspect
import sys
from pathlib import Path
from types import ModuleType

import pytest

from espnet_mlma.data.mixtures import CORPORA, reader_of
from espnet_mlma.errors import MlmaError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import corpora  # noqa: E402

DOCSTRING = '''"""Toy Voice: sentences read by nobody.

Hours of training speech: en 522, it 78; e.g. a few of dev. 48 kHz MP3. CC BY 4.0.
Toy et al., "A corpus", LREC 2020.

    <root>/<lang>/train.tsv      (no header)
    <root>/<lang>/a|b/*.mp3

or as files of the hub:

    <root>/<lang>.parquet

Columns are found
by name.
"""'''


def reader(docstring: str, **names: object) -> ModuleType:
    def prepare(root, lang, split):
        """Read one split
        of it.

        Args:
            root: the folder.
        """

    module = ModuleType("toy", docstring.strip('"'))
    module.prepare = prepare
    vars(module).update(names)
    return module


def test_a_row_has_what_the_docstring_says() -> None:
    home = "https://toy"
    assert corpora.facts("toy", reader(DOCSTRING, HOME=home)) == corpora.CorpusFacts(
        name="toy",
        title="Toy Voice: sentences read by nobody.",
        hours="Hours of training speech: en 522, it 78; e.g. a few of dev.",
        layout=(
            "<root>/<lang>/train.tsv (no header)",
            "<root>/<lang>/a|b/*.mp3",
            "<root>/<lang>.parquet",
        ),
        licence="CC BY 4.0.",
        home=home,
        reader="Read one split of it. Columns are found by name.",
    )
    row = corpora.facts("toy", reader(DOCSTRING, HOME=home)).row()
    assert row.replace(r"\|", "").count("|") == len(corpora.HEADER) + 1
    assert r"`<root>/<lang>/a\|b/*.mp3`<br>" in row


@pytest.mark.parametrize(
    ("gone", "what"),
    [("Hours of training speech: en 522, it 78; ", "hours"), ("CC BY 4.0.", "licence")],
)
def test_a_docstring_that_lacks_a_fact_is_an_error(gone: str, what: str) -> None:
    docstring = DOCSTRING.replace(gone, "")
    with pytest.raises(MlmaError, match=rf"corpora/toy\.py: no {what} in its docstring"):
        corpora.facts("toy", reader(docstring, HOME="https://toy"))
    own = corpora.facts("toy", reader(docstring))
    assert (own.home, getattr(own, what)) == ("yours", "")
    assert corpora.facts("toy", reader(docstring, generate=print)).home == "stage 1 makes it"


def test_every_corpus_has_a_row_that_agrees_with_its_reader() -> None:
    header, _, *rows = corpora.table().splitlines()
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    assert header.strip("| ").split(" | ") == list(corpora.HEADER)
    assert [cell[0].strip("`") for cell in cells] == list(CORPORA)
    for corpus, (_, title, hours, layout, licence, home, what) in zip(CORPORA, cells, strict=True):
        module = reader_of(corpus)
        text = " ".join(inspect.getdoc(module).split())
        assert title in text and hours.replace("-", "", hours == "-") in text
        assert all(part in text for part in licence.strip("-").split(". "))
        if hasattr(module, "HOME"):
            is_address = module.HOME.startswith("https:")
            assert home == (f"<{module.HOME}>" if is_address else module.HOME)
            assert not (is_address and " " in home)  # Markdown would not show it
            assert len(hours) > 2 and len(licence) > 2
            assert "`<root>/" in layout
        assert len(what) > 10 and "partial application" not in what


def test_the_page_has_a_place_for_the_table_and_is_in_the_site() -> None:
    page = (ROOT / "docs/reference/corpora.md").read_text(encoding="utf-8")
    assert page.count(corpora.MARK) == 1
    assert "reference/corpora.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = (ROOT / "docs/pages.py").read_text(encoding="utf-8")
    assert "corpora.table()" in pages
