"""Training curves from ESPnet's logs.

The logs have the figures of all epochs. So has the reporter's state in `checkpoint.pth`, but that
is as large as model, optimiser and scheduler together and may have been removed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_EPOCH = re.compile(r" (\d+)epoch results: (.*)")
_PART = re.compile(r"\[(\w+)\] ([^\[]*)")
_VALUE = re.compile(r"(\w+)=(-?\d[\d.]*(?:e[+-]?\d+)?)(?=,|\s*$)")
# Figures worth a chart, in order. The learning rate is left out; the log rounds it to 3 decimals.
_NAMES = {
    "loss": "Loss",
    "cer_ctc": "Character error rate of the best path, %",
    "cer": "Character error rate of the decoder, %",
    "wer": "Word error rate of the decoder, %",
    "acc": "Accuracy of the decoder, %",
    "acc_language": "Accuracy of the language, %",
}
_OF_LAYER = {
    "cer_interctc_layer": "Character error rate, %, after block",
    "acc_language_layer": "Accuracy of the language, %, after block",
}
_SHARES = ("cer", "wer", "acc")  # prefixes of figures that ESPnet reports as fractions

Epochs = dict[int, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Curve:
    """A figure over the epochs.

    Attributes:
        name: for display.
        rises: higher is better.
        lines: by `train` and `valid`: epochs and values.
    """

    name: str
    rises: bool
    lines: dict[str, list[tuple[int, float]]]

    @property
    def epochs(self) -> list[int]:
        """Epochs of all lines, ascending."""
        return sorted({epoch for line in self.lines.values() for epoch, _ in line})


def read_epochs(experiment: Path) -> Epochs:
    """Read figures by epoch, then `train` or `valid`, then name; empty without a log.

    Args:
        experiment: has `train.log`, and `train.1.log` and so on if ESPnet's launcher rotated logs.
    """
    older = [path for path in experiment.glob("train.*.log") if path.suffixes[0][1:].isdigit()]
    older.sort(key=lambda path: -int(path.suffixes[0][1:]))
    epochs: Epochs = {}
    for path in (*older, experiment / "train.log"):
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as lines:
                _add(epochs, lines)
    return epochs


def _add(epochs: Epochs, lines: Iterable[str]) -> None:
    for line in lines:
        match = _EPOCH.search(line)
        if match:
            number = int(match[1])
            # Training that resumes from an earlier epoch overrides later ones.
            for later in [epoch for epoch in epochs if epoch > number]:
                del epochs[later]
            epochs[number] = {
                part: {name: float(value) for name, value in _VALUE.findall(figures)}
                for part, figures in _PART.findall(match[2])
            }


def curves(epochs: Epochs) -> list[Curve]:
    """List the curves to plot: loss, error rates, and parts of the loss that differ from it."""
    keys = {key for parts in epochs.values() for values in parts.values() for key in values}
    of_loss = sorted(key for key in keys if key.startswith("loss_") and key != "loss_scale")
    of_layer = sorted(key for key in keys if key.rstrip("0123456789") in _OF_LAYER)
    found: list[Curve] = []
    for key in (*_NAMES, *of_layer, *of_loss):
        lines = _lines(epochs, key)
        if lines and all(lines != other.lines for other in found):
            found.append(Curve(_name(key), key.startswith("acc"), lines))
    return found


def _name(key: str) -> str:
    kind = key.rstrip("0123456789")
    if kind in _OF_LAYER:
        return f"{_OF_LAYER[kind]} {key.removeprefix(kind)}"
    return _NAMES.get(key, key)


def _lines(epochs: Epochs, key: str) -> dict[str, list[tuple[int, float]]]:
    lines, scale = {}, 100 if key.startswith(_SHARES) else 1
    for part in ("train", "valid"):
        values = {
            number: parts.get(part, {}).get(key, math.nan) for number, parts in epochs.items()
        }
        points = [(number, values[number]) for number in sorted(values)]
        points = [(number, scale * value) for number, value in points if math.isfinite(value)]
        if points:
            lines[part] = points
    return lines
