"""synthetic: free text in any of the six languages, spoken by eSpeak NG; to train on beforehand.

Text is what there is plenty of. Sentences of `<root>/<lang>.txt`, each spoken once, by a voice, at
a rate and pitch and in noise that are drawn for it. dev and test hold other sentences and voices.
The layout is that of `espeak.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from espnet_mlma import files
from espnet_mlma.data.corpora import espeak
from espnet_mlma.data.corpora.espeak import BASE_VOICES, Line
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import check, normalise

VOICES = {
    "train": (
        *("m1", "m2", "m4", "m5", "m6", "m8", "f1", "f4", "f5", "Alex", "Alicia", "Andrea", "Andy"),
        *("Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario"),
        *("Michael", "Mike", "Reed", "adam", "anika", "antonio", "belinda", "benjamin", "boris"),
        *("caleb", "david", "edward", "ian", "john", "linda", "marcelo", "max", "michel", "miguel"),
        *("norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby"),
        *("steph", "travis", "victor", "zac"),
    ),
    "dev": ("m7", "f3"),
    "test": ("m3", "f2"),
}
_HELD_OUT = 50  # of so many sentences one is for dev and one for test
_WORDS = range(3, 21)
_LONGEST = 160  # characters: twelve seconds at most


def generate(root: Path, *, seed: int = 1, nj: int = 2) -> None:
    """Speak the text, or what is not yet spoken of it; the same text again does nothing.

    Args:
        root: folder of the corpus, with `<lang>.txt`, UTF-8, sentences in lines or running on.
        seed: of voices, rates, pitches and noise.
        nj: languages rendered at once.

    Raises:
        MlmaError: a text is missing or has no sentences to speak, or a file cannot be written.
    """
    jobs = {}
    for number, lang in enumerate(BASE_VOICES):
        file = root / f"{lang}.txt"
        if not file.is_file():
            raise MlmaError(
                f"synthetic: no {file.absolute()}; put sentences in {lang} there, any free text, "
                "or set SYNTHETIC to the folder that has them (db.sh)"
            )
        digest = sha256(file.read_bytes()).hexdigest()
        make = partial(plan, file, lang, seed)
        jobs[lang] = espeak.Job({"seed": seed, "text": digest}, [seed, number, 2], make)
    espeak.speak(root, "synthetic", jobs, nj)


prepare = partial(espeak.read, "synthetic")


def sentences(text: str, lang: str) -> tuple[list[str], Counter[str]]:
    """The sentences of a text that can be spoken and written, each once by its words.

    Args:
        text: lines of sentences.
        lang: its language.

    Returns:
        Sentences in their order, and how many were left out for what reason.
    """
    kept: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    for line in re.split(r"[\r\n]+", text):  # splitlines would break at U+2028 too
        for sentence in re.split(r"(?<=[.!?…:;])\s+", " ".join(line.split())):
            reason = check(sentence, lang) or _unfit(sentence)
            if reason is None:
                words = normalise(sentence, lang)
                reason = "seen before" if words in kept else None
            if reason is None:
                kept[words] = sentence
            elif sentence:
                dropped[reason] += 1
    return list(kept.values()), dropped


def _unfit(sentence: str) -> str | None:
    words = len(sentence.split())
    if words < _WORDS.start:
        return "too short"
    return None if words in _WORDS and len(sentence) <= _LONGEST else "too long"


def plan(file: Path, lang: str, seed: int) -> dict[str, list[Line]]:
    """The lines of each split.

    Args:
        file: the text.
        lang: its language.
        seed: of all that is drawn.

    Raises:
        MlmaError: too few sentences can be spoken, or the file is not UTF-8.
    """
    found, dropped = sentences(files.read_text(file, "put sentences there"), lang)
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(dropped.items()))
    reasons = reasons or "nothing"
    if len(found) < _HELD_OUT:
        raise MlmaError(
            f"{file}: {len(found)} sentences to speak, {_HELD_OUT} are needed (dropped: {reasons})"
        )
    print(f"synthetic: {lang}: dropped {reasons}", flush=True)
    rng = np.random.default_rng([seed, list(BASE_VOICES).index(lang)])
    splits: dict[str, list[Line]] = {"train": [], "dev": [], "test": []}
    for number, text in enumerate(found):
        split = {0: "dev", 1: "test"}.get(number % _HELD_OUT, "train")
        splits[split].append(draw(lang, split, number, text, rng))
    return splits


def draw(lang: str, split: str, number: int, text: str, rng: np.random.Generator) -> Line:
    """A sentence, and one of the ways to say it.

    Args:
        lang: its language.
        split: train, dev or test, which have different voices.
        number: for the id.
        text: the sentence.
        rng: of voice, rate, pitch and noise.
    """
    variant = VOICES[split][rng.integers(len(VOICES[split]))]
    speaker = f"syn_{lang}_{variant}"
    return Line(
        id=f"{speaker}-{number:07d}",
        speaker=speaker,
        text=text,
        voice=f"{BASE_VOICES[lang]}+{variant}",
        rate=int(rng.integers(110, 201)),
        pitch=int(rng.integers(20, 81)),
        snr=float(rng.uniform(8, 35)),
    )
