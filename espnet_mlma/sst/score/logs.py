"""What a translator said and when, as the logs of SimulEval and of simulstream hold it.

Both count in units: the words of a text, or for Chinese and Japanese its characters. SimulEval
writes one line a talk, with the audio heard before each unit (`delays`) and the same plus all the
computing so far (`elapsed`), in milliseconds; its characters have no spaces. simulstream writes
one line a chunk, in seconds, and keeps spaces. A turn that said nothing is in the second log only:
read from the first, its computing time is part of that of the next turn that spoke. After the last
unit there is none; so our lines have one more key, `computing`, all of the talk's in milliseconds,
which other readers pass over.
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
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # a byte order mark, decoded; logs may be joined files
_JOINER = {WORD: " ", CHAR: ""}
# Of a sum, a delay and an elapsed time, each half a microsecond.
_ROUNDING_SECONDS = 2e-6
_AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")


@dataclass(frozen=True)
class Emission:
    """What one turn said.

    Attributes:
        text: new text, whole words; empty when it said nothing.
        audio_seconds: audio of the talk that had been heard.
        compute_seconds: the turn's own computing time.
    """

    text: str
    audio_seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class Talk:
    """A recording as it was translated.

    Attributes:
        audio: the file; talks are told apart by its name without folder and suffix.
        emissions: one a turn, in order.
        source_seconds: length of the audio.
    """

    audio: str
    emissions: tuple[Emission, ...]
    source_seconds: float

    @property
    def name(self) -> str:
        """What references call it."""
        return talk_name(self.audio)


def talk_name(audio: str) -> str:
    """A recording's name: without folder, and without suffix if that is one of audio files."""
    name = Path(audio).name
    suffix = next((s for s in _AUDIO_SUFFIXES if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def units(text: str, unit: str) -> list[str]:
    """The words of a text (`unit` word) or its characters (char)."""
    return text.split() if unit == WORD else list(text)


def joined(parts: Iterable[str], unit: str) -> str:
    """The text of units, or of turns."""
    return _JOINER[unit].join(part for part in parts if part)


def write_simuleval(
    path: Path, talks: Sequence[Talk], unit: str, references: Mapping[str, str] | None = None
) -> None:
    """Write an `instances.log` as SimulEval does.

    Args:
        path: of the log.
        talks: in the order of their indices.
        unit: word or char; spaces are left out of characters.
        references: a talk's whole reference by its name, which scoring of whole talks ignores.

    Raises:
        MlmaError: it cannot be written.
    """
    lines = []
    for index, talk in enumerate(talks):
        said, delays, elapsed, computing = [], [], [], 0.0
        for emission in talk.emissions:
            computing += emission.compute_seconds
            new = units("".join(emission.text.split(" ")) if unit == CHAR else emission.text, unit)
            said += new
            delays += [_milliseconds(emission.audio_seconds)] * len(new)
            elapsed += [_milliseconds(emission.audio_seconds + computing)] * len(new)
        lines.append(
            {
                "index": index,
                "prediction": joined(said, unit),
                "delays": delays,
                "elapsed": elapsed,
                "prediction_length": len(said),
                "reference": (references or {}).get(talk.name, ""),
                "source": [talk.audio],
                "source_length": _milliseconds(talk.source_seconds),
                "computing": _milliseconds(computing),
            }
        )
    _write_json_lines(path, lines)


def write_simulstream(path: Path, talks: Sequence[Talk], unit: str) -> None:
    """Write a metrics log as simulstream does.

    Its own scorers read it with `detokenizer_type: simuleval` and `latency_unit` word or char.

    Args:
        path: of the log.
        talks: their indices become the ids.
        unit: word or char.

    Raises:
        MlmaError: it cannot be written.
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


def read_log(path: Path, unit: str) -> list[Talk]:
    """Read a log of either format; its first lines tell which.

    Args:
        path: of the log.
        unit: word or char, as it was written.

    Raises:
        MlmaError: it is of neither format, or broken; with file and line.
    """
    for where, record in json_lines(path):
        if "prediction" in record:
            return read_simuleval(path, unit)
        if "id" in record:
            return read_simulstream(path, unit)
        if "model_loading_time" not in record:
            raise MlmaError(f"{where}: a log neither of SimulEval nor of simulstream; give one")
    raise MlmaError(f"{path}: no talk in the log; translate some")


def read_simuleval(path: Path, unit: str) -> list[Talk]:
    """Read an `instances.log`; units with the same times are taken for one turn.

    What was computed after the last unit, where the line tells, is a turn that says nothing.

    Args:
        path: of the log.
        unit: word or char.

    Raises:
        MlmaError: a line is broken, or a talk there twice; with file and line.
    """
    talks: dict[str, Talk] = {}
    for where, record in json_lines(path):
        said = units(_field(where, record, "prediction", str), unit)
        times = {key: _times(where, record, key, len(said), unit) for key in ("delays", "elapsed")}
        source = record.get("source")
        audio = source[0] if isinstance(source, list) and source else source
        if not isinstance(audio, str):
            raise MlmaError(f"{where}: source does not name an audio file; mend the line")
        length = _number(where, "source_length", record.get("source_length"))
        emissions = [*_emissions(where, said, times["delays"], times["elapsed"], unit)]
        if "computing" in record:
            computing = _number(where, "computing", record["computing"])
            emissions += _silence(where, emissions, length / 1000, computing / 1000)
        talk = Talk(audio, tuple(emissions), length / 1000)
        _add(talks, talk, where)
    return list(talks.values())


def read_simulstream(path: Path, unit: str) -> list[Talk]:
    """Read a metrics log whose output was never taken back.

    Args:
        path: of the log.
        unit: word or char: what a token is.

    Raises:
        MlmaError: a line is broken, deletes tokens or has an id without audio file, or a talk is
            there twice; with file and line.
    """
    audio: dict[Any, str] = {}  # of an id, which a server may give to another stream later
    names: dict[str, str] = {}
    emissions: dict[str, list[Emission]] = {}
    for where, record in json_lines(path):
        if "id" not in record:
            continue  # how long the model took to load
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
            raise MlmaError(f"{where}: total_audio_processed goes back; mend the log")
    return [
        Talk(names[name], tuple(turns), turns[-1].audio_seconds if turns else 0.0)
        for name, turns in emissions.items()
    ]


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON-lines file, each with `file:line` for errors about it.

    Raises:
        MlmaError: it cannot be read, or a line is no JSON object.
    """
    try:
        for number, line in enumerate(read_lines(path), 1):
            if line.strip():
                where = f"{path}:{number}"
                try:
                    record = json.loads(line.lstrip(_MARK))
                except (ValueError, RecursionError) as error:
                    raise MlmaError(f"{where}: no JSON ({error}); mend the line") from None
                if not isinstance(record, dict):
                    raise MlmaError(f"{where}: not a JSON object; mend the line")
                yield where, record
    except OSError as error:
        raise MlmaError(f"cannot read {path}: {error.strerror}; name a file that exists") from None


def _chunk(where: str, record: Mapping[str, Any], unit: str) -> Emission:
    if record.get("deleted_tokens"):
        raise MlmaError(f"{where}: output is taken back; score it with simulstream's own scorers")
    tokens = _field(where, record, "generated_tokens", list)
    if not all(isinstance(token, str) for token in tokens):
        raise MlmaError(f"{where}: generated_tokens holds what is no string; mend the line")
    keys = ("total_audio_processed", "computation_time")
    seconds = [_number(where, key, record.get(key)) for key in keys]
    return Emission(joined(tokens, unit), *seconds)


def _emissions(
    where: str, said: Sequence[str], delays: Sequence[float], elapsed: Sequence[float], unit: str
) -> Iterator[Emission]:
    """Turns of units with times in milliseconds."""
    heard = computed = 0.0
    for times, group in groupby(range(len(said)), lambda i: (delays[i], elapsed[i])):
        delay, computing = times[0], times[1] - times[0]
        # Half a microsecond is the rounding of a log.
        if delay < heard or computing < computed - 1e-3:
            raise MlmaError(
                f"{where}: unit {len(said)} or before: delays or the computing in elapsed go back; "
                "elapsed is SimulEval's, audio and all computing so far"
            )
        seconds = max(0.0, computing - computed) / 1000
        yield Emission(joined((said[i] for i in group), unit), delay / 1000, seconds)
        heard, computed = delay, max(computing, computed)


def _silence(
    where: str, emissions: Sequence[Emission], end: float, computing: float
) -> list[Emission]:
    """The turns after the last unit as one, if there were any; times in seconds."""
    left = computing - sum(emission.compute_seconds for emission in emissions)
    if left < -_ROUNDING_SECONDS:
        raise MlmaError(f"{where}: computing is less than that in elapsed; mend the line")
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
        raise MlmaError(f"{where}: {key}: {value!r} is not a time; mend the line")
    return float(value)


def _field(where: str, record: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise MlmaError(f"{where}: {key} is missing or of another type; mend the line")
    return value


def _add(talks: dict[str, Talk], talk: Talk, where: str) -> None:
    if talk.name in talks:
        raise MlmaError(f"{where}: {talk.name} is in the log twice; score one run at a time")
    talks[talk.name] = talk


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
