"""run_paper.sh: the models of each table, finished models, errors."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_mlma.evaluation.compare import published

pytestmark = pytest.mark.slow  # each test starts several programs

ROOT = Path(__file__).resolve().parents[2]
OURS = ("conmamba", "conf/train_asr_conmamba.yaml")
LARGE = ("conmamba_42m", "conf/train_asr_conmamba_42m.yaml")
CONFORMER = ("conformer", "conf/train_asr_conformer.yaml")
TABLES = {
    3: [(*OURS, "ls960"), (*CONFORMER, "ls960")],
    4: [(*OURS, "bi3334"), (*CONFORMER, "bi3334")],
    5: [(*OURS, "mlma11840")],
    6: [(*OURS, "bi3334"), (*LARGE, "bi3334")],
    7: [(*OURS, "bi710"), (*OURS, "bi1210"), (*OURS, "bi3334")],
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Copy the recipe's folder; its asr.sh only writes its options to a file."""
    folder = tmp_path / "egs2" / "mlma" / "asr1"
    folder.mkdir(parents=True)
    for name in ("run_paper.sh", "run.sh", "path.sh", "db.sh"):
        shutil.copy(ROOT / "egs2" / "mlma" / "asr1" / name, folder)
    for name in ("conf", "local"):
        shutil.copytree(ROOT / name, folder / name)
    asr = folder / "asr.sh"
    check_only = 'case "$*" in *"--stop_stage 0") exit ;; esac'
    asr.write_text(f'#!/bin/sh\n{check_only}\nprintf "%s\\n" "$@" END >>called\n')
    asr.chmod(0o755)
    return folder


def run(recipe: Path, *options: object) -> subprocess.CompletedProcess:
    own = Path(sys.executable).parent
    variables = {"PATH": f"{own}:{os.environ['PATH']}", "VIRTUAL_ENV": str(own.parent)}
    return subprocess.run(
        [recipe / "run_paper.sh", *map(str, options)],
        env=os.environ | variables | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def options_of(words: list[str]) -> dict[str, str]:
    """Return the last value of each option of a command line."""
    return dict(zip(words[::2], words[1::2], strict=True))


def commands(done: subprocess.CompletedProcess) -> list[dict[str, str]]:
    """Return the options of each command of a dry run."""
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("  ")]
    assert {words[0] for words in lines} == {"./run.sh"}
    return [options_of(words[1:]) for words in lines]


@pytest.mark.parametrize("table", TABLES)
def test_models_of_a_table(recipe, table):
    found = commands(run(recipe, "--table", table, "--dry_run", "true", "--ngpu", 1))
    expected = [
        (f"paper_{name}_{mixture}", config, mixture) for name, config, mixture in TABLES[table]
    ]
    named = [(row["--asr_tag"], row["--asr_config"], row["--mixture"]) for row in found]
    assert named == expected
    for row in found:
        is_conformer = "conformer" in row["--asr_config"]
        assert row["--asr_args"].endswith("--encoder conformer_cnn4") == is_conformer
    # The second model on the same data starts at stage 11.
    mixtures = [row["--mixture"] for row in found]
    late = ["--stage" in row for row in found]
    assert late == [mixture in mixtures[:i] for i, mixture in enumerate(mixtures)]
    assert not (recipe / "called").exists()


def test_models_replaces_the_models_of_a_table(recipe):
    options = ["--table", 5, "--dry_run", "true", "--ngpu", 1, "--models", "conformer conmamba_42m"]
    found = commands(run(recipe, *options))
    tags = ["paper_conformer_mlma11840", "paper_conmamba_42m_mlma11840"]
    assert [row["--asr_tag"] for row in found] == tags
    assert found[0]["--asr_args"].endswith(" --encoder conformer_cnn4")
    assert [row["--asr_config"] for row in found] == [CONFORMER[1], LARGE[1]]


@pytest.mark.parametrize("gpus", [0, 1, 4, 16])
def test_an_update_has_the_same_speech_on_any_number_of_gpus(recipe, gpus):
    (row,) = commands(run(recipe, "--table", 5, "--dry_run", "true", "--ngpu", gpus))
    given = {name: int(n) for name, n in options_of(row["--asr_args"].split()).items()}
    assert row["--ngpu"] == str(gpus)
    assert given["--batch_bins"] * given["--accum_grad"] == 13_600 * 16_000
    assert given["--batch_bins"] / max(gpus, 1) == 850 * 16_000
    assert given["--num_iters_per_epoch"] / given["--accum_grad"] == 1_000


