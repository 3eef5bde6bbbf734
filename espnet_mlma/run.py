"""Run an ESPnet program with the plugin registered: `python -m espnet_mlma.run` for `python`.

    python -m espnet_mlma.run -m espnet2.bin.asr_train --config conf/train_asr_conmamba.yaml ...
    python -m espnet_mlma.run script.py ...
    python -m espnet_mlma.run -c "import espnet2; ..."

The main module of the process stays `espnet_mlma.run`. Processes that multiprocessing spawns import
the main module first, so they have the plugin too.

Training is protected (`espnet/guard.py`): files are written whole, and a run resumes only with its
original data and options.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from espnet_mlma.errors import run_cli
from espnet_mlma.espnet import guard, plugin
from espnet_mlma.memory import keep_freed_memory
from espnet_mlma.workers import kill_with_parent

USAGE = "usage: python -m espnet_mlma.run (-m MODULE | -c CODE | SCRIPT) [arguments]"


def main(arguments: list[str]) -> None:
    """Run a module, a script or code as the interpreter would.

    Args:
        arguments: the arguments that `python` would get.

    Raises:
        SystemExit: the arguments are incomplete, or the script cannot be read.
    """
    if not arguments or (arguments[0] in ("-m", "-c") and len(arguments) < 2):
        raise SystemExit(USAGE)
    keep_freed_memory()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__")
        return
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        code, name = arguments[1], "<string>"
    elif arguments[0].startswith("-"):
        raise SystemExit(f"unknown option {arguments[0]}\n{USAGE}")
    else:
        sys.argv = arguments
        try:
            code, name = Path(arguments[0]).read_text(encoding="utf-8"), arguments[0]
        except OSError as error:
            raise SystemExit(f"cannot open {arguments[0]}: {error.strerror}") from None
        sys.path[0] = str(Path(name).resolve().parent)
    # runpy.run_path would replace this module by the script in sys.modules. A spawned process would
    # then import the script without the plugin.
    exec(compile(code, name, "exec"), {"__name__": "__main__", "__file__": name})


if __name__ == "__mp_main__":
    kill_with_parent()  # else the processes of other GPUs outlive a killed training run
if __name__ in ("__main__", "__mp_main__"):
    for name, then in guard.HOOKS.items():
        plugin.after_import(name, then)

if __name__ == "__main__":
    run_cli(lambda: main(sys.argv[1:]), is_own=False)
