"""Stage 12: calibrate the confidence of words on the validation set."""

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
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.score.align import align
from espnet_mlma.memory import keep_freed_memory

_LEAST_WORDS = 100


@dataclass(frozen=True)
class JudgedWord:
    """A recognised word.

    Attributes:
        scores: log-probabilities of its symbols, natural logarithm.
        is_right: whether it is right.
    """

    scores: tuple[float, ...]
    is_right: bool


def judged_words(
    transcript: Transcript, reference: str, acoustic: AcousticModel
) -> list[JudgedWord]:
    """Judge recognised words by aligning them as scoring does.

    Args:
        transcript: recognised words.
        reference: spoken words, separated by spaces.
        acoustic: the model of the transcript.
    """
    groups = token_groups(transcript.tokens, acoustic.token_type, acoustic.special_ids)
    pairs = align(reference.split(), [word.text for word in transcript.words])
    is_right = [spoken == word for spoken, word in pairs if word is not None]
    return [
        JudgedWord(tuple(token.score for token in group), right)
        for group, right in zip(groups, is_right, strict=True)
    ]


def subsample(lengths: Mapping[str, int], seconds: float) -> dict[str, int]:
    """Select every n-th utterance, to about this much audio.

    Args:
        lengths: samples by utterance id.
        seconds: maximum of audio, approximately.
    """
    step = math.ceil(sum(lengths.values()) / (seconds * SAMPLE_RATE))
    return dict(islice(lengths.items(), 0, None, max(step, 1)))


def judge_set(
    recogniser: Recogniser, data_dir: Path, seconds: float, batch_seconds: float
) -> list[list[JudgedWord]]:
    """Recognise a part of a data folder; return the judged words of each utterance.

    Args:
        recogniser: the model.
        data_dir: written by stage 4.
        seconds: maximum of audio, spread over the folder.
        batch_seconds: maximum of audio in a batch, padding included.

    Raises:
        MlmaError: a table cannot be read, no audio can be read, or an utterance has no text.
    """
    references, lengths = read(data_dir / "text", "stage 4"), read_lengths(data_dir)
    if unknown := next((id_ for id_ in lengths if id_ not in references), None):
        raise MlmaError(f"{data_dir / 'text'}: {unknown} is missing; run stage 4 again")
    chosen = subsample(lengths, seconds)
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
    """Fit a calibration by logistic regression.

    Args:
        words: right and wrong ones.

    Raises:
        MlmaError: there are too few words, or all are right, or all are wrong.
    """
    right = sum(word.is_right for word in words)
    if len(words) < _LEAST_WORDS or right in (0, len(words)):
        raise MlmaError(
            f"{len(words)} words recognised, {right} of them right; calibration needs "
            f"{_LEAST_WORDS} words, both right and wrong; give more audio or train longer"
        )
    from sklearn.linear_model import LogisticRegression  # takes seconds to import

    inputs = np.array([features(word.scores) for word in words])
    # Its default L2 penalty keeps the weights finite if the features separate right from wrong.
    model = LogisticRegression(solver="newton-cholesky", tol=1e-9, max_iter=1000)
    model.fit(inputs, [word.is_right for word in words])
    total, mean = model.coef_[0].tolist()
    return Calibration(total, mean, np.asarray(model.intercept_).item())


def write(path: Path, calibration: Calibration, model_file: Path, about: Iterable[str]) -> None:
    """Write a calibration file, whole or not at all.

    Args:
        path: the file.
        calibration: see `fit`.
        model_file: its checkpoint.
        about: lines of comment.
    """
    values = {name: round(value, 6) for name, value in asdict(calibration).items()}
    values["checkpoint"] = digests.of_file(model_file)
    comment = "".join(f"# {line}\n" for line in about)
    files.write(path, comment + yaml.safe_dump(values, sort_keys=False))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="mlma recipe calibrate")
    parser.description = __doc__
    parser.add_argument("--asr_train_config", type=Path, required=True)
    parser.add_argument("--asr_model_file", type=Path, required=True)
    parser.add_argument("--data_dir", type=Path, required=True, help="dump/raw/<validation set>")
    parser.add_argument("--config", type=Path, required=True, help="conf/decode_*.yaml")
    parser.add_argument("--output", type=Path, required=True, help="calibration.yaml")
    parser.add_argument(
        "--seconds", type=float, default=1200, help="maximum of audio to recognise (default: 1200)"
    )
    parser.add_argument("--ngpu", type=int, default=0)
    arguments = parser.parse_args(argv)
    check_outputs(arguments, "output")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Recognise, fit and write a calibration; skip if the checkpoint has one."""
    arguments = _parse(argv)
    keep_freed_memory()
    model_file, data_dir = arguments.asr_model_file, arguments.data_dir
    if Calibration.read(arguments.output, model_file) is not None:
        print(f"{arguments.output}: already fitted to this checkpoint")
        return
    batch_seconds, decoding = read_options(arguments.config)
    device = "cuda" if arguments.ngpu else "cpu"
    recogniser = load(arguments.asr_train_config, model_file, device, decoding=decoding)
    judged = judge_set(recogniser, data_dir, arguments.seconds, batch_seconds)
    words = [word for utterance in judged for word in utterance]
    try:
        calibration = fit(words)
    except MlmaError as error:
        raise MlmaError(f"{data_dir}: {error}") from None
    right = sum(word.is_right for word in words) / len(words)
    fitted = f"{len(words)} words of {len(judged)} utterances of {data_dir.name}"
    about = (
        "Confidence of words, by mlma recipe calibrate:",
        f"fitted to {fitted}, {right:.1%} of them right,",
        f"for {model_file.resolve().name} only.",
    )
    write(arguments.output, calibration, model_file, about)
    print(f"{arguments.output}: fitted to {fitted}, {right:.1%} of them right")
