"""Data folders as stage 3 leaves them, recognised by utterance: what stage 12 is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean

import numpy as np
from omniio import kaldi

from espnet_mlma.audio import SAMPLE_RATE, read_audio
from espnet_mlma.datadir import read, seen_from
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.recogniser import Recogniser, by_length
from espnet_mlma.decode.transcript import Transcript
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml, replace_folder
from espnet_mlma.values import is_positive


def read_options(path: Path) -> tuple[float, Decoding]:
    """The batch size in seconds and the options of the search from a decoding configuration.

    Raises:
        MlmaError: an option is unknown, or the batch size is missing.
    """
    options = read_yaml(path, "give one as conf/decode_*.yaml")
    if "batch_seconds" not in options:
        raise MlmaError(f"{path}: has no batch_seconds, the most audio in a batch")
    batch_seconds = options.pop("batch_seconds")
    if not is_positive(batch_seconds):
        raise MlmaError(f"{path}: batch_seconds: {batch_seconds!r} is not a number above 0")
    return float(batch_seconds), Decoding.from_dict(options, str(path))


def read_samples(where: str) -> np.ndarray:
    """The second column of a wav.scp as float samples (time,) at 16 kHz.

    Args:
        where: a sound file, or `ark:offset` as stage 3 writes it.

    Raises:
        MlmaError: the sound cannot be read or is cut off, or an archive has another rate.
    """
    if ":" not in Path(where).name:
        return read_audio(where)
    try:
        rate, samples = kaldi.load_mat(where)
    except (OSError, RuntimeError, ValueError):
        raise MlmaError(f"{where}: no whole sound there; run stage 3 again") from None
    if rate != SAMPLE_RATE:
        raise MlmaError(f"{where}: {rate} Hz; stage 3 writes {SAMPLE_RATE} Hz")
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / (np.iinfo(samples.dtype).max + 1)
    return samples.astype(np.float32)


def locate(where: str, below: Path) -> str:
    """The second column of a wav.scp, seen from here.

    Args:
        where: a file, or `ark:offset`; a relative one counts from the recipe's folder.
        below: a folder below the recipe's.
    """
    file, colon, _ = where.rpartition(":")
    file = file if colon else where
    found = seen_from(below, Path(file))
    return str(found) + where[len(file) :] if found else where


def read_lengths(data_dir: Path) -> dict[str, int]:
    """How many samples each utterance of a data folder has, in the order of its `wav.scp`.

    Args:
        data_dir: holds `wav.scp` and, from stage 3, `utt2num_samples`.

    Raises:
        MlmaError: a table is missing, or has no number of an utterance.
    """
    table = data_dir / "utt2num_samples"
    ids, found = read(data_dir / "wav.scp", "stage 3"), read(table, "stage 3")
    for id_ in ids:
        if not found.get(id_, "").isdecimal():
            raise MlmaError(f"{table}: no number of samples of {id_}; run stage 3 again")
    return {id_: int(found[id_]) for id_ in ids}


def recognise(
    recogniser: Recogniser, data_dir: Path, lengths: Mapping[str, int], batch_seconds: float
) -> Iterator[tuple[str, Transcript]]:
    """Recognise utterances of a data folder, longest first.

    Args:
        recogniser: the model.
        data_dir: holds `wav.scp`.
        lengths: of `read_lengths`, all or some; what has fewer samples is refused.
        batch_seconds: most audio in a batch, padding included.

    Yields:
        The id and what was recognised.

    Raises:
        MlmaError: a table or a sound of the folder cannot be read whole.
    """
    audio = read(data_dir / "wav.scp", "stage 3")
    for batch in by_length(lengths, batch_seconds):
        samples = [read_samples(locate(audio[id_], data_dir)) for id_ in batch]
        for id_, sound in zip(batch, samples, strict=True):
            if len(sound) < lengths[id_]:
                said = f"{len(sound)} of {lengths[id_]} samples of {id_}"
                raise MlmaError(f"{audio[id_]}: {said}; run stage 3 again")
        yield from zip(batch, recogniser.transcribe_batch(samples), strict=True)


def decode_folder(
    recogniser: Recogniser, data_dir: Path, batch_seconds: float
) -> dict[str, Transcript]:
    """Recognise every utterance of a data folder and show how far it is.

    Args:
        recogniser: the model.
        data_dir: holds `wav.scp` and, from stage 3, `utt2num_samples`.
        batch_seconds: most audio in a batch, padding included.

    Raises:
        MlmaError: a table or a sound of the folder cannot be read whole.
    """
    lengths = read_lengths(data_dir)
    results: dict[str, Transcript] = {}
    for id_, transcript in recognise(recogniser, data_dir, lengths, batch_seconds):
        results[id_] = transcript
        print(f"  {len(results)} / {len(lengths)} utterances", end="\r", flush=True)
    return results


def write_results(results: dict[str, Transcript], output_dir: Path) -> None:
    """Write a file a column in C order of the ids; the folder appears whole or not at all.

    Args:
        results: by id.
        output_dir: gets text, token, token_int, utt2lang, the path's log-probability in score, and
            the mean of the words' confidences.
    """
    columns = {
        "text": lambda t: t.text,
        "token": lambda t: " ".join(token.text for token in t.tokens),
        "token_int": lambda t: " ".join(str(token.id) for token in t.tokens),
        "score": lambda t: f"{t.score:.4f}",
        "utt2lang": lambda t: t.language or "",
        "confidence": lambda t: f"{fmean(w.confidence for w in t.words):.4f}" if t.words else "",
    }

    def fill(new: Path) -> None:
        for name, column in columns.items():
            with (new / name).open("w", encoding="utf-8") as file:
                for key in sorted(results):
                    file.write(f"{key} {column(results[key])}".rstrip() + "\n")

    replace_folder(output_dir, fill)
