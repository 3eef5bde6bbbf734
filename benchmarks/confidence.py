"""Measure how well confidence predicts right words, and how often the guessed language is right.

    python benchmarks/confidence.py --model EXPERIMENT --data dump/raw/test_x ... [--plot FILE]

Stage 12 fitted the experiment's calibration to its validation set. Uncalibrated confidence is the
geometric mean of the probabilities of a word's symbols. The expected calibration error (ECE) is the
difference between confidence and share of right words in ten bins, averaged over the words (Guo et
al., On calibration of modern neural networks, ICML 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import model_arguments, prepare, report

import espnet_mlma
from espnet_mlma.data import tables as datadir
from espnet_mlma.decode.folder import decode_folder
from espnet_mlma.decode.language import guess_language
from espnet_mlma.decode.words import raw_confidence
from espnet_mlma.evaluation.calibrate import JudgedWord, judged_words

BINS = 10
LENGTHS = ((1, 2), (3, 5), (6, 8), (9, None))  # words


@dataclass(frozen=True)
class RecognisedUtterance:
    """An utterance: language, reference, hypothesis, and the languages guessed from both."""

    language: str
    reference: str
    hypothesis: str
    guess_of_reference: str | None
    guess_of_hypothesis: str | None
    words: list[JudgedWord]


@dataclass(frozen=True)
class Reliability:
    """Confidence of words (words,), and whether they are right (words,)."""

    confidence: np.ndarray
    right: np.ndarray

    def bins(self) -> list[Reliability]:
        """Split by confidence into bins of equal width."""
        places = np.minimum((self.confidence * BINS).astype(int), BINS - 1)
        return [
            Reliability(self.confidence[places == i], self.right[places == i]) for i in range(BINS)
        ]

    def gap(self) -> float:
        """Return mean confidence minus the share of right words."""
        return float(self.confidence.mean() - self.right.mean())

    def ece(self) -> float:
        filled = [of for of in self.bins() if len(of.right)]
        return sum(len(of.right) * abs(of.gap()) for of in filled) / len(self.right)

    def brier(self) -> float:
        return float(np.mean((self.confidence - self.right) ** 2))

    def auc(self) -> float:
        """Return the probability that a right word has more confidence than a wrong one."""
        right, wrong = self.confidence[self.right], np.sort(self.confidence[~self.right])
        below, up_to = (np.searchsorted(wrong, right, side) for side in ("left", "right"))
        return float((below + up_to).sum() / 2 / max(len(right) * len(wrong), 1))


def recognise(recogniser, folder: Path) -> list[RecognisedUtterance]:
    texts, languages = (datadir.read(folder / name, "stage 3") for name in ("text", "utt2lang"))
    return [
        RecognisedUtterance(
            languages[key],
            texts[key],
            found.text,
            guess_language(texts[key]),
            found.language,
            judged_words(found, texts[key], recogniser.acoustic),
        )
        for key, found in decode_folder(recogniser, folder, 60)[0].items()
    ]


def reliability(utterances: Sequence[RecognisedUtterance], calibration) -> dict[str, Reliability]:
    """Return the reliability of all words, uncalibrated and calibrated."""
    words = [word for utterance in utterances for word in utterance.words]
    right = np.array([word.is_right for word in words])
    functions = {"uncalibrated": raw_confidence, "calibrated": calibration.confidence}
    return {
        name: Reliability(np.array([function(word.scores) for word in words]), right)
        for name, function in functions.items()
    }


def table_of_bins(found: dict[str, Reliability], args) -> None:
    rows = []
    for i, bins in enumerate(zip(*(of.bins() for of in found.values()), strict=True)):
        cells = [f"{i / BINS:.1f}-{(i + 1) / BINS:.1f}"]
        for of in bins:
            shares = [f"{x.mean():.3f}" if len(x) else "" for x in (of.confidence, of.right)]
            cells += [len(of.right), *shares]
        rows.append(cells)
    header = ["confidence"]
    for name in found:
        header += [f"words, {name}", "mean confidence", "share right"]
    report("Words by confidence", header, rows, args)


def table_of_errors(utterances: Sequence[RecognisedUtterance], calibration, args) -> None:
    languages = sorted({utterance.language for utterance in utterances})
    parts = {name: [u for u in utterances if u.language == name] for name in languages}
    rows = []
    for name, part in (parts | {"all": utterances}).items():
        found = reliability(part, calibration)
        right = found["calibrated"].right
        figures = [f"{of():.3f}" for r in found.values() for of in (r.ece, r.brier, r.auc)]
        rows.append([name, len(right), f"{100 * right.mean():.1f}", *figures])
    header = ["language", "words", "right (%)"]
    for name in found:
        header += [f"ECE, {name}", "Brier", "AUC"]
    report("Confidence of words", header, rows, args)


def table_of_languages(utterances: Sequence[RecognisedUtterance], args) -> None:
    rows = []
    for least, most in (*LENGTHS, (1, None)):
        cells = []
        for text, guess in (
            ("reference", "guess_of_reference"),
            ("hypothesis", "guess_of_hypothesis"),
        ):
            part = [
                u for u in utterances if least <= len(getattr(u, text).split()) <= (most or np.inf)
            ]
            guessed = [u for u in part if getattr(u, guess) is not None]
            right = sum(getattr(u, guess) == u.language for u in guessed)
            share = f"{100 * right / len(guessed):.1f}" if guessed else ""
            cells += [len(part), len(part) - len(guessed), share]
        rows.append([f"{least} or more" if most is None else f"{least}-{most}", *cells])
    header = ["words"]
    for name in ("references", "recognised texts"):
        header += [name, "no guess", "language right (% of guesses)"]
    report("Language guessed from the text", header, rows, args)


def plot(found: dict[str, Reliability], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, sharex=True, figsize=(5, 6.5), height_ratios=(3, 1), layout="constrained"
    )
    above.plot([0, 1], [0, 1], color="grey", linestyle="dotted")
    for (name, of), style in zip(found.items(), ("s--", "o-"), strict=True):
        filled = [part for part in of.bins() if len(part.right)]
        confidence, right = (
            [getattr(part, name).mean() for part in filled] for name in ("confidence", "right")
        )
        above.plot(confidence, right, style, label=f"{name}, ECE {of.ece():.3f}")
        below.hist(of.confidence, BINS, range=(0, 1), histtype="step", label=name)
    above.set(ylabel="share of right words", xlim=(0, 1), ylim=(0, 1))
    above.legend(loc="upper left")
    below.set(xlabel="confidence", ylabel="words")
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = model_arguments(__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, help="draw a reliability diagram into this PNG")
    args = parser.parse_args()
    if not args.model or not args.data:
        parser.error("give --model and --data")
    prepare(args)
    recogniser = espnet_mlma.load(args.model, device="cpu")
    if recogniser.calibration is None:
        parser.error(f"{args.model} has no calibration of its checkpoint; run stage 12")
    utterances = [u for folder in args.data for u in recognise(recogniser, folder)]
    found = reliability(utterances, recogniser.calibration)
    table_of_errors(utterances, recogniser.calibration, args)
    table_of_bins(found, args)
    table_of_languages(utterances, args)
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
