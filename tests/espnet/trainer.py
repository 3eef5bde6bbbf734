"""Train in forked processes; test_guard.py starts this through `espnet_mlma.run`.

Each line of the standard input is a job in JSON: the `folder` to run in, `options` of `asr_train`,
the `log` to write, and `kill`: the process is killed before this change (write, rename, link or
removal) in the experiment; 0: never.
"""

import json
import os
import signal
import sys

import torch
from espnet2.tasks.asr import ASRTask

from espnet_mlma.errors import run_cli

_CHANGES = ("os.rename", "os.link", "os.symlink", "os.remove")


def kill_before(number: int, place: str) -> None:
    """Kill this process before the n-th change below a folder."""
    left = number

    def hook(event: str, args: tuple) -> None:
        nonlocal left
        is_change = event in _CHANGES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR))
        if is_change and any(place in os.fspath(a) for a in args[:2] if not isinstance(a, int)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def train(job: dict) -> None:
    """Train and exit."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(job["folder"])
    code = 0
    if job["kill"]:
        kill_before(job["kill"], job["options"][job["options"].index("--output_dir") + 1])
    try:
        run_cli(lambda: ASRTask.main(cmd=job["options"]))
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


torch.set_num_threads(1)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        train(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
