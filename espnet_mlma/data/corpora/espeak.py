"""eSpeak NG as a speaker of corpora: lines of text in, folders of clips with their transcripts out.

eSpeak NG comes in the PyPI package `espeakng-loader` (https://github.com/espeak-ng/espeak-ng). Its
licence is the GPL, so it is an extra: only speaking needs it, and not reading what was spoken.
Layout: `<root>/<lang>/{complete.json, <split>/{transcripts.tsv, audio/<id>.flac}}`.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
import soxr

from espnet_mlma import files, workers
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.claims import claim
from espnet_mlma.data import tables as datadir
from espnet_mlma.data.corpora.tsv import checked, read_table
from espnet_mlma.data.utterance import Drop, Utterance, table_key
from espnet_mlma.errors import MlmaError

_TABLE, _MARKER = "transcripts.tsv", "complete.json"
_COLUMNS = ("id", "speaker", "text")
SPLITS = ("train", "dev", "test")
BASE_VOICES = {"en": "en-us", "it": "it", "fr": "fr", "es": "es", "de": "de", "nl": "nl"}
_FORMAT = 3  # raise it when the sound or the layout changes, so that old copies are made again


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


@dataclass(frozen=True)
class Job:
    """What one language is to hold.

    Attributes:
        parameters: whatever decides what is made; a language made with the same ones is kept.
        seed: of the noise.
        plan: gives the lines of each split; called in the process that speaks them.
    """

    parameters: Mapping[str, object]
    seed: Sequence[int]
    plan: Callable[[], Mapping[str, Sequence[Line]]]


def speak(root: Path, name: str, jobs: Mapping[str, Job], nj: int) -> None:
    """Make the languages of a corpus, or what is missing of them, in folders of their own.

    Args:
        root: folder of the corpus.
        name: of the corpus, for what is printed.
        jobs: by language.
        nj: languages rendered at once.

    Raises:
        MlmaError: a folder of a language is there and was not made here, another process makes one,
            a plan cannot be made, or a file cannot be written.
    """
    for folder in (root / lang for lang in jobs):
        made = (folder / _MARKER, *(folder / split / _TABLE for split in SPLITS))
        if folder.exists() and not any(path.is_file() for path in made):
            raise MlmaError(f"{folder}: not made here, and the speech goes there; move it away")
    with ExitStack() as claims:
        for lang in jobs:
            if not _is_made(root, lang, jobs[lang]):
                claims.enter_context(claim(root / lang, "speaks it"))
        # Another process may have made one before it was claimed.
        todo = {lang: job for lang, job in jobs.items() if not _is_made(root, lang, job)}
        if not todo:
            print(f"{name}: complete in {root}")
            return
        _speak(root, name, todo, nj)


def _speak(root: Path, name: str, todo: Mapping[str, Job], nj: int) -> None:
    _loader()  # what is missing is said before processes start
    # eSpeak's sound depends on all it said before in the process, so each language gets a fresh one
    with workers.pool(nj, "speaks", max_tasks_per_child=1) as pool:
        running = {lang: pool.submit(_make_language, root, lang, job) for lang, job in todo.items()}
        for lang, job in running.items():
            sentences, seconds = job.result()
            print(f"{name}: {lang}: {sentences} sentences, {seconds / 3600:.2f} h", flush=True)


def read(name: str, root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one split of one language.

    Args:
        name: of the corpus, for what is raised.
        root: folder of the corpus.
        lang: en, it, fr, es, de or nl.
        split: train, dev or test.

    Raises:
        MlmaError: the split has not been made.
    """
    folder = root / lang / split
    table = folder / _TABLE
    if not table.is_file():
        raise MlmaError(f"{name}: no {table}; stage 1 makes it, run that again")
    for row in read_table(table, _COLUMNS, key=["id"]):
        if isinstance(row, Drop):
            yield row
            continue
        clip = _clip(folder, row["id"])
        id_ = table_key(row["id"])
        utterance = Utterance(id_, AudioFile(clip), row["text"], row["speaker"], lang)
        yield checked(utterance, f"{row['id']}.flac", table)


def _clip(split: Path, id_: str) -> Path:
    return split / "audio" / f"{id_}.flac"


