"""`mlma demo`: serve a local web page that transcribes."""

from __future__ import annotations

import argparse

from espnet_mlma.cli import model
from espnet_mlma.cli.parser import DEFAULT_MODEL, Parser, UsageError, describe
from espnet_mlma.espnet.imports import import_espnet
from espnet_mlma.numbers import natural, positive


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "mlma demo --model exp/asr_small exp/asr_large\n"
        "  serves http://127.0.0.1:7860 with the two models side by side, until Ctrl-C",
        {0: "Ctrl-C ended the page", 130: "Ctrl-C before the page was ready"},
    )
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="PATH|ZIP|HUB_ID",
        help=f"one, or two to compare: {DEFAULT_MODEL}",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 admits everyone who can reach this machine "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--allow-host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="other names under which browsers reach the page, such as a reverse proxy's; "
        "requests under unknown names are refused",
    )
    parser.add_argument("--port", type=natural, default=7860, help="(default: %(default)s)")
    parser.add_argument(
        "--max-minutes",
        type=positive,
        default=10.0,
        metavar="M",
        help="maximum length of audio (default: 10)",
    )
    parser.add_argument(
        "--max-mb",
        type=positive,
        default=50.0,
        metavar="MB",
        help="maximum size of an upload, all files together (default: 50)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UsageError: more than two models are named.
    """
    named = arguments.model or [None]
    if len(named) > 2:
        raise UsageError(f"--model names {len(named)} models; the page compares two")
    names = [model.choose(name) for name in named]
    import_espnet()

    from espnet_mlma.demo import launch

    launch(
        names,
        host=arguments.host,
        port=arguments.port,
        max_minutes=arguments.max_minutes,
        max_megabytes=arguments.max_mb,
        other_hosts=arguments.allow_host,
    )
