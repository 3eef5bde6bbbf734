"""Stage 4: drop clips that are too short, too long, or have audio of dev and test.

    mlma recipe filter --data dump/raw/org/train --output dump/raw/train \
        --min_seconds 0.3 --max_seconds 30 --held_out dump/raw/org/dev dump/raw/test

Reasons: `empty_text`, `too_short`, `too_long`, `too_many_symbols`, `audio_in_test`. `excluded.md`
in the output counts them by corpus and language.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from espnet_mlma import files
from espnet_mlma.arguments import ArgumentParser, first_line, refuse_to_replace
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data import audio_match, exclusions, tables
from espnet_mlma.data.audio_match import HeldOutAudio
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder
from espnet_mlma.text.language import with_language

_FRAMES_PER_SECOND = 25  # 10 ms frames, subsampled by 4
_MADE_BY = "stage 3"


@dataclass(frozen=True)
class LengthLimits:
    """Shortest and longest utterance to train on, in seconds."""

    min_seconds: float
    max_seconds: float

    def problem(self, seconds: float, text: str) -> tuple[str, str] | None:
        """Say why an utterance is dropped: the reason and its detail; None: it is kept.

        Args:
            seconds: its length.
            text: its transcript, normalised. Each character counts as one CTC symbol, although a
                BPE piece may have several.
        """
        if not text:
            return "empty_text", "no words"
        if seconds < self.min_seconds:
            return "too_short", f"{seconds:.2f} s"
        if seconds > self.max_seconds:
            return "too_long", f"{seconds:.2f} s"
        needed, frames = ctc_frames(text), int(seconds * _FRAMES_PER_SECOND)
        if needed > frames:
            return "too_many_symbols", f"{needed} for {frames} frames"
        return None


def ctc_frames(symbols: Sequence[str]) -> int:
    """Count the frames that CTC needs: one per symbol, and a blank between equal ones."""
    return len(symbols) + sum(a == b for a, b in pairwise(symbols))


def filter_folder(
    data: Path, out: Path, limits: LengthLimits, held_out: Sequence[Path] = ()
) -> Counter[str]:
    """Copy a formatted data folder without the utterances that break the limits or are held out.

    The copy has also `text_lang`, where each text begins with the token of its language.

    Args:
        data: `dump/raw/org/<set>` of stage 3; its archives are referred to, not copied.
        out: `dump/raw/<set>`; replaced when the new one is complete.
        limits: what to keep.
        held_out: formatted dev and test sets, whose audio must not be kept.

    Returns:
        How many utterances were kept (`kept`) and dropped, by reason.

    Raises:
        MlmaError: stage 3 has not finished, a fingerprint is missing, or no utterance is left.
    """
    names = ("wav.scp", "utt2num_samples", *tables.PER_UTTERANCE)
    found = tables.read_alike(data, names, _MADE_BY)
    audio, text, language = (found[name] for name in ("wav.scp", "text", "utt2lang"))
    lengths = found["utt2num_samples"]
    samples = tables.numbers(data / "utt2num_samples", lengths, int, _MADE_BY)
    problems = {id_: limits.problem(samples[id_] / SAMPLE_RATE, text[id_]) for id_ in audio}
    problems |= _held_out_audio(data, held_out) if held_out else {}
    kept = [id_ for id_, problem in problems.items() if problem is None]
    dropped = [(id_, *problem) for id_, problem in problems.items() if problem]
    excluded: Counter[tuple[str, str, str]] = Counter()
    hours: dict[tuple[str, str, str], float] = defaultdict(float)
    for id_, reason, _ in dropped:
        key = (reason, found["utt2category"][id_], language[id_])
        excluded[key] += 1
        hours[key] += samples[id_] / SAMPLE_RATE / 3600
    counts = exclusions.by_reason(excluded)
    if not kept:
        raise MlmaError(f"{data}: nothing left, dropped {dict(counts)}; widen the limits")
    report = exclusions.counts_table(excluded, hours)

    def fill(new: Path) -> None:
        tables.write_utterance_tables(data, new, kept, _MADE_BY)
        tables.write(new / "utt2num_samples", ((id_, lengths[id_]) for id_ in kept))
        for name in ("feats_type", "audio_format"):
            files.write(new / name, files.read_text(data / name, f"run {_MADE_BY} again"))
        tables.write_dropped(new / "dropped.tsv", dropped)
        files.write(new / exclusions.NAME, f"# Excluded from {out.name}\n\n{report}\n")
        with_token = ((id_, with_language(text[id_], language[id_])) for id_ in kept)
        tables.write(new / "text_lang", with_token)
        tables.write(new / "wav.scp", ((id_, audio[id_]) for id_ in kept))

    replace_folder(out, fill)
    return counts + Counter(kept=len(kept))


def _held_out_audio(data: Path, held_out: Sequence[Path]) -> dict[str, tuple[str, str]]:
    """Find the utterances with audio of held-out sets: id -> reason and detail."""
    index = HeldOutAudio(found for folder in held_out for found in audio_match.read_folder(folder))
    return {
        id_: ("audio_in_test", f"has audio of {held}")
        for found in audio_match.read_folder(data)
        for id_, held in index.matches(found).items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run stage 4 from the command line."""
    parser = ArgumentParser(prog="mlma recipe filter", description=first_line(__doc__))
    parser.add_argument("--data", type=Path, required=True, help="dump/raw/org/<set>")
    parser.add_argument("--output", type=Path, required=True, help="dump/raw/<set>")
    parser.add_argument("--min_seconds", type=float, required=True, help="drop shorter clips")
    parser.add_argument("--max_seconds", type=float, required=True, help="drop longer clips")
    parser.add_argument(
        "--held_out", type=Path, nargs="*", default=[], help="formatted sets whose audio to drop"
    )
    args = parser.parse_args(argv)
    refuse_to_replace(args.output, [args.data, *args.held_out])
    limits = LengthLimits(args.min_seconds, args.max_seconds)
    counts = filter_folder(args.data, args.output, limits, args.held_out)
    kept = counts.pop("kept")
    print(f"{args.output}: kept {kept} utterances; dropped: {tables.list_counts(counts)}")
    if counts:
        print(files.read_text(args.output / exclusions.NAME, "run stage 4 again"), end="")
