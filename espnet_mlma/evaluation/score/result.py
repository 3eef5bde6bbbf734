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
from espnet_mlma.evaluation.score.align import Errors, align, count_pairs, total_errors
from espnet_mlma.files import replace_folder

_SCORES = re.compile(r"^id: \((.+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)$", re.M)


@dataclass(frozen=True)
class Pair:
    """One utterance as it is scored."""

    id: str
    speaker: str
    reference: Sequence[str]
    hypothesis: Sequence[str]

    @property
    def key(self) -> str:
        """The name in trn files, by which sclite sorts out the speakers."""
        return f"{self.speaker}-{self.id}"


def find_sclite() -> Path | None:
    """sclite on PATH, under SCTK_ROOT, or where Debian's sctk puts it."""
    root = os.environ.get("SCTK_ROOT")
    places = [f"{root}/bin", root] if root else []
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *places, "/usr/lib/sctk/bin"])
    found = shutil.which("sclite", path=path)
    return Path(found).absolute() if found else None


def score(pairs: Sequence[Pair], folder: Path, sclite: Path | None) -> dict[str, Errors]:
    """Write `ref.trn`, `hyp.trn` and `result.txt`, and count errors by utterance id.

    Args:
        pairs: utterances; reference and hypothesis already belong together.
        folder: replaced as a whole once all three files are there.
        sclite: the program, or None to count here.

    Raises:
        MlmaError: sclite fails, or its report does not hold exactly these utterances.
    """
    scores: dict[str, Errors] = {}

    def fill(new: Path) -> None:
        _write_trn(new / "ref.trn", {pair.key: pair.reference for pair in pairs})
        _write_trn(new / "hyp.trn", {pair.key: pair.hypothesis for pair in pairs})
        report = _run_sclite(sclite, new) if sclite else report_text(pairs)
        (new / "result.txt").write_text(report, encoding="utf-8")
        counted = read_scores(report)
        for pair in pairs:
            errors = counted.get(pair.key)
            if errors is None or errors.reference != len(pair.reference):
                raise MlmaError(f"{folder}: {pair.id} is not scored by {sclite or 'this program'}")
            scores[pair.id] = errors

    replace_folder(folder, fill)
    return scores


def read_scores(report: str) -> dict[str, Errors]:
    """Errors by trn id from the text of a result.txt."""
    return {key: Errors(*map(int, counts)) for key, *counts in _SCORES.findall(report)}


def report_text(pairs: Sequence[Pair]) -> str:
    """A result.txt with what sclite's has: rates and counts by speaker, then every alignment."""
    aligned = {pair.key: align(pair.reference, pair.hypothesis) for pair in pairs}
    errors = {key: count_pairs(alignment) for key, alignment in aligned.items()}
    by_speaker: dict[str, list[Errors]] = {}
    for pair in sorted(pairs, key=lambda pair: pair.key):
        by_speaker.setdefault(pair.speaker, []).append(errors[pair.key])
    lines = [*_table(by_speaker, rates=True), "", *_table(by_speaker, rates=False), ""]
    for key in sorted(aligned):
        counts = errors[key]
        lines += [
            f"id: ({key})",
            f"Scores: (#C #S #D #I) {counts.correct} {counts.sub} {counts.del_} {counts.ins}",
            *_alignment_lines(aligned[key]),
            "",
        ]
    return "\n".join(lines)


def _write_trn(path: Path, lines: Mapping[str, Sequence[str]]) -> None:
    text = "".join(f"{' '.join(tokens)} ({key})\n" for key, tokens in sorted(lines.items()))
    path.write_text(text, encoding="utf-8")


def _run_sclite(sclite: Path, folder: Path) -> str:
    # -s: the normaliser has settled the case; without it sclite folds the case of ASCII only
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


def _alignment_lines(pairs: Sequence[tuple[str | None, str | None]]) -> list[str]:
    """REF, HYP and Eval lines; errors stand in capitals, a missing token is a row of stars."""
    rows: list[list[str]] = [["REF: "], ["HYP: "], ["Eval:"]]
    for spoken, recognised in pairs:
        same = spoken == recognised
        mark = " " if same else "I" if spoken is None else "D" if recognised is None else "S"
        shown = [text if same or text is None else text.upper() for text in (spoken, recognised)]
        width = max(len(text or "") for text in shown)  # in capitals a word with ß is longer
        for row, text in zip(rows, (*shown, mark), strict=True):
            row.append(("*" * width if text is None else text).ljust(width))
    return [" ".join(row).rstrip() for row in rows]
