"""ESPnet's trainer under `espnet_mlma.run`: kills, damaged files, changed data."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.claims import claim
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.resume import main as resume
from espnet_mlma.espnet.trained_on import check_data

CONFIG = {
    "encoder": "conmamba",
    "encoder_conf": {
        "output_size": 8,
        "num_blocks": 1,
        "linear_units": 16,
        "cnn_module_kernel": 3,
    },
    "model_conf": {"ctc_weight": 1.0},
    "frontend_conf": {"n_fft": 512, "win_length": 400, "hop_length": 160, "center": False},
    "batch_type": "numel",
    "batch_bins": 60000,
    "max_epoch": 3,
    "num_att_plot": 0,
    "num_workers": 0,
    "use_tensorboard": False,
    "use_matplotlib": False,
    "best_model_criterion": [["valid", "loss", "min"]],
    "keep_nbest_models": 2,
}
AVERAGE = "valid.loss.ave.pth"
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def trainer() -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "espnet_mlma.run", Path(__file__).with_name("trainer.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Make a recipe's folder as stages 3 to 5 leave it."""
    folder = tmp_path_factory.mktemp("recipe")
    with contextlib.chdir(folder):
        write_data("train", 8)
        write_data("dev", 2)
    (folder / "train.yaml").write_text(yaml.safe_dump(CONFIG))
    tokens = ["<blank>", "<unk>", "<space>", *"abcd", "<sos/eos>"]
    (folder / "tokens.txt").write_text("\n".join(tokens) + "\n")
    return folder


def write_data(name: str, count: int, seed: int = 0) -> None:
    """Run stages 1 and 3 for a set, in the working folder."""
    utterances = []
    for number in range(count):
        file = Path(f"{name}{number}.flac")
        noise = np.random.default_rng(seed + number).normal(0, 0.1, 8000 + 800 * number)
        soundfile.write(file, noise, 16000)
        text = "bad cab dab"[: 3 + number]
        id_ = f"mini_en_s-{name}{number}"
        utterances.append(Utterance(id_, AudioFile(file), text.strip(), "mini_en_s", "en"))
    write_set(Path("data", name), utterances, nj=1)
    format_folder(Path("data", name), Path("dump", name), nj=1)


