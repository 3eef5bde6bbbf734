"""The scripts of the recipe: options, stages, interruptions."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data import tables
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.text import LANGUAGES

ROOT = Path(__file__).resolve().parents[2]
SETS = shlex.split("--train_set train --valid_set dev --test_sets test --asr_config conf/tiny.yaml")
# Options of ESPnet's asr.sh (egs2/TEMPLATE/asr1) that run.sh passes.
OF_ESPNET = set(
    shlex.split(
        """python lang train_set valid_set test_sets local_data_opts asr_config
inference_asr_model token_type feats_type audio_format feats_normalize min_wav_duration
max_wav_duration use_lm ngpu nj"""
    )
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Copy the recipe's folder to a path with blanks and signs."""
    folder = tmp_path / "it's my $HOME (100% JOBS)" / "egs2" / "mlma" / "asr1"
    folder.mkdir(parents=True)
    for name in ("run.sh", "asr.sh", "path.sh", "cmd.sh", "db.sh"):
        shutil.copy(ROOT / "egs2" / "mlma" / "asr1" / name, folder)
    for name in ("conf", "local"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "conf" / "tiny.yaml").write_text("max_epoch: 1\n")
    return folder


def environment() -> dict[str, str]:
    own = Path(sys.executable).parent
    variables = {"PATH": f"{own}:{os.environ['PATH']}", "VIRTUAL_ENV": str(own.parent)}
    return os.environ | variables | {"PYTHONPATH": str(ROOT)}


def run(recipe: Path, script: str, *options: str) -> subprocess.CompletedProcess:
    command = [recipe / script, *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no_such_option", "1"], "error: unknown option --no_such_option; see"),
        (["--PATH", "/"], "error: unknown option --PATH; see"),
        (["positional"], "error: 'positional': not an option"),
        (["--stage"], "error: --stage needs a value"),
        (["--stage", "two"], "error: --stage two: not a whole number"),
        (["--use_lm", "yes"], "error: --use_lm yes: not true or false"),
        (["--use-lm", "true"], "error: --use_lm true: this recipe trains no neural language model"),
        (["--lm_config", "x"], "error: --lm_config: this recipe trains no neural language model"),
        (["--use_k2", "true"], "error: --use_k2: not supported; --inference_config"),
        (["--asr_text_fold_length", "1"], "error: --asr_text_fold_length: has no effect"),
        (["--feats_type", "fbank"], "error: --feats_type fbank: not supported; give raw"),
        (["--token_type", "word"], "error: --token_type word: not supported; give char or bpe"),
        (["--asr_config", "no.yaml"], "error: --asr_config no.yaml: no such file"),
        (["--valid_set", ""], "error: --valid_set is missing"),
        (["--stage", "10", "--stop_stage", "10"], "error: stage 10: data/token_list/bpe_unigram30"),
        (
            ["--stage", "12", "--stop_stage", "12"],
            "error: stage 12: exp/asr_tiny_raw_bpe30/valid.c",
        ),
    ],
)
def test_a_wrong_option_is_one_line(recipe: Path, options: list[str], message: str) -> None:
    done = run(recipe, "asr.sh", *SETS, *options)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(message)
    assert not (recipe / "exp").exists()


def test_help_lists_every_option_with_its_default(recipe: Path) -> None:
    done = run(recipe, "asr.sh", "--help")
    assert done.returncode == 0
    assert "--min_wav_duration=0.1         # seconds" in done.stdout


@pytest.mark.slow
def test_run_sh_works_with_the_options_of_espnets_asr_sh(recipe: Path) -> None:
    (recipe / "asr.sh").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    done = run(recipe, "run.sh", "--mixture", "bi710", "--db_root", "/corpora", "--stage", "11")
    lines = done.stdout.splitlines()
    names = [line[2:] for line in lines[::2]]
    assert sorted(names[:-1]) == sorted(OF_ESPNET)
    given = dict(zip(names, lines[1::2], strict=True))
    assert given["stage"] == "11"
    assert given["python"] == "python3 -m espnet_mlma.run"
    assert given["train_set"] == "train_bi710"
    assert given["test_sets"].split()[0] == "test_ls_en"
    assert given["local_data_opts"].startswith("--mixture bi710 --db_root /corpora --nj ")
    assert given["use_lm"] == "false"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mixture", "none"], "error: "),
        (["--stop_stage", "1", "--mixture", "real", "--db_root", "/nowhere"], "error: "),
    ],
)
def test_a_wrong_mixture_or_root_is_one_line(recipe, options: list[str], message: str) -> None:
    done = run(recipe, "run.sh", *options)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(message)
    assert not (recipe / "data").exists()


