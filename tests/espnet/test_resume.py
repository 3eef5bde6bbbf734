"""Repair of an experiment after a kill or on a damaged disk."""

import sys
import zipfile
from pathlib import Path

import pytest
import torch
from espnet2.train.reporter import Reporter

from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.resume import main, repair

CONFIG = {
    "best_model_criterion": [["valid", "loss", "min"]],
    "keep_nbest_models": [2],
    "max_epoch": 9,
}
Losses = tuple[float, ...]


def model(epoch: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((9999,), float(epoch))}


def save(experiment: Path, losses: Losses, name: str = "checkpoint.pth") -> None:
    """Write a checkpoint as ESPnet does, after one epoch per loss."""
    reporter = Reporter()
    for epoch, loss in enumerate(losses, 1):
        reporter.set_epoch(epoch)
        with reporter.observe("valid") as observed:
            observed.register({"loss": torch.tensor(loss)})
            observed.next()
    state = {"model": model(len(losses)), "reporter": reporter.state_dict()}
    torch.save(state | {"optimizers": [], "schedulers": [], "scaler": None}, experiment / name)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Make an experiment of three epochs, of which the second is the best."""
    save(tmp_path, (3.0, 1.0), "checkpoint.pth.prev")
    save(tmp_path, (3.0, 1.0, 2.0))
    for epoch in (1, 2, 3):
        torch.save(model(epoch), tmp_path / f"{epoch}epoch.pth")
    (tmp_path / "latest.pth").symlink_to("3epoch.pth")
    (tmp_path / "valid.loss.best.pth").symlink_to("2epoch.pth")
    return tmp_path


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without_a_member(file: Path) -> None:
    """Remove parameters from a file but keep it a valid zip, as Ctrl-C may leave it."""
    whole = file.rename(file.with_suffix(".whole"))
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.infolist():
            if not member.filename.endswith("data/0"):
                new.writestr(member, old.read(member))


DAMAGES = [halve, without_a_member, Path.unlink, lambda file: file.write_bytes(b"")]


def epoch_of(file: Path) -> float:
    return torch.load(file, weights_only=True)["a"][0].item()


def test_a_whole_experiment_is_unchanged(experiment: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in experiment.iterdir()}
    assert repair(experiment, CONFIG).lines == []
    assert {path: path.stat().st_mtime_ns for path in experiment.iterdir()} == before


def test_a_first_run_has_nothing_to_repair(tmp_path: Path) -> None:
    assert repair(tmp_path / "none", CONFIG).epoch == 0


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("epochs", [(3,), (2, 3), (1,)])
def test_parameters_are_restored_from_the_checkpoints(experiment: Path, damage, epochs) -> None:
    """Those of the last epoch, and of the one before if it is averaged."""
    for epoch in epochs:
        damage(experiment / f"{epoch}epoch.pth")
    repaired = repair(experiment, CONFIG)
    assert repaired.epoch == 3
    assert len(repaired.lines) == len(set(epochs) - {1})
    for epoch in {2, 3}:
        assert epoch_of(experiment / f"{epoch}epoch.pth") == epoch


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(experiment: Path, damage) -> None:
    damage(experiment / "checkpoint.pth")
    repaired = repair(experiment, CONFIG)
    assert repaired.epoch == 2
    assert "resumes from the previous one, after epoch 2" in repaired.lines[0]
    assert (experiment / "latest.pth").readlink() == Path("2epoch.pth")
    assert not (experiment / "checkpoint.pth.prev").exists()
    assert repair(experiment, CONFIG).lines == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_whole_checkpoint_epochs_are_not_overwritten(experiment: Path, damage) -> None:
    damage(experiment / "checkpoint.pth")
    damage(experiment / "checkpoint.pth.prev")
    before = sorted(experiment.iterdir())
    with pytest.raises(MlmaError, match=r"checkpoint\.pth: (damaged|missing), and so is the prev"):
        repair(experiment, CONFIG)
    assert sorted(experiment.iterdir()) == before


def test_a_damaged_first_checkpoint_is_renamed(tmp_path: Path) -> None:
    save(tmp_path, (1.0,))
    halve(tmp_path / "checkpoint.pth")
    repaired = repair(tmp_path, CONFIG)
    assert (repaired.epoch, len(repaired.lines)) == (0, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth.broken"]


def test_a_file_that_is_no_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    torch.save({"model": model(1)}, tmp_path / "checkpoint.pth")
    assert repair(tmp_path, CONFIG).epoch == 0


@pytest.mark.parametrize("name", ["latest.pth", "valid.loss.best.pth"])
@pytest.mark.parametrize("target", [None, "1epoch.pth", "7epoch.pth"])
def test_links_are_restored(experiment: Path, name: str, target: str | None) -> None:
    right = (experiment / name).readlink()
    (experiment / name).unlink()
    if target:
        (experiment / name).symlink_to(target)
    assert len(repair(experiment, CONFIG).lines) == 1
    assert (experiment / name).readlink() == right


def test_a_lost_epoch_of_the_average_is_reported(tmp_path: Path) -> None:
    save(tmp_path, (1.0, 2.0, 3.0))
    torch.save(model(2), tmp_path / "2epoch.pth")
    assert "1epoch.pth: missing or damaged" in repair(tmp_path, CONFIG).lines[-1]
    with pytest.raises(MlmaError, match=r"1epoch\.pth: missing or damaged.*copy it back"):
        repair(tmp_path, CONFIG | {"max_epoch": 3})


@pytest.mark.parametrize("config", [None, "best_model_criterion: [[val", "max_epoch: 9\n"])
def test_the_command_needs_no_configuration(experiment: Path, config, monkeypatch, capsys) -> None:
    """The configuration may be damaged too."""
    if config:
        (experiment / "config.yaml").write_text(config)
    (experiment / "3epoch.pth").unlink()
    monkeypatch.setattr(sys, "argv", ["resume", str(experiment)])
    main()
    assert "3epoch.pth: missing or damaged" in capsys.readouterr().out
    assert epoch_of(experiment / "3epoch.pth") == 3
