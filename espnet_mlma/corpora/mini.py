"""mini: short sentences in six languages, spoken by eSpeak NG, made on the spot.

A toy corpus to try the whole recipe on: no download, no licence question, deterministic from a
seed. The sentences come from `mini_grammar.yaml`. dev and test hold sentences and voices that
train does not have, but no word that train does not have. eSpeak NG comes in the PyPI package
`espeakng-loader` (https://github.com/espeak-ng/espeak-ng).

Layout: `<root>/<lang>/{complete.json, <split>/{transcripts.tsv, audio/<id>.flac}}`.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import espeakng_loader
import numpy as np
import soundfile
import soxr
import yaml

from espnet_mlma.corpora.audio import SAMPLE_RATE
from espnet_mlma.corpora.utterance import AudioFile, Utterance
from espnet_mlma.errors import MlmaError

SPLITS = ("train", "dev", "test")
BASE_VOICES = {"en": "en-us", "it": "it", "fr": "fr", "es": "es", "de": "de", "nl": "nl"}
VARIANTS = {
    "train": ("m1", "m2", "m4", "m6", "m8", "Alex", "Mario", "f1", "f4", "f5", "Andrea"),
    "dev": ("m7", "f3"),
    "test": ("m3", "f2"),
}
_GRAMMAR = Path(__file__).with_name("mini_grammar.yaml")
_FORMAT = 3  # raise it when the sound or the layout changes, so that old copies are made anew


@dataclass(frozen=True)
class Size:
    """How many sentences per language."""

    train: int = 400
    dev: int = 20
    test: int = 40


@dataclass(frozen=True)
class Line:
    """A sentence and how to say it: rate in words a minute, pitch 0-100, noise in dB of SNR."""

    id: str
    speaker: str
    text: str
    voice: str
    rate: int
    pitch: int
    snr: float


def generate(
    root: Path, *, seed: int = 1, train: int = 400, dev: int = 20, test: int = 40, nj: int = 2
) -> None:
    """Make the corpus, or what is missing of it; the same arguments again do nothing.

    Args:
        root: folder of the corpus.
        seed: of sentences, voices, rates, pitches and noise.
        train: sentences per language; dev and test alike.
        nj: languages rendered at once.

    Raises:
        MlmaError: the grammar has too few sentences, or a file cannot be written.
    """
    size = Size(train, dev, test)
    wanted = {lang: _parameters(lang, seed, size) for lang in BASE_VOICES}
    todo = [lang for lang in wanted if _made_with(root, lang) != wanted[lang]]
    if not todo:
        print(f"mini: complete in {root}")
        return
    # eSpeak's sound depends on all it said before in the process, so each language gets a fresh one
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(nj, mp_context=context, max_tasks_per_child=1) as pool:
        jobs = {lang: pool.submit(_make_language, root, lang, seed, size) for lang in todo}
        for lang, job in jobs.items():
            try:
                hours = job.result() / 3600
            except (OSError, soundfile.SoundFileError) as error:
                raise MlmaError(f"cannot write {root / lang}: {error}; free space there") from error
            print(
                f"mini: {lang}: {sum(asdict(size).values())} sentences, {hours:.2f} h", flush=True
            )


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance]:
    """Read one split of one language.

    Args:
        root: folder of the corpus.
        lang: en, it, fr, es, de or nl.
        split: train, dev or test.

    Raises:
        MlmaError: the split has not been made.
    """
    folder = root / lang / split
    table = folder / "transcripts.tsv"
    if not table.is_file():
        raise MlmaError(f"mini: no {table}; stage 1 makes it, run that again")
    with table.open(encoding="utf-8") as lines:
        header = next(lines).rstrip("\n").split("\t")
        for line in lines:
            row = dict(zip(header, line.rstrip("\n").split("\t"), strict=True))
            audio = AudioFile(folder / "audio" / f"{row['id']}.flac")
            yield Utterance(row["id"], audio, row["text"], row["speaker"], lang)


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


def _parameters(lang: str, seed: int, size: Size) -> dict[str, object]:
    digest = sha256(json.dumps(grammar()[lang]).encode()).hexdigest()
    return {"format": _FORMAT, "seed": seed, **asdict(size), "grammar": digest}


def _made_with(root: Path, lang: str) -> dict[str, object] | None:
    marker = root / lang / "complete.json"
    return json.loads(marker.read_text()) if marker.is_file() else None


def _make_language(root: Path, lang: str, seed: int, size: Size) -> float:
    """Write one language into a sibling folder, then put it in place; returns the seconds of it."""
    final, temporary = root / lang, root / f".{lang}.tmp"
    for stale in (temporary, final):
        shutil.rmtree(stale, ignore_errors=True)
    speech = Espeak()
    noise = np.random.default_rng([seed, list(BASE_VOICES).index(lang), 1])
    seconds = 0.0
    for split, lines in plan(lang, seed, size).items():
        audio = temporary / split / "audio"
        audio.mkdir(parents=True)
        for line in lines:
            samples = _finish(speech.say(line), line.snr, noise)
            soundfile.write(audio / f"{line.id}.flac", samples, SAMPLE_RATE, subtype="PCM_16")
            seconds += len(samples) / SAMPLE_RATE
        rows = ["id\tspeaker\ttext", *(f"{u.id}\t{u.speaker}\t{u.text}" for u in lines)]
        table = temporary / split / "transcripts.tsv"
        table.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    (temporary / "complete.json").write_text(json.dumps(_parameters(lang, seed, size)) + "\n")
    temporary.rename(final)
    return seconds


def _finish(spoken: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Trim silence to 0.1 s at either end, set the level to -23 dBFS, add white noise.

    Args:
        spoken: (samples,) float in -1..1 at 16 kHz.
        snr: decibels, over the whole clip.
        rng: of the noise.
    """
    loud = np.flatnonzero(np.abs(spoken) > 0.02 * np.abs(spoken).max())
    edge = np.zeros(int(0.1 * SAMPLE_RATE))
    clip = np.concatenate([edge, spoken[loud[0] : loud[-1] + 1], edge])
    rms = 10 ** (-23 / 20)
    clip *= rms / np.sqrt(np.mean(clip**2))
    clip += rng.normal(0, rms * 10 ** (-snr / 20), len(clip))
    return clip * min(1.0, 0.95 / np.abs(clip).max())


