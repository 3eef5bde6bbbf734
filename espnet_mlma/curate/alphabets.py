"""Learn the alphabet of a language from its texts, and show it for approval."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field

_RARE = 1e-4  # share of the texts with a letter, below which it is proposed as foreign
_LONGEST_EXAMPLE = 60


@dataclass
class Letters:
    """The letters of the texts of one language.

    Attributes:
        texts: number of texts.
        counts: number of texts with each letter.
        examples: a text with each letter.
    """

    texts: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, words: str) -> None:
        """Count the letters of a normalised text; digits and apostrophes are none."""
        self.texts += 1
        for letter in set(words):
            if letter not in "' " and not letter.isnumeric():
                self.counts[letter] += 1
                self.examples.setdefault(letter, words[:_LONGEST_EXAMPLE])

    def foreign(self) -> set[str]:
        """Return letters of another script than most, and those in under 1 of 10,000 texts."""
        scripts: Counter[str] = Counter()
        for letter, count in self.counts.items():
            scripts[_script(letter)] += count
        main = scripts.most_common(1)[0][0] if scripts else ""
        return {
            letter
            for letter, count in self.counts.items()
            if count < _RARE * self.texts or _script(letter) not in (main, "COMBINING")
        }

    def table(self) -> str:
        """Format `alphabet.txt`: letter, texts with it, an example; foreign ones as comments."""
        foreign = self.foreign()
        ranked = sorted(self.counts, key=lambda letter: (-self.counts[letter], letter))
        lines = [f"# letter, number of {self.texts} texts with it, example; # before a letter:"]
        lines.append("# not in the alphabet, texts with it are not trained on")
        for letter in sorted(ranked, key=foreign.__contains__):
            mark = "# " if letter in foreign else ""
            lines.append(f"{mark}{letter}\t{self.counts[letter]}\t{self.examples[letter]}")
        return "\n".join(lines) + "\n"


def _script(letter: str) -> str:
    """Return the script of a letter, the first word of its Unicode name."""
    return unicodedata.name(letter, "?").partition(" ")[0]