def make_data(recipe: Path, name: str, count: int) -> None:
    utterances = []
    for number in range(count):
        path = recipe / "audio" / f"{name}{number}.wav"
        path.parent.mkdir(exist_ok=True)
        samples = 0.1 * np.random.default_rng(number).standard_normal(22050)
        soundfile.write(path, samples, 22050)
        text = ["guten tag", "buona sera"][number % 2]
        utterances.append(
            Utterance(f"mini_de_a-{name}{number}", AudioFile(path), text, "mini_de_a", "de")
        )
    write_set(recipe / "data" / name, utterances, nj=1)


@pytest.mark.slow
def test_stages_2_to_5_write_the_files_of_espnets(recipe: Path) -> None:
    for name, count in {"train": 6, "dev": 2, "test": 2}.items():
        make_data(recipe, name, count)
    options = [*SETS, *shlex.split("--stage 2 --stop_stage 5 --nj 1 --lang de --token_type char")]
    options += ["--speed_perturb_factors", "0.9 1.0"]
    done = run(recipe, "asr.sh", *options)
    assert done.stderr == ""
    ids = list(tables.read(recipe / "dump/raw/train_sp/wav.scp", ""))
    assert len(ids) == 12
    assert sum(id_.startswith("sp0.9-") for id_ in ids) == 6
    expected = {"wav.scp", "text", "utt2spk", "spk2utt", "utt2num_samples", "feats_type"}
    for folder in ("raw/org/train_sp", "raw/train_sp", "raw/org/dev", "raw/dev", "raw/test"):
        assert expected <= {path.name for path in (recipe / "dump" / folder).iterdir()}
    tokens = (recipe / "data/de_token_list/char/tokens.txt").read_text().split()
    assert (tokens[0], tokens[1], tokens[-1]) == ("<blank>", "<unk>", "<sos/eos>")
    for line in ("Stage 2: ", "Stage 3: wrote dump/raw, done in ", "Stage 4: wrote dump/raw/train"):
        assert line in done.stdout


@pytest.mark.parametrize("name", ["plain", "My Drive", "a  b\tc", "it's", "*", "[ab]", "$(exit)"])
def test_the_folder_of_corpora_may_have_any_name(recipe: Path, name: str) -> None:
    db = recipe / "db of" / name
    db.mkdir(parents=True)
    stage_1 = shlex.split("--mixture real --stage 1 --stop_stage 1")
    done = run(recipe, "run.sh", *stage_1, "--db_root", str(db))
    assert done.returncode == 1
    assert f"nothing at {db}/LibriSpeech/" in done.stderr.replace("\\t", "\t")


def test_stage_3_repairs_damaged_audio_with_verify_audio(recipe: Path) -> None:
    for name in ("train", "dev", "test"):
        make_data(recipe, name, 2)
    stage_3 = [*SETS, *shlex.split("--stage 3 --stop_stage 3 --nj 1")]
    assert run(recipe, "asr.sh", *stage_3).returncode == 0
    ark = recipe / "dump/raw/test/data/shard.00001.ark"
    whole = ark.read_bytes()
    ark.write_bytes(whole[:-9] + bytes(9))
    done = run(recipe, "asr.sh", *stage_3, "--verify_audio", "true")
    assert done.returncode == 0
    assert ark.read_bytes() == whole


