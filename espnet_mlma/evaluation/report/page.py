"""Reports as one HTML page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from espnet_mlma.data.corpora.fleurs import TAG as FLEURS
from espnet_mlma.evaluation.compare.table import CORPORA
from espnet_mlma.evaluation.report.clips import Clip, read_clips
from espnet_mlma.evaluation.report.confusions import Confusions, Matrix
from espnet_mlma.evaluation.report.data import ScoredDecoding
from espnet_mlma.evaluation.report.groups import (
    ErrorGroup,
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
from espnet_mlma.evaluation.score.align import Alignment, Errors
from espnet_mlma.evaluation.score.utterances import ScoredUtterance
from espnet_mlma.pages import render_page, svg
from espnet_mlma.text import order_languages
from espnet_mlma.version import __version__

_CONFUSIONS, _SYMBOLS = 10, 16
_SPEAKERS, _LEAST_WORDS = 10, 20
_MARKS = {"sub": "S", "del": "D", "ins": "I", "same": ""}


@dataclass(frozen=True)
class ReportPage:
    """A page and its summary.

    Attributes:
        html: contents of the file.
        listed: number of worst utterances in it.
        silent: number of those without audio, by reason.
    """

    html: str
    listed: int
    silent: dict[str, int]


def render(decoded: ScoredDecoding, epochs: Epochs, number: int, audio_bytes: int) -> ReportPage:
    """Render a report.

    Args:
        decoded: utterances of the test sets.
        epochs: figures of training.
        number: maximum of worst utterances.
        audio_bytes: maximum of embedded audio.
    """
    spoken = decoded.utterances
    languages = by_language(spoken)
    listed = worst(spoken, number)
    clips = read_clips(listed, decoded.dump, audio_bytes)
    silent = Counter(clip.missing for clip in clips if clip.missing)
    named = [one for one in spoken if one.corpus != FLEURS]
    speakers = by_speaker(named)
    # The rate of a few words says nothing about a speaker.
    least = min(_LEAST_WORDS, max((of.words.reference for of in speakers), default=0))
    html = render_page(
        "report",
        {"rate": rate, "number": thousands, "symbol": symbol, "marked": marked},
        title=decoded.experiment.resolve().name,
        decoding=decoded.decoding,
        chosen=decoded.chosen,
        version=__version__,
        meanings=meanings({one.corpus for one in spoken}),
        tables={lang: by_corpus(of) for lang, of in languages.items()},
        total=group("all utterances", spoken),
        mean=mean_rates([group(lang, of) for lang, of in languages.items()]),
        worst=worst_by_language(listed, clips),
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
        curves=[
            (curve, svg.line_chart(curve.name, curve.lines), best(curve))
            for curve in curves(epochs)
        ],
        widths=widths,
        highest=highest,
    )
    return ReportPage(html, len(listed), dict(silent))


def meanings(corpora: Collection[str]) -> str:
    """Explain the short names of known corpora."""
    return "; ".join(f"{key} is {CORPORA[key][1]}" for key in sorted(corpora) if key in CORPORA)


def worst_by_language(
    listed: Sequence[ScoredUtterance], clips: Sequence[Clip]
) -> dict[str, list[tuple[ScoredUtterance, Clip]]]:
    """Group utterances and their audio by language."""
    pairs = list(zip(listed, clips, strict=True))
    return {
        lang: [(one, clip) for one, clip in pairs if one.lang == lang]
        for lang in by_language(listed)
    }


def confusions_of(spoken: Sequence[ScoredUtterance]) -> dict[str, list]:
    """List the most frequent confusions."""
    words = Confusions(one.words for one in spoken)
    return {
        "substituted": words.substituted(_CONFUSIONS),
        "deleted": words.deleted(_CONFUSIONS),
        "inserted": words.inserted(_CONFUSIONS),
        "characters": Confusions(one.chars for one in spoken).substituted(_CONFUSIONS),
    }


def mean_rates(languages: Sequence[ErrorGroup]) -> tuple[float, float]:
    """Average WER and CER over languages; NaN if no reference has a word."""

    def mean(rates: Sequence[float]) -> float:
        known = [value for value in rates if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    return mean([of.words.rate for of in languages]), mean([of.chars.rate for of in languages])


def speaker_chart(speakers: Sequence[ErrorGroup]) -> Markup:
    """Plot the WER of speakers by language; empty if the references have no word."""
    known = [of for of in speakers if of.words.reference]
    if not known:
        return Markup("")
    most_words = max(of.words.reference for of in known)
    rows: dict[str, list[svg.Dot]] = {}
    order = order_languages(of.lang for of in known)
    for of in sorted(known, key=lambda of: order.index(of.lang)):
        title = f"{of.name}: {of.words.rate:.1f} % of {of.words.reference} words"
        dot = svg.Dot(of.words.rate, of.words.reference / most_words, title)
        rows.setdefault(of.lang, []).append(dot)
    return svg.weighted_dots(list(rows.items()), "word error rate, %")


def best(curve: Curve) -> str:
    """Describe the best epoch in validation."""
    line = curve.lines.get("valid")
    if not line:
        return ""
    choose, word = (max, "highest") if curve.rises else (min, "lowest")
    epoch, value = choose(line, key=lambda point: (point[1], point[0]))
    return f"{word} in validation: {value:.3g} after epoch {epoch}"


def highest(groups: Sequence[ErrorGroup]) -> float:
    """Return the highest WER, the scale of bars."""
    return max((of.words.rate for of in groups if of.words.reference), default=0) or 1.0


def widths(of: ErrorGroup, scale: float) -> list[tuple[str, float]]:
    """List kinds of error with their width in a bar in per cent.

    Args:
        of: the group.
        scale: WER in per cent that fills a bar.
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
    """Return a cell's colour strength, 0 to 1: the square root of its share of the row's errors."""
    wrong = sum(count for place, count in enumerate(matrix.counts[row]) if place != row)
    return round(math.sqrt(matrix.counts[row][column] / max(1, wrong)), 2)


def marked(alignment: Alignment) -> list[tuple[str, str, str, str]]:
    """List the kind of each pair, its letter and both texts."""
    found = []
    for spoken, recognised in alignment:
        if spoken == recognised:
            kind = "same"
        else:
            kind = "ins" if spoken is None else "del" if recognised is None else "sub"
        found.append((kind, _MARKS[kind], spoken or "", recognised or ""))
    return found


def rate(value: float | Errors) -> str:
    """Format a rate, or the rate of errors."""
    number = error_rate(value) if isinstance(value, Errors) else value
    return f"{number:.1f}" if math.isfinite(number) else "-"


def thousands(value: float) -> str:
    """Format a number with separators of thousands."""
    return f"{value:,.0f}"


def symbol(text: str) -> str:
    """Make a space visible."""
    return "space" if text == "<space>" else text