class Espeak:
    """eSpeak NG, loaded into this process.

    Use it for one job of fixed content per process: its sound depends on what it said before.
    """

    _SYNC, _UTF8, _END_PAUSE = 2, 1, 0x1000  # AUDIO_OUTPUT_SYNCHRONOUS, espeakCHARS_*
    _RATE, _PITCH = 1, 3

    def __init__(self) -> None:
        self._data = Path(espeakng_loader.get_data_path())
        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        self._rate = self._lib.espeak_Initialize(self._SYNC, 0, str(self._data).encode(), 0)
        if self._rate <= 0:
            raise MlmaError(f"eSpeak NG does not start with the data in {self._data}; reinstall it")
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(1))  # otherwise the time of day
        self._chunks: list[np.ndarray] = []
        pointer = ctypes.POINTER(ctypes.c_short)
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_int, ctypes.c_void_p)
        self._callback = prototype(self._collect)  # kept: the library holds only the address
        self._lib.espeak_SetSynthCallback(self._callback)

    def say(self, line: Line) -> np.ndarray:
        """Speak one line; (samples,) float64 in -1..1 at 16 kHz, without noise.

        Raises:
            MlmaError: the voice does not exist, or nothing was spoken.
        """
        self._set_voice(line.voice)
        self._lib.espeak_SetParameter(self._RATE, line.rate, 0)
        self._lib.espeak_SetParameter(self._PITCH, line.pitch, 0)
        self._chunks.clear()
        text = line.text.encode()
        flags = self._UTF8 | self._END_PAUSE
        failed = self._lib.espeak_Synth(text, len(text) + 1, 0, 0, 0, flags, None, None)
        if failed or not any(chunk.any() for chunk in self._chunks):
            raise MlmaError(f"{line.id}: eSpeak NG said nothing for {line.text!r}")
        return soxr.resample(np.concatenate(self._chunks) / 32768, self._rate, SAMPLE_RATE)

    def _set_voice(self, voice: str) -> None:
        # eSpeak answers an unknown variant with the plain voice and no error: look for its file
        variant = voice.partition("+")[2]
        unknown = variant and not (self._data / "voices" / "!v" / variant).is_file()
        if unknown or self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise MlmaError(f"eSpeak NG has no voice {voice!r} in {self._data}; reinstall it")

    def _collect(self, samples: ctypes.POINTER, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0
