"""Registration in fresh interpreters, for any order of imports."""

import subprocess
import sys

import pytest

from espnet_mlma.espnet.plugin import TASKS


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_neither_torch_nor_espnet():
    code = "import sys, espnet_mlma; print(sorted({'torch', 'espnet2'} & sys.modules.keys()))"
    assert python("-c", code).strip() == "[]"


@pytest.mark.parametrize("order", ["plugin first", "task first"])
@pytest.mark.slow
def test_registered_in_every_task(order):
    imports = ["import espnet_mlma", *(f"import {task}" for task in sorted(TASKS))]
    if order == "task first":
        imports = imports[1:] + imports[:1]
    names = (
        "[n for n in TASKS if 'conmamba' not in sys.modules[n].encoder_choices.choices()"
        " or 'clip_specaug' not in sys.modules[n].specaug_choices.choices()]"
    )
    code = "\n".join(["import sys", *imports, "from espnet_mlma.espnet.plugin import TASKS"])
    assert python("-c", f"{code}\nprint(len(TASKS), {names})").strip() == f"{len(TASKS)} []"


@pytest.mark.slow
def test_spawned_workers_are_registered(tmp_path):
    """ESPnet's multi-GPU training uses multiprocessing's spawn."""
    script = tmp_path / "spawns.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from espnet2.tasks.asr import ASRTask\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    with context.Pool(1) as pool:\n"
        "        print(pool.apply(eval, (\"'conmamba' in __import__("
        "'espnet2.tasks.asr', fromlist=['x']).encoder_choices.choices()\",)), sys.argv[1:])\n"
    )
    assert python("-m", "espnet_mlma.run", str(script), "--x", "1").strip() == "True ['--x', '1']"


@pytest.mark.slow
def test_run_behaves_like_the_interpreter():
    run = ("-m", "espnet_mlma.run")
    assert python(*run, "-c", "import sys; print(sys.argv)", "a").strip() == "['-c', 'a']"
    assert "--encoder" in python(*run, "-m", "espnet2.bin.asr_train", "--help")
    done = subprocess.run([sys.executable, *run], capture_output=True, text=True)
    assert done.returncode == 1 and "usage:" in done.stderr
