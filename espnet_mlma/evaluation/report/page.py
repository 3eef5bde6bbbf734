"""The page: one HTML file that needs no network and runs no script."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from espnet_mlma.data.corpora.fleurs import TAG as FLEURS
from espnet_mlma.evaluation.compare.table import CORPORA
from espnet_mlma.evaluation.report import charts
from espnet_mlma.evaluation.report.clips import Clip, clips
from espnet_mlma.evaluation.report.confusions import Confusions, Matrix
from espnet_mlma.evaluation.report.data import Decoded, Pairs, Spoken
from espnet_mlma.evaluation.report.groups import (
    Group,
    by_confidence,
    by_corpus,
    by_duration,
    by_language,
    by_speaker,
    error_rate,
    group,
    worst,
)
from espnet_mlma.evaluation.report.training import Curve, Epochs, curves
from espnet_mlma.text import LANGUAGES
from espnet_mlma.version import __version__

_CONFUSIONS, _SYMBOLS = 10, 16
_SPEAKERS, _LEAST_WORDS = 10, 20
_MARKS = {"sub": "S", "del": "D", "ins": "I", "same": ""}


@dataclass(frozen=True)
class Page:
    """A page, and what a user should know about it.

    Attributes:
        html: the file's contents.
        listed: how many of the worst utterances are in it.
        silent: how many of those have no audio, by reason.
    """

    html: str
    listed: int
    silent: dict[str, int]


def render(decoded: Decoded, epochs: Epochs, number: int, audio_bytes: int) -> Page:
    """Make the page.

    Args:
        decoded: what was recognised.
        epochs: how training went.
        number: of worst utterances at most.
        audio_bytes: of embedded audio at most.
    """
    spoken = decoded.utterances
    languages = by_language(spoken)
    listed = worst(spoken, number)
    heard = clips(listed, decoded.dump, audio_bytes)
    silent = Counter(clip.missing for clip in heard if clip.missing)
    named = [one for one in spoken if one.utterance.corpus != FLEURS]
    speakers = by_speaker(named)
    # Of a single word, a rate says nothing about who said it.
    least = min(_LEAST_WORDS, max((of.words.reference for of in speakers), default=0))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"rate": rate, "number": thousands, "symbol": symbol, "marked": marked}
    html = environment.get_template("page.html").render(
        experiment=decoded.experiment.resolve().name,
        decoding=decoded.decoding,
        chosen=decoded.chosen,
        version=__version__,
        meanings=meanings({one.utterance.corpus for one in spoken}),
        tables={lang: by_corpus(of) for lang, of in languages.items()},
        total=group("all utterances", spoken),
        mean=mean_rates([group(lang, of) for lang, of in languages.items()]),
        worst=worst_by_language(listed, heard),
        silent=silent,
        confusions={lang: confusions_of(of) for lang, of in languages.items()},
        matrix=Confusions(one.chars for one in spoken).matrix(_SYMBOLS),
        heat=heat,
        durations=by_duration(spoken),
        confidences=by_confidence(spoken),
        speakers=speakers,
        nameless=len(spoken) - len(named),
        worst_speakers=[of for of in speakers if of.words.reference >= least][:_SPEAKERS],
        least_words=least,
        speaker_chart=speaker_chart(speakers),
        curves=[(curve, charts.curve(curve), best(curve)) for curve in curves(epochs)],
        widths=widths,
        highest=highest,
    )
    return Page(html, len(listed), dict(silent))


def meanings(corpora: Collection[str]) -> str:
    """What the short names of corpora stand for, as far as they are known."""
    return "; ".join(f"{key} is {CORPORA[key][1]}" for key in sorted(corpora) if key in CORPORA)


def worst_by_language(
    listed: Sequence[Spoken], heard: Sequence[Clip]
) -> dict[str, list[tuple[Spoken, Clip]]]:
    """Utterances beside their sound, sorted out."""
    pairs = list(zip(listed, heard, strict=True))
    return {
        lang: [(one, clip) for one, clip in pairs if one.utterance.lang == lang]
        for lang in by_language(listed)
    }


def confusions_of(spoken: Sequence[Spoken]) -> dict[str, list]:
    """The most frequent errors in one language."""
    words = Confusions(one.words for one in spoken)
    return {
        "substituted": words.substituted(_CONFUSIONS),
        "deleted": words.deleted(_CONFUSIONS),
        "inserted": words.inserted(_CONFUSIONS),
        "characters": Confusions(one.chars for one in spoken).substituted(_CONFUSIONS),
    }


def mean_rates(languages: Sequence[Group]) -> tuple[float, float]:
    """Word and character error rate averaged over languages; nan where none has a word."""

    def mean(rates: Sequence[float]) -> float:
        known = [value for value in rates if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    return mean([of.words.rate for of in languages]), mean([of.chars.rate for of in languages])


def speaker_chart(speakers: Sequence[Group]) -> Markup:
    """The chart, languages in the order of the tables; empty where no word was said."""
    known = [of for of in speakers if of.words.reference]
    return (
        charts.speakers(sorted(known, key=lambda of: LANGUAGES.index(of.lang)))
        if known
        else Markup("")
    )


def best(curve: Curve) -> str:
    """Where validation was best, in words."""
    line = curve.lines.get("valid")
    if not line:
        return ""
    choose, word = (max, "highest") if curve.rises else (min, "lowest")
    epoch, value = choose(line, key=lambda point: (point[1], point[0]))
    return f"{word} in validation: {value:.3g} after epoch {epoch}"


def highest(groups: Sequence[Group]) -> float:
    """The highest word error rate, that bars are drawn to the scale of."""
    return max((of.words.rate for of in groups if of.words.reference), default=0) or 1.0


def widths(of: Group, scale: float) -> list[tuple[str, float]]:
    """Kinds of error and how wide each is in a bar, in per cent.

    Args:
        of: the group.
        scale: the word error rate, in per cent, that fills a bar.
    """
    errors = of.words
    counts = {"sub": errors.sub, "del": errors.del_, "ins": errors.ins}
    reference = max(1, errors.reference)
    return [
        (kind, min(100.0, round(10_000 * count / reference / scale, 2)))
        for kind, count in counts.items()
        if count
    ]


def heat(matrix: Matrix, row: int, column: int) -> float:
    """How strongly a cell is coloured, 0 to 1: its share of the row's errors, by square root."""
    wrong = sum(count for place, count in enumerate(matrix.counts[row]) if place != row)
    return round(math.sqrt(matrix.counts[row][column] / max(1, wrong)), 2)


def marked(pairs: Pairs) -> list[tuple[str, str, str, str]]:
    """Kind of each pair, its mark, and both texts."""
    found = []
    for said, recognised in pairs:
        if said == recognised:
            kind = "same"
        else:
            kind = "ins" if said is None else "del" if recognised is None else "sub"
        found.append((kind, _MARKS[kind], said or "", recognised or ""))
    return found


def rate(value: object) -> str:
    """A rate, or that of errors, for people."""
    number = value if isinstance(value, float) else error_rate(value)
    return f"{number:.1f}" if math.isfinite(number) else "-"


def thousands(value: float) -> str:
    """A whole number for people."""
    return f"{value:,.0f}"


def symbol(text: str) -> str:
    """A word, or a character that can be seen."""
    return "space" if text == "<space>" else text
