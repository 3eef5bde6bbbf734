"""Lay out clips of a published corpus as Parquet files of the Hugging Face hub."""

from collections.abc import Iterable, Sequence
from itertools import batched
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from espnet_mlma.audio.archives import iter_archive
from espnet_mlma.data.utterance import Utterance

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FLEURS = pa.schema(
    [
        ("id", pa.int32()), ("num_samples", pa.int32()), ("path", pa.string()), ("audio", AUDIO),
        ("transcription", pa.string()), ("raw_transcription", pa.string()), ("gender", pa.int64()),
        ("lang_id", pa.int64()), ("language", pa.string()),
    ]
)  # fmt: skip
VOXPOPULI = pa.schema(
    [
        ("audio_id", pa.string()), ("language", pa.int64()), ("audio", AUDIO),
        ("raw_text", pa.string()), ("normalized_text", pa.string()), ("gender", pa.string()),
        ("speaker_id", pa.string()), ("is_gold_transcript", pa.bool_()), ("accent", pa.string()),
    ]
)  # fmt: skip
MLS = pa.schema(
    [
        ("audio", AUDIO), ("original_path", pa.string()), ("begin_time", pa.float64()),
        ("end_time", pa.float64()), ("transcript", pa.string()),
        ("audio_duration", pa.float64()), ("speaker_id", pa.string()), ("chapter_id", pa.string()),
        ("file", pa.string()), ("id", pa.string()),
    ]
)  # fmt: skip
EUROSPEECH = pa.schema(
    [
        ("key", pa.string()), ("audio", AUDIO), ("duration_seconds", pa.float64()),
        ("human_transcript", pa.string()), ("cer", pa.float64()), ("video_id", pa.string()),
    ]
)  # fmt: skip


def write(path: Path, schema: pa.Schema, rows: Sequence[dict], in_group: int = 3) -> Path:
    """Write a Parquet file with a few rows in a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema)
    parquet.write_table(table, path, row_group_size=in_group)
    return path


def write_files(folder: Path, schema: pa.Schema, rows: Sequence[dict], files: int = 2) -> None:
    """Write `0000.parquet` and so on."""
    for number, part in enumerate(batched(rows, -(-len(rows) // files))):
        write(folder / f"{number:04d}.parquet", schema, part)


def write_named(folder: Path, split: str, schema: pa.Schema, rows: Sequence[dict]) -> None:
    """Write `<split>-00000-of-00002.parquet` and the other."""
    for number, part in enumerate(batched(rows, -(-len(rows) // 2))):
        write(folder / f"{split}-{number:05d}-of-00002.parquet", schema, part)


def content(utterance: Utterance) -> bytes:
    """Return the whole audio file of an utterance."""
    audio = utterance.audio
    if audio.member is None:
        return audio.path.read_bytes()
    return next(iter_archive(audio.path, [audio.member]))[1].read()


def fleurs_rows(utterances: Iterable[Utterance], seconds: Sequence[float]) -> list[dict]:
    """Make the rows of FLEURS."""
    return [
        {
            "id": int(utterance.id.rpartition("-")[2]),
            "num_samples": round(16000 * length),
            "path": f"/cache/{Path(utterance.audio.member).name}",
            "audio": {"bytes": content(utterance), "path": Path(utterance.audio.member).name},
            "transcription": utterance.text.lower(),
            "raw_transcription": utterance.text,
        }
        for utterance, length in zip(utterances, seconds, strict=True)
    ]


def voxpopuli_rows(utterances: Iterable[Utterance]) -> list[dict]:
    """Make the rows of VoxPopuli; `_` and not `-` joins session and utterance."""
    rows = []
    for utterance in utterances:
        session, _, rest = utterance.audio.path.stem.rpartition("-2012")
        name = f"{session}_2012{rest}"
        rows.append(
            {
                "audio_id": name,
                "audio": {"bytes": content(utterance), "path": f"{name}.wav"},
                "raw_text": utterance.text.title(),
                "normalized_text": utterance.text,
                "speaker_id": utterance.speaker.rpartition("_")[2],
            }
        )
    return rows


def mls_rows(utterances: Iterable[Utterance], seconds: Sequence[float]) -> list[dict]:
    """Make the rows of MLS."""
    return [
        {
            "audio": {"bytes": content(utterance), "path": utterance.audio.path.name},
            "transcript": utterance.text,
            "audio_duration": length,
            "speaker_id": utterance.speaker.rpartition("_")[2],
            "id": utterance.audio.path.stem,
            "file": utterance.audio.path.name,
        }
        for utterance, length in zip(utterances, seconds, strict=True)
    ]


def eurospeech_rows(utterances: Iterable[Utterance], cers: Sequence[float | None]) -> list[dict]:
    """Make rows of EuroSpeech of any clips."""
    return [
        {
            "key": f"video{number // 2}_{number}",
            "audio": {"bytes": content(utterance), "path": f"{number}.opus"},
            "duration_seconds": 1.0 + number,
            "human_transcript": utterance.text,
            "cer": cer,
            "video_id": f"video{number // 2}",
        }
        for number, (utterance, cer) in enumerate(zip(utterances, cers, strict=True))
    ]
