"""`python -m espnet_mlma.sst score`: BLEU, chrF and StreamLAAL of translated talks in one table."""

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
from espnet_mlma.sst.score.logs import Talk, joined, read_log, units
from espnet_mlma.sst.score.published import TABLE_2
from espnet_mlma.sst.score.quality import Quality, export, quality, unit_and_tokeniser
from espnet_mlma.sst.score.references import Reference, read_segments, read_sentences
from espnet_mlma.sst.score.resegment import resegment


@dataclass(frozen=True)
class Convention:
    """How a version of StreamLAAL is counted.

    Attributes:
        name: v1 or v2.
        clamp: output that comes before its sentence counts as at the sentence's start.
        ignore_case: when output is cut into sentences; of ASCII letters.
    """

    name: str
    clamp: bool
    ignore_case: bool


CONVENTIONS = (
    Convention("v1", clamp=True, ignore_case=False),
    Convention("v2", clamp=False, ignore_case=True),
)
NOTES = """\
v1: as FBK-fairseq's streamLAAL and the paper: delays before a sentence's start are 0, case counts \
when output is cut into sentences. v2: as simulstream: delays can be negative, ASCII case does not.
CA, with computing: repaired, from SimulEval's elapsed (FBK-fairseq, the paper); per_chunk, the \
turn's own (simulstream); elapsed, all so far (OmniSTEval); fixed (OmniSTEval \
--fix_simuleval_emission_ca); queueing, a turn waits for the one before it (no tool has it).
OmniSTEval cuts into sentences in its own way; its figures are these where the cuts agree."""


@dataclass(frozen=True)
class TranslationScore:
    """All figures by one convention.

    Attributes:
        quality: of the output cut into sentences.
        chance: BLEU of each sentence's output against the next sentence: what a system gets that
            has learnt the kind of text and hears nothing.
        latency: StreamLAAL in milliseconds: `ideal`, and each of `latency.COMPUTATION_AWARE`;
            nan without any output.
        empty: sentences without output, which count in BLEU and not in StreamLAAL.
        hypotheses: the output of each sentence.
    """

    quality: Quality
    chance: float
    latency: dict[str, float]
    empty: int
    hypotheses: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What is printed and written.

    Attributes:
        target: language of the translation.
        unit: of latency, word or char.
        sentences: how many references.
        real_time_factor: seconds of computing per second of audio; nan without audio.
        scores: by name of the convention.
    """

    target: str
    unit: str
    sentences: int
    real_time_factor: float
    scores: dict[str, TranslationScore]

    def table(self) -> str:
        """The figures, how they were counted, and the paper's."""
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
            f"{self.real_time_factor:.3f} s of computing per second of audio",
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
        """The same figures for programs; null where there is none."""
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
    parser.add_argument(
        "--log", type=Path, required=True, help="of SimulEval (instances.log) or of simulstream"
    )
    parser.add_argument("--target", required=True, help="language of the translation: de, zh, ...")
    parser.add_argument("--sentences", type=Path, help="the references: JSON lines of sentences")
    parser.add_argument("--segments", type=Path, help="the references: YAML of wav, offset, ...")
    parser.add_argument("--references", type=Path, help="with --segments: a translation a line")
    parser.add_argument("--sources", type=Path, help="with --segments: what was said, a line each")
    parser.add_argument("--comet", type=Path, metavar="FOLDER", help="write COMET's three files")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="write JSON there")


def run(args: argparse.Namespace) -> None:
    """TranslationScore a log, print the table, and write what was asked for.

    Raises:
        MlmaError: a file is broken, or log and references are not of the same talks.
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
    talks: Sequence[Talk],
    references: Sequence[Reference],
    unit: str,
    tokeniser: str,
    convention: Convention,
) -> TranslationScore:
    """TranslationScore talks.

    Args:
        talks: those of the references, in any order.
        references: all sentences.
        unit: word or char.
        tokeniser: sacreBLEU's.
        convention: of StreamLAAL.

    Raises:
        MlmaError: a talk is in one of the two only.
    """
    of_talk: dict[str, list[int]] = {}
    for number, reference in enumerate(references):
        of_talk.setdefault(reference.talk, []).append(number)
    translated = {talk.name: talk for talk in talks}
    for name in sorted(of_talk.keys() ^ translated.keys()):
        has, lacks = ("log", "references") if name in translated else ("references", "log")
        raise MlmaError(f"{name} is in the {has} and not in the {lacks}; give those of one set")
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
    talk: Talk, references: Sequence[Reference], unit: str, ignore_case: bool
) -> tuple[list[str], list[ScoredSentence]]:
    """The output of a talk by sentence, as text and as what latency is counted from.

    Args:
        talk: as read from a log.
        references: all of the talk, in order.
        unit: word or char.
        ignore_case: of ASCII letters.
    """
    said = units(joined((emission.text for emission in talk.emissions), unit), unit)
    spans = resegment(said, [reference.text for reference in references], unit, ignore_case)
    texts = [joined(said[span], unit).strip() for span in spans]
    sentences = [
        ScoredSentence(r.start, r.duration, len(units(r.text, unit)), span)
        for r, span in zip(references, spans, strict=True)
    ]
    return texts, sentences


def real_time_factor(talks: Sequence[Talk]) -> float:
    """Seconds of computing per second of audio; nan without audio.

    Args:
        talks: of any log but one that SimulEval itself wrote, which lacks the computing after a
            talk's last unit.
    """
    audio = sum(talk.source_seconds for talk in talks)
    computing = sum(e.compute_seconds for talk in talks for e in talk.emissions)
    return computing / audio if audio else float("nan")


def _references(args: argparse.Namespace) -> list[Reference]:
    if args.sentences and not (args.segments or args.references or args.sources):
        return read_sentences(args.sentences, args.target)
    if args.segments and args.references and not args.sentences:
        return read_segments(args.segments, args.references, args.sources)
    raise MlmaError("score: give --sentences, or --segments with --references")
