"""Stage 13: score decoded sets by utterance id; write WER, CER, TER and RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser
from espnet_mlma.decode import fingerprint
from espnet_mlma.errors import MlmaError, run_cli
from espnet_mlma.evaluation.score.align import Errors, total_errors
from espnet_mlma.evaluation.score.join import Tokenise, Utterance, characters, join, tokeniser
from espnet_mlma.evaluation.score.report import Row, section, write_results
from espnet_mlma.evaluation.score.result import Pair, find_sclite, score


def main() -> None:
    """Score the sets named on the command line."""
    parser = ArgumentParser(prog="python -m espnet_mlma.evaluation.score", description=__doc__)
    parser.add_argument("--dump", type=Path, required=True, help="dump/raw: the references")
    parser.add_argument("--decode_dir", type=Path, required=True, help="EXPERIMENT/INFERENCE_TAG")
    parser.add_argument("--sets", required=True, help="test sets, parted by spaces")
    parser.add_argument("--token_type", choices=("bpe", "char"), required=True)
    parser.add_argument("--bpemodel", type=Path, help="with --token_type bpe")
    args = parser.parse_args()
    sets = args.sets.split()
    if not sets:
        raise MlmaError("--sets names no set; give the test sets that stage 12 decoded")
    fingerprint.check_alike(args.decode_dir, sets, args.dump)
    fingerprint.check_newest(args.decode_dir, sets)
    units = {"wer": str.split, "cer": characters, "ter": tokeniser(args.token_type, args.bpemodel)}
    sclite = find_sclite()
    joined = {name: join(args.dump / name, args.decode_dir / name / "text") for name in sets}
    rows: list[Row] = []
    for name, utterances in joined.items():
        rows += score_set(name, utterances, units, args.decode_dir / name, sclite)
    scorer = "NIST sclite" if sclite else "our own, with the weights and the choices of NIST sclite"
    checkpoint = (fingerprint.read(args.decode_dir / sets[0]) or {}).get("checkpoint")
    text = section(rows, args.decode_dir.name, scorer, checkpoint)
    results = write_results(args.decode_dir, text)
    print(results.read_text(encoding="utf-8"), end="")
    print(f"wrote {results}")


def score_set(
    name: str,
    utterances: Sequence[Utterance],
    units: Mapping[str, Tokenise],
    folder: Path,
    sclite: Path | None,
) -> list[Row]:
    """Write `score_{wer,cer,ter}` of one set; one row per language and corpus in it.

    Args:
        name: of the set.
        utterances: all of the set.
        units: how to cut a text, for wer, cer and ter.
        folder: where the set was decoded.
        sclite: the program, or None to count here.

    Raises:
        MlmaError: the set is empty, or sclite fails.
    """
    if not utterances:
        raise MlmaError(f"{folder.name}: the set has no utterance; run stage 3 again")
    missing = [utterance.id for utterance in utterances if utterance.missing]
    if missing:
        print(f"{name}: {len(missing)} of {len(utterances)} without hypothesis, {missing[0]} first")
    errors: dict[str, dict[str, Errors]] = {}
    for unit, tokenise in units.items():
        pairs = [
            Pair(u.id, u.speaker, tokenise(u.reference), tokenise(u.hypothesis)) for u in utterances
        ]
        errors[unit] = score(pairs, folder / f"score_{unit}", sclite)

    def kind(utterance: Utterance) -> tuple[str, str]:
        return utterance.lang, utterance.corpus

    return [
        _row(name, list(group), errors) for _, group in groupby(sorted(utterances, key=kind), kind)
    ]


def _row(
    name: str, utterances: Sequence[Utterance], errors: Mapping[str, Mapping[str, Errors]]
) -> Row:
    words, chars, tokens = (
        total_errors(errors[unit][utterance.id] for utterance in utterances)
        for unit in ("wer", "cer", "ter")
    )
    first, missing = utterances[0], sum(utterance.missing for utterance in utterances)
    has_languages = all(u.heard is not None for u in utterances)
    return Row(
        lang=first.lang,
        corpus=first.corpus,
        test_set=name,
        sentences=len(utterances),
        missing=missing,
        words=words,
        chars=chars,
        tokens=tokens,
        languages=sum(u.heard == u.lang for u in utterances) if has_languages else None,
    )


if __name__ == "__main__":
    run_cli(main)
