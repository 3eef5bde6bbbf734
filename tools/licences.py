#!/usr/bin/env python3
"""Print the dependencies, their versions and licences as Markdown.

    .venv/bin/python tools/licences.py >docs/reference/licences.md

The ranges come from setup.cfg, the licences from the metadata of the installed packages.
"""

from __future__ import annotations

import configparser
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"
# Extras for developers, which users do not install.
OMITTED = {"docs", "release", "test"}
# Licences from files or repositories of packages whose metadata have none.
KNOWN = {
    "camel-kenlm": "LGPL-2.1-or-later",
    "causal-conv1d": "BSD-3-Clause",
    "ctc-segmentation": "Apache-2.0",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "espeakng-loader": "GPL-3.0-or-later",
    "fox-progress-bar": "Apache-2.0",
    "mamba-ssm": "Apache-2.0",
    "mambapy": "MIT",
    "nvidia-cusparselt-cu13": "LicenseRef-NVIDIA-Proprietary",
    "nvidia-nvtx": "Apache-2.0",
    "pytorch-ranger": "Apache-2.0",
    "sentencepiece": "Apache-2.0",
    "sounddevice": "MIT",
}
# Other software in a package's wheel.
BRINGS = {
    "av": "FFmpeg, LGPL-3.0-or-later, with x264 and x265, GPL-2.0-or-later, linked into it",
    "espeakng-loader": "eSpeak NG, GPL-3.0-or-later, and its voices",
    "soundfile": "libsndfile and LAME, LGPL-2.1-or-later; mpg123, LGPL-2.1",
    "soxr": "libsoxr, LGPL-2.1-or-later",
    "silero-vad": "its model, MIT",
}
NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "PSFL": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def requirements() -> dict[str, list[Requirement]]:
    """Return the requirements of each extra in setup.cfg; "" is the package without extras."""
    config = configparser.ConfigParser()
    config.read(SETUP, encoding="utf-8")
    sections = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {
        extra: [Requirement(line) for line in lines.split("\n") if line]
        for extra, lines in sections.items()
    }


def licence(name: str) -> str:
    """Return a package's licence, by its SPDX name if that is known."""
    name = canonicalize_name(name)
    if name in KNOWN:
        return KNOWN[name]
    try:
        metadata = distribution(name).metadata
    except PackageNotFoundError:
        return "not installed here"
    classifiers = metadata.get_all("Classifier") or []
    candidates = [
        metadata.get("License-Expression"),
        (metadata.get("License") or "").strip(),
        *(c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")),
    ]
    short = [text for text in candidates if text and text != "UNKNOWN" and len(text) < 200]
    return next((NAMES.get(text, text) for text in short if "\n" not in text), "unknown")


def installed_with(wanted: Iterable[Requirement]) -> set[str]:
    """Return the dependencies of requirements on this machine, without the requirements."""
    extras: dict[str, set[str]] = {}
    todo = list(wanted)
    direct = {canonicalize_name(requirement.name) for requirement in todo}
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in extras and requirement.extras <= extras[name]:
            continue
        extras.setdefault(name, set()).update(requirement.extras)
        found = _find(name)
        for line in (found.requires if found else None) or []:
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *extras[name])]
            if not needed.marker or any(map(needed.marker.evaluate, environments)):
                todo.append(needed)
    return {name for name in extras if name not in direct and _find(name)}


def _find(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def render() -> str:
    """Return the page."""
    asked = {extra: wanted for extra, wanted in requirements().items() if extra not in OMITTED}
    text = "# Dependencies and their licences\n\n"
    text += "`tools/licences.py` prints this page. The package itself is under Apache-2.0.\n\n"
    text += "| package | versions | extra | licence | what its wheel brings |\n"
    text += "|:--|:--|:--|:--|:--|\n"
    for extra, wanted in asked.items():
        for requirement in wanted:
            name = requirement.name
            extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            versions = ", ".join(sorted(map(str, requirement.specifier), reverse=True))
            brings = BRINGS.get(canonicalize_name(name), "")
            row = name + extras, versions, extra, licence(name), brings
            text += f"| {' | '.join(row)} |\n"
    base = installed_with(asked[""])
    more = installed_with([one for wanted in asked.values() for one in wanted]) - base
    text += "\n## What comes with them\n\nOn Linux, with Python 3.13 and PyTorch for CUDA.\n"
    for title, names in ("Without extras", base), ("With the extras", more):
        by_licence = defaultdict(list)
        for name in sorted(names):
            by_licence[licence(name)].append(name)
        text += f"\n{title}:\n\n| licence | packages |\n|:--|:--|\n"
        text += "".join(f"| {of} | {', '.join(by_licence[of])} |\n" for of in sorted(by_licence))
    return text


if __name__ == "__main__":
    print(render(), end="")
