"""synthetic: free text in the six languages, synthesised by eSpeak NG, for pre-training.

Text is plentiful. Each sentence of `<root>/<lang>.txt` is synthesised once, with a random voice,
rate, pitch and noise level. dev and test have other sentences and voices than train. The layout is
that of `espeak.py`.
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
from espnet_mlma.data.corpora.espeak import SynthesisJob, SynthesisLine, voice_of
from espnet_mlma.data.tables import list_counts
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import LANGUAGES, normalise, training_problem

TAG = "syn"
VARIANTS = {
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
_HELD_OUT = 50  # sentences, of which one is for dev and one for test
_WORDS = range(3, 21)
_LONGEST = 160  # characters; at most 12 s


def generate(root: Path, *, seed: int = 1, nj: int = 2) -> None:
    """Synthesise the languages that are missing, or whose text has changed.

    Args:
        root: folder of the corpus, with `<lang>.txt`: UTF-8, any line breaks.
        seed: of voices, rates, pitches and noise.
        nj: processes, each with one language.

    Raises:
        MlmaError: a text is missing or has too few sentences, or a file cannot be written.
    """
    jobs = {}
    for number, lang in enumerate(LANGUAGES):
        file = root / f"{lang}.txt"
        if not file.is_file():
            raise MlmaError(
                f"synthetic: no {file.absolute()}; put free text in {lang} there, "
                "or set SYNTHETIC in db.sh to the folder with the texts"
            )
        digest = sha256(file.read_bytes()).hexdigest()
        make = partial(plan, file, lang, seed)
        jobs[lang] = SynthesisJob({"seed": seed, "text": digest}, [seed, number, 2], make)
    espeak.synthesise(root, "synthetic", jobs, nj)


prepare = partial(espeak.read, "synthetic")


def sentences(text: str, lang: str) -> tuple[list[str], Counter[str]]:
    """Split a text into sentences; keep those to synthesise, without duplicates.

    Args:
        text: any text.
        lang: its language.

    Returns:
        The sentences in their order, and the number of dropped ones by reason.
    """
    kept: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    for line in re.split(r"[\r\n]+", text):  # splitlines would break at U+2028 too
        for sentence in re.split(r"(?<=[.!?…:;])\s+", " ".join(line.split())):
            words = normalise(sentence, lang)
            reason = training_problem(sentence, words, lang) or _length_problem(sentence)
            if reason is None and words in kept:
                reason = "duplicate"
            if reason is None:
                kept[words] = sentence
            elif sentence:
                dropped[reason] += 1
    return list(kept.values()), dropped


def _length_problem(sentence: str) -> str | None:
    words = len(sentence.split())
    if words < _WORDS.start:
        return "too_short"
    return None if words in _WORDS and len(sentence) <= _LONGEST else "too_long"


def plan(file: Path, lang: str, seed: int) -> dict[str, list[SynthesisLine]]:
    """Draw the lines of each split.

    Args:
        file: the text.
        lang: its language.
        seed: of all draws.

    Raises:
        MlmaError: there are too few sentences, or the file is not UTF-8.
    """
    found, dropped = sentences(files.read_text(file, "put free text there"), lang)
    reasons = list_counts(dropped)
    if len(found) < _HELD_OUT:
        raise MlmaError(
            f"{file}: {len(found)} usable sentences (dropped: {reasons}); give at least {_HELD_OUT}"
        )
    print(f"synthetic: {lang}: dropped {reasons}", flush=True)
    rng = np.random.default_rng([seed, LANGUAGES.index(lang)])
    splits: dict[str, list[SynthesisLine]] = {"train": [], "dev": [], "test": []}
    for number, text in enumerate(found):
        split = {0: "dev", 1: "test"}.get(number % _HELD_OUT, "train")
        splits[split].append(draw(lang, split, number, text, rng))
    return splits


def draw(lang: str, split: str, number: int, text: str, rng: np.random.Generator) -> SynthesisLine:
    """Draw voice, rate, pitch and noise level for a sentence.

    Args:
        lang: its language.
        split: train, dev or test, which have different voices.
        number: of the sentence, for the id.
        text: the sentence.
        rng: source of the draws.
    """
    variant = VARIANTS[split][rng.integers(len(VARIANTS[split]))]
    speaker = f"{TAG}_{lang}_{variant}"
    return SynthesisLine(
        id=f"{speaker}-{number:07d}",
        speaker=speaker,
        text=text,
        voice=voice_of(lang, variant),
        rate=int(rng.integers(110, 201)),
        pitch=int(rng.integers(20, 81)),
        snr=float(rng.uniform(8, 35)),
    )
