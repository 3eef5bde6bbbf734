"""mini: short sentences in six languages, synthesised by eSpeak NG.

A toy corpus to try the whole recipe on: no download, no licence question, deterministic given a
seed. The sentences come from `mini_grammar.yaml`. dev and test have other sentences and voices than
train, but no other words. The layout is that of `espeak.py`.
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
from espnet_mlma.data.corpora.espeak import SPLITS, SynthesisJob, SynthesisLine, voice_of
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import LANGUAGES

TAG = "mini"
VARIANTS = {
    "train": ("m1", "m2", "m4", "m6", "m8", "Alex", "Mario", "f1", "f4", "f5", "Andrea"),
    "dev": ("m7", "f3"),
    "test": ("m3", "f2"),
}
_GRAMMAR = Path(__file__).with_name("mini_grammar.yaml")


@dataclass(frozen=True)
class SplitSizes:
    """Number of sentences per language in each split."""

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
    languages: Iterable[str] = LANGUAGES,
    nj: int = 2,
) -> None:
    """Make the missing languages of the corpus.

    Args:
        root: folder of the corpus.
        seed: of sentences, voices, rates, pitches and noise.
        train, dev, test: sentences per language.
        languages: some of `LANGUAGES`.
        nj: processes, each with one language.

    Raises:
        MlmaError: the grammar has too few sentences, or a file cannot be written.
    """
    sizes = SplitSizes(train, dev, test)
    jobs = {}
    for lang in languages:
        noise, make = [seed, LANGUAGES.index(lang), 1], partial(plan, lang, seed, sizes)
        jobs[lang] = SynthesisJob(_parameters(lang, seed, sizes), noise, make)
    espeak.synthesise(root, "mini", jobs, nj)


prepare = partial(espeak.read, "mini")


def _parameters(lang: str, seed: int, sizes: SplitSizes) -> dict[str, object]:
    digest = sha256(json.dumps(grammar()[lang]).encode()).hexdigest()
    return {"seed": seed, **asdict(sizes), "grammar": digest}


def plan(lang: str, seed: int, sizes: SplitSizes) -> dict[str, list[SynthesisLine]]:
    """Draw the sentences of each split, each with a voice, rate, pitch and noise level.

    Args:
        lang: one of `LANGUAGES`.
        seed: of all draws.
        sizes: sentences per split.

    Raises:
        MlmaError: the grammar has too few sentences.
    """
    rng = np.random.default_rng([seed, LANGUAGES.index(lang)])
    seen: set[str] = set()
    train = _draw(lang, rng, sizes.train, seen)
    words = {word for text in train for word in text.split()}
    texts = {
        "train": train,
        "dev": _draw(lang, rng, sizes.dev, seen, words),
        "test": _draw(lang, rng, sizes.test, seen, words),
    }
    return {
        split: [_line(lang, split, i, text, rng) for i, text in enumerate(texts[split])]
        for split in SPLITS
    }


def _draw(
    lang: str, rng: np.random.Generator, count: int, seen: set[str], words: set[str] | None = None
) -> list[str]:
    """Draw `count` sentences that are not in `seen`, made of `words` only; add them to `seen`."""
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
    """Read the grammar: language -> rule -> alternatives."""
    languages = yaml.safe_load(_GRAMMAR.read_text(encoding="utf-8"))
    return {
        lang: {name: [a.strip() for a in body.split("|")] for name, body in rules.items()}
        for lang, rules in languages.items()
    }


def _line(lang: str, split: str, number: int, text: str, rng: np.random.Generator) -> SynthesisLine:
    variant = VARIANTS[split][number % len(VARIANTS[split])]
    speaker = f"{TAG}_{lang}_{variant}"
    return SynthesisLine(
        id=f"{speaker}-{split}{number:05d}",
        speaker=speaker,
        text=text,
        voice=voice_of(lang, variant),
        rate=int(rng.integers(115, 156)),
        pitch=int(rng.integers(35, 66)),
        snr=float(rng.uniform(20, 35)),
    )
