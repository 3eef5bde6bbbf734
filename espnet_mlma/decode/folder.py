"""Data folders as stage 3 leaves them, recognised by utterance: what stage 12 is made of."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml
from omniio import kaldi

from espnet_mlma.audio import SAMPLE_RATE, as_samples, read_audio
from espnet_mlma.data.tables import read, seen_from
from espnet_mlma.decode.fingerprint import FILE
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.recogniser import Recogniser, by_length
from espnet_mlma.decode.transcript import Transcript
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml, replace_folder
from espnet_mlma.numbers import is_positive

_MOST_NAMED = 10


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
    archive = where.rpartition(":")[0].strip()
    if archive == "-" or archive.startswith("|") or archive.endswith("|"):
        # As kaldiio's own reader would take them.
        raise MlmaError(f"{where}: a command or the standard input, no archive of stage 3")
    try:
        rate, samples = kaldi.load_mat(where)
    except Exception:  # bytes that are no header may raise any
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


@dataclass(frozen=True)
class Batch:
    """What was recognised together.

    Attributes:
        number: of the batch in the set, from 0.
        transcripts: by id.
        skipped: why, by id, sounds could not be read.
    """

    number: int
    transcripts: Mapping[str, Transcript]
    skipped: Mapping[str, str]


def recognise(
    recogniser: Recogniser,
    data_dir: Path,
    lengths: Mapping[str, int],
    batch_seconds: float,
    done: Container[int] = (),
) -> Iterator[Batch]:
    """Recognise utterances of a data folder, longest first.

    Args:
        recogniser: the model.
        data_dir: holds `wav.scp`.
        lengths: of `read_lengths`, all or some; a sound with fewer samples is skipped.
        batch_seconds: most audio in a batch, padding included.
        done: numbers of batches to leave out.

    Raises:
        MlmaError: a table cannot be read.
    """
    audio = read(data_dir / "wav.scp", "stage 3")
    for number, batch in enumerate(by_length(lengths, batch_seconds)):
        if number in done:
            continue
        samples: dict[str, np.ndarray] = {}
        skipped: dict[str, str] = {}
        for id_ in batch:
            try:
                sound = as_samples(read_samples(locate(audio[id_], data_dir)))
                if len(sound) < lengths[id_]:
                    said = f"{len(sound)} of {lengths[id_]} samples"
                    raise MlmaError(f"{audio[id_]}: {said}; run stage 3 again")
            except MlmaError as error:
                skipped[id_] = str(error)
            else:
                samples[id_] = sound
        found = recogniser.transcribe_batch(list(samples.values())) if samples else []
        yield Batch(number, dict(zip(samples, found, strict=True)), skipped)


def decode_folder(
    recogniser: Recogniser, data_dir: Path, batch_seconds: float
) -> tuple[dict[str, Transcript], dict[str, str]]:
    """Recognise every utterance of a data folder and show how far it is.

    Args:
        recogniser: the model.
        data_dir: holds `wav.scp` and, from stage 3, `utt2num_samples`.
        batch_seconds: most audio in a batch, padding included.

    Returns:
        What was recognised, and why others were skipped, by id.

    Raises:
        MlmaError: a table of the folder cannot be read, or no sound can.
    """
    lengths = read_lengths(data_dir)
    results: dict[str, Transcript] = {}
    skipped: dict[str, str] = {}
    for batch in recognise(recogniser, data_dir, lengths, batch_seconds):
        results |= batch.transcripts
        skipped |= batch.skipped
        show_progress(len(results) + len(skipped), len(lengths))
    say_skipped(data_dir, len(lengths), skipped)
    return results, skipped


def show_progress(done: int, of: int) -> None:
    """Print how many utterances are done, in the place of the line before."""
    print(f"  {done} / {of} utterances", end="\r", flush=True)


def say_skipped(data_dir: Path, count: int, skipped: Mapping[str, str]) -> None:
    """Name the utterances whose sound could not be read.

    Args:
        data_dir: the set.
        count: utterances in it.
        skipped: why, by id.

    Raises:
        MlmaError: they are all that there are.
    """
    if not skipped:
        return
    if len(skipped) == count:
        id_, reason = next(iter(skipped.items()))
        raise MlmaError(f"{data_dir}: no sound can be read; of {id_}: {reason}")
    print(f"{data_dir.name}: skipped {len(skipped)} of {count} utterances, which cannot be read:")
    for id_ in sorted(skipped)[:_MOST_NAMED]:
        print(f"  {id_}: {skipped[id_]}")
    if len(skipped) > _MOST_NAMED:
        print(f"  and {len(skipped) - _MOST_NAMED} more, see {FILE}")


def columns(transcript: Transcript) -> dict[str, str]:
    """What is written of a transcript: one value for each file of a decoded set."""
    words = transcript.words
    return {
        "text": transcript.text,
        "token": " ".join(token.text for token in transcript.tokens),
        "token_int": " ".join(str(token.id) for token in transcript.tokens),
        "score": f"{transcript.score:.4f}",
        "utt2lang": transcript.language or "",
        "confidence": f"{fmean(word.confidence for word in words):.4f}" if words else "",
    }


def write_results(
    results: Mapping[str, Mapping[str, str]], output_dir: Path, made_with: Mapping[str, Any]
) -> None:
    """Write a file a column in C order of the ids; the folder appears whole or not at all.

    Args:
        results: columns by id.
        output_dir: gets text, token, token_int, utt2lang, the path's log-probability in score, the
            mean of the words' confidences, and decoding.yaml.
        made_with: contents of decoding.yaml.
    """
    names = next(iter(results.values()))

    def fill(new: Path) -> None:
        for name in names:
            with (new / name).open("w", encoding="utf-8") as file:
                for key in sorted(results):
                    file.write(f"{key} {results[key][name]}".rstrip() + "\n")
        text = yaml.safe_dump(dict(made_with), sort_keys=False, allow_unicode=True)
        (new / FILE).write_text(text, encoding="utf-8")

    replace_folder(output_dir, fill)