@pytest.fixture
def recipe(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the recipe's folder and change to it."""
    shutil.copytree(corpus, tmp_path / "r")
    monkeypatch.chdir(tmp_path / "r")
    return tmp_path / "r"


@pytest.fixture
def run(trainer: subprocess.Popen, recipe: Path) -> Run:
    """Return a function that trains or collects statistics; it returns exit status and output."""

    def run(*options: str, output: str = "exp", kill: int = 0) -> tuple[int, str]:
        given = ["--config", "train.yaml", "--token_type", "char", "--token_list", "tokens.txt"]
        given += ["--resume", "true", "--ngpu", "0", *options, "--output_dir", str(recipe / output)]
        for part, name in (("train", "train"), ("valid", "dev")):
            for table, kind in (("wav.scp,speech", "kaldi_ark"), ("text,text", "text")):
                path = Path("dump", name, table)
                given += [f"--{part}_data_path_and_name_and_type", f"{path},{kind}"]
            if "--collect_stats" in options:
                given += [f"--{part}_shape_file", f"dump/{name}/wav.scp"]
            elif f"--{part}_shape_file" not in options:
                given += [f"--{part}_shape_file", f"dump/{name}/utt2num_samples"]
        job = {"folder": str(recipe), "options": given, "log": str(recipe / "log"), "kill": kill}
        trainer.stdin.write(json.dumps(job) + "\n")
        trainer.stdin.flush()
        code = int(trainer.stdout.readline())
        return code, (recipe / "log").read_text()

    return run


def refused(found: tuple[int, str]) -> str:
    """Return the error of a refused run, which is one line."""
    code, output = found
    assert code == 1, output
    assert "Traceback" not in output
    last = output.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def same(a: Path, b: Path) -> bool:
    first, second = (torch.load(path, weights_only=True) for path in (a, b))
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.fixture
def trained(run: Run, recipe: Path) -> Path:
    """Train an experiment without an interruption."""
    code, output = run()
    assert code == 0, output
    return recipe / "exp"


@pytest.mark.slow
def test_training_killed_anywhere_resumes_to_the_same_bits(run: Run, trained: Path):
    points = 0
    for kill in range(7, 400, 37):
        code, _ = run(output="killed", kill=kill)
        if code == 0:
            break
        points += 1
        killed = trained.with_name("killed")
        code, output = run(output="killed")
        assert code == 0, (kill, output)
        for name in ("3epoch.pth", "latest.pth", "valid.loss.best.pth", AVERAGE):
            assert same(trained / name, killed / name), (kill, name)
        shutil.rmtree(killed)
    assert points > 5


@pytest.mark.slow
@pytest.mark.parametrize("also", [(), ("3epoch.pth",), ("latest.pth", "valid.loss.best.pth")])
def test_training_resumes_from_the_previous_checkpoint_if_one_is_damaged(
    run: Run, trained: Path, recipe: Path, also: tuple[str, ...]
):
    shutil.copytree(trained, recipe / "damaged", symlinks=True)
    damage(recipe / "damaged/checkpoint.pth")
    for name in also:
        (recipe / "damaged" / name).unlink()
    code, output = run(output="damaged")
    assert code == 0, output
    assert "resumes from the previous one, after epoch 2" in output
    for name in ("3epoch.pth", "latest.pth", "valid.loss.best.pth", AVERAGE):
        assert same(trained / name, recipe / "damaged" / name)


def test_zeros_in_a_checkpoint_are_found(trained: Path, capsys, monkeypatch):
    """A power cut may leave zeros in a file of the right length."""
    checkpoint = trained / "checkpoint.pth"
    content = bytearray(checkpoint.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    checkpoint.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["resume", str(trained)])
    resume()
    assert "resumes from the previous one, after epoch 2" in capsys.readouterr().out
    assert (trained / "checkpoint.pth.broken").is_file()


def test_epochs_are_overwritten_only_on_request(run: Run, trained: Path):
    (trained / "checkpoint.pth.prev").unlink()
    damage(trained / "checkpoint.pth")
    assert "checkpoint.pth: damaged, and so is the previous one" in refused(run())
    (trained / "checkpoint.pth").unlink()
    assert "checkpoint.pth: missing" in refused(run())
    code, output = run("--resume", "false")
    assert code == 0, output
    assert "1/3epoch started" in output


def test_a_finished_training_is_reported(run: Run, trained: Path):
    before = (trained / "checkpoint.pth").read_bytes()
    code, output = run()
    assert code == 0
    assert "training: already trained for 3 epochs" in output
    assert (trained / "checkpoint.pth").read_bytes() == before
    code, output = run("--max_epoch", "4", "--num_workers", "1", "--log_interval", "1")
    assert code == 0, output
    assert "training: resumes after epoch 3 of 4" in output


def test_a_lost_epoch_of_the_average_is_an_error(run: Run, trained: Path):
    best = (trained / "valid.loss.best.pth").readlink()
    other = next(p for p in trained.glob("?epoch.pth") if p.name != best.name)
    for name in {best.name, other.name} - {"3epoch.pth", "2epoch.pth"}:
        damage(trained / name)
        assert f"{name}: missing or damaged" in refused(run())


def edit(path: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def do(recipe: Path) -> None:
        (recipe / path).write_text(change((recipe / path).read_text()))

    return do


def add_data(recipe: Path) -> None:
    write_data("train", 9)


def other_sound(recipe: Path) -> None:
    write_data("dev", 2, seed=9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("dump/train/text", lambda t: t.replace("bad", "dab")), "train/text has changed"),
        (edit("dump/dev/text", lambda t: t.replace("bad", "dab")), "dev/text has changed"),
        (edit("tokens.txt", lambda t: t.replace("d\n", "d\ne\n")), "token list: 8 symbols, now 9"),
        (edit("tokens.txt", lambda t: t.replace("c\nd", "d\nc")), "another token list"),
        (edit("train.yaml", lambda t: t + "seed: 7\n"), "another --seed: 0, now 7"),
        (edit("train.yaml", lambda t: t.replace("_size: 8", "_size: 9")), "encoder_conf output_"),
        (add_data, "train/wav.scp has changed, from 8 to 9 lines"),
        (other_sound, "dev/wav.scp has changed"),
    ],
)
def test_other_data_or_options_are_refused(
    run: Run, trained: Path, recipe: Path, change: Callable[[Path], None], message: str
):
    before = (trained / "config.yaml").read_bytes()
    check_data(Path("exp"))
    change(recipe)
    if "has changed" in message:
        with pytest.raises(MlmaError, match=message):
            check_data(Path("exp"))
    line = refused(run())
    assert message in line
    assert f"{trained}: training was started with" in line
    assert (trained / "config.yaml").read_bytes() == before
    code, output = run("--resume", "false")
    assert code == 0, output