def test_too_large_a_bpe_vocabulary_is_one_line(recipe: Path) -> None:
    make_data(recipe, "train", 4)
    (recipe / "dump/raw").mkdir(parents=True)
    shutil.copytree(recipe / "data/train", recipe / "dump/raw/train")
    done = run(recipe, "asr.sh", *SETS, *shlex.split("--stage 5 --stop_stage 5 --nbpe 900"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: --nbpe 900 (unigram): the text allows ")
    assert done.stderr.count("\n") == 1
    assert not (recipe / "data/token_list/bpe_unigram900").exists()


@pytest.mark.parametrize("failing", ["lmplz", "build_binary", None])
def test_stage_9_writes_both_files_or_none(recipe: Path, failing: str | None) -> None:
    """Other programs replace KenLM's, which no package index has."""
    programs = {"lmplz": "cat", "build_binary": 'cp "$1" "$2"'}
    for name, command in programs.items():
        (recipe / "bin" / name).parent.mkdir(exist_ok=True)
        last = "exit 3" if name == failing else ""
        (recipe / "bin" / name).write_text(f"#!/bin/sh\n{command}\n{last}\n")
        (recipe / "bin" / name).chmod(0o755)
    text = recipe / "dump/raw/train/text"
    text.parent.mkdir(parents=True)
    text.write_text("mini_de_a-1 guten tag\n")
    variables = environment()
    variables["PATH"] = f"{recipe / 'bin'}:{variables['PATH']}"
    options = shlex.split("--use_ngram true --stage 9 --stop_stage 9")
    command = [recipe / "asr.sh", *SETS, *options]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert (done.returncode == 0) == (failing is None)
    written = sorted(path.name for path in (recipe / "exp/ngram_word").glob("3gram.*[!w]"))
    assert written == ([] if failing else ["3gram.arpa", "3gram.bin"])


def test_stage_9_without_kenlm_is_an_error(recipe: Path) -> None:
    options = shlex.split("--use_ngram true --stage 9 --stop_stage 9")
    done = run(recipe, "asr.sh", *SETS, *options)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --use_ngram true: KenLM's lmplz is not on PATH")


def test_with_an_n_gram_the_default_is_a_beam(recipe: Path) -> None:
    (recipe / "conf/decode_ctc_beam_ngram.yaml").unlink()
    done = run(recipe, "asr.sh", *SETS, "--use_ngram", "true")
    assert done.stderr.startswith(
        "error: --inference_config conf/decode_ctc_beam_ngram.yaml: no such file"
    )


def test_failing_jobs_of_stage_10_show_their_log(recipe: Path) -> None:
    for name in ("train", "dev"):
        make_data(recipe, name, 4)
    shutil.copytree(recipe / "data", recipe / "dump" / "raw")
    (recipe / "data/token_list/char").mkdir(parents=True)
    (recipe / "data/token_list/char/tokens.txt").write_text("<blank>\n<unk>\n<sos/eos>\n")
    (recipe / "broken.py").write_text("raise SystemExit('no such optimiser')")
    options = shlex.split("--stage 10 --stop_stage 10 --token_type char --nj 2")
    done = run(recipe, "asr.sh", *SETS, *options, "--python", f"{sys.executable} broken.py")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "no such optimiser"
    assert lines[-1].startswith("error: stage 10 failed with exit status 1; the whole log is in")
    assert not (recipe / "exp/asr_stats_raw_char/train").exists()
    [second] = (recipe / "exp/asr_stats_raw_char").glob("new.*/logdir/train.2.scp")
    assert second.read_text().count("\n") == 2


def test_ctrl_c_ends_jobs_in_the_background(recipe: Path) -> None:
    for name in ("train", "dev"):
        make_data(recipe, name, 2)
    shutil.copytree(recipe / "data", recipe / "dump" / "raw")
    (recipe / "data/token_list/char").mkdir(parents=True)
    (recipe / "data/token_list/char/tokens.txt").write_text("<blank>\n<unk>\n<sos/eos>\n")
    (recipe / "slow.py").write_text(
        "import os, pathlib, time\npathlib.Path(f'{os.getpid()}.pid').touch()\ntime.sleep(600)\n"
    )
    options = shlex.split("--stage 10 --stop_stage 10 --token_type char --nj 2")
    process = subprocess.Popen(
        [recipe / "asr.sh", *SETS, *options, "--python", f"{sys.executable} slow.py"],
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while len(jobs := list(recipe.glob("*.pid"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "error: interrupted; run the same command to resume\n"
    deadline = time.monotonic() + 10
    while any(alive(job.stem) for job in jobs):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: str) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


TINY = """
encoder: conmamba
encoder_conf: {output_size: 8, num_blocks: 1, linear_units: 16, cnn_module_kernel: 3}
model_conf: {ctc_weight: 1.0}
frontend_conf: {n_fft: 512, win_length: 400, hop_length: 160, center: false}
batch_type: numel
batch_bins: 60000
max_epoch: 6
num_att_plot: 0
num_workers: 0
use_tensorboard: false
use_matplotlib: false
best_model_criterion: [[valid, cer_ctc, min]]
keep_nbest_models: 2
"""


@pytest.mark.slow
def test_interrupted_training_resumes_and_stages_10_to_14_finish(recipe: Path) -> None:
    (recipe / "conf/tiny.yaml").write_text(TINY)
    for name, count in {"train": 8, "dev": 2, "test": 2, "other": 1}.items():
        make_data(recipe, name, count)
    options = [*SETS, "--test_sets", "test other", "--token_type", "bpe", "--nbpe", "14"]
    options += shlex.split("--ngpu 0 --nj 1 --inference_nj 2 --skip_packing false")
    assert run(recipe, "asr.sh", *options, "--stage", "2", "--stop_stage", "10").returncode == 0
    options += ["--stage", "11"]
    experiment = recipe / "exp/asr_tiny_raw_bpe14"
    process = subprocess.Popen(
        [recipe / "asr.sh", *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (experiment / "1epoch.pth").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("error: interrupted; run the same command to resume\n")
    done = run(recipe, "asr.sh", *options)
    assert done.returncode == 0, done.stderr
    assert "  resumes after epoch " in done.stdout
    assert "epoch 1 of 6: train" not in done.stdout
    assert "epoch 6 of 6: train loss=" in done.stdout
    log = (experiment / "train.log").read_text()
    assert log.count(" 6epoch results: ") == log.count(" 1epoch results: ") == 1
    results = (experiment / "RESULTS.md").read_text()
    assert results.count("| test |") == results.count("| other |") == 1
    (packed,) = experiment.glob("*.zip")
    with zipfile.ZipFile(packed) as archive:
        assert {"meta.yaml", "data/token_list/bpe_unigram14/bpe.model"} <= set(archive.namelist())
    done = run(recipe, "asr.sh", *options, "--stop_stage", "11")
    assert done.returncode == 0, done.stderr
    assert "  already trained for 6 epochs with this data" in done.stdout
    text = recipe / "dump/raw/train/text"
    text.write_text(text.read_text().rstrip() + " ja\n")
    done = run(recipe, "asr.sh", *options, "--stop_stage", "11")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "statistics were collected with other data: dump/raw/train/text has" in done.stderr
    done = run(recipe, "asr.sh", *options, "--stage", "10", "--stop_stage", "11")
    # ESPnet prints the command of stage 10's last program before.
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.returncode == 1 and done.stderr.endswith(f"{error}\n")
    assert "training was started with other data: dump/raw/train/text has changed" in error


def test_a_second_run_of_a_stage_is_refused(recipe: Path) -> None:
    (recipe / "exp").mkdir()
    (recipe / "exp/x").mkdir()
    (recipe / "exp/stats/valid").mkdir(parents=True)
    (recipe / "exp/stats/valid/text_shape.char").touch()
    marker = shlex.quote(f"{recipe}/exp/.x.run")
    holder = f"exec 9>>{marker}; flock 9; echo process 7 on h >&9; echo; read -r"
    command = ["bash", "-c", holder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        options = shlex.split("--stage 11 --stop_stage 11 --token_type char --asr_exp exp/x")
        done = run(recipe, "asr.sh", *SETS, *options, "--asr_stats_dir", "exp/stats")
        assert done.returncode == 1
        assert done.stderr.startswith("error: stage 11: exp/x: process 7 on h writes it already")
        other.stdin.close()


@pytest.mark.slow
def test_the_readmes_options_for_synthetic_speech_on_the_fly(recipe: Path) -> None:
    page = (ROOT / "egs2/mlma/asr1/README.md").read_text(encoding="utf-8")
    (options,) = re.findall(r'^    --asr_args "(.*preprocessor.*)"$', page, re.MULTILINE)
    letters = "abcdefghijklmnopqrstuvwxyz"
    sentences = "\n".join(f"La casa {a}{b}a sola." for a in letters for b in "aei")
    (recipe / "texts").mkdir()
    for lang in LANGUAGES:
        (recipe / "texts" / f"{lang}.txt").write_text(sentences)
    (recipe / "conf/tiny.yaml").write_text(TINY.replace("num_workers: 0", "num_workers: 2"))
    (recipe / "db.sh").write_text("SYNTHETIC=texts\n")
    command = shlex.split("--mixture synthetic --asr_config conf/tiny.yaml --ngpu 0 --nj 1")
    assert run(recipe, "run.sh", *command, "--stop_stage", "10").returncode == 0
    lines = {}
    for name, more in (("once", ""), ("on the fly", options), ("again", options)):
        experiment = recipe / "exp" / name
        given = ["--asr_args", f"{more} --max_epoch 1 --log_interval 1", "--asr_exp", experiment]
        done = run(recipe, "run.sh", *command, "--stage", "11", "--stop_stage", "11", *given)
        assert done.returncode == 0, done.stdout + done.stderr
        log = (experiment / "train.log").read_text()
        lines[name] = re.findall(r"1epoch:train:\d+-\d+batch.* loss_ctc=([\d.]+)", log)
    assert len(lines["once"]) > 5
    assert lines["on the fly"][0] != lines["once"][0], "other sound before any update"
    assert lines["on the fly"] == lines["again"], "the seed decides"
    given[1], given[3] = options.replace("train_", "dev_"), recipe / "exp" / "wrong"
    done = run(recipe, "run.sh", *command, "--stage", "11", "--stop_stage", "11", *given)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert re.match("error: stage 11: syn_.*: not in data/dev_synthetic; give as", done.stderr)
