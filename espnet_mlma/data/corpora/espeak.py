"""Synthesise corpora with eSpeak NG, and read them.

eSpeak NG (https://github.com/espeak-ng/espeak-ng) comes with the package `espeakng-loader`. It is
an extra because of its licence, the GPL. Reading a finished corpus does not need it.

    <root>/<lang>/complete.json
    <root>/<lang>/<split>/transcripts.tsv
    <root>/<lang>/<split>/audio/<id>.flac
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
from typing import Any

import numpy as np
import soundfile
import soxr

from espnet_mlma import files, workers
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.claims import claim
from espnet_mlma.data import tables
from espnet_mlma.data.corpora.tsv import checked, read_table
from espnet_mlma.data.utterance import Drop, Utterance, table_key
from espnet_mlma.errors import MlmaError
from espnet_mlma.text.language import LANGUAGE_TABLE

_TABLE, _MARKER = "transcripts.tsv", "complete.json"
_COLUMNS = ("id", "speaker", "text")
SPLITS = ("train", "dev", "test")
_FORMAT = 3  # increase when audio or layout changes, so that old copies are replaced


@dataclass(frozen=True)
class SynthesisLine:
    """A sentence to synthesise.

    Attributes:
        id: of the utterance.
        speaker: its id.
        text: the sentence.
        voice: eSpeak NG's name, from `voice_of`.
        rate: words per minute.
        pitch: 0 to 100.
        snr: level of the speech above the noise, dB.
    """

    id: str
    speaker: str
    text: str
    voice: str
    rate: int
    pitch: int
    snr: float


@dataclass(frozen=True)
class SynthesisJob:
    """What to synthesise in one language.

    Attributes:
        parameters: identify the result; a language made with the same ones is kept.
        seed: of the noise.
        plan: makes the lines of each split; called in the process that synthesises them.
    """

    parameters: Mapping[str, object]
    seed: Sequence[int]
    plan: Callable[[], Mapping[str, Sequence[SynthesisLine]]]


def voice_of(lang: str, variant: str) -> str:
    """Return eSpeak NG's name for a variant of a language's voice."""
    return f"{LANGUAGE_TABLE[lang].voice}+{variant}"


def synthesise(root: Path, name: str, jobs: Mapping[str, SynthesisJob], nj: int) -> None:
    """Synthesise the languages of a corpus that are missing or have other parameters.

    Args:
        root: folder of the corpus.
        name: of the corpus, for messages.
        jobs: by language.
        nj: processes, each with one language.

    Raises:
        MlmaError: a language's folder has other content, another process makes it, a plan fails, or
            a file cannot be written.
    """
    for folder in (root / lang for lang in jobs):
        made = (folder / _MARKER, *(folder / split / _TABLE for split in SPLITS))
        if folder.exists() and not any(path.is_file() for path in made):
            raise MlmaError(
                f"{folder}: is not a synthetic corpus and would be replaced; move it away"
            )
    with ExitStack() as claims:
        for lang in jobs:
            if not _is_made(root, lang, jobs[lang]):
                claims.enter_context(claim(root / lang, "synthesises it"))
        # Another process may have finished one in the meantime.
        todo = {lang: job for lang, job in jobs.items() if not _is_made(root, lang, job)}
        if not todo:
            print(f"{name}: complete in {root}")
            return
        _synthesise(root, name, todo, nj)


def _synthesise(root: Path, name: str, todo: Mapping[str, SynthesisJob], nj: int) -> None:
    _loader()  # fail before processes start
    # eSpeak's output depends on all earlier output of the process: one process per language.
    with workers.pool(nj, "synthesises", max_tasks_per_child=1) as pool:
        running = {lang: pool.submit(_make_language, root, lang, job) for lang, job in todo.items()}
        for lang, job in running.items():
            sentences, seconds = job.result()
            print(f"{name}: {lang}: {sentences} sentences, {seconds / 3600:.2f} h", flush=True)


def read(name: str, root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one split of a synthetic corpus in one language.

    Args:
        name: of the corpus, for errors.
        root: folder of the corpus.
        lang: one of `LANGUAGES`.
        split: train, dev or test.

    Raises:
        MlmaError: the split does not exist.
    """
    folder = root / lang / split
    table = folder / _TABLE
    if not table.is_file():
        raise MlmaError(f"{name}: no {table}; run stage 1 again")
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


def synthesised_sentences(data: Path) -> dict[str, tuple[str, str] | None]:
    """Find sentence and language of each clip of a data folder; None: not from eSpeak NG.

    Args:
        data: a data folder of stage 1.

    Raises:
        MlmaError: the folder does not exist, or has no clip by eSpeak NG.
    """
    table, remedy = data / "wav.scp", "give a data folder of stage 1, such as data/train_synthetic"
    if not table.is_file():
        raise MlmaError(f"{table}: no such file; {remedy}")
    clips = tables.read(table, "stage 1")
    folders = {Path(clip).parent.parent for clip in clips.values()}
    found: dict[str, tuple[str, str]] = {}
    for folder in sorted(folders):
        if (folder / _TABLE).is_file():
            root, lang = folder.parents[1], folder.parent.name
            rows = read(root.name, root, lang, folder.name)
            found.update((u.id, (u.text, lang)) for u in rows if isinstance(u, Utterance))
    if not clips.keys() & found:
        raise MlmaError(f"{table}: no clip is by eSpeak NG; {remedy}")
    return {id_: found.get(id_) for id_ in clips}


def _marker(job: SynthesisJob) -> dict[str, object]:
    return {"format": _FORMAT, **job.parameters}


