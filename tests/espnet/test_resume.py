"""What a kill or a damaged disk leaves of an experiment, and what of it can be mended."""

import sys
import zipfile
from pathlib import Path

import pytest
import torch
from espnet2.train.reporter import Reporter

from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.resume import main, mend

CONFIG = {
    "best_model_criterion": [["valid", "loss", "min"]],
    "keep_nbest_models": [2],
    "max_epoch": 9,
}
Losses = tuple[float, ...]


def model(epoch: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((9999,), float(epoch))}


def save(experiment: Path, losses: Losses, name: str = "checkpoint.pth") -> None:
    """A checkpoint as ESPnet writes it, after as many epochs as there are losses."""
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
    """Three epochs, the second is the best."""
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
    """As Ctrl-C leaves it: a zip file like any other, but parameters are missing in it."""
    whole = file.rename(file.with_suffix(".whole"))
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.infolist():
            if not member.filename.endswith("data/0"):
                new.writestr(member, old.read(member))


DAMAGES = [halve, without_a_member, Path.unlink, lambda file: file.write_bytes(b"")]


def epoch_of(file: Path) -> float:
    return torch.load(file, weights_only=True)["a"][0].item()


def test_a_whole_experiment_stays_as_it_is(experiment: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in experiment.iterdir()}
    assert mend(experiment, CONFIG).lines == []
    assert {path: path.stat().st_mtime_ns for path in experiment.iterdir()} == before


def test_a_first_run_has_nothing_to_mend(tmp_path: Path) -> None:
    assert mend(tmp_path / "none", CONFIG).epoch == 0


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("epochs", [(3,), (2, 3), (1,)])
def test_parameters_come_from_the_checkpoints(experiment: Path, damage, epochs) -> None:
    """Of the last epoch and, where they are to be averaged, of the one before."""
    for epoch in epochs:
        damage(experiment / f"{epoch}epoch.pth")
    mended = mend(experiment, CONFIG)
    assert mended.epoch == 3
    assert len(mended.lines) == len(set(epochs) - {1})
    for epoch in {2, 3}:
        assert epoch_of(experiment / f"{epoch}epoch.pth") == epoch


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_previous_one(experiment: Path, damage) -> None:
    damage(experiment / "checkpoint.pth")
    mended = mend(experiment, CONFIG)
    assert mended.epoch == 2
    assert "goes on from the previous one, after epoch 2" in mended.lines[0]
    assert (experiment / "latest.pth").readlink() == Path("2epoch.pth")
    assert not (experiment / "checkpoint.pth.prev").exists()
    assert mend(experiment, CONFIG).lines == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_whole_checkpoint_epochs_are_not_trained_over(experiment: Path, damage) -> None:
    damage(experiment / "checkpoint.pth")
    damage(experiment / "checkpoint.pth.prev")
    before = sorted(experiment.iterdir())
    with pytest.raises(MlmaError, match=r"checkpoint\.pth: (damaged|missing), and so is the prev"):
        mend(experiment, CONFIG)
    assert sorted(experiment.iterdir()) == before


def test_a_damaged_first_checkpoint_is_set_aside(tmp_path: Path) -> None:
    save(tmp_path, (1.0,))
    halve(tmp_path / "checkpoint.pth")
    mended = mend(tmp_path, CONFIG)
    assert (mended.epoch, len(mended.lines)) == (0, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth.broken"]


def test_what_is_no_checkpoint_of_espnets_is_not_gone_on_from(tmp_path: Path) -> None:
    torch.save({"model": model(1)}, tmp_path / "checkpoint.pth")
    assert mend(tmp_path, CONFIG).epoch == 0


@pytest.mark.parametrize("name", ["latest.pth", "valid.loss.best.pth"])
@pytest.mark.parametrize("target", [None, "1epoch.pth", "7epoch.pth"])
def test_links_point_at_the_right_epoch(experiment: Path, name: str, target: str | None) -> None:
    right = (experiment / name).readlink()
    (experiment / name).unlink()
    if target:
        (experiment / name).symlink_to(target)
    assert len(mend(experiment, CONFIG).lines) == 1
    assert (experiment / name).readlink() == right


def test_a_lost_epoch_that_is_averaged_is_named(tmp_path: Path) -> None:
    save(tmp_path, (1.0, 2.0, 3.0))
    torch.save(model(2), tmp_path / "2epoch.pth")
    assert "1epoch.pth: missing or damaged" in mend(tmp_path, CONFIG).lines[-1]
    with pytest.raises(MlmaError, match=r"1epoch\.pth: missing or damaged.*copy it back"):
        mend(tmp_path, CONFIG | {"max_epoch": 3})


@pytest.mark.parametrize("config", [None, "best_model_criterion: [[val", "max_epoch: 9\n"])
def test_by_hand_it_needs_no_configuration(experiment: Path, config, monkeypatch, capsys) -> None:
    """That may be torn as well."""
    if config:
        (experiment / "config.yaml").write_text(config)
    (experiment / "3epoch.pth").unlink()
    monkeypatch.setattr(sys, "argv", ["resume", str(experiment)])
    main()
    assert "3epoch.pth: missing or damaged" in capsys.readouterr().out
    assert epoch_of(experiment / "3epoch.pth") == 3