def test_without_a_record_the_token_list_is_compared(run: Run, trained: Path):
    (trained / "trained_on.json").unlink()
    edit("tokens.txt", lambda t: t.replace("d\n", "d\ne\n"))(trained.parent)
    assert "another token list: 8 symbols, now 9" in refused(run())


def test_the_recipe_may_be_moved(run: Run, trained: Path, recipe: Path):
    """Digests are of contents, not paths."""
    shutil.move(recipe / "dump", recipe / "elsewhere")
    (recipe / "dump").symlink_to("elsewhere")
    for table in recipe.glob("elsewhere/*/wav.scp"):
        table.write_text(table.read_text().replace("dump/", f"{recipe}/elsewhere/"))
    code, output = run()
    assert code == 0, output
    assert "already trained" in output


@pytest.fixture
def with_statistics(run: Run, recipe: Path) -> list[str]:
    """Run stage 10 as ESPnet's asr.sh does; return the options of stage 11."""
    code, output = run("--collect_stats", "true", output="stats/logdir/stats.1")
    assert code == 0, output
    command = ["-m", "espnet_mlma.run", "-m", "espnet2.bin.aggregate_stats_dirs"]
    dirs = ["--input_dir", "stats/logdir/stats.1", "--output_dir", "stats"]
    subprocess.run([sys.executable, *command, *dirs], check=True, stderr=subprocess.DEVNULL)
    shapes = ["--train_shape_file", "stats/train/speech_shape"]
    shapes += ["--valid_shape_file", "stats/valid/speech_shape", "--normalize", "global_mvn"]
    return [*shapes, "--normalize_conf", "stats_file=stats/train/feats_stats.npz"]


def test_statistics_of_other_data_are_refused(run: Run, recipe: Path, with_statistics: list[str]):
    shutil.copytree(recipe, recipe / "kept")

    def restore() -> None:
        for name in ("dump", "stats", "train.yaml"):
            place = recipe / name
            shutil.rmtree(place) if place.is_dir() else place.unlink()
            kept = recipe / "kept" / name
            shutil.copytree(kept, place) if kept.is_dir() else shutil.copy(kept, place)

    other_sound(recipe)
    line = refused(run(*with_statistics))
    assert "stats: statistics were collected with other data" in line
    assert "run stage 10 again" in line
    restore()
    edit("train.yaml", lambda t: t.replace("n_fft: 512", "n_fft: 400"))(recipe)
    assert "another --frontend_conf n_fft" in refused(run(*with_statistics))
    restore()
    damage(recipe / "stats/train/feats_stats.npz")
    assert "feats_stats.npz: damaged statistics" in refused(run(*with_statistics))
    restore()
    shutil.rmtree(recipe / "stats/logdir")  # as earlier versions left it
    add_data(recipe)
    assert "speech_shape: lacks mini_en_s-train8" in refused(run(*with_statistics))
    restore()
    code, output = run(*with_statistics, "--max_epoch", "1")
    assert code == 0, output


def test_a_second_training_in_a_folder_is_refused(run: Run, recipe: Path):
    with claim(recipe / "exp", "trains in it"):
        assert "exp: process" in refused(run())
    assert not (recipe / "exp").exists()


def test_on_a_full_disk_the_old_checkpoint_stays(run: Run, trained: Path):
    before = (trained / "checkpoint.pth").read_bytes()
    (trained / "4epoch.pth").symlink_to("/dev/full")
    line = refused(run("--max_epoch", "4"))
    assert "4epoch.pth" in line
    assert "No space left" in line
    assert (trained / "checkpoint.pth.prev").read_bytes() == before


def test_a_training_with_balanced_batches_resumes_with_the_same_epochs(run, recipe):
    options = ["--iterator_type", "category", "--batch_type", "balanced_length"]
    options += ["--num_iters_per_epoch", "2", "--batch_bins", "40000"]
    options += ["--valid_iterator_type", "sequence", "--valid_batch_type", "numel"]
    assert run(*options)[0] == 0
    assert run(*options, "--max_epoch", "1", output="parts")[0] == 0
    assert run(*options, output="parts")[0] == 0
    assert same(recipe / "exp/3epoch.pth", recipe / "parts/3epoch.pth")