def test_options_are_passed_to_asr_sh_and_a_finished_model_is_skipped(recipe):
    done_model = recipe / "exp" / "asr_paper_conmamba_ls960_sp"
    done_model.mkdir(parents=True)
    (done_model / "RESULTS.md").touch()
    stats = recipe / "exp" / "asr_stats_raw_ls960_char_sp" / "valid"
    stats.mkdir(parents=True)
    (stats / "text_shape.char").touch()
    factors = ["--speed_perturb_factors", "0.95 1.0 1.05"]
    more = [*factors, "--inference_nj", "3", "--asr_args", "--seed 7", "--ngpu", "2"]
    done = run(recipe, "--table", 3, "--db_root", "/corpora", *more)
    assert done.returncode == 0, done.stderr
    assert "conmamba on ls960: exp/asr_paper_conmamba_ls960_sp\n  is finished" in done.stdout
    (called,) = (recipe / "called").read_text().removesuffix("END\n").split("END\n")
    given = options_of(called.splitlines())
    assert given["--asr_tag"] == "paper_conformer_ls960_sp"
    assert given["--speed_perturb_factors"] == "0.95 1.0 1.05"
    assert given["--inference_nj"] == "3"
    assert given["--stage"] == "11"
    assert given["--train_set"] == "train_ls960"
    assert given["--test_sets"] == "test_ls_en test_lsother_en"
    assert " --db_root /corpora " in given["--local_data_opts"]
    assert given["--asr_args"].endswith(" --encoder conformer_cnn4 --seed 7")


def test_a_model_that_fails_ends_the_run(recipe):
    (recipe / "asr.sh").write_text("#!/bin/sh\necho x >>called\nexit 3\n")
    assert run(recipe, "--table", 7, "--ngpu", 1).returncode == 3
    assert (recipe / "called").read_text() == "x\n"


# An asr.sh that writes the results of a model with a WER of 50 %.
SCORED = """#!/bin/sh
decoding=decode_ctc_best_path_asr_model_x
while [ $# -gt 0 ]; do
    case $1 in
        --asr_tag) experiment=exp/asr_$2 ;;
        --inference_tag) decoding=$2 ;;
    esac
    shift 2
done
for set in test_ls_en test_lsother_en; do
    mkdir -p "dump/raw/$set" "$experiment/$decoding/$set"
    echo "ls_en_a-1 well said" >"dump/raw/$set/text"
    echo "ls_en_a-1 ls_en_a" >"dump/raw/$set/utt2spk"
    echo "ls_en_a-1 en" >"dump/raw/$set/utt2lang"
    echo "ls_en_a-1 ls" >"dump/raw/$set/utt2category"
    echo "ls_en_a-1 well sad" >"$experiment/$decoding/$set/text"
done
touch "$experiment/RESULTS.md"
"""


@pytest.mark.parametrize("options", [[], ["--inference_tag", "greedy"]])
def test_finished_models_are_compared_with_the_papers(recipe, options):
    (recipe / "asr.sh").write_text(SCORED)
    done = run(recipe, "--table", 3, "--ngpu", 1, *options)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert any("conformer_ls960" in row and "50.0" in row for row in rows)
    assert any("MLMA Conformer" in row and "4.27" in row and "11.29" in row for row in rows)
    assert any("MLMA ConMamba" in row and "4.05" in row for row in rows)


@pytest.mark.parametrize("table", TABLES)
def test_the_comparison_knows_the_papers_models_of_a_table(recipe, table):
    (names,) = re.findall(
        rf"^ *{table}\) echo (mlma-\S+) ;;", (recipe / "run_paper.sh").read_text(), re.M
    )
    assert len(published.load_published().choose(names.split(","))) >= 2 * len(TABLES[table])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "error: --table is missing; give 3, 4, 5, 6 or 7"),
        (["--table", "2"], "error: --table '2': not a table"),
        (["--table"], "error: --table needs a value"),
        (["3"], "error: '3': not an option; options are --name value"),
        (["--table", "3", "--ngpu", "3"], "error: --ngpu 3: not supported; give 1, 2, 4, 8 or 16"),
        (["--table", "3", "--dry_run", "yes"], "error: --dry_run yes: not true or false"),
        (
            ["--table", "3", "--models", "rnn"],
            "error: --models 'rnn': unknown; give conmamba",
        ),
        (["--table", "3", "--asr-tag", "mine"], "error: --asr-tag: set by --table"),
    ],
)
def test_a_wrong_option_is_one_line(recipe, options, message):
    done = run(recipe, *options)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(message)
    assert not (recipe / "called").exists()


def test_a_dry_run_checks_the_options_of_asr_sh(recipe):
    for name in ("asr.sh", "cmd.sh"):
        shutil.copy(ROOT / "egs2" / "mlma" / "asr1" / name, recipe)
    options = ("--table", 3, "--ngpu", 1, "--dry_run", "true")
    assert len(commands(run(recipe, *options, "--nj", 3, "--stage", 11))) == 2
    done = run(recipe, *options, "--colour", "red")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: unknown option --colour")


def test_the_readme_lists_the_same_tables():
    text = (ROOT / "egs2" / "mlma" / "asr1" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| Table ([3-7]) \| (.*?) \| (.*?) \|", text, re.MULTILINE)
    found = {int(table): sorted(re.findall(r"\w+", mixtures)) for table, _, mixtures in rows}
    assert found == {table: sorted({of[2] for of in models}) for table, models in TABLES.items()}


@pytest.mark.slow
def test_without_a_gpu_the_cost_is_printed(recipe):
    done = run(recipe, "--table", 3, "--dry_run", "true", "--ngpu", 0)
    assert {row["--ngpu"] for row in commands(done)} == {"0"}
    assert "gpu_hours.py" in done.stderr
    assert not run(recipe, "--table", 3, "--dry_run", "true", "--ngpu", 1).stderr
