"""Read and write logs of SimulEval and simulstream: the text of a talk with its times.

Both count units: words, or characters for Chinese and Japanese. SimulEval writes one line per talk
in milliseconds: the audio heard before each unit (`delays`), and that plus all compute so far
(`elapsed`). Its characters have no spaces. simulstream writes one line per chunk in seconds and
keeps spaces. Only simulstream's log contains turns without text. In SimulEval's log their compute
is part of the next turn with text, and compute after the last unit is missing. Our SimulEval lines
therefore have one more key, `computing`: all compute of the talk in milliseconds. Other readers
ignore it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_lines, write

WORD, CHAR = "word", "char"
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # a byte order mark, decoded; logs may be concatenated
_JOINER = {WORD: " ", CHAR: ""}
# Rounding errors of a sum, a delay and an elapsed time, half a microsecond each.
_ROUNDING_SECONDS = 2e-6
_AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")


@dataclass(frozen=True)
class Emission:
    """Hold the output of one turn.

    Attributes:
        text: new text in whole words; may be empty.
        audio_seconds: audio of the talk heard so far.
        compute_seconds: compute time of this turn.
    """

    text: str
    audio_seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class TranslatedTalk:
    """Hold the translation of a recording.

    Attributes:
        audio: audio file; its name without folder and suffix identifies the talk.
        emissions: one per turn, in order.
        source_seconds: length of the audio.
    """

    audio: str
    emissions: tuple[Emission, ...]
    source_seconds: float

    @property
    def name(self) -> str:
        """Name of the talk in the references."""
        return talk_name(self.audio)


def talk_name(audio: str) -> str:
    """Return a recording's file name without folder and audio suffix."""
    name = Path(audio).name
    suffix = next((s for s in _AUDIO_SUFFIXES if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def units(text: str, unit: str) -> list[str]:
    """Split a text into words (`unit` word) or characters (char)."""
    return text.split() if unit == WORD else list(text)


def joined(parts: Iterable[str], unit: str) -> str:
    """Join units or texts of turns; skip empty ones."""
    return _JOINER[unit].join(part for part in parts if part)


def write_simuleval(
    path: Path,
    talks: Sequence[TranslatedTalk],
    unit: str,
    references: Mapping[str, str] | None = None,
) -> None:
    """Write an `instances.log` in SimulEval's format.

    Args:
        path: log to write.
        talks: talks in the order of their indices.
        unit: word or char; spaces are removed from characters.
        references: whole reference of each talk by name; long-form scorers ignore it.

    Raises:
        MlmaError: the log cannot be written.
    """
    lines = []
    for index, talk in enumerate(talks):
        tokens, delays, elapsed, computing = [], [], [], 0.0
        for emission in talk.emissions:
            computing += emission.compute_seconds
            new = units("".join(emission.text.split(" ")) if unit == CHAR else emission.text, unit)
            tokens += new
            delays += [_milliseconds(emission.audio_seconds)] * len(new)
            elapsed += [_milliseconds(emission.audio_seconds + computing)] * len(new)
        lines.append(
            {
                "index": index,
                "prediction": joined(tokens, unit),
                "delays": delays,
                "elapsed": elapsed,
                "prediction_length": len(tokens),
                "reference": (references or {}).get(talk.name, ""),
                "source": [talk.audio],
                "source_length": _milliseconds(talk.source_seconds),
                "computing": _milliseconds(computing),
            }
        )
    _write_json_lines(path, lines)


def write_simulstream(path: Path, talks: Sequence[TranslatedTalk], unit: str) -> None:
    """Write a metrics log in simulstream's format.

    simulstream's scorers read it with `detokenizer_type: simuleval` and `latency_unit` word or
    char.

    Args:
        path: log to write.
        talks: talks; their indices become the ids.
        unit: word or char.

    Raises:
        MlmaError: the log cannot be written.
    """
    lines: list[dict[str, Any]] = []
    for index, talk in enumerate(talks):
        lines.append({"id": index, "metadata": {"wav_name": talk.audio}})
        lines += [
            {
                "id": index,
                "total_audio_processed": emission.audio_seconds,
                "computation_time": emission.compute_seconds,
                "generated_tokens": units(emission.text, unit),
                "deleted_tokens": [],
            }
            for emission in talk.emissions
        ]
    _write_json_lines(path, lines)


def read_log(path: Path, unit: str) -> list[TranslatedTalk]:
    """Read a log of either format, detected from its first lines.

    Args:
        path: log to read.
        unit: word or char, as in the log.

    Raises:
        MlmaError: unknown format or malformed line; names file and line.
    """
    for where, record in json_lines(path):
        if "prediction" in record:
            return read_simuleval(path, unit)
        if "id" in record:
            return read_simulstream(path, unit)
        if "model_loading_time" not in record:
            raise MlmaError(f"{where}: neither a SimulEval nor a simulstream log; check --log")
    raise MlmaError(f"{path}: no talk in the log; run `stream` first")


def read_simuleval(path: Path, unit: str) -> list[TranslatedTalk]:
    """Read an `instances.log`; units with equal times become one turn.

    Compute after the last unit (key `computing`) becomes a turn without text.

    Args:
        path: log to read.
        unit: word or char.

    Raises:
        MlmaError: malformed line or duplicate talk; names file and line.
    """
    talks: dict[str, TranslatedTalk] = {}
    for where, record in json_lines(path):
        tokens = units(_field(where, record, "prediction", str), unit)
        times = {
            key: _times(where, record, key, len(tokens), unit) for key in ("delays", "elapsed")
        }
        source = record.get("source")
        audio = source[0] if isinstance(source, list) and source else source
        if not isinstance(audio, str):
            raise MlmaError(f"{where}: source does not name an audio file; fix the line")
        length = _number(where, "source_length", record.get("source_length"))
        emissions = [*_emissions(where, tokens, times["delays"], times["elapsed"], unit)]
        if "computing" in record:
            computing = _number(where, "computing", record["computing"])
            emissions += _silence(where, emissions, length / 1000, computing / 1000)
        talk = TranslatedTalk(audio, tuple(emissions), length / 1000)
        _add(talks, talk, where)
    return list(talks.values())


def read_simulstream(path: Path, unit: str) -> list[TranslatedTalk]:
    """Read a metrics log without deleted tokens.

    Args:
        path: log to read.
        unit: word or char; the log's tokens are such units.

    Raises:
        MlmaError: malformed line, deleted tokens, id without audio file or duplicate talk; names
            file and line.
    """
    audio: dict[Any, str] = {}  # by id; a server may reuse an id for a later stream
    names: dict[str, str] = {}
    emissions: dict[str, list[Emission]] = {}
    for where, record in json_lines(path):
        if "id" not in record:
            continue  # load time of the model
        stream = _field(where, record, "id", (int, str))
        if "metadata" in record:
            audio[stream] = _field(where, record["metadata"], "wav_name", str)
            name = talk_name(audio[stream])
            if name in names:
                raise MlmaError(f"{where}: {name} is in the log twice; score one run at a time")
            names[name] = audio[stream]
            emissions[name] = []
            continue
        if stream not in audio:
            raise MlmaError(f"{where}: no line before it names the audio file of id {stream}")
        turns = emissions[talk_name(audio[stream])]
        turns.append(_chunk(where, record, unit))
        if len(turns) > 1 and turns[-1].audio_seconds < turns[-2].audio_seconds:
            raise MlmaError(f"{where}: total_audio_processed decreases; fix the log")
    return [
        TranslatedTalk(names[name], tuple(turns), turns[-1].audio_seconds if turns else 0.0)
        for name, turns in emissions.items()
    ]


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON-lines file, each with its `file:line` for error messages.

    Raises:
        MlmaError: the file cannot be read, or a line is not a JSON object.
    """
    try:
        for number, line in enumerate(read_lines(path), 1):
            if line.strip():
                where = f"{path}:{number}"
                try:
                    record = json.loads(line.lstrip(_MARK))
                except (ValueError, RecursionError) as error:
                    raise MlmaError(f"{where}: not valid JSON ({error}); fix the line") from None
                if not isinstance(record, dict):
                    raise MlmaError(f"{where}: not a JSON object; fix the line")
                yield where, record
    except OSError as error:
        raise MlmaError(f"cannot read {path}: {error.strerror}; name a file that exists") from None


def _chunk(where: str, record: Mapping[str, Any], unit: str) -> Emission:
    if record.get("deleted_tokens"):
        raise MlmaError(f"{where}: deleted_tokens is not empty; use simulstream's scorers")
    tokens = _field(where, record, "generated_tokens", list)
    if not all(isinstance(token, str) for token in tokens):
        raise MlmaError(f"{where}: generated_tokens contains a non-string; fix the line")
    keys = ("total_audio_processed", "computation_time")
    seconds = [_number(where, key, record.get(key)) for key in keys]
    return Emission(joined(tokens, unit), *seconds)


def _emissions(
    where: str, tokens: Sequence[str], delays: Sequence[float], elapsed: Sequence[float], unit: str
) -> Iterator[Emission]:
    """Group units with equal times, in milliseconds, into turns."""
    heard = computed = 0.0
    for times, group in groupby(range(len(tokens)), lambda i: (delays[i], elapsed[i])):
        delay, computing = times[0], times[1] - times[0]
        # Logs round to half a microsecond.
        if delay < heard or computing < computed - 1e-3:
            raise MlmaError(
                f"{where}: unit {len(tokens)} or before: delays or compute in elapsed decrease; "
                "elapsed must be audio plus all compute so far"
            )
        seconds = max(0.0, computing - computed) / 1000
        yield Emission(joined((tokens[i] for i in group), unit), delay / 1000, seconds)
        heard, computed = delay, max(computing, computed)


def _silence(
    where: str, emissions: Sequence[Emission], end: float, computing: float
) -> list[Emission]:
    """Return a turn without text for the compute after the last unit, if any; in seconds."""
    left = computing - sum(emission.compute_seconds for emission in emissions)
    if left < -_ROUNDING_SECONDS:
        raise MlmaError(f"{where}: computing is less than the compute in elapsed; fix the line")
    return [Emission("", end, left)] if left > _ROUNDING_SECONDS else []


def _times(where: str, record: Mapping[str, Any], key: str, count: int, unit: str) -> list[float]:
    values = _field(where, record, key, list)
    if len(values) != count:
        raise MlmaError(
            f"{where}: {len(values)} {key} for {count} units ({unit}); "
            "give the --target that the log was written for"
        )
    return [_number(where, key, value) for value in values]


def _number(where: str, key: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise MlmaError(f"{where}: {key}: {value!r} is not a time; fix the line")
    return float(value)


def _field(where: str, record: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise MlmaError(f"{where}: {key} is missing or has the wrong type; fix the line")
    return value


def _add(talks: dict[str, TranslatedTalk], talk: TranslatedTalk, where: str) -> None:
    if talk.name in talks:
        raise MlmaError(f"{where}: {talk.name} is in the log twice; score one run at a time")
    talks[talk.name] = talk


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
