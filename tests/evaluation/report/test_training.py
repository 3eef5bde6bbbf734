import pytest

from espnet_mlma.evaluation.report.page import best
from espnet_mlma.evaluation.report.training import curves, read_epochs

HEAD = "[host] 2026-01-01 00:00:00,000 (trainer:392) INFO: "


def epoch(number: int, train: float, valid: float, more: str = "") -> str:
    """Format a line of ESPnet's trainer."""
    return (
        f"{HEAD}{number}epoch results: [train] iter_time=0.003, loss_ctc={train:.3f}, {more}"
        f"loss={train:.3f}, loss_scale=1.000, optim0_lr0=3.826e-04, "
        f"time=1 minute and 10.82 seconds, total_count=145, [valid] loss_ctc={valid:.3f}, "
        f"cer_ctc={valid / 100:.3f}, cer=nan, loss={valid:.3f}, time=2.83 seconds, total_count=8\n"
    )


def test_losses_and_error_rates_are_read(tmp_path):
    lines = [f"{HEAD}1/9epoch started\n", epoch(1, 97.375, 70.438), epoch(2, 55, 34.5)]
    (tmp_path / "train.log").write_text("".join(lines))
    epochs = read_epochs(tmp_path)
    assert epochs[1]["train"]["optim0_lr0"] == 3.826e-04
    assert "time" not in epochs[1]["train"]
    loss, rate = curves(epochs)
    assert loss.lines == {"train": [(1, 97.375), (2, 55)], "valid": [(1, 70.438), (2, 34.5)]}
    assert rate.lines == {"valid": [(1, pytest.approx(70.4)), (2, pytest.approx(34.5))]}
    assert rate.epochs == [1, 2]


def test_an_epoch_of_validation_only_counts(tmp_path):
    line = epoch(1, 9, 8).replace("loss=9.000", "loss=nan")
    (tmp_path / "train.log").write_text(line + epoch(2, 7, 6))
    loss = curves(read_epochs(tmp_path))[0]
    assert [n for n, _ in loss.lines["train"]] == [2]
    assert loss.epochs == [1, 2]


def test_parts_of_the_loss_have_a_curve_if_they_differ_from_it(tmp_path):
    (tmp_path / "train.log").write_text(epoch(1, 9, 8, "loss_cr=1.250, "))
    assert [curve.name for curve in curves(read_epochs(tmp_path))][2:] == ["loss_cr"]


def test_languages_and_lower_blocks_have_named_curves(tmp_path):
    line = epoch(1, 9, 8).replace("cer=nan", "acc_language=0.5, acc_language_layer6=0.75")
    again = epoch(2, 9, 8).replace("cer=nan", "acc_language=0.6, cer_interctc_layer12=0.125")
    (tmp_path / "train.log").write_text(line + again)
    found = {curve.name: curve for curve in curves(read_epochs(tmp_path))}
    assert found["Accuracy of the language, %"].lines == {"valid": [(1, 50), (2, 60)]}
    assert best(found["Accuracy of the language, %"]).startswith("highest in validation: 60")
    assert found["Accuracy of the language, %, after block 6"].lines == {"valid": [(1, 75)]}
    layer = found["Character error rate, %, after block 12"]
    assert layer.lines == {"valid": [(2, 12.5)]} and best(layer).startswith("lowest")


def test_a_resumed_log_overrides_epochs_trained_again(tmp_path):
    lines = [epoch(1, 9, 9), epoch(2, 8, 8), epoch(3, 7, 7), epoch(2, 6, 6)]
    (tmp_path / "train.log").write_text("".join(lines))
    assert curves(read_epochs(tmp_path))[0].lines["train"] == [(1, 9), (2, 6)]


def test_rotated_logs_come_first(tmp_path):
    (tmp_path / "train.2.log").write_text(epoch(1, 9, 9))
    (tmp_path / "train.1.log").write_text(epoch(2, 8, 8) + epoch(3, 7, 7))
    (tmp_path / "train.log").write_text(epoch(3, 6, 6))
    (tmp_path / "train.old.log").write_text(epoch(1, 1, 1))
    assert curves(read_epochs(tmp_path))[0].lines["train"] == [(1, 9), (2, 8), (3, 6)]


def test_without_a_log_there_are_no_curves(tmp_path):
    assert curves(read_epochs(tmp_path)) == []
