"""Add pages that come from elsewhere: the recipes, the benchmarks, the commands' help.

mkdocs runs this script before it builds the site (mkdocs.yml, gen-files).
"""

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import mkdocs_gen_files

from espnet_mlma.cli import build_parser, data, recipe
from espnet_mlma.sst import commands as translation

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))
import corpora  # noqa: E402

SITE = ROOT / "docs"
MOUNTED = {
    "egs2/mlma/asr1/README.md": "reference/recipe.md",
    "egs2/mlma/sst1/README.md": "reference/translation-recipe.md",
    "benchmarks/README.md": "explanation/benchmarks.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def with_links_of(page: Path, source: Path, text: str) -> str:
    """Point a text's links at pages of the site; keep only the words of links to other files.

    Args:
        page: the text's place below `docs/`.
        source: the file that it comes from.
        text: Markdown.
    """

    def rewrite(link: re.Match) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        if not target or target.startswith(("http:", "https:", "mailto:")):
            return link[0]
        file = Path(os.path.normpath(source.parent / target))
        if file.is_relative_to(SITE) and file.exists():
            there = file.relative_to(SITE)
        elif str(file.relative_to(ROOT)) in MOUNTED:
            there = Path(MOUNTED[str(file.relative_to(ROOT))])
        else:
            return words
        return f"[{words}]({os.path.relpath(there, page.parent)}{anchor})"

    return LINK.sub(rewrite, text)


def write(page: str, text: str) -> None:
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(text)


def commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """All parsers of commands below one, in the order of its help."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                found += [command, *commands(command)]
    return found


def help_of(main: Callable[[Sequence[str]], object], *arguments: str) -> str:
    """What a program prints with `--help`."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([*arguments, "--help"])
    return printed.getvalue()


def script_help(script: str) -> str:
    """What a shell script of the repository prints with `--help`."""
    command = ["bash", str(ROOT / script), "--help"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


for source, page in MOUNTED.items():
    text = (ROOT / source).read_text(encoding="utf-8")
    write(page, with_links_of(Path(page), ROOT / source, text))
for file in sorted(SITE.rglob("*.md")):
    page = file.relative_to(SITE)
    text = file.read_text(encoding="utf-8")
    if corpora.MARK in text:
        text = text.replace(corpora.MARK, corpora.table())
    write(str(page), with_links_of(page, file, text))

os.environ["COLUMNS"] = "96"
parser = build_parser()
pages = {
    "# Command line": parser.format_help(),
    **{f"## `{command.prog}`": command.format_help() for command in commands(parser)},
}
for command, programs in (("data", data.PROGRAMS), ("recipe", recipe.STAGES)):
    for name, (module, _) in programs.items():
        pages[f"## `mlma {command} {name}`"] = help_of(import_module(module).main)
for name in translation.COMMANDS:
    pages[f"## `mlma translate {name}`"] = help_of(translation.main, name)
for script in ("egs2/mlma/asr1/run.sh", "egs2/mlma/asr1/run_paper.sh", "egs2/mlma/sst1/run.sh"):
    pages[f"## `{script}`"] = script_help(script)
parts = [f"{title}\n\n```text\n{text.rstrip()}\n```\n" for title, text in pages.items()]
write("reference/command-line.md", "\n".join(parts))
