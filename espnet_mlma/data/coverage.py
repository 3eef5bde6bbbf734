"""Count the hours whose audio was found and missing, so that no set is short in silence.

Readers that join labels to audio yield `Labelled` for a label with its audio and `MissingAudio` for
one without.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.errors import MlmaError

# Largest share of a source and language whose audio may be missing, unless the mixture or
# --missing permits more. A few videos and sessions vanish from every download.
MISSING = 0.05


@dataclass(frozen=True, slots=True)
class Labelled(Utterance):
    """An utterance whose label was joined to its audio; `seconds` is its length by the label.

    Attributes:
        source: where the label is from, such as `granary voxpopuli`.
    """

    source: str = ""


@dataclass(frozen=True, slots=True)
class MissingAudio(Drop):
    """A label whose audio is not on disk.

    Attributes:
        seconds: its length by the label; None: the label has none.
        source: where the label is from.
    """

    seconds: float | None = None
    source: str = ""


@dataclass
class _Count:
    rows: int = 0
    missing_rows: int = 0
    seconds: float = 0.0
    missing_seconds: float = 0.0
    is_timed: bool = True  # every label has a length

    @property
    def share(self) -> float:
        """Share that is missing, of the hours if all are known, else of the labels."""
        if self.is_timed and self.seconds > 0:
            return self.missing_seconds / self.seconds
        return self.missing_rows / self.rows

    def __str__(self) -> str:
        found = self.rows - self.missing_rows
        labels = f"{found} labels found, {self.missing_rows} missing"
        if not self.is_timed:
            return f"{labels}; not all have a duration"
        hours = (self.seconds - self.missing_seconds) / 3600, self.missing_seconds / 3600
        return f"{hours[0]:.3f} h found, {hours[1]:.3f} h missing ({labels})"


@dataclass
class Coverage:
    """What was found and missing of the labels of a set, by source and language.

    Attributes:
        name: of the set, for errors.
        permitted: largest share that may be missing, 0 to 1.
    """

    name: str
    permitted: float = MISSING
    _counts: dict[tuple[str, str], _Count] = field(default_factory=lambda: defaultdict(_Count))

    def through(self, items: Iterable[Utterance | Drop]) -> Iterator[Utterance | Drop]:
        """Yield what readers yield, count it, and print the counts at the end.

        Raises:
            MlmaError: at the end, if more is missing than permitted. Nothing is written then.
        """
        for item in items:
            if isinstance(item, Labelled | MissingAudio):
                self._add(item)
            yield item
        for (source, lang), count in sorted(self._counts.items()):
            print(f"{self.name}: {source} {lang}: {count}", flush=True)
        self._check()

    def _add(self, item: Labelled | MissingAudio) -> None:
        count = self._counts[item.source, item.lang]
        is_missing = isinstance(item, MissingAudio)
        count.rows += 1
        count.missing_rows += is_missing
        if item.seconds is None:
            count.is_timed = False
            return
        count.seconds += item.seconds
        count.missing_seconds += item.seconds * is_missing

    def _check(self) -> None:
        short = {key: count for key, count in self._counts.items() if count.share > self.permitted}
        if not short:
            return
        (source, lang), count = max(short.items(), key=lambda one: one[1].share)
        amount = f"{count.missing_rows} of {count.rows} labels"
        if count.is_timed:
            amount = f"{count.missing_seconds / 3600:.3f} of {count.seconds / 3600:.3f} h"
        raise MlmaError(
            f"{self.name}: {source} {lang}: the audio of {amount} is missing, more than the "
            f"permitted share of {self.permitted:g}; download it, or permit it with `missing: "
            f"{min(1.0, count.share + 0.01):.2f}` in the mixture or --missing"
        )
