"""Score translated talks: BLEU, chrF and StreamLAAL in one table."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import write
from espnet_mlma.sst.score.latency import (
    COMPUTATION_AWARE,
    IDEAL,
    ScoredSentence,
    stream_laal,
    unit_times,
)
from espnet_mlma.sst.score.logs import TranslatedTalk, joined, read_log, units
from espnet_mlma.sst.score.published import TABLE_2
from espnet_mlma.sst.score.quality import Quality, export, quality, unit_and_tokeniser
from espnet_mlma.sst.score.references import Reference, read_segments, read_sentences
from espnet_mlma.sst.score.resegment import resegment


@dataclass(frozen=True)
class Convention:
    """Define a version of StreamLAAL.

    Attributes:
        name: v1 or v2.
        clamp: set negative delays to 0.
        ignore_case: ignore ASCII case in re-segmentation.
    """

    name: str
    clamp: bool
    ignore_case: bool


CONVENTIONS = (
    Convention("v1", clamp=True, ignore_case=False),
    Convention("v2", clamp=False, ignore_case=True),
)
NOTES = """\
v1: FBK-fairseq's streamLAAL, used in the paper: negative delays are 0, re-segmentation is \
case-sensitive. v2: simulstream: delays can be negative, re-segmentation ignores ASCII case.
CA, computation-aware: repaired, from SimulEval's elapsed (FBK-fairseq, the paper); per_chunk, the \
turn's own compute (simulstream); elapsed, all compute so far (OmniSTEval); fixed (OmniSTEval \
--fix_simuleval_emission_ca); queueing, a turn waits for the previous one (no other tool).
OmniSTEval re-segments differently; its scores equal these where the segments agree."""


@dataclass(frozen=True)
class TranslationScore:
    """Hold all scores by one convention.

    Attributes:
        quality: BLEU and chrF of the re-segmented output.
        chance: BLEU by chance: each output scored against the next sentence's reference. A system
            that ignores the audio gets about this.
        latency: StreamLAAL in milliseconds, `ideal` and each of `latency.COMPUTATION_AWARE`; NaN
            without any output.
        empty: sentences without output; BLEU counts them, StreamLAAL does not.
        hypotheses: output of each sentence.
    """

    quality: Quality
    chance: float
    latency: dict[str, float]
    empty: int
    hypotheses: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """Hold the result that is printed and written.

    Attributes:
        target: language of the translation.
        unit: unit of latency, word or char.
        sentences: number of references.
        real_time_factor: seconds of compute per second of audio; NaN without audio.
        scores: scores by name of the convention.
    """

    target: str
    unit: str
    sentences: int
    real_time_factor: float
    scores: dict[str, TranslationScore]

    def table(self) -> str:
        """Return a table of the scores with notes and the paper's scores."""
        scores = self.scores.values()
        rows = [
            ("", [f"StreamLAAL {name}" for name in self.scores]),
            ("BLEU", [f"{score.quality.bleu:.2f}" for score in scores]),
            ("BLEU by chance", [f"{score.chance:.2f}" for score in scores]),
            ("chrF", [f"{score.quality.chrf:.2f}" for score in scores]),
            ("StreamLAAL (ms)", [f"{score.latency[IDEAL]:.0f}" for score in scores]),
        ]
        for name in COMPUTATION_AWARE:
            row = [f"{score.latency[name]:.0f}" for score in scores]
            rows.append((f"StreamLAAL_CA {name} (ms)", row))
        rows.append(("sentences without output", [f"{score.empty}" for score in scores]))
        lines = [f"{name:32}" + "".join(f"{cell:>16}" for cell in cells) for name, cells in rows]
        lines += [
            f"{self.sentences} sentences into {self.target}, latency by {self.unit}, "
            f"{self.real_time_factor:.3f} s of compute per second of audio",
            f"BLEU: {next(iter(scores)).quality.signature}",
            NOTES,
        ]
        published = [row for row in TABLE_2 if row.target == self.target]
        if published:
            lines.append("The paper, Table 2 (ACL 60/60 dev, v1): BLEU, StreamLAAL, StreamLAAL_CA")
        for row in published:
            figures = f"{row.bleu:16.1f}{row.stream_laal:8}{row.stream_laal_ca:8}"
            lines.append(f"{row.system:32}{figures}")
        return "\n".join(lines)

    def json(self) -> str:
        """Return the scores as JSON; null for NaN."""
        scores = {
            name: {
                **asdict(score.quality),
                "bleu_by_chance": score.chance,
                "stream_laal_ms": {key: _number(value) for key, value in score.latency.items()},
                "sentences_without_output": score.empty,
            }
            for name, score in self.scores.items()
        }
        contents = {
            "target": self.target,
            "unit": self.unit,
            "sentences": self.sentences,
            "real_time_factor": _number(self.real_time_factor),
            "scores": scores,
        }
        return json.dumps(contents, indent=2) + "\n"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `score`."""
    parser.add_argument("--log", type=Path, required=True, help="log of SimulEval or simulstream")
    parser.add_argument("--target", required=True, help="language of the translation: de, zh, ...")
    parser.add_argument("--sentences", type=Path, help="references: JSON lines of sentences")
    parser.add_argument("--segments", type=Path, help="references: YAML of wav, offset, ...")
    parser.add_argument("--references", type=Path, help="with --segments: one translation per line")
    parser.add_argument("--sources", type=Path, help="with --segments: one transcript per line")
    parser.add_argument("--comet", type=Path, metavar="FOLDER", help="write input files for COMET")
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FILE", help="write the scores as JSON"
    )


def run(args: argparse.Namespace) -> None:
    """Score a log, print the table and write the requested files.

    Raises:
        MlmaError: a file is malformed, or log and references have different talks.
    """
    references = _references(args)
    unit, tokeniser = unit_and_tokeniser(args.target)
    talks = read_log(args.log, unit)
    scores = {c.name: score(talks, references, unit, tokeniser, c) for c in CONVENTIONS}
    result = Result(args.target, unit, len(references), real_time_factor(talks), scores)
    print(result.table())
    if args.comet:
        sources, texts = ([getattr(r, key) for r in references] for key in ("source", "text"))
        inputs = (args.log, args.sentences, args.segments, args.references, args.sources)
        export(args.comet, sources, scores["v1"].hypotheses, texts, inputs)
    if args.output:
        write(args.output, result.json())


def score(
    talks: Sequence[TranslatedTalk],
    references: Sequence[Reference],
    unit: str,
    tokeniser: str,
    convention: Convention,
) -> TranslationScore:
    """Score talks by one convention.

    Args:
        talks: the talks of the references, in any order.
        references: all reference sentences.
        unit: word or char.
        tokeniser: name of sacreBLEU's tokeniser.
        convention: version of StreamLAAL.

    Raises:
        MlmaError: a talk is only in the log or only in the references.
    """
    of_talk: dict[str, list[int]] = {}
    for number, reference in enumerate(references):
        of_talk.setdefault(reference.talk, []).append(number)
    translated = {talk.name: talk for talk in talks}
    for name in sorted(of_talk.keys() ^ translated.keys()):
        has, lacks = ("log", "references") if name in translated else ("references", "log")
        raise MlmaError(f"{name} is in the {has} but not in the {lacks}; score one test set")
    hypotheses = [""] * len(references)
    timed = []
    for name, numbers in of_talk.items():
        wanted = [references[number] for number in numbers]
        texts, sentences = cut(translated[name], wanted, unit, convention.ignore_case)
        for number, text in zip(numbers, texts, strict=True):
            hypotheses[number] = text
        times = unit_times(translated[name], unit, sentences, convention.clamp)
        timed.append((times, sentences))
    latency, empty = {}, 0
    for name in (IDEAL, *COMPUTATION_AWARE):
        talk_times = [(times[name], sentences) for times, sentences in timed]
        seconds, empty = stream_laal(talk_times, convention.clamp)
        latency[name] = 1000 * seconds
    texts = [reference.text for reference in references]
    chance = quality([*hypotheses[-1:], *hypotheses[:-1]], texts, tokeniser).bleu
    scored = quality(hypotheses, texts, tokeniser)
    return TranslationScore(scored, chance, latency, empty, tuple(hypotheses))


def cut(
    talk: TranslatedTalk, references: Sequence[Reference], unit: str, ignore_case: bool
) -> tuple[list[str], list[ScoredSentence]]:
    """Re-segment a talk's output; return the text and the span of each sentence.

    Args:
        talk: translated talk.
        references: all references of the talk, in order.
        unit: word or char.
        ignore_case: ignore case of ASCII letters.
    """
    output = units(joined((emission.text for emission in talk.emissions), unit), unit)
    spans = resegment(output, [reference.text for reference in references], unit, ignore_case)
    texts = [joined(output[span], unit).strip() for span in spans]
    sentences = [
        ScoredSentence(r.start, r.duration, len(units(r.text, unit)), span)
        for r, span in zip(references, spans, strict=True)
    ]
    return texts, sentences


def real_time_factor(talks: Sequence[TranslatedTalk]) -> float:
    """Return seconds of compute per second of audio, NaN without audio.

    Args:
        talks: translated talks; SimulEval's own logs lack the compute after the last unit.
    """
    audio = sum(talk.source_seconds for talk in talks)
    computing = sum(e.compute_seconds for talk in talks for e in talk.emissions)
    return computing / audio if audio else float("nan")


def _references(args: argparse.Namespace) -> list[Reference]:
    if args.sentences and not (args.segments or args.references or args.sources):
        return read_sentences(args.sentences, args.target)
    if args.segments and args.references and not args.sentences:
        return read_segments(args.segments, args.references, args.sources)
    raise MlmaError("references are missing; give --sentences, or --segments with --references")
