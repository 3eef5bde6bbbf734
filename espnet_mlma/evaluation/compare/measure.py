"""Decode test sets with CTC models of ESPnet's, one after another, and measure what that takes.

Each model has a process and a folder of its own. Time is the wall clock's while sets are decoded:
reading of audio, features, encoder, search. Memory is the most that this process holds meanwhile,
model and libraries included; on a GPU, what tensors take there. Imports, loading, a first utterance
that warms up and the writing of results count for neither.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_mlma.arguments import ArgumentParser, refuse_to_replace
from espnet_mlma.claims import claim
from espnet_mlma.data.tables import read
from espnet_mlma.errors import MlmaError, run_cli
from espnet_mlma.espnet.imports import import_espnet
from espnet_mlma.files import write
from espnet_mlma.numbers import positive
from espnet_mlma.workers import kill_with_parent

if TYPE_CHECKING:
    import numpy as np

    from espnet_mlma.decode import Recogniser, Transcript

FILE = "measured.json"


@dataclass(frozen=True)
class Measured:
    """What decoding took; the contents of `measured.json`.

    Attributes:
        system: the model's name.
        model: where it was read from, a path from the root, or its hub id.
        run: when the run began; the same for models that were measured in one.
        sets: names of the test sets.
        parameters: how many.
        training_hours: of audio; None: unknown.
        audio_seconds: that were decoded.
        seconds: that it took.
        rtf: seconds per second of audio.
        peak_bytes: most memory; None: the system does not tell.
        machine: processor and threads, or GPU, and PyTorch.
        usd_per_machine_hour: what the machine costs; None: unknown.

    Raises:
        ValueError, TypeError: a figure is not above 0, or a name is no text.
    """

    system: str
    model: str
    run: str
    sets: Sequence[str]
    parameters: int
    training_hours: float | None
    audio_seconds: float
    seconds: float
    rtf: float
    peak_bytes: int | None
    machine: str
    usd_per_machine_hour: float | None

    def __post_init__(self) -> None:
        names = (self.system, self.model, self.run, self.machine, *self.sets)
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a name is no text")
        known = (self.parameters, self.audio_seconds, self.seconds, self.rtf)
        told = (self.training_hours, self.peak_bytes, self.usd_per_machine_hour)
        if not all(figure > 0 for figure in (*known, *(f for f in told if f is not None))):
            raise ValueError("a figure is not above 0")


@dataclass(frozen=True)
class Windowed:
    """A recogniser whose model hears windows of one length, for utterances of any.

    A short utterance costs as much as a window, so they are what a batch is counted in, and what
    is longer than one is cut.
    """

    recogniser: Recogniser

    def transcribe_batch(self, utterances: Sequence[np.ndarray]) -> list[Transcript]:
        """As of `Recogniser`."""
        from espnet_mlma.audio import SAMPLE_RATE

        window = self.recogniser.acoustic.window_seconds
        at_once = max(1, int(self.recogniser.batch_seconds // window))
        whole = [samples for samples in utterances if len(samples) <= window * SAMPLE_RATE]
        batches = (whole[i : i + at_once] for i in range(0, len(whole), at_once))
        heard = (found for batch in batches for found in self.recogniser.transcribe_batch(batch))
        return [
            next(heard)
            if len(samples) <= window * SAMPLE_RATE
            else self.recogniser.transcribe(samples)
            for samples in utterances
        ]


def main() -> None:
    """Decode the sets with each model; see `measure`."""
    parser = _parser()
    args = parser.parse_args()
    models = _named(args.model)
    sets = _by_name(args.data)
    if args.training_hours and len(args.training_hours) != len(models):
        parser.error("--training_hours: give one for each model; nan where it is unknown")
    hours = dict(zip(models, args.training_hours, strict=False))
    if args.only is None:
        check(models, sets, args.out)
    if args.only is None and len(models) > 1:
        for name in models:
            own = ["--run", args.run, "--only", name]
            command = [
                sys.executable,
                "-m",
                "espnet_mlma.evaluation.compare.measure",
                *sys.argv[1:],
                *own,
            ]
            code = subprocess.run(command).returncode
            if code:
                raise SystemExit(code)
        return
    if args.only:
        kill_with_parent()
    name = args.only or next(iter(models))
    with claim(args.out / name, "measures it"):
        measure(args, models[name], sets, args.out / name, hours.get(name))


def check(models: Mapping[str, str], sets: Mapping[str, Path], out: Path) -> None:
    """See, before any is decoded, that models and sets are there and results can be written.

    Args:
        models: paths or hub ids by name.
        sets: data folders by name.
        out: gets a folder for each model.

    Raises:
        MlmaError: a file is missing, or something is in the way.
    """
    from espnet_mlma.loading.checkpoint import check_path

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
        model: a path or a hub id.
        sets: data folders by name.
        out: gets the folders.
        training_hours: of the model; None: unknown.

    Raises:
        MlmaError: the model or a set cannot be read, they do not go together, or the folders
            cannot be written.
    """
    import_espnet()

    from espnet_mlma.decode import Decoding, load
    from espnet_mlma.decode.fingerprint import of_decoding
    from espnet_mlma.decode.precision import count_parameters
    from espnet_mlma.loading.checkpoint import located
    from espnet_mlma.memory import keep_freed_memory

    keep_freed_memory()
    with located(Path(model)) as (config, model_file):
        made_with = of_decoding(config, model_file, args.batch_seconds, Decoding())
    made_with["options"]["language"] = args.language
    recogniser = load(model, device=args.device, batch_seconds=args.batch_seconds)
    made_with["parameters"] = count_parameters(recogniser.model)
    languages = {name: args.language or language_of(folder) for name, folder in sets.items()}
    told = {language: tell(recogniser, language) for language in set(languages.values())}
    warm_up(told.values())
    # Where decoding does not end, sets of an earlier model must not stand beside those of this one.
    (out / FILE).unlink(missing_ok=True)
    for name in sets:
        if (out / name).exists():
            shutil.rmtree(out / name)
    audio, seconds, peak = decode(
        {name: (folder, told[languages[name]]) for name, folder in sets.items()},
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
        parameters=made_with["parameters"],
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
        prog="python -m espnet_mlma.evaluation.compare.measure",
        description=__doc__.splitlines()[0],
        epilog="Then `mlma compare NAME=OUT/NAME ...` puts them side by side.",
    )
    parser.add_argument(
        "--model",
        action="extend",
        nargs="+",
        required=True,
        metavar="[NAME=]PATH|ZIP|HUB_ID",
        help="NAME is its folder in --out (default: the last part of the path or id)",
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="SET", help="dump/raw/<set>"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help=f"gets NAME/, with a folder per set and {FILE}"
    )
    parser.add_argument(
        "--language", metavar="CODE", help="what is spoken; without it what a set's utt2lang says"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; without it a GPU where there is one")
    parser.add_argument(
        "--batch_seconds", type=positive, default=60.0, help="of audio at once (default: 60)"
    )
    parser.add_argument(
        "--training_hours", type=_hours, nargs="+", default=[], metavar="H", help="of each model"
    )
    parser.add_argument("--usd_per_hour", type=positive, metavar="X", help="what the machine costs")
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    # Given to the process of one of several models.
    parser.add_argument("--run", default=started, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser


def _named(models: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for given in models:
        name, is_named, model = given.partition("=")
        place = Path(model if is_named else given)
        if place.name == "config.yaml" and place.is_file():
            place = place.parent  # the experiment, by which its training set is found
        name, model = name if is_named else place.resolve().name, str(place)
        if name in named:
            raise MlmaError(f"two models are called {name!r}; give NAME=MODEL")
        named[name] = model
    return named


def _hours(text: str) -> float | None:
    return None if text.lower() == "nan" else positive(text)


def _by_name(folders: Sequence[Path]) -> dict[str, Path]:
    sets: dict[str, Path] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in sets:
            raise MlmaError(f"{folder}: {sets[name]} has the same name; measure one by itself")
        sets[name] = folder
    return sets


def check_place(out: Path, sets: Collection[str]) -> None:
    """See that folders of test sets can be written, and that there will be no others beside them.

    Args:
        out: gets the folders; need not be there.
        sets: names of the test sets.

    Raises:
        MlmaError: there is a file in the way, or a data folder, or the decoding of a set that is
            not among these, whose figures would be lost.
    """
    nearest = next(place for place in (out, *out.parents) if place.exists())
    if not nearest.is_dir():
        raise MlmaError(f"{nearest}: a file; give another --out")
    data = next((out / name for name in sets if (out / name / "wav.scp").exists()), None)
    if data:
        raise MlmaError(f"{data}: a data folder, which would be replaced; give another --out")
    other = min({text.parent.name for text in out.glob("*/text")} - set(sets), default=None)
    if other:
        raise MlmaError(
            f"{out}: has {other} of an earlier run, whose figures would be lost; add {other} to "
            "--data, or give another --out"
        )


def language_of(folder: Path) -> str | None:
    """The language of a set's utterances; None: they have several.

    Raises:
        MlmaError: the set does not tell languages.
    """
    languages = set(read(folder / "utt2lang", "stage 3").values())
    return languages.pop() if len(languages) == 1 else None


def tell(recogniser: Recogniser, language: str | None) -> Recogniser | Windowed:
    """The recogniser of utterances in a language, with the same model.

    Args:
        recogniser: of any model; those that take no language remain as they are.
        language: None: the model finds out.

    Raises:
        MlmaError: the model does not know the language.
    """
    from espnet_mlma.decode import Recogniser
    from espnet_mlma.decode.owsm import SpeechToTextModel

    acoustic, config = recogniser.acoustic, recogniser.config
    if not isinstance(acoustic, SpeechToTextModel):
        return recogniser
    told = SpeechToTextModel(acoustic.model, config, acoustic.device, language)
    return Windowed(
        Recogniser(
            told,
            config,
            recogniser.decoding,
            recogniser.calibration,
            batch_seconds=recogniser.batch_seconds,
        )
    )


def warm_up(recognisers: Iterable[Recogniser | Windowed]) -> None:
    """Recognise a second of silence with each."""
    import numpy as np

    from espnet_mlma.audio import SAMPLE_RATE

    for recogniser in recognisers:
        recogniser.transcribe_batch([np.zeros(SAMPLE_RATE, np.float32)])


def decode(
    sets: dict[str, tuple[Path, Recogniser | Windowed]],
    out: Path,
    batch_seconds: float,
    device: str,
    made_with: Mapping[str, Any],
) -> tuple[float, float, int | None]:
    """Decode sets as stage 12 does.

    Args:
        sets: of each name the data folder, and what recognises it.
        out: gets a folder per set.
        batch_seconds: most audio in a batch, padding included.
        device: where the models are.
        made_with: what the sets are decoded with, for `decoding.yaml`.

    Returns:
        Seconds of audio, seconds that it took, and the most memory in bytes.

    Raises:
        MlmaError: no sound of a set can be read, or it has none.
    """
    from espnet_mlma.decode.fingerprint import of_data
    from espnet_mlma.decode.folder import columns, decode_folder, write_results

    audio = seconds = 0.0
    forget_peak(device)
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


def forget_peak(device: str) -> None:
    """Have `peak_bytes` count from here."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        # What loading freed must not count.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return  # no Linux, or no glibc: loading counts


def peak_bytes(device: str) -> int | None:
    """Most memory since `forget_peak`: of the process, or on a GPU; None: the system has no /proc.

    Source: proc(5), clear_refs and VmHWM.
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def machine(device: str) -> str:
    """What computes: the same text on the same machine with the same settings."""
    import torch

    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(names, platform.machine())
    return f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}"


if __name__ == "__main__":
    run_cli(main)
