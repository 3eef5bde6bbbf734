"""`mlma info`: describe a model, from its configuration and the shapes of its parameters.

Neither PyTorch nor ESPnet is imported, and the model is not built.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.cli import model
from espnet_mlma.cli.parser import Parser, UsageError, add_model, check_stdout, describe, shown
from espnet_mlma.data.tables import training_folders, training_tables
from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import configuration
from espnet_mlma.loading.paths import located
from espnet_mlma.loading.shapes import read as read_shapes

Shapes = Mapping[str, tuple[int, ...]]
_SAMPLE = 12  # symbols of the vocabulary to print
_LAYER = re.compile(r"encoder\.(?:blocks|encoders)\.(\d+)\.")
_LANGUAGE_SYMBOL = re.compile(r"<([a-z]{2,3})>")
_NO_LANGUAGE = frozenset({"asr", "eos", "na", "pad", "sop", "sos", "unk"})


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "mlma info exp/asr_small\n  prints facts from config.yaml and the checkpoint",
    )
    parser.add_argument("positional", nargs="?", metavar="MODEL", help="the same as --model")
    add_model(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print one fact per line."""
    if arguments.positional and arguments.model:
        raise UsageError(f"{arguments.positional} and --model {arguments.model}: give one of both")
    check_stdout()
    name = model.choose(arguments.positional or arguments.model)
    with located(Path(name)) as (config_file, checkpoint):
        config = configuration.read(config_file)
        shapes = read_shapes(checkpoint)
        head = shapes.get("ctc.ctc_lo.weight", ())
        if len(head) != 2 or head[0] != len(config["token_list"]):
            raise MlmaError(
                f"{checkpoint}: no CTC head for the {len(config['token_list'])} symbols of "
                f"{config_file}; give files of one training"
            )
    for what, value in list(facts(name, shapes, config)):  # an error comes before any output
        print(f"{what + ':':<14}{value}")


def facts(name: str, shapes: Shapes, config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and values in the order of printing.

    Args:
        name: of the model on the command line; its recipe is searched above this path.
        shapes: of the parameters.
        config: the training configuration.
    """
    folders = training_folders(config)
    tables = training_tables(Path(name), config, "utt2lang")
    yield "model", shown(name)
    yield "encoder", encoder(shapes, config)
    yield "parameters", parameters(shapes)
    yield "vocabulary", vocabulary(config["token_list"], config["token_type"])
    yield "languages", languages(tables, config["token_list"])
    yield "training set", ", ".join(folder.name for folder in folders) or "not in the configuration"
    yield "audio", audio(config)


def encoder(shapes: Shapes, config: dict[str, Any]) -> str:
    """Return kind and size of an encoder of ours or ESPnet's."""
    layers = {layer[1] for layer in map(_LAYER.match, shapes) if layer}
    size = f"of {shapes['ctc.ctc_lo.weight'][1]}"
    is_causal = (config.get("encoder_conf") or {}).get("bimamba") == "none"
    return (
        f"{config['encoder']}, {f'{len(layers)} layers ' if layers else ''}{size}"
        f"{', causal' if is_causal else ''}"
    )


def parameters(shapes: Shapes) -> str:
    """Return the number of parameters, in all and of each part."""
    parts: Counter[str] = Counter()
    for name, shape in shapes.items():
        parts[name.partition(".")[0]] += math.prod(shape)
    by_part = ", ".join(f"{name} {number:,}" for name, number in parts.items())
    return f"{parts.total():,} ({by_part})"


def vocabulary(tokens: Sequence[str], token_type: str) -> str:
    """Return number and type of the symbols, and some of them."""
    some = " ".join(tokens[:_SAMPLE]) + (" ..." if len(tokens) > _SAMPLE else "")
    return f"{len(tokens)} {token_type}: {some}"


def languages(tables: Sequence[Path], tokens: Sequence[str]) -> str:
    """Return the utterances per language of the training set, or the languages among the symbols.

    Args:
        tables: `utt2lang` files of the training set that exist.
        tokens: the vocabulary.
    """
    counts: Counter[str] = Counter()
    for table in tables:
        lines = table.read_text(encoding="utf-8").splitlines()
        counts.update(row[1] for row in map(str.split, lines) if len(row) > 1)
    if counts:
        return (
            ", ".join(f"{language} {n}" for language, n in sorted(counts.items())) + " utterances"
        )
    named = (match[1] for match in map(_LANGUAGE_SYMBOL.fullmatch, tokens) if match)
    return (
        " ".join(sorted(set(named) - _NO_LANGUAGE))
        or "unknown; the training set is not on this machine"
    )


def audio(config: dict[str, Any]) -> str:
    """Return the sampling rate, and the milliseconds of an encoder frame if they are known."""
    samples = configuration.frame_samples(config)
    frame = f", a frame every {1000 * samples / SAMPLE_RATE:g} ms" if samples else ""
    return f"{SAMPLE_RATE} Hz{frame}"
