"""A decoding of an experiment, read from the folders of stages 3 and 12 and aligned."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data.tables import read
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.score.align import Errors, align, count_pairs
from espnet_mlma.evaluation.score.decoded import decoded_sets, decodings, find_dump
from espnet_mlma.evaluation.score.join import Utterance, characters, join

Pairs = list[tuple[str | None, str | None]]
# ESPnet's own inference writes `tensor(-3.21)`.
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Spoken:
    """An utterance, aligned.

    Attributes:
        test_set: the set it belongs to.
        utterance: both texts, language, corpus and speaker.
        seconds: of audio.
        confidence: how probably a word of it is right, 0 to 1; None where decoding does not say.
        audio: the second column of `wav.scp`; None without a line there.
        words, chars: pairs of what was said and what was recognised; None where a side has none.
        word_errors, char_errors: what was counted on them.
    """

    test_set: str
    utterance: Utterance
    seconds: float
    confidence: float | None
    audio: str | None
    words: Pairs
    chars: Pairs
    word_errors: Errors
    char_errors: Errors


@dataclass(frozen=True)
class Decoded:
    """What an experiment made of its test sets.

    Attributes:
        experiment: the folder.
        decoding: name of the folder in it.
        dump: where the references are.
        chosen: names of the test sets; empty: all that are decoded.
        utterances: of all these sets.
    """

    experiment: Path
    decoding: str
    dump: Path
    chosen: tuple[str, ...]
    utterances: list[Spoken]


def load(
    experiment: Path,
    decoding: str | None = None,
    dump: Path | None = None,
    sets: Sequence[str] = (),
) -> Decoded:
    """Read and align everything that was decoded.

    Args:
        experiment: `exp/asr_*`, as stages 11 and 12 leave it.
        decoding: a folder of stage 12 in it; None: the only one.
        dump: the folder with the references of stage 3; None: `dump/raw` of the recipe that the
            experiment lies in.
        sets: names of test sets; empty: all that are decoded.

    Raises:
        MlmaError: a folder or file is missing, or there is more than one decoding.
    """
    folder = choose_decoding(experiment, decoding)
    dump = dump or find_dump(experiment)
    found = decoded_sets(folder, dump, sets)
    utterances = [spoken for name in found for spoken in read_set(dump / name, folder / name)]
    if not utterances:
        raise MlmaError(f"{folder}: its sets hold no utterance; run stages 3 and 12 again")
    return Decoded(experiment, folder.name, dump, tuple(sets), utterances)


def choose_decoding(experiment: Path, name: str | None) -> Path:
    """The folder that stage 12 wrote.

    Args:
        experiment: holds it.
        name: of the folder; None: the only one.

    Raises:
        MlmaError: there is none, none of this name, or more than one.
    """
    if not experiment.is_dir():
        raise MlmaError(f"{experiment}: no such folder; give an experiment, as exp/asr_*")
    found = decodings(experiment)
    if not found and any(experiment.glob("[!.]*/text")):
        raise MlmaError(f"{experiment}: this is a decoding; give the experiment that it lies in")
    if not found:
        raise MlmaError(
            f"{experiment}: nothing is decoded; run `./run.sh --stage 12 --stop_stage 13` first"
        )
    named = [folder for folder in found if name is None or folder.name == Path(name).name]
    names = " ".join(folder.name for folder in found)
    if not named:
        raise MlmaError(f"{experiment}: no decoding {name!r}; there is {names}")
    if len(named) > 1:
        raise MlmaError(f"{experiment}: choose with --decoding one of {names}")
    return named[0]


def read_set(data: Path, decoded: Path) -> list[Spoken]:
    """Join and align a test set.

    Args:
        data: `dump/raw/<set>`.
        decoded: `<experiment>/<decoding>/<set>`.

    Raises:
        MlmaError: a table is missing, or the ids do not belong together.
    """
    audio = read(data / "wav.scp", "stage 3")
    samples = read(data / "utt2num_samples", "stage 3")
    confidences = read_confidences(decoded)
    found = []
    for utterance in join(data, decoded / "text"):
        if utterance.id not in samples:
            raise MlmaError(
                f"{data / 'utt2num_samples'}: nothing about {utterance.id}; run stage 3 again"
            )
        words = paired(utterance.reference.split(), utterance.hypothesis.split())
        chars = paired(characters(utterance.reference), characters(utterance.hypothesis))
        found.append(
            Spoken(
                test_set=data.name,
                utterance=utterance,
                seconds=_number(samples[utterance.id], data / "utt2num_samples", utterance.id)
                / SAMPLE_RATE,
                confidence=confidences.get(utterance.id),
                audio=audio.get(utterance.id),
                words=words,
                chars=chars,
                word_errors=count_pairs(words),
                char_errors=count_pairs(chars),
            )
        )
    return found


def read_confidences(decoded: Path) -> dict[str, float]:
    """How sure the decoder was, by utterance: 0 to 1, empty where it does not say.

    Ours writes the mean of its words' confidences. Of ESPnet's, which writes none, it is the
    geometric mean of the symbols' probabilities.

    Args:
        decoded: `<experiment>/<decoding>/<set>`.
    """
    if (decoded / "confidence").is_file():
        written = read(decoded / "confidence", "stage 12")
        path = decoded / "confidence"
        return {key: _number(text, path, key) for key, text in written.items() if text}
    if not ((decoded / "score").is_file() and (decoded / "token").is_file()):
        return {}
    scores, tokens = (read(decoded / name, "stage 12") for name in ("score", "token"))
    numbers = {key: _NUMBER.search(text) for key, text in scores.items()}
    return {
        # A bonus for length may lift a score above that of a certain text.
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


def paired(reference: Sequence[str], hypothesis: Sequence[str]) -> Pairs:
    """`align`, at once where both are the same."""
    if reference == hypothesis:
        return [(token, token) for token in reference]
    return align(reference, hypothesis)
