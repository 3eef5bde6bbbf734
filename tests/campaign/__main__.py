"""The command line of the campaign; see the package's head."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.campaign.cases import Campaign, Case, document, tables

# Corpora first: what later parts import makes every fork slower.
PARTS = ("corpora", "models", "audio", "kills", "disk")


def main() -> None:
    """Try the parts that are named, print the tables, and exit with 1 if not all was survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], metavar="PART")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a sample of the inputs")
    parser.add_argument("--json", type=Path, help="write every case there")
    parser.add_argument("--markdown", type=Path, help="write the page of the documentation there")
    parser.add_argument(
        "--add", type=Path, nargs="+", default=[], help="print cases of earlier runs (--json)"
    )
    args = parser.parse_args()
    report = Campaign(args.seed, args.quick)
    for file in args.add:
        report.cases += [Case(**case) for case in json.loads(file.read_text())]
    spent = {}
    with tempfile.TemporaryDirectory(prefix="mlma-campaign-", dir=_in_memory()) as folder:
        for part in sorted(args.parts or ([] if args.add else PARTS), key=PARTS.index):
            start = time.monotonic()
            place = Path(folder) / part
            place.mkdir()
            try:
                importlib.import_module(f"tests.campaign.{part}").campaign(report, place)
            except Exception:  # the other parts and the tables are wanted all the same
                traceback.print_exc()
                report.add(part, "the campaign", "itself", "ended by an exception of its own")
            spent[part] = time.monotonic() - start
            print(f"{part}: {spent[part]:.0f} s", file=sys.stderr, flush=True)
    text = tables(report)
    print(text, end="")
    if args.markdown:
        args.markdown.write_text(document(report, _commit()), encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps([asdict(case) for case in report.cases], indent=1))
    sys.stdout.flush()
    raise SystemExit(1 if report.failed else 0)


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _in_memory() -> str | None:
    """Where files cost no time to synchronise; None: the system's place for temporary ones."""
    place = "/dev/shm"
    has_room = os.access(place, os.W_OK) and shutil.disk_usage(place).free > 2 * 2**30
    return place if has_room else None


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
