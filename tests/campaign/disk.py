"""The recipe on a full disk: each stage with some of the room that it needs, then with enough."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.campaign import recipe, watch
from tests.campaign.cases import Campaign
from tests.campaign.forked import fault
from tests.campaign.recipe import Recipe

PART = "disk"
PAGE = 4096
PARTS = (0.0, 0.4, 0.8)


def campaign(report: Campaign, folder: Path) -> None:
    """Run every stage with too little room.

    Args:
        report: gets the cases.
        folder: to work in; empty.
    """
    tried = recipe.build(folder.parent / "recipe")
    work = tried.folder / "work"
    is_mounted = _mount(work)
    if not is_mounted:
        report.skip(PART, "no tmpfs can be mounted; files are limited in size instead")
    try:
        for stage in (4, 5) if report.quick else recipe.STAGES:
            for part in PARTS[1:2] if report.quick else PARTS:
                if is_mounted:
                    _full(report, tried, stage, part)
                else:
                    _limited(report, tried, stage, part)
    finally:
        if is_mounted:
            tried.wait_for_orphans()
            subprocess.run(["umount", work], check=True)


def _mount(place: Path) -> bool:
    options = ["-t", "tmpfs", "-o", "size=512m", "tmpfs", str(place)]
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


def _resize(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


def _used(place: Path) -> int:
    return sum(
        -(-path.lstat().st_size // PAGE) * PAGE
        for path in place.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def _full(report: Campaign, tried: Recipe, stage: int, part: float) -> None:
    work, before = tried.folder / "work", tried.folder / "before"
    _resize(work, 2**29)
    tried.restore(stage)
    used = _used(work)
    need = _used(before / str(recipe.after(stage))) - used
    room = round(part * need / PAGE) * PAGE
    _resize(work, used + room)
    ended = tried.run(stage)
    _resize(work, 2**29)
    name = f"{room // 1024} of {need // 1024} KiB"
    report.add(PART, f"stage {stage}", name, _verdict(tried, stage, ended, "No space left"))


def _limited(report: Campaign, tried: Recipe, stage: int, part: float) -> None:
    before = tried.folder / "before"
    old = {path.relative_to(before / str(stage)) for path in (before / str(stage)).rglob("*")}
    place = before / str(recipe.after(stage))
    new = [path for path in place.rglob("*") if path.relative_to(place) not in old]
    largest = max(path.stat().st_size for path in new if path.is_file())
    tried.restore(stage)
    ended = tried.run(stage, {watch.FSIZE: str(int(part * largest))})
    name = f"files of {int(part * largest)} bytes"
    report.add(PART, f"stage {stage}", name, _verdict(tried, stage, ended, "File too large"))


def _verdict(tried: Recipe, stage: int, ended, reason: str) -> str | None:
    wrong = fault(ended)
    if wrong:
        return wrong
    if ended.status == 0:
        tried.wait_for_orphans()
        return recipe.difference(tried, stage)
    if not any(reason in line or "disk" in line for line in ended.errors):
        return f"the error does not name a full disk: {ended.errors[-1][:300]}"
    again = tried.run(stage)
    if wrong := fault(again):
        return f"with enough room: {wrong}"
    if again.status:
        return f"with enough room: {again.errors[-1][:300]}"
    tried.wait_for_orphans()
    return recipe.difference(tried, stage)
