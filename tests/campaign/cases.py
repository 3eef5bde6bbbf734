"""What was tried and what became of it, and the tables of that."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One input that was tried.

    Args:
        part: of the campaign, such as `audio`.
        group: a row of the table, such as `flac`.
        name: tells the input from the others; with the seed it can be made again.
        fault: why it was not survived; None: it was.
    """

    part: str
    group: str
    name: str
    fault: str | None


@dataclass
class Campaign:
    """The cases so far.

    Args:
        seed: of everything that is drawn.
        quick: whether to try a sample only.
    """

    seed: int = 1
    quick: bool = False
    cases: list[Case] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, part: str, group: str, name: str, fault: str | None) -> None:
        """Note a case; one that was not survived is shown at once."""
        self.cases.append(Case(part, group, name, fault))
        if fault:
            print(f"NOT SURVIVED {part}, {group}, {name}: {fault}", file=sys.stderr, flush=True)

    def skip(self, part: str, why: str) -> None:
        """Note a part, or a piece of one, that cannot be tried on this machine."""
        self.skipped[part] = why
        print(f"skipped {part}: {why}", file=sys.stderr, flush=True)

    @property
    def failed(self) -> list[Case]:
        """The cases that were not survived."""
        return [case for case in self.cases if case.fault]


_OWN_FOLDER = re.compile(r"\S*mlma-campaign-[^/]*/")  # of one run, in errors


_HEAD = """# The fault campaign

What was tried with damaged input, kills and full disks, and what was not survived. The inputs are
made from a seed by `tests/campaign/`, which says what counts as survived. This page is printed by

    python -m tests.campaign --markdown docs/explanation/faults.md

and CI runs a sample (`--quick`). A kill is SIGKILL while the program runs and has written
something. The same command then has to end in the same files as an undisturbed run, and training
in the same parameters bit for bit.

"""


def document(campaign: Campaign, commit: str) -> str:
    """The page of the documentation, with the tables.

    Args:
        campaign: with all its cases.
        commit: that was tried.
    """
    return f"{_HEAD}{tables(campaign)}\nCommit {commit}, seed {campaign.seed}.\n"


def tables(campaign: Campaign) -> str:
    """The Markdown of a campaign: a row per group, a sum per part, and what was not survived."""
    lines = ["| part | inputs | tried | survived | not survived |", "|:--|:--|--:|--:|--:|"]
    for part in dict.fromkeys(case.part for case in campaign.cases):
        cases = [case for case in campaign.cases if case.part == part]
        for group in dict.fromkeys(case.group for case in cases):
            lines.append(_row(part, group, [case for case in cases if case.group == group]))
        lines.append(_row(f"**{part}**", "**all**", cases))
    lines += [_row("**all**", "", campaign.cases), "", "Not survived:", ""]
    lines += [
        f"- {case.part}, {case.group}, {case.name}: {_OWN_FOLDER.sub('', case.fault or '')}"
        for case in campaign.failed
    ] or ["- nothing"]
    if campaign.skipped:
        lines += ["", "Skipped:", ""]
        lines += [f"- {part}: {why}" for part, why in campaign.skipped.items()]
    return "\n".join(lines) + "\n"


def _row(part: str, group: str, cases: Iterable[Case]) -> str:
    cases = list(cases)
    bad = sum(case.fault is not None for case in cases)
    return f"| {part} | {group} | {len(cases)} | {len(cases) - bad} | {bad} |"
