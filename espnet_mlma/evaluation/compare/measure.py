"""Decode test sets with one or more ESPnet CTC models; measure time and memory.

Each model runs in its own process and writes its own folder. Time is wall-clock time of decoding:
reading audio, features, encoder, search. Memory is the peak of the process in that time, model and
libraries included, or of tensors on a GPU. Neither includes imports, loading, the warm-up utterance
or writing results.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_mlma.arguments import ArgumentParser, first_line, refuse_to_replace
from espnet_mlma.claims import claim
from espnet_mlma.data.tables import read
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.imports import import_espnet
from espnet_mlma.evaluation.compare.measured import (
    FILE,
    Measured,
    machine,
    peak_bytes,
    reset_peak_memory,
)
from espnet_mlma.files import write
from espnet_mlma.loading.paths import check_path, located
from espnet_mlma.numbers import positive
from espnet_mlma.workers import kill_with_parent

if TYPE_CHECKING:
    import numpy as np

    from espnet_mlma.decode import Recogniser, Transcript
    from espnet_mlma.decode.folder import BatchRecogniser


@dataclass(frozen=True)
class WindowedRecogniser:
    """Recognise utterances with a model that encodes windows of one length.

    A short utterance costs as much as a window, so a batch is counted in windows. Utterances longer
    than a window are split.
    """

    recogniser: Recogniser

    def transcribe_batch(self, utterances: Sequence[np.ndarray]) -> list[Transcript]:
        """Recognise a batch; see `Recogniser.transcribe_batch`."""
        from espnet_mlma.audio import SAMPLE_RATE

        window = self.recogniser.acoustic.window_seconds
        at_once = max(1, int(self.recogniser.batch_seconds // window))
        whole = [samples for samples in utterances if len(samples) <= window * SAMPLE_RATE]
        batches = (whole[i : i + at_once] for i in range(0, len(whole), at_once))
        short = (found for batch in batches for found in self.recogniser.transcribe_batch(batch))
        return [
            next(short)
            if len(samples) <= window * SAMPLE_RATE
            else self.recogniser.transcribe(samples)
            for samples in utterances
        ]


def main(argv: Sequence[str] | None = None) -> None:
    """Decode the sets with each model."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    args = parser.parse_args(argv)
    models = _named(args.model)
    sets = _by_name(args.data)
    if args.training_hours and len(args.training_hours) != len(models):
        parser.error("--training-hours: give one for each model; nan where it is unknown")
    hours = dict(zip(models, args.training_hours, strict=False))
    if args.only is None:
        check(models, sets, args.output)
    if args.only is None and len(models) > 1:
        program = [sys.executable, "-m", "espnet_mlma.cli", "recipe", "measure", *argv]
        for name in models:
            code = subprocess.run([*program, "--run", args.run, "--only", name]).returncode
            if code:
                raise SystemExit(code)
        return
    if args.only:
        kill_with_parent()
    name = args.only or next(iter(models))
    with claim(args.output / name, "measures it"):
        measure(args, models[name], sets, args.output / name, hours.get(name))


def check(models: Mapping[str, str], sets: Mapping[str, Path], out: Path) -> None:
    """Check before decoding that models and sets exist and results can be written.

    Args:
        models: paths or hub ids by name.
        sets: data folders by name.
        out: will contain a folder for each model.

    Raises:
        MlmaError: a file is missing, or an output folder is in use.
    """
    for folder in sets.values():
        for table in ("wav.scp", "utt2num_samples"):
            read(folder / table, "stage 3")
    for name, model in models.items():
        check_path(Path(model))
        check_place(out / name, sets)
        for name_of_set in sets:
            refuse_to_replace(out / name / name_of_set, [*sets.values(), Path(model)])


