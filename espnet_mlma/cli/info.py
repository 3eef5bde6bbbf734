"""`mlma info`: describe a model."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_mlma.cli import model
from espnet_mlma.cli.parser import UsageError, add_command, add_model, check_stdout, shown
from espnet_mlma.data.tables import training_folders, training_tables
from espnet_mlma.espnet.imports import import_espnet

if TYPE_CHECKING:
    from torch import nn

_SAMPLE = 12  # symbols of the vocabulary to print
_LANGUAGE_SYMBOL = re.compile(r"<([a-z]{2,3})>")
_NO_LANGUAGE = frozenset({"asr", "eos", "na", "pad", "sop", "sos", "unk"})


def add_to(commands) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "info",
        run,
        "describe a model: layers, parameters, vocabulary, languages, training set",
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
    import_espnet()

    from espnet_mlma.loading import checkpoint

    network, config = checkpoint.build(Path(name))
    for what, value in list(facts(name, network, config)):  # an error comes before any output
        print(f"{what + ':':<14}{value}")


def facts(name: str, network: nn.Module, config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and values in the order of printing.

    Args:
        name: of the model on the command line; its recipe is searched above this path.
        network: the model.
        config: the training configuration.
    """
    folders = training_folders(config)
    tables = training_tables(Path(name), config, "utt2lang")
    yield "model", shown(name)
    yield "encoder", encoder(network.encoder, config["encoder"])
    yield "parameters", parameters(network)
    yield "vocabulary", vocabulary(config["token_list"], config["token_type"])
    yield "languages", languages(tables, config["token_list"])
    yield "training set", ", ".join(folder.name for folder in folders) or "not in the configuration"
    yield "audio", audio(network, config)


def encoder(network: nn.Module, kind: str) -> str:
    """Return kind and size of an encoder of ours or ESPnet's."""
    layers = getattr(network, "blocks", None) or getattr(network, "encoders", ())
    size = f"{len(layers)} layers of {network.output_size()}" if layers else type(network).__name__
    is_causal = getattr(network, "is_causal", bool)()
    return f"{kind}, {size}{', causal' if is_causal else ''}"


def parameters(network: nn.Module) -> str:
    """Return the number of parameters, in all and of each part."""
    parts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in network.named_children()
    }
    by_part = ", ".join(f"{name} {number:,}" for name, number in parts.items() if number)
    return f"{sum(parameter.numel() for parameter in network.parameters()):,} ({by_part})"


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


def audio(network: nn.Module, config: dict[str, Any]) -> str:
    """Return the sampling rate and the milliseconds of an encoder frame."""
    from espnet_mlma.audio import SAMPLE_RATE
    from espnet_mlma.decode.owsm import acoustic_model

    acoustic = acoustic_model(network, config, "cpu")
    milliseconds = 1000 * acoustic.frame_samples / SAMPLE_RATE
    return f"{SAMPLE_RATE} Hz, a frame every {milliseconds:g} ms"
