"""`ref.trn`, `hyp.trn` and `result.txt`: written by sclite, or here in the same form."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.score.align import Alignment, Errors, count_alignment, total_errors
from espnet_mlma.files import replace_folder

_SCORES = re.compile(r"^id: \((.+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)$", re.M)


@dataclass(frozen=True)
class ResultLine:
    """An utterance in one unit: words, characters or tokens."""

    id: str
    speaker: str
    alignment: Alignment

    @property
    def key(self) -> str:
        """The name in trn files; sclite takes the speaker from its beginning."""
        return f"{self.speaker}-{self.id}"

    @property
    def reference(self) -> list[str]:
        """Spoken tokens."""
        return [spoken for spoken, _ in self.alignment if spoken is not None]

    @property
    def hypothesis(self) -> list[str]:
        """Recognised tokens."""
        return [recognised for _, recognised in self.alignment if recognised is not None]


def find_sclite() -> Path | None:
    """Find sclite on PATH, under SCTK_ROOT, or where Debian's sctk installs it."""
    root = os.environ.get("SCTK_ROOT")
    places = [f"{root}/bin", root] if root else []
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *places, "/usr/lib/sctk/bin"])
    found = shutil.which("sclite", path=path)
    return Path(found).absolute() if found else None


def write_result(
    lines: Sequence[ResultLine], folder: Path, sclite: Path | None
) -> dict[str, Errors]:
    """Write `ref.trn`, `hyp.trn` and `result.txt`; return errors by utterance id.

    Args:
        lines: the utterances of a set.
        folder: replaced as a whole once all three files exist.
        sclite: the program, whose counts are returned; None: count here.

    Raises:
        MlmaError: sclite fails, or its report does not have exactly these utterances.
    """
    errors = {line.id: count_alignment(line.alignment) for line in lines}

    def fill(new: Path) -> None:
        _write_trn(new / "ref.trn", {line.key: line.reference for line in lines})
        _write_trn(new / "hyp.trn", {line.key: line.hypothesis for line in lines})
        report = _run_sclite(sclite, new) if sclite else report_text(lines, errors)
        (new / "result.txt").write_text(report, encoding="utf-8")
        if sclite is None:
            return
        by_sclite = read_scores(report)
        for line in lines:
            counts = by_sclite.get(line.key)
            if counts is None or counts.reference != errors[line.id].reference:
                raise MlmaError(f"{folder}: {line.id} is not in the report of {sclite}")
            errors[line.id] = counts

    replace_folder(folder, fill)
    return errors


def read_scores(report: str) -> dict[str, Errors]:
    """Read errors by trn id from the text of a result.txt."""
    return {key: Errors(*map(int, counts)) for key, *counts in _SCORES.findall(report)}


def report_text(lines: Sequence[ResultLine], errors: Mapping[str, Errors]) -> str:
    """Format a result.txt as sclite does: rates and counts by speaker, then all alignments.

    Args:
        lines: the utterances.
        errors: by utterance id.
    """
    lines = sorted(lines, key=lambda line: line.key)
    by_speaker: dict[str, list[Errors]] = {}
    for line in lines:
        by_speaker.setdefault(line.speaker, []).append(errors[line.id])
    text = [*_table(by_speaker, rates=True), "", *_table(by_speaker, rates=False), ""]
    for line in lines:
        counts = errors[line.id]
        text += [
            f"id: ({line.key})",
            f"Scores: (#C #S #D #I) {counts.correct} {counts.sub} {counts.del_} {counts.ins}",
            *_alignment_lines(line.alignment),
            "",
        ]
    return "\n".join(text)


def _write_trn(path: Path, lines: Mapping[str, Sequence[str]]) -> None:
    text = "".join(f"{' '.join(tokens)} ({key})\n" for key, tokens in sorted(lines.items()))
    path.write_text(text, encoding="utf-8")


def _run_sclite(sclite: Path, folder: Path) -> str:
    # -s: the normaliser has set the case; without it sclite folds the case of ASCII only
    options = ["-e", "utf-8", "-s", "-i", "rm", "-o", "all", "stdout"]
    files = ["-r", "ref.trn", "trn", "-h", "hyp.trn", "trn"]
    done = subprocess.run([sclite, *files, *options], cwd=folder, capture_output=True, check=False)
    report = done.stdout.decode("utf-8", errors="replace")
    if done.returncode:
        last = done.stderr.decode("utf-8", errors="replace").strip().splitlines() or ["no output"]
        raise MlmaError(f"{sclite} failed on {folder / 'hyp.trn'}: {last[-1]}")
    return report


def _table(by_speaker: Mapping[str, Sequence[Errors]], rates: bool) -> list[str]:
    total = "Sum/Avg" if rates else "Sum"
    everything = [errors for counts in by_speaker.values() for errors in counts]
    rows = [*by_speaker.items(), (total, everything)]
    width = max(len(total), *(len(speaker) for speaker in by_speaker))
    rule = "|" + "-" * (width + 2) + "+" + "-" * 15 + "+" + "-" * 43 + "|"
    head = f"| {'SPKR':<{width}} | {'# Snt':>6} {'# Wrd':>6} |"
    head += "".join(f"{name:>7}" for name in ("Corr", "Sub", "Del", "Ins", "Err", "S.Err")) + " |"
    lines = ["SYSTEM SUMMARY PERCENTAGES by SPEAKER" if rates else "COUNTS by SPEAKER", rule, head]
    for speaker, counts in rows:
        lines += [rule, _row(speaker.ljust(width), counts, rates)]
    return [*lines, rule]


def _row(speaker: str, counts: Sequence[Errors], rates: bool) -> str:
    errors = total_errors(counts)
    wrong = sum(1 for one in counts if one.total)
    cells = [errors.correct, errors.sub, errors.del_, errors.ins, errors.total, wrong]
    if rates:
        of = [errors.reference] * 5 + [len(counts)]
        values = [f"{100 * cell / max(n, 1):7.1f}" for cell, n in zip(cells, of, strict=True)]
    else:
        values = [f"{cell:7d}" for cell in cells]
    return f"| {speaker} | {len(counts):6d} {errors.reference:6d} |{''.join(values)} |"


def _alignment_lines(pairs: Alignment) -> list[str]:
    """Format REF, HYP and Eval lines; errors are in capitals, a missing token is stars."""
    rows: list[list[str]] = [["REF: "], ["HYP: "], ["Eval:"]]
    for spoken, recognised in pairs:
        same = spoken == recognised
        mark = " " if same else "I" if spoken is None else "D" if recognised is None else "S"
        shown = [text if same or text is None else text.upper() for text in (spoken, recognised)]
        width = max(len(text or "") for text in shown)  # "ß" becomes "SS"
        for row, text in zip(rows, (*shown, mark), strict=True):
            row.append(("*" * width if text is None else text).ljust(width))
    return [" ".join(row).rstrip() for row in rows]
