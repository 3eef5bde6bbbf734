"""Stage 12: fit the confidence of words to how often they are right in the validation set."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import yaml

from espnet_mlma import digests, files
from espnet_mlma.arguments import ArgumentParser, check_outputs
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data.tables import read
from espnet_mlma.decode.acoustic import AcousticModel
from espnet_mlma.decode.folder import print_skipped, read_lengths, read_options, recognise
from espnet_mlma.decode.recogniser import Recogniser, load
from espnet_mlma.decode.transcript import Transcript
from espnet_mlma.decode.words import Calibration, features, token_groups
from espnet_mlma.errors import MlmaError, run_cli
from espnet_mlma.evaluation.score.align import align
from espnet_mlma.memory import keep_freed_memory

_LEAST_WORDS = 100
# Keeps the weights finite where the features tell right from wrong without fail.
_RIDGE = 1.0


@dataclass(frozen=True)
class JudgedWord:
    """A recognised word.

    Attributes:
        scores: log-probabilities of its symbols, natural logarithm.
        is_right: whether it was said.
    """

    scores: tuple[float, ...]
    is_right: bool


def judged_words(
    transcript: Transcript, reference: str, acoustic: AcousticModel
) -> list[JudgedWord]:
    """Which recognised words are right, by the alignment that scoring uses.

    Args:
        transcript: what was recognised.
        reference: what was said, words separated by spaces.
        acoustic: the model that recognised it.
    """
    groups = token_groups(transcript.tokens, acoustic.token_type, acoustic.special_ids)
    pairs = align(reference.split(), [word.text for word in transcript.words])
    is_right = [said == recognised for said, recognised in pairs if recognised is not None]
    return [
        JudgedWord(tuple(token.score for token in group), right)
        for group, right in zip(groups, is_right, strict=True)
    ]


def evenly(lengths: Mapping[str, int], seconds: float) -> dict[str, int]:
    """Every n-th utterance, so that about so much audio is left.

    Args:
        lengths: samples of each utterance id.
        seconds: most audio.
    """
    step = math.ceil(sum(lengths.values()) / (seconds * SAMPLE_RATE))
    return dict(islice(lengths.items(), 0, None, max(step, 1)))


def judged_part(
    recogniser: Recogniser, data_dir: Path, seconds: float, batch_seconds: float
) -> list[list[JudgedWord]]:
    """The words recognised in each utterance of a part of a data folder.

    Args:
        recogniser: the model.
        data_dir: as stage 4 writes it.
        seconds: most audio, evenly spread over the folder.
        batch_seconds: most audio in a batch, padding included.

    Raises:
        MlmaError: a table or no sound can be read, or an utterance has no text.
    """
    references, lengths = read(data_dir / "text", "stage 4"), read_lengths(data_dir)
    if unknown := next((id_ for id_ in lengths if id_ not in references), None):
        raise MlmaError(f"{data_dir / 'text'}: nothing about {unknown}; run stage 4 again")
    chosen = evenly(lengths, seconds)
    judged: list[list[JudgedWord]] = []
    skipped: dict[str, str] = {}
    for batch in recognise(recogniser, data_dir, chosen, batch_seconds):
        skipped |= batch.skipped
        judged += [
            judged_words(transcript, references[id_], recogniser.acoustic)
            for id_, transcript in batch.transcripts.items()
        ]
    print_skipped(data_dir, len(chosen), skipped)
    return judged


def fit(words: Sequence[JudgedWord]) -> Calibration:
    """The calibration under which the words are most probably as right and wrong as they are.

    Args:
        words: right ones and wrong ones.

    Raises:
        MlmaError: there are too few, or they are all right, or all wrong.
    """
    right = sum(word.is_right for word in words)
    if len(words) < _LEAST_WORDS or right in (0, len(words)):
        raise MlmaError(
            f"{len(words)} words recognised, {right} of them right; a calibration needs "
            f"{_LEAST_WORDS}, right ones and wrong ones; give more audio or train longer"
        )
    inputs = np.array([features(word.scores) for word in words])
    return Calibration(*_logistic(inputs, np.array([word.is_right for word in words])).tolist())


def _logistic(inputs: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Logistic regression by Newton's method, with a ridge on all but the bias, which comes last.

    Args:
        inputs: (words, features).
        right: (words,) of bool.
    """
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    ridge = np.array([_RIDGE] * (inputs.shape[1] - 1) + [0.0])
    signs = np.where(right, 1.0, -1.0)

    def loss(weights: np.ndarray) -> float:
        return np.logaddexp(0, -signs * (inputs @ weights)).sum() + ridge @ weights**2 / 2

    weights = np.zeros(inputs.shape[1])
    for _ in range(100):
        surprise = np.exp(-np.logaddexp(0, signs * (inputs @ weights)))
        slope = ridge * weights - inputs.T @ (signs * surprise)
        curvature = (inputs.T * (surprise * (1 - surprise))) @ inputs + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        while loss(weights - step) > loss(weights):
            step /= 2
        weights = weights - step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def write(path: Path, calibration: Calibration, model_file: Path, about: Iterable[str]) -> None:
    """Write a calibration whole or not at all.

    Args:
        path: the file.
        calibration: what `fit` found.
        model_file: the checkpoint it holds for.
        about: lines of comment.
    """
    values = {name: round(value, 6) for name, value in asdict(calibration).items()}
    values["checkpoint"] = digests.of_file(model_file)
    comment = "".join(f"# {line}\n" for line in about)
    files.write(path, comment + yaml.safe_dump(values, sort_keys=False))


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(prog="python -m espnet_mlma.evaluation.calibrate")
    parser.description = __doc__
    parser.add_argument("--asr_train_config", type=Path, required=True)
    parser.add_argument("--asr_model_file", type=Path, required=True)
    parser.add_argument("--data_dir", type=Path, required=True, help="dump/raw/<validation set>")
    parser.add_argument("--config", type=Path, required=True, help="conf/decode_*.yaml")
    parser.add_argument("--output", type=Path, required=True, help="calibration.yaml")
    parser.add_argument("--seconds", type=float, default=1200, help="most audio to recognise")
    parser.add_argument("--ngpu", type=int, default=0)
    arguments = parser.parse_args()
    check_outputs(arguments, "output")
    return arguments


def main() -> None:
    """Recognise, fit and write, unless that was done for this checkpoint."""
    arguments = _parse()
    keep_freed_memory()
    model_file, data_dir = arguments.asr_model_file, arguments.data_dir
    if Calibration.read(arguments.output, model_file) is not None:
        print(f"{arguments.output}: already fitted to this checkpoint")
        return
    batch_seconds, decoding = read_options(arguments.config)
    device = "cuda" if arguments.ngpu else "cpu"
    recogniser = load(arguments.asr_train_config, model_file, device, decoding=decoding)
    judged = judged_part(recogniser, data_dir, arguments.seconds, batch_seconds)
    words = [word for utterance in judged for word in utterance]
    try:
        calibration = fit(words)
    except MlmaError as error:
        raise MlmaError(f"{data_dir}: {error}") from None
    right = sum(word.is_right for word in words) / len(words)
    fitted = f"{len(words)} words of {len(judged)} utterances of {data_dir.name}"
    about = (
        "Confidence of words, by python -m espnet_mlma.evaluation.calibrate:",
        f"fitted to {fitted}, {right:.1%} of them right,",
        f"as {model_file.resolve().name} recognised them, and used with it alone.",
    )
    write(arguments.output, calibration, model_file, about)
    print(f"{arguments.output}: fitted to {fitted}, {right:.1%} of them right")


if __name__ == "__main__":
    run_cli(main)
