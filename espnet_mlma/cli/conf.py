"""Print values of a YAML file, one a line, for shell scripts.

mlma recipe conf conf/train_asr_conmamba.yaml batch_bins max_epoch=40
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml


def main(argv: Sequence[str] | None = None) -> None:
    """Print each value; `NAME=DEFAULT` prints the default where the file has no such name.

    Raises:
        MlmaError: a value is missing, or is a list or a mapping.
    """
    parser = ArgumentParser(prog="mlma recipe conf", description="Print values of a YAML file.")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("names", nargs="+", metavar="NAME[=DEFAULT]")
    args = parser.parse_args(argv)
    values = read_yaml(args.file, "give a configuration")
    print(*(value_of(args.file, values, name) for name in args.names), sep="\n")


def value_of(file: Path, values: dict, name: str) -> str:
    """Return a value as the shell writes it: true and false in lower case.

    Args:
        file: the configuration, for errors.
        values: its contents.
        name: of the value, or `NAME=DEFAULT`.

    Raises:
        MlmaError: the value is missing, or is a list or a mapping.
    """
    name, has_default, default = name.partition("=")
    value = values.get(name)
    if value is None:
        if has_default:
            return default
        raise MlmaError(f"{file}: {name} is missing; add it")
    if isinstance(value, list | dict):
        raise MlmaError(f"{file}: {name} is {value!r}; give one number or word")
    return str(value).lower() if isinstance(value, bool) else str(value)
