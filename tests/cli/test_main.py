"""What all commands have in common."""

import os
import signal
import subprocess
import sys

import pytest

from espnet_mlma.cli import COMMANDS, model
from espnet_mlma.version import __version__

NAMES = list(COMMANDS)


def test_the_commands_are_there(mlma):
    expected = "align bench compare data demo info recipe report stream transcribe translate"
    assert sorted(NAMES) == expected.split()
    code, out, _ = mlma("--help")
    assert code == 0
    assert all(name in out for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example_that_parses_and_the_exit_codes(mlma, name):
    code, out, _ = mlma(name, "--help")
    assert code == 0
    _, epilog = out.split("example:\n")
    example, codes = epilog.split("exit codes:\n")
    line = example.strip().splitlines()[0].rpartition("| ")[2]
    assert line.startswith(f"mlma {name}")
    assert [row.split()[0] for row in codes.splitlines()] == ["0", "1", "2", "130", "141"]


def test_version(mlma):
    assert mlma("--version") == (0, f"mlma {__version__}\n", "")


def imported_by(*arguments: object) -> set[str]:
    """Run a command in a process of its own; return the modules that it imported."""
    code = (
        "import sys\n"
        "from espnet_mlma.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_help_imports_no_command():
    imported = imported_by("--help")
    commands = {f"espnet_mlma.cli.{name}" for name in NAMES}
    assert not imported & {*commands, "yaml", "numpy", "torch", "espnet2"}


def test_help_of_a_command_imports_neither_numpy_nor_torch():
    imported = imported_by("transcribe", "--help")
    assert not imported & {"numpy", "torch", "espnet2", "tqdm"}
    assert "espnet_mlma.cli.stream" not in imported


def test_info_imports_neither_torch_nor_espnet(experiment):
    assert not imported_by("info", experiment) & {"torch", "espnet2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["transcribe"], "FILE"),
        (["transcribe", "a.wav", "--format", "doc"], "'doc' is none of txt, json"),
        (["transcribe", "a.wav", "--beam-size", "0"], "0 is not a whole number above 0"),
        (["transcribe", "a.wav", "--output", "out"], "no --format"),
        (["transcribe", "a.wav", "--lm-weight", "3"], "--lm-weight has no effect without --lm"),
        (["transcribe", "a.wav", "--word-bonus", "3"], "--word-bonus has no effect without --lm"),
        (["transcribe", "a.wav", "--hotword-weight", "3"], "no effect without --hotwords"),
        (["transcribe", "a.wav", "--lm-weight", "nan"], "nan is not a finite number"),
        (["stream", "--lookahead", "-1"], "-1 is below 0"),
        (["align", "a.wav"], "--text"),
        (["bench", "--seconds", "-1"], "-1 is not a number above 0"),
        (["demo", "--model", "a", "b", "c"], "names 3 models"),
    ],
)
def test_wrong_usage_is_one_line_and_2(mlma, arguments, message):
    code, out, err = mlma(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert err.endswith(" --help\n")


def test_without_a_model_one_line_says_how_to_get_one(mlma, monkeypatch, tmp_path):
    monkeypatch.delenv("MLMA_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model, "CHECKOUT", tmp_path)
    code, out, err = mlma("info")
    assert (code, out) == (1, "")
    assert err.startswith("error: no model: give --model")
    assert "make demo" in err
    assert err.count("\n") == 1


def test_the_default_is_the_environments_then_the_demonstration_here(monkeypatch, tmp_path):
    monkeypatch.delenv("MLMA_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / model.DEMO).mkdir(parents=True)
    (tmp_path / model.DEMO / "config.yaml").write_text("")
    assert model.choose(None) == str(model.DEMO)
    assert model.choose("user/other") == "user/other"
    monkeypatch.setenv("MLMA_MODEL", "of/environment")
    assert model.choose(None) == "of/environment"


def test_a_model_that_is_not_there_is_named(mlma, tmp_path):
    code, _, err = mlma("info", tmp_path / "nothing")
    assert code == 1
    assert err.startswith(f"error: {tmp_path}/nothing")
    assert err.count("\n") == 1


def start(body: str) -> subprocess.Popen:
    """A process that runs a command whose work is `body`."""
    code = (
        "import time\n"
        "from argparse import Namespace\n"
        "from espnet_mlma.cli import run_command\n"
        "from espnet_mlma.errors import run_cli\n"
        f"def run(arguments): {body}\n"
        "run_cli(lambda: run_command(Namespace(run=run)))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_ctrl_c_ends_with_130_and_without_a_word():
    process = start("print('begun', flush=True); time.sleep(60)")
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")


def test_a_full_disk_is_one_line():
    command = [sys.executable, "-m", "espnet_mlma.cli", "compare"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: the disk is full; make room\n"


def test_a_broken_pipe_prints_no_error():
    process = start("print('a line')")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


def test_waiting_threads_leave_the_processor_to_others(mlma, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert mlma("recipe", "conf", "conf/decode_ctc_best_path.yaml", "beam_size=1")[0] == 0
    assert "GOMP_SPINCOUNT" not in os.environ  # a program of the recipe sets its threads itself
    mlma("info", "--model", "nothing")
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
