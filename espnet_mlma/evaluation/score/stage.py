"""Stage 13: score decoded sets by utterance id; write WER, CER, TER and RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser
from espnet_mlma.decode import fingerprint
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.score.align import Errors, total_errors
from espnet_mlma.evaluation.score.result import ResultLine, find_sclite, write_result
from espnet_mlma.evaluation.score.table import ResultRow, section, write_results
from espnet_mlma.evaluation.score.utterances import ScoredUtterance, score_set, tokeniser

_UNITS = {"wer": "words", "cer": "chars", "ter": "tokens"}


def main(argv: Sequence[str] | None = None) -> None:
    """Score the sets named on the command line."""
    parser = ArgumentParser(prog="mlma recipe score", description=__doc__)
    parser.add_argument("--dump", type=Path, required=True, help="references: dump/raw")
    parser.add_argument("--decode_dir", type=Path, required=True, help="EXPERIMENT/INFERENCE_TAG")
    parser.add_argument("--sets", required=True, help="test sets, separated by spaces")
    parser.add_argument("--token_type", choices=("bpe", "char"), required=True)
    parser.add_argument("--bpemodel", type=Path, help="sentencepiece model for --token_type bpe")
    args = parser.parse_args(argv)
    sets = args.sets.split()
    if not sets:
        raise MlmaError("--sets names no set; give the test sets that stage 12 decoded")
    fingerprint.check_alike(args.decode_dir, sets, args.dump)
    fingerprint.check_newest(args.decode_dir, sets)
    tokenise = tokeniser(args.token_type, args.bpemodel)
    sclite = find_sclite()
    scored = {
        name: list(score_set(args.dump / name, args.decode_dir / name, tokenise=tokenise))
        for name in sets
    }
    rows: list[ResultRow] = []
    for name, utterances in scored.items():
        rows += write_set(utterances, args.decode_dir / name, sclite)
    scorer = "NIST sclite" if sclite else "our own, with the weights and tie-breaking of sclite"
    checkpoint = (fingerprint.read(args.decode_dir / sets[0]) or {}).get("checkpoint")
    text = section(rows, args.decode_dir.name, scorer, checkpoint)
    results = write_results(args.decode_dir, text)
    print(results.read_text(encoding="utf-8"), end="")
    print(f"wrote {results}")


def write_set(
    utterances: Sequence[ScoredUtterance], folder: Path, sclite: Path | None
) -> list[ResultRow]:
    """Write `score_{wer,cer,ter}` of one set; return a row per language and corpus.

    Args:
        utterances: all of the set, with `tokens`.
        folder: where the set was decoded.
        sclite: the program; None: count here.

    Raises:
        MlmaError: the set is empty, or sclite fails.
    """
    if not utterances:
        raise MlmaError(f"{folder.name}: the set has no utterance; run stage 3 again")
    missing = [utterance.id for utterance in utterances if utterance.missing]
    if missing:
        print(
            f"{folder.name}: {len(missing)} of {len(utterances)} without hypothesis, "
            f"the first is {missing[0]}"
        )
    errors = {
        attribute: write_result(
            [ResultLine(u.id, u.speaker, getattr(u, attribute)) for u in utterances],
            folder / f"score_{unit}",
            sclite,
        )
        for unit, attribute in _UNITS.items()
    }

    def kind(utterance: ScoredUtterance) -> tuple[str, str]:
        return utterance.lang, utterance.corpus

    return [_row(list(group), errors) for _, group in groupby(sorted(utterances, key=kind), kind)]


def _row(
    utterances: Sequence[ScoredUtterance], errors: Mapping[str, Mapping[str, Errors]]
) -> ResultRow:
    first = utterances[0]
    has_languages = all(u.recognised_lang is not None for u in utterances)
    return ResultRow(
        lang=first.lang,
        corpus=first.corpus,
        test_set=first.test_set,
        sentences=len(utterances),
        missing=sum(utterance.missing for utterance in utterances),
        right_languages=sum(u.recognised_lang == u.lang for u in utterances)
        if has_languages
        else None,
        **{unit: total_errors(of[u.id] for u in utterances) for unit, of in errors.items()},
    )
