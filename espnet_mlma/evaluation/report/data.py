"""Read and score a decoding of an experiment, from the folders of stages 3 and 12."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data.tables import read
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.score.decoded import decoded_sets, decodings, find_dump
from espnet_mlma.evaluation.score.utterances import ScoredUtterance, score_set

# ESPnet's own inference writes `tensor(-3.21)`.
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class ScoredDecoding:
    """A decoding of an experiment.

    Attributes:
        experiment: the folder.
        decoding: name of the folder in it.
        dump: references and audio.
        chosen: names of the test sets; empty: all decoded ones.
        utterances: of all these sets, with `seconds`, `confidence` and `audio`.
    """

    experiment: Path
    decoding: str
    dump: Path
    chosen: tuple[str, ...]
    utterances: list[ScoredUtterance]


def load_decoding(
    experiment: Path,
    decoding: str | None = None,
    dump: Path | None = None,
    sets: Sequence[str] = (),
) -> ScoredDecoding:
    """Read and score the test sets of a decoding.

    Args:
        experiment: `exp/asr_*` after stages 11 and 12.
        decoding: name of a folder of stage 12 in it; None: the only one.
        dump: references and audio of stage 3; None: `dump/raw` of the experiment's recipe.
        sets: names of test sets; empty: all decoded ones.

    Raises:
        MlmaError: a folder or file is missing, or there are several decodings.
    """
    folder = choose_decoding(experiment, decoding)
    dump = dump or find_dump(experiment)
    found = decoded_sets(folder, dump, sets)
    utterances = [one for name in found for one in read_set(dump / name, folder / name)]
    if not utterances:
        raise MlmaError(f"{folder}: its sets have no utterance; run stages 3 and 12 again")
    return ScoredDecoding(experiment, folder.name, dump, tuple(sets), utterances)


def choose_decoding(experiment: Path, name: str | None) -> Path:
    """Find the folder of a decoding.

    Args:
        experiment: contains it.
        name: of the folder; None: the only one.

    Raises:
        MlmaError: there is none, none of this name, or more than one.
    """
    if not experiment.is_dir():
        raise MlmaError(f"{experiment}: no such folder; give an experiment, such as exp/asr_*")
    found = decodings(experiment)
    if not found and any(experiment.glob("[!.]*/text")):
        raise MlmaError(f"{experiment}: this is a decoding; give the experiment that contains it")
    if not found:
        raise MlmaError(
            f"{experiment}: nothing is decoded; run `./run.sh --stage 12 --stop_stage 13` first"
        )
    named = [folder for folder in found if name is None or folder.name == Path(name).name]
    names = " ".join(folder.name for folder in found)
    if not named:
        raise MlmaError(f"{experiment}: no decoding {name!r}; choose from {names}")
    if len(named) > 1:
        raise MlmaError(f"{experiment}: has several decodings; choose with --decoding: {names}")
    return named[0]


def read_set(data: Path, decoded: Path) -> Iterator[ScoredUtterance]:
    """Score a test set and add seconds, confidence and audio.

    Args:
        data: `dump/raw/<set>`.
        decoded: `<experiment>/<decoding>/<set>`.

    Raises:
        MlmaError: a table is missing, or the ids do not match.
    """
    audio, samples = (read(data / name, "stage 3") for name in ("wav.scp", "utt2num_samples"))
    confidences = read_confidences(decoded)
    for utterance in score_set(data, decoded):
        id_, lengths = utterance.id, data / "utt2num_samples"
        if id_ not in samples:
            raise MlmaError(f"{lengths}: {id_} is missing; run stage 3 again")
        yield replace(
            utterance,
            seconds=_number(samples[id_], lengths, id_) / SAMPLE_RATE,
            confidence=confidences.get(id_),
            audio=audio.get(id_),
        )


def read_confidences(decoded: Path) -> dict[str, float]:
    """Read confidences by utterance, 0 to 1; empty if decoding wrote none.

    Ours is the mean of the words' confidences. ESPnet writes none; for its decodings it is the
    geometric mean of the symbols' probabilities.

    Args:
        decoded: `<experiment>/<decoding>/<set>`.
    """
    path = decoded / "confidence"
    if path.is_file():
        written = read(path, "stage 12")
        return {key: _number(text, path, key) for key, text in written.items() if text}
    if not ((decoded / "score").is_file() and (decoded / "token").is_file()):
        return {}
    scores, tokens = (read(decoded / name, "stage 12") for name in ("score", "token"))
    numbers = {key: _NUMBER.search(text) for key, text in scores.items()}
    return {
        # A length bonus may lift a score above 0.
        key: math.exp(min(0.0, float(number[0]) / max(1, len(tokens.get(key, "").split()))))
        for key, number in numbers.items()
        if number
    }


def _number(text: str, path: Path, id_: str) -> float:
    with suppress(ValueError):
        number = float(text)
        if math.isfinite(number):
            return number
    raise MlmaError(f"{path}: {id_}: {text!r} is no number; run the stage that wrote it again")
