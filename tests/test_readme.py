"""The README's commands run as written.

Its Python needs a trained demonstration: MLMA_EXPERIMENT names one, as `.ci/run` does. The two
`make` commands are what `.ci/run` and a newcomer call; here they are looked at by `make -n`.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = "egs2/mlma/asr1/exp/asr_train_asr_conmamba_mini_raw_mini_char"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shell_lines() -> list[str]:
    text = "".join(blocks("bash")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_make_targets_are_there(line):
    target = line.split("#")[0].split()[1]
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("line", [line for line in shell_lines() if "./run.sh" in line])
def test_recipe_lines_are_accepted(line, tmp_path):
    """Each is run with stages that do nothing: its options and mixture are looked at."""
    command = line.split("#")[0].strip() + " --stage 99 --stop_stage 0"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    recipe = ROOT / "egs2" / "mlma" / "asr1"
    subprocess.run(["bash", "-c", command], cwd=recipe, check=True, env=os.environ | {"PATH": path})


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("python")])
@pytest.mark.slow
def test_python_lines_start(line):
    """A program of ours or of ESPnet answers to --help behind the launcher."""
    module = re.match(r"python (-m espnet_mlma\S* (?:-m \S+ )?)", line)
    subprocess.run([sys.executable, *module[1].split(), "--help"], check=True, capture_output=True)


COMMANDS = [line.split("#")[0].strip() for line in shell_lines() if line.startswith("mlma ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_run(line, tmp_path):
    """Those that end by themselves run on a trained model; of the others the options are read."""
    if line == "mlma demo":
        line += " --help"
    elif "MLMA_EXPERIMENT" not in os.environ:
        pytest.skip("MLMA_EXPERIMENT names no experiment folder")
    experiment = Path(os.environ.get("MLMA_EXPERIMENT", DEMO)).resolve()
    (tmp_path / "egs2").symlink_to(experiment.parents[3])
    (tmp_path / "samples.raw").write_bytes(bytes(32000))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "MLMA_MODEL": str(experiment)}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    if "-o subtitles" in line:
        assert {file.suffix for file in (tmp_path / "subtitles").iterdir()} == {".srt", ".json"}
    elif "stream" not in line:  # there is nothing to hear in what it is given
        assert done.stdout.strip()


def test_python_blocks_run(monkeypatch, capsys):
    if "MLMA_EXPERIMENT" not in os.environ:
        pytest.skip("MLMA_EXPERIMENT names no experiment folder")
    experiment = os.path.relpath(os.environ["MLMA_EXPERIMENT"], ROOT)
    monkeypatch.chdir(ROOT)
    assert blocks("python")
    for block in blocks("python"):
        exec(compile(block.replace(DEMO, experiment), "README.md", "exec"), {})
        assert capsys.readouterr().out.strip()


def test_yaml_blocks_build_the_encoder():
    from espnet_mlma.encoder import ConMambaEncoder

    found = 0
    for block in blocks("yaml"):
        options = yaml.safe_load(block)
        assert options["encoder"] == "conmamba"
        ConMambaEncoder(80, **options["encoder_conf"])
        found += 1
    assert found


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def documented_commands() -> list[str]:
    """Command lines that begin with `mlma`, in the documents' shell blocks."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += re.findall(r"(?:^|\| )(mlma .*)", "\n".join(lines), re.MULTILINE)
    return sorted(set(found))


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_are_parsed(line):
    from espnet_mlma.cli import build_parser

    words = shlex.split(line, comments=True)
    words = words[1 : min(words.index(sign) if sign in words else len(words) for sign in "<>|")]
    assert build_parser().parse_args(words).run
