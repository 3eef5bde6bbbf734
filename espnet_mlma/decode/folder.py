"""Recognise the utterances of a data folder that stage 3 wrote; the core of stage 12."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import yaml
from omniio import kaldi

from espnet_mlma.audio import SAMPLE_RATE, as_samples, read_audio
from espnet_mlma.data.tables import find_relative, read
from espnet_mlma.decode.fingerprint import FILE
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.recogniser import by_length
from espnet_mlma.decode.transcript import Transcript
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml, replace_folder
from espnet_mlma.numbers import is_positive

_MOST_NAMED = 10


def read_options(path: Path) -> tuple[float, Decoding]:
    """Read the batch size in seconds and the options of the search from `conf/decode_*.yaml`.

    Raises:
        MlmaError: an option is unknown, or the batch size is missing.
    """
    options = read_yaml(path, "give one like conf/decode_*.yaml")
    batch_seconds = options.pop("batch_seconds", None)
    if not is_positive(batch_seconds):
        raise MlmaError(
            f"{path}: batch_seconds is {batch_seconds}; give the most audio in a batch, above 0 s"
        )
    return float(batch_seconds), Decoding.from_dict(options, str(path))


def read_samples(where: str) -> np.ndarray:
    """Read what the second column of a `wav.scp` names.

    Args:
        where: a sound file, or `ark:offset` as stage 3 writes it.

    Returns:
        (time,) float32 samples at 16 kHz.

    Raises:
        MlmaError: the sound cannot be read or is cut off, or an archive has another rate.
    """
    if ":" not in Path(where).name:
        return read_audio(where)
    archive = where.rpartition(":")[0].strip()
    if archive == "-" or archive.startswith("|") or archive.endswith("|"):
        # The Kaldi reader would run the command.
        raise MlmaError(f"{where}: a command or stdin, not an archive; run stage 3 again")
    try:
        rate, samples = kaldi.load_mat(where)
    except Exception:  # a damaged header may raise any
        raise MlmaError(f"{where}: no whole sound there; run stage 3 again") from None
    if rate != SAMPLE_RATE:
        raise MlmaError(f"{where}: {rate} Hz, not {SAMPLE_RATE} Hz; run stage 3 again")
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / (np.iinfo(samples.dtype).max + 1)
    return samples.astype(np.float32)


def locate(where: str, below: Path) -> str:
    """Find the file of a `wav.scp` entry from the current folder.

    Args:
        where: a file, or `ark:offset`; a relative path counts from the recipe's folder.
        below: a folder inside the recipe's.
    """
    file, colon, _ = where.rpartition(":")
    file = file if colon else where
    found = find_relative(below, Path(file))
    return str(found) + where[len(file) :] if found else where


def read_lengths(data_dir: Path) -> dict[str, int]:
    """Read each utterance's number of samples, in the order of `wav.scp`.

    Args:
        data_dir: holds `wav.scp` and, from stage 3, `utt2num_samples`.

    Raises:
        MlmaError: a table is missing, or has no number for an utterance.
    """
    table = data_dir / "utt2num_samples"
    ids, found = read(data_dir / "wav.scp", "stage 3"), read(table, "stage 3")
    for id_ in ids:
        if not found.get(id_, "").isdecimal():
            raise MlmaError(f"{table}: no number of samples of {id_}; run stage 3 again")
    return {id_: int(found[id_]) for id_ in ids}


@dataclass(frozen=True)
class Batch:
    """Utterances that were recognised together.

    Attributes:
        number: the batch's index in the set.
        transcripts: by id.
        skipped: reasons by id, for sounds that cannot be read.
    """

    number: int
    transcripts: Mapping[str, Transcript]
    skipped: Mapping[str, str]


class BatchRecogniser(Protocol):
    """Recognise several utterances at once, as `Recogniser` does."""

    def transcribe_batch(self, utterances: Sequence[np.ndarray]) -> list[Transcript]:
        """Recognise utterances together; see `Recogniser.transcribe_batch`."""
        ...


def recognise(
    recogniser: BatchRecogniser,
    data_dir: Path,
    lengths: Mapping[str, int],
    batch_seconds: float,
    done: Container[int] = (),
) -> Iterator[Batch]:
    """Recognise utterances of a data folder, longest first.

    Args:
        recogniser: the model.
        data_dir: holds `wav.scp`.
        lengths: from `read_lengths`, all or some; a sound with fewer samples is skipped.
        batch_seconds: most audio in a batch, padding included.
        done: numbers of the batches to leave out.

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
                    found = f"{len(sound)} of {lengths[id_]} samples"
                    raise MlmaError(f"{audio[id_]}: {found}; run stage 3 again")
            except MlmaError as error:
                skipped[id_] = str(error)
            else:
                samples[id_] = sound
        transcripts = recogniser.transcribe_batch(list(samples.values())) if samples else []
        yield Batch(number, dict(zip(samples, transcripts, strict=True)), skipped)


def decode_folder(
    recogniser: BatchRecogniser, data_dir: Path, batch_seconds: float
) -> tuple[dict[str, Transcript], dict[str, str]]:
    """Recognise every utterance of a data folder and print the progress.

    Args:
        recogniser: the model.
        data_dir: holds `wav.scp` and, from stage 3, `utt2num_samples`.
        batch_seconds: most audio in a batch, padding included.

    Returns:
        Transcripts by id, and reasons by id for the sounds that were skipped.

    Raises:
        MlmaError: a table or all sounds cannot be read.
    """
    lengths = read_lengths(data_dir)
    results: dict[str, Transcript] = {}
    skipped: dict[str, str] = {}
    for batch in recognise(recogniser, data_dir, lengths, batch_seconds):
        results |= batch.transcripts
        skipped |= batch.skipped
        show_progress(len(results) + len(skipped), len(lengths))
    print_skipped(data_dir, len(lengths), skipped)
    return results, skipped


def show_progress(done: int, of: int) -> None:
    """Print how many utterances are done, over the previous line."""
    print(f"  {done} / {of} utterances", end="\r", flush=True)


def print_skipped(data_dir: Path, count: int, skipped: Mapping[str, str]) -> None:
    """Print the utterances whose sounds cannot be read.

    Args:
        data_dir: the set.
        count: utterances in it.
        skipped: reasons by id.

    Raises:
        MlmaError: no sound of the set can be read.
    """
    if not skipped:
        return
    if len(skipped) == count:
        id_, reason = next(iter(skipped.items()))
        raise MlmaError(f"{data_dir}: no sound can be read; {id_}: {reason}")
    print(f"{data_dir.name}: skipped {len(skipped)} of {count} utterances, which cannot be read:")
    for id_ in sorted(skipped)[:_MOST_NAMED]:
        print(f"  {id_}: {skipped[id_]}")
    if len(skipped) > _MOST_NAMED:
        print(f"  and {len(skipped) - _MOST_NAMED} more, see {FILE}")


def columns(transcript: Transcript) -> dict[str, str]:
    """Return a transcript's values by the names of a decoded set's files."""
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
    """Write one file per column, ids in C order; the folder appears whole or not at all.

    Args:
        results: from `columns`, by id.
        output_dir: gets text, token, token_int, score (the path's log-probability), utt2lang,
            confidence (the mean of the words'), and decoding.yaml.
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
