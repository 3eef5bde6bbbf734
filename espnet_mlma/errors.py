"""The one exception of the package: something the user can mend."""

from __future__ import annotations

import sys
from collections.abc import Callable


class MlmaError(Exception):
    """What is wrong, where (file and line, or utterance id), and what to do, in one line."""


def run_cli(main: Callable[[], object]) -> None:
    """Run a command-line entry point; print an `MlmaError` as one line and exit with 1.

    Ctrl-C exits with 130, as the shell would have it.

    Args:
        main: the entry point; reads its own arguments.
    """
    try:
        main()
    except MlmaError as error:
        # That of a data loader's process comes with its traceback, and at the end of that.
        text = str(error).rpartition(f"{__name__}.{MlmaError.__name__}: ")[2].rstrip()
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