def told(data: Path) -> dict[str, tuple[str, str] | None]:
    """Sentence and language of each clip of a data folder; None: the clip was not made here.

    Args:
        data: a data folder of stage 1.

    Raises:
        MlmaError: there is no such folder, or none of its clips was made here.
    """
    table, remedy = data / "wav.scp", "give a data folder of stage 1, such as data/train_synthetic"
    if not table.is_file():
        raise MlmaError(f"{table}: no such file; {remedy}")
    clips = datadir.read(table, "stage 1")
    folders = {Path(clip).parent.parent for clip in clips.values()}
    found: dict[str, tuple[str, str]] = {}
    for folder in sorted(folders):
        if (folder / _TABLE).is_file():
            root, lang = folder.parents[1], folder.parent.name
            said = read(root.name, root, lang, folder.name)
            found.update((u.id, (u.text, lang)) for u in said if isinstance(u, Utterance))
    if not clips.keys() & found:
        raise MlmaError(f"{table}: eSpeak NG made none of these where they lie; {remedy}")
    return {id_: found.get(id_) for id_ in clips}


def _marker(job: Job) -> dict[str, object]:
    return {"format": _FORMAT, **job.parameters}


def _is_made(root: Path, lang: str, job: Job) -> bool:
    """Whether a language was made with the same parameters and is whole."""
    folder = root / lang
    try:
        made_with = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        return made_with == _marker(job) and not any(_missing(folder, split) for split in SPLITS)
    except (OSError, ValueError, RecursionError, MlmaError):  # not there, or cut off
        return False


def _missing(folder: Path, split: str) -> list[str]:
    """The sentences of a split's table whose clips are not there, or empty."""
    ids = [line.partition("\t")[0] for line in files.read_lines(folder / split / _TABLE)][1:]
    with os.scandir(folder / split / "audio") as clips:
        there = {clip.name for clip in clips if clip.stat().st_size}
    return [id_ for id_ in ids if _clip(folder / split, id_).name not in there]


def _make_language(root: Path, lang: str, job: Job) -> tuple[int, float]:
    """Write one language, its folder whole or not at all; sentences and seconds of it."""
    spoken: list[float] = []
    files.replace_folder(root / lang, lambda new: spoken.extend(_fill(new, job)))
    return len(spoken), sum(spoken)


def _fill(folder: Path, job: Job) -> Iterator[float]:
    """Write the splits and, last, what they were made with; yields each sentence's seconds."""
    speech, noise = Espeak(), np.random.default_rng(job.seed)
    for split, lines in job.plan().items():
        audio = folder / split / "audio"
        audio.mkdir(parents=True)
        for line in lines:
            samples = finish(speech.say(line), line.snr, noise)
            # Through memory, because libsndfile does not say that a disk is full.
            clip = io.BytesIO()
            soundfile.write(clip, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
            (audio / f"{line.id}.flac").write_bytes(clip.getvalue())
            yield len(samples) / SAMPLE_RATE
        rows = ["id\tspeaker\ttext", *(f"{u.id}\t{u.speaker}\t{u.text}" for u in lines)]
        table = folder / split / _TABLE
        table.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    for split in SPLITS:
        if missing := _missing(folder, split):
            raise MlmaError(f"{folder}: {missing[0]} of {split} is gone; run this again")
    (folder / _MARKER).write_text(json.dumps(_marker(job)) + "\n")


def finish(spoken: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
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


def _loader() -> ModuleType:
    """Import the package that brings eSpeak NG.

    Raises:
        MlmaError: it is not installed.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise MlmaError(
            'synthetic speech needs eSpeak NG: pip install "espnet-mlma[synthetic]"'
        ) from None
    return espeakng_loader


class Espeak:
    """eSpeak NG, loaded into this process.

    Its sound depends on what it said before: what is to sound the same again needs a process, and
    in it the same job from the beginning.
    """

    _SYNC, _UTF8, _END_PAUSE = 2, 1, 0x1000  # AUDIO_OUTPUT_SYNCHRONOUS, espeakCHARS_*
    _RATE, _PITCH = 1, 3

    def __init__(self) -> None:
        loader = _loader()
        self._data = Path(loader.get_data_path())
        self._lib = ctypes.CDLL(loader.get_library_path())
        self._rate = self._lib.espeak_Initialize(self._SYNC, 0, os.fsencode(self._data), 0)
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