def _is_made(root: Path, lang: str, job: SynthesisJob) -> bool:
    """Say whether a language is complete and was made with the same parameters."""
    folder = root / lang
    try:
        made_with = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        return made_with == _marker(job) and not any(_missing(folder, split) for split in SPLITS)
    except (OSError, ValueError, RecursionError, MlmaError):  # missing or damaged
        return False


def _missing(folder: Path, split: str) -> list[str]:
    """List the ids of a split's table whose clips are missing or empty."""
    ids = [line.partition("\t")[0] for line in files.read_lines(folder / split / _TABLE)][1:]
    with os.scandir(folder / split / "audio") as clips:
        present = {clip.name for clip in clips if clip.stat().st_size}
    return [id_ for id_ in ids if _clip(folder / split, id_).name not in present]


def _make_language(root: Path, lang: str, job: SynthesisJob) -> tuple[int, float]:
    """Write one language, complete or not at all; return its sentences and seconds."""
    lengths: list[float] = []
    files.replace_folder(root / lang, lambda new: lengths.extend(_fill(new, job)))
    return len(lengths), sum(lengths)


def _fill(folder: Path, job: SynthesisJob) -> Iterator[float]:
    """Write the splits and, last, the marker; yield the seconds of each sentence."""
    speech, noise = Espeak(), np.random.default_rng(job.seed)
    for split, lines in job.plan().items():
        audio = folder / split / "audio"
        audio.mkdir(parents=True)
        for line in lines:
            samples = finish(speech.speak(line), line.snr, noise)
            # Through memory: libsndfile does not report a full disk.
            clip = io.BytesIO()
            soundfile.write(clip, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
            (audio / f"{line.id}.flac").write_bytes(clip.getvalue())
            yield len(samples) / SAMPLE_RATE
        rows = ["id\tspeaker\ttext", *(f"{u.id}\t{u.speaker}\t{u.text}" for u in lines)]
        table = folder / split / _TABLE
        table.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    for split in SPLITS:
        if missing := _missing(folder, split):
            raise MlmaError(f"{folder}: {missing[0]} of {split} is missing; run this again")
    (folder / _MARKER).write_text(json.dumps(_marker(job)) + "\n")


def finish(speech: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Trim silence to 0.1 s at either end, set the level to -23 dBFS, add white noise.

    Args:
        speech: (samples,) float in [-1, 1] at 16 kHz.
        snr: of the whole clip, dB.
        rng: of the noise.

    Returns:
        (samples,) float64 in [-0.95, 0.95].
    """
    loud = np.flatnonzero(np.abs(speech) > 0.02 * np.abs(speech).max())
    edge = np.zeros(int(0.1 * SAMPLE_RATE))
    clip = np.concatenate([edge, speech[loud[0] : loud[-1] + 1], edge])
    rms = 10 ** (-23 / 20)
    clip *= rms / np.sqrt(np.mean(clip**2))
    clip += rng.normal(0, rms * 10 ** (-snr / 20), len(clip))
    return clip * min(1.0, 0.95 / np.abs(clip).max())


def _loader() -> ModuleType:
    """Import the package with eSpeak NG.

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

    Its output depends on all earlier output of the process. To reproduce a clip, repeat the whole
    job in a new process.
    """

    _SYNC, _UTF8, _END_PAUSE = 2, 1, 0x1000  # AUDIO_OUTPUT_SYNCHRONOUS, espeakCHARS_*
    _RATE, _PITCH = 1, 3

    def __init__(self) -> None:
        loader = _loader()
        self._data = Path(loader.get_data_path())
        self._lib = ctypes.CDLL(loader.get_library_path())
        self._rate = self._lib.espeak_Initialize(self._SYNC, 0, os.fsencode(self._data), 0)
        if self._rate <= 0:
            raise MlmaError(f"eSpeak NG cannot start with the data in {self._data}; reinstall it")
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(1))  # the default is the time of day
        self._chunks: list[np.ndarray] = []
        pointer = ctypes.POINTER(ctypes.c_short)
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_int, ctypes.c_void_p)
        self._callback = prototype(
            self._collect
        )  # keep a reference: the library holds only the address
        self._lib.espeak_SetSynthCallback(self._callback)

    def speak(self, line: SynthesisLine) -> np.ndarray:
        """Synthesise one line, without noise.

        Returns:
            (samples,) float64 in [-1, 1] at 16 kHz.

        Raises:
            MlmaError: the voice does not exist, or there was no output.
        """
        self._set_voice(line.voice)
        self._lib.espeak_SetParameter(self._RATE, line.rate, 0)
        self._lib.espeak_SetParameter(self._PITCH, line.pitch, 0)
        self._chunks.clear()
        text = line.text.encode()
        flags = self._UTF8 | self._END_PAUSE
        failed = self._lib.espeak_Synth(text, len(text) + 1, 0, 0, 0, flags, None, None)
        if failed or not any(chunk.any() for chunk in self._chunks):
            raise MlmaError(f"{line.id}: eSpeak NG has no output for {line.text!r}")
        return soxr.resample(np.concatenate(self._chunks) / 32768, self._rate, SAMPLE_RATE)

    def _set_voice(self, voice: str) -> None:
        # eSpeak replaces an unknown variant with the plain voice and no error: check its file.
        variant = voice.partition("+")[2]
        unknown = variant and not (self._data / "voices" / "!v" / variant).is_file()
        if unknown or self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise MlmaError(f"eSpeak NG has no voice {voice!r} in {self._data}; reinstall it")

    def _collect(self, samples: Any, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0
