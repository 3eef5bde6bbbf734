"""Stage 2: add faster and slower copies of each training utterance.

No audio is written: each copy has a line in `utt2speed`, and stage 3 resamples the audio. Ids and
speakers get the prefix `sp<factor>-`, as in ESPnet's own stage.

    mlma recipe speed-perturb --data data/train --output data/train_sp \
        --factors "0.9 1.0 1.1"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser, first_line, refuse_to_replace
from espnet_mlma.data import tables
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder

_MADE_BY = "stage 1"
_SLOWEST, _FASTEST = 0.5, 2.0


def perturb(data: Path, out: Path, factors: Sequence[float]) -> int:
    """Write a data folder with one copy of every utterance per factor.

    Args:
        data: a data folder of stage 1.
        out: the data folder to write.
        factors: speeds; a copy with factor 1.0 keeps its id.

    Returns:
        The number of utterances written.

    Raises:
        MlmaError: a factor is a duplicate or out of range, or a table is missing.
    """
    if not factors or len(set(factors)) < len(factors):
        raise MlmaError(f"speed factors {list(factors)}: give at least one, and no duplicates")
    for factor in factors:
        if not _SLOWEST <= factor <= _FASTEST:
            raise MlmaError(f"speed factor {factor}: must be between {_SLOWEST} and {_FASTEST}")
    prefixes = {factor: "" if factor == 1 else f"sp{factor:g}-" for factor in factors}
    audio = "segments" if (data / "segments").exists() else "wav.scp"
    found = tables.read_alike(data, (*tables.PER_UTTERANCE, audio), _MADE_BY)
    ids = found["text"]

    def fill(new: Path) -> None:
        for name, table in found.items():
            rows = [
                (prefix + id_, prefix + value if name == "utt2spk" else value)
                for prefix in prefixes.values()
                for id_, value in table.items()
            ]
            tables.write(new / name, sorted(rows))
            if name == "utt2spk":
                tables.write(new / "spk2utt", tables.spk2utt(dict(sorted(rows))))
        if audio == "segments":  # the copies share the recordings
            recordings = tables.read(data / "wav.scp", _MADE_BY)
            tables.write(new / "wav.scp", sorted(recordings.items()))
        speeds = ((prefix + id_, f"{f:g}") for f, prefix in prefixes.items() for id_ in ids)
        tables.write(new / "utt2speed", sorted(speeds))

    replace_folder(out, fill)
    return len(ids) * len(factors)


def main(argv: Sequence[str] | None = None) -> None:
    """Run stage 2 from the command line."""
    parser = ArgumentParser(
        prog="mlma recipe speed-perturb",
        description=first_line(__doc__),
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder of stage 1")
    parser.add_argument("--output", type=Path, required=True, help="data folder to write")
    parser.add_argument("--factors", required=True, help='speeds, such as "0.9 1.0 1.1"')
    args = parser.parse_args(argv)
    refuse_to_replace(args.output, [args.data])
    try:
        factors = [float(factor) for factor in args.factors.split()]
    except ValueError:
        raise MlmaError(f"speed factors '{args.factors}': not numbers") from None
    count = perturb(args.data, args.output, factors)
    print(f"{args.output}: {count} utterances at speeds {args.factors}")
