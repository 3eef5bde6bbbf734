"""mini: short sentences in six languages, spoken by eSpeak NG, made on the spot.

A toy corpus to try the whole recipe on: no download, no licence question, deterministic from a
seed. The sentences come from `mini_grammar.yaml`. dev and test hold sentences and voices that
train does not have, but no word that train does not have. The layout is that of `espeak.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import yaml

from espnet_mlma.data.corpora import espeak
from espnet_mlma.data.corpora.espeak import BASE_VOICES, SPLITS, Line
from espnet_mlma.errors import MlmaError

VARIANTS = {
    "train": ("m1", "m2", "m4", "m6", "m8", "Alex", "Mario", "f1", "f4", "f5", "Andrea"),
    "dev": ("m7", "f3"),
    "test": ("m3", "f2"),
}
_GRAMMAR = Path(__file__).with_name("mini_grammar.yaml")


@dataclass(frozen=True)
class Size:
    """How many sentences per language."""

    train: int = 400
    dev: int = 20
    test: int = 40


def generate(
    root: Path,
    *,
    seed: int = 1,
    train: int = 400,
    dev: int = 20,
    test: int = 40,
    languages: Iterable[str] = tuple(BASE_VOICES),
    nj: int = 2,
) -> None:
    """Make the corpus, or what is missing of it; the same arguments again do nothing.

    Args:
        root: folder of the corpus.
        seed: of sentences, voices, rates, pitches and noise.
        train: sentences per language; dev and test alike.
        languages: en, it, fr, es, de, nl or some of them.
        nj: languages rendered at once.

    Raises:
        MlmaError: the grammar has too few sentences, or a file cannot be written.
    """
    size = Size(train, dev, test)
    jobs = {}
    for lang in languages:
        noise, make = [seed, list(BASE_VOICES).index(lang), 1], partial(plan, lang, seed, size)
        jobs[lang] = espeak.Job(_parameters(lang, seed, size), noise, make)
    espeak.speak(root, "mini", jobs, nj)


prepare = partial(espeak.read, "mini")


def _parameters(lang: str, seed: int, size: Size) -> dict[str, object]:
    digest = sha256(json.dumps(grammar()[lang]).encode()).hexdigest()
    return {"seed": seed, **asdict(size), "grammar": digest}


def plan(lang: str, seed: int, size: Size) -> dict[str, list[Line]]:
    """The sentences of each split, each with a voice, a rate, a pitch and a noise level.

    Args:
        lang: en, it, fr, es, de or nl.
        seed: of all that is drawn.
        size: sentences per split.

    Raises:
        MlmaError: the grammar has fewer sentences than asked for.
    """
    rng = np.random.default_rng([seed, list(BASE_VOICES).index(lang)])
    seen: set[str] = set()
    train = _draw(lang, rng, size.train, seen)
    words = {word for text in train for word in text.split()}
    texts = {
        "train": train,
        "dev": _draw(lang, rng, size.dev, seen, words),
        "test": _draw(lang, rng, size.test, seen, words),
    }
    return {
        split: [_line(lang, split, i, text, rng) for i, text in enumerate(texts[split])]
        for split in SPLITS
    }


def _draw(
    lang: str, rng: np.random.Generator, count: int, seen: set[str], words: set[str] | None = None
) -> list[str]:
    """`count` sentences not in `seen`, to which they are added; all their words in `words`."""
    drawn: list[str] = []
    misses = 0
    while len(drawn) < count and misses < 2000:
        text = _expand(grammar()[lang], "S", rng)
        if text in seen or (words is not None and not words.issuperset(text.split())):
            misses += 1
            continue
        misses = 0
        seen.add(text)
        drawn.append(text)
    if len(drawn) < count:
        raise MlmaError(
            f"mini: {lang}: found {len(drawn)} of {count} new sentences; ask for fewer, "
            f"or add to {_GRAMMAR.name}"
        )
    return drawn


def _expand(rules: dict[str, list[str]], symbol: str, rng: np.random.Generator) -> str:
    choice = rules[symbol][rng.integers(len(rules[symbol]))]
    return " ".join(_expand(rules, w, rng) if w.isupper() else w for w in choice.split())


@cache
def grammar() -> dict[str, dict[str, list[str]]]:
    """The grammar: language -> rule -> alternatives."""
    languages = yaml.safe_load(_GRAMMAR.read_text(encoding="utf-8"))
    return {
        lang: {name: [a.strip() for a in body.split("|")] for name, body in rules.items()}
        for lang, rules in languages.items()
    }


def _line(lang: str, split: str, number: int, text: str, rng: np.random.Generator) -> Line:
    variant = VARIANTS[split][number % len(VARIANTS[split])]
    speaker = f"mini_{lang}_{variant}"
    return Line(
        id=f"{speaker}-{split}{number:05d}",
        speaker=speaker,
        text=text,
        voice=f"{BASE_VOICES[lang]}+{variant}",
        rate=int(rng.integers(115, 156)),
        pitch=int(rng.integers(35, 66)),
        snr=float(rng.uniform(20, 35)),
    )