def measure(
    args: argparse.Namespace,
    model: str,
    sets: Mapping[str, Path],
    out: Path,
    training_hours: float | None,
) -> None:
    """Decode sets; write their folders, then `measured.json`.

    Args:
        args: the command line.
        model: path or hub id.
        sets: data folders by name.
        out: will contain the folders of the sets.
        training_hours: of the model; None: unknown.

    Raises:
        MlmaError: the model or a set cannot be read, the model does not know a set's language, or
            the folders cannot be written.
    """
    import_espnet()

    from espnet_mlma.decode import Decoding, load
    from espnet_mlma.decode.fingerprint import of_decoding
    from espnet_mlma.decode.precision import count_parameters
    from espnet_mlma.memory import keep_freed_memory

    keep_freed_memory()
    with located(Path(model)) as (config, model_file):
        made_with = of_decoding(config, model_file, args.batch_seconds, Decoding())
    made_with["options"]["language"] = args.language
    recogniser = load(model, device=args.device, batch_seconds=args.batch_seconds)
    made_with["parameters"] = count_parameters(recogniser.model)
    languages = {name: args.language or language_of(folder) for name, folder in sets.items()}
    by_language = {lang: with_language(recogniser, lang) for lang in set(languages.values())}
    warm_up(by_language.values())
    # If decoding stops, sets of an earlier model must not mix with those of this one.
    (out / FILE).unlink(missing_ok=True)
    for name in sets:
        if (out / name).exists():
            shutil.rmtree(out / name)
    audio, seconds, peak = decode(
        {name: (folder, by_language[languages[name]]) for name, folder in sets.items()},
        out,
        args.batch_seconds,
        recogniser.acoustic.device,
        made_with,
    )
    is_here = Path(model).exists()
    measured = Measured(
        system=Path(model).resolve().name if is_here else model,
        model=str(Path(model).resolve()) if is_here else model,
        run=args.run,
        sets=tuple(sets),
        training_hours=training_hours,
        audio_seconds=audio,
        seconds=seconds,
        rtf=seconds / audio,
        peak_bytes=peak,
        machine=machine(recogniser.acoustic.device),
        usd_per_machine_hour=args.usd_per_hour,
    )
    write(out / FILE, json.dumps(asdict(measured), indent=1, ensure_ascii=False) + "\n")
    print(f"{out.name}: {audio:.0f} s of audio in {seconds:.1f} s, {audio / seconds:.1f} x; {out}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="mlma recipe measure",
        description=first_line(__doc__),
        epilog="Then compare the models: `mlma compare NAME=OUTPUT/NAME ...`.",
    )
    parser.add_argument(
        "--model",
        action="extend",
        nargs="+",
        required=True,
        metavar="[NAME=]PATH|ZIP|HUB_ID",
        help="NAME is its folder in --output (default: last part of the path or id)",
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="SET", help="dump/raw/<set>"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help=f"will contain NAME/, with a folder per set and {FILE}",
    )
    parser.add_argument("--language", metavar="CODE", help="spoken language (default: of utt2lang)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--batch-seconds", type=positive, default=60.0, help="audio in a batch (default: 60)"
    )
    parser.add_argument(
        "--training-hours",
        type=_hours,
        nargs="+",
        default=[],
        metavar="H",
        help="training audio of each model; nan: unknown",
    )
    parser.add_argument("--usd-per-hour", type=positive, metavar="X", help="price of the machine")
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    # For the process of one of several models.
    parser.add_argument("--run", default=started, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser


def _named(models: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for given in models:
        name, is_named, model = given.partition("=")
        place = Path(model if is_named else given)
        if place.name == "config.yaml" and place.is_file():
            place = place.parent  # the experiment; its training set is read from there
        name, model = name if is_named else place.resolve().name, str(place)
        if name in named:
            raise MlmaError(f"two models have the name {name!r}; give NAME=MODEL")
        named[name] = model
    return named


def _hours(text: str) -> float | None:
    return None if text.lower() == "nan" else positive(text)


def _by_name(folders: Sequence[Path]) -> dict[str, Path]:
    sets: dict[str, Path] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in sets:
            raise MlmaError(f"{folder}: {sets[name]} has the same name; measure one separately")
        sets[name] = folder
    return sets


def check_place(out: Path, sets: Collection[str]) -> None:
    """Check that the folders of test sets can be written to a place without other sets.

    Args:
        out: will contain the folders; need not exist.
        sets: names of the test sets.

    Raises:
        MlmaError: a file or a data folder is in the way, or another decoded set is in `out`, whose
            figures would be lost.
    """
    nearest = next(place for place in (out, *out.parents) if place.exists())
    if not nearest.is_dir():
        raise MlmaError(f"{nearest}: a file; give another --output")
    data = next((out / name for name in sets if (out / name / "wav.scp").exists()), None)
    if data:
        raise MlmaError(f"{data}: a data folder, would be replaced; give another --output")
    other = min({text.parent.name for text in out.glob("*/text")} - set(sets), default=None)
    if other:
        raise MlmaError(
            f"{out}: has {other} of an earlier run, its figures would be lost; add {other} to "
            "--data, or give another --output"
        )


def language_of(folder: Path) -> str | None:
    """Return the language of a set; None: it has several.

    Raises:
        MlmaError: the set has no `utt2lang`.
    """
    languages = set(read(folder / "utt2lang", "stage 3").values())
    return languages.pop() if len(languages) == 1 else None


def with_language(recogniser: Recogniser, language: str | None) -> Recogniser | WindowedRecogniser:
    """Return a recogniser of one language with the same model.

    Args:
        recogniser: returned unchanged if its model takes no language.
        language: ISO 639-1 code; None: the model recognises it.

    Raises:
        MlmaError: the model does not know the language.
    """
    from espnet_mlma.decode import Recogniser
    from espnet_mlma.decode.owsm import SpeechToTextModel

    acoustic, config = recogniser.acoustic, recogniser.config
    if not isinstance(acoustic, SpeechToTextModel):
        return recogniser
    return WindowedRecogniser(
        Recogniser(
            SpeechToTextModel(acoustic.model, config, acoustic.device, language),
            config,
            recogniser.decoding,
            recogniser.calibration,
            batch_seconds=recogniser.batch_seconds,
        )
    )


def warm_up(recognisers: Iterable[Recogniser | WindowedRecogniser]) -> None:
    """Recognise a second of silence with each."""
    import numpy as np

    from espnet_mlma.audio import SAMPLE_RATE

    for recogniser in recognisers:
        recogniser.transcribe_batch([np.zeros(SAMPLE_RATE, np.float32)])


def decode(
    sets: Mapping[str, tuple[Path, BatchRecogniser]],
    out: Path,
    batch_seconds: float,
    device: str,
    made_with: Mapping[str, Any],
) -> tuple[float, float, int | None]:
    """Decode sets as stage 12 does.

    Args:
        sets: data folder and recogniser by name.
        out: will contain a folder per set.
        batch_seconds: most audio in a batch, padding included.
        device: of the models.
        made_with: contents of `decoding.yaml` that the sets share.

    Returns:
        Seconds of audio, seconds of decoding, and peak memory in bytes.

    Raises:
        MlmaError: a set has no utterance that can be read.
    """
    from espnet_mlma.decode.fingerprint import of_data
    from espnet_mlma.decode.folder import columns, decode_folder, write_results

    audio = seconds = 0.0
    reset_peak_memory(device)
    for name, (folder, recogniser) in sets.items():
        start = time.perf_counter()
        results, skipped = decode_folder(recogniser, folder, batch_seconds)
        seconds += time.perf_counter() - start
        if not results:
            raise MlmaError(f"{folder}: the set has no utterance; run stage 3 again")
        of_set = sum(transcript.duration for transcript in results.values())
        audio += of_set
        rows = {id_: columns(transcript) for id_, transcript in results.items()}
        data = {"data": of_data(folder), "audio_seconds": of_set, "skipped": skipped}
        write_results(rows, out / name, {**made_with, **data})
    return audio, seconds, peak_bytes(device)
