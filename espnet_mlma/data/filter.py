"""Stage 4: leave out what cannot be trained on.

    python -m espnet_mlma.data.filter --data dump/raw/org/train --out dump/raw/train \
        --min_seconds 0.3 --max_seconds 30
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from espnet_mlma import files
from espnet_mlma.arguments import ArgumentParser, refuse_to_replace
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data import tables as datadir
from espnet_mlma.data.limits import Limits
from espnet_mlma.errors import MlmaError, run_cli
from espnet_mlma.files import replace_folder
from espnet_mlma.text.language import with_language

_MADE_BY = "stage 3"


def filter_folder(data: Path, out: Path, limits: Limits) -> Counter[str]:
    """Copy a formatted data folder without the utterances that break the limits.

    Beside `text` the copy has `text_lang`, where each text begins with its language's token.

    Args:
        data: `dump/raw/org/<set>` of stage 3; its archives are referred to, not copied.
        out: `dump/raw/<set>`, replaced once the new one is whole.
        limits: what to keep.

    Returns:
        How many were kept (`kept`) and dropped, by reason.

    Raises:
        MlmaError: stage 3 has not finished, or nothing is left.
    """
    names = ("wav.scp", "utt2num_samples", *datadir.PER_UTTERANCE)
    tables = datadir.read_alike(data, names, _MADE_BY)
    sound, text, language = (tables[name] for name in ("wav.scp", "text", "utt2lang"))
    lengths = tables["utt2num_samples"]
    samples = datadir.numbers(data / "utt2num_samples", lengths, int, _MADE_BY)
    reasons = {id_: limits.reason(samples[id_] / SAMPLE_RATE, text[id_]) for id_ in sound}
    kept = [id_ for id_, reason in reasons.items() if reason is None]
    dropped = [(id_, *reason) for id_, reason in reasons.items() if reason]
    counts = Counter(reason for _, reason, _ in dropped)
    if not kept:
        raise MlmaError(f"{data}: nothing left, dropped {dict(counts)}; widen the limits")

    def fill(new: Path) -> None:
        datadir.write_utterance_tables(data, new, kept, _MADE_BY)
        datadir.write(new / "utt2num_samples", ((id_, lengths[id_]) for id_ in kept))
        for name in ("feats_type", "audio_format"):
            files.write(new / name, files.read_text(data / name, f"run {_MADE_BY} again"))
        datadir.write_dropped(new / "dropped.tsv", dropped)
        datadir.write(
            new / "text_lang", ((id_, with_language(text[id_], language[id_])) for id_ in kept)
        )
        datadir.write(new / "wav.scp", ((id_, sound[id_]) for id_ in kept))

    replace_folder(out, fill)
    return counts + Counter(kept=len(kept))


def main() -> None:
    """Entry point; see the module's head."""
    parser = ArgumentParser(prog="python -m espnet_mlma.data.filter")
    parser.add_argument("--data", type=Path, required=True, help="dump/raw/org/<set>")
    parser.add_argument("--out", type=Path, required=True, help="dump/raw/<set>")
    parser.add_argument("--min_seconds", type=float, required=True)
    parser.add_argument("--max_seconds", type=float, required=True)
    args = parser.parse_args()
    refuse_to_replace(args.out, [args.data])
    counts = filter_folder(args.data, args.out, Limits(args.min_seconds, args.max_seconds))
    kept = counts.pop("kept")
    dropped = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.items())) or "none"
    print(f"{args.out}: kept {kept} utterances; dropped: {dropped}")


if __name__ == "__main__":
    run_cli(main)
