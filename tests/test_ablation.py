"""The ablation grid of the recipe: rows differ from their twins only in what they name."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from espnet2.tasks import asr

from espnet_mlma.errors import MlmaError

ROOT = Path(__file__).resolve().parents[1]
ABLATION = ROOT / "egs2" / "mlma" / "asr1" / "ablation"
sys.path.insert(0, str(ABLATION))

from ablation_grid import Row, read_grid  # noqa: E402
from ablation_results import (  # noqa: E402
    EarlierResults,
    Seed,
    collect,
    merge_lines,
    pairs_table,
    plot,
    read_results,
    save_seeds,
    table,
)
from variants import VARIANTS, LeakingConMamba, XavierConMamba  # noqa: E402

_, ROWS = read_grid(ABLATION / "grid.yaml")
TOKENS = ["<blank>", "<unk>", "<it>", *map(chr, range(97, 167)), "<sos/eos>"]


@pytest.fixture(autouse=True, scope="module")
def registered():
    known = dict(asr.encoder_choices.classes)
    asr.encoder_choices.classes.update(VARIANTS)
    yield
    asr.encoder_choices.classes.clear()
    asr.encoder_choices.classes.update(known)


def build(row: Row) -> torch.nn.Module:
    arguments = vars(asr.ASRTask.get_parser().parse_args(["--output_dir", "unused"]))
    arguments |= {"token_list": TOKENS, "token_type": "char", "normalize": None}
    torch.manual_seed(0)
    return asr.ASRTask.build_model(Namespace(**arguments | dict(row.config)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_builds_with_as_many_parameters_and_trains(row):
    model = build(row).train()
    encoder = sum(p.numel() for p in model.encoder.parameters())
    # Separate directions have their own projections.
    assert 2.3e6 < encoder < (3.2e6 if row.name == "separate directions" else 2.5e6)
    assert row.config["scheduler_conf"]["max_steps"] == row.updates
    assert row.config["max_epoch"] * row.config["num_iters_per_epoch"] == row.updates
    text = torch.tensor([[2, 3, 4], [2, 5, -1]])
    lengths = torch.tensor([16000, 9000])
    loss, _, _ = model(0.1 * torch.randn(2, 16000), lengths, text, torch.tensor([3, 2]))
    loss.backward()
    assert loss.isfinite()


def test_twins_have_equal_updates():
    rows = {row.name: row for row in ROWS}
    assert len({str(row.folder(1)) for row in ROWS}) == len(ROWS)
    for row in ROWS:
        if row.twin is not None:
            assert rows[row.twin].updates == row.updates


def test_variants_do_what_their_names_say():
    sizes = {"input_size": 80, "output_size": 16, "num_blocks": 2, "linear_units": 32}
    features, lengths = torch.randn(2, 80, 80), torch.tensor([80, 40])
    torch.manual_seed(0)
    leaking = LeakingConMamba(**sizes).eval()
    frames, found, _ = leaking(features, lengths)
    assert found.tolist() == [20, 10]
    alone, _, _ = leaking(features[1:, :40], lengths[1:])
    assert (frames[1, :10] - alone[0]).abs().max() > 1e-3
    torch.manual_seed(0)
    overwritten = XavierConMamba(**sizes)
    own, xavier = (
        torch.cat([p.flatten() for n, p in e.named_parameters() if n.endswith("A_log")])
        for e in (leaking, overwritten)
    )
    assert own.std() > 3 * xavier.std()


def seeds_of(*errors):
    sizes = {unit: np.full(len(errors[0]), 20) for unit in ("WER", "CER")}
    return [Seed({unit: np.array(of) for unit in sizes}, sizes, 0.5, 40.25, "abc") for of in errors]


ROW_A = Row("a", 10, (1, 2), {})
ROW_B = Row("b", 10, (1,), {}, twin="a")


def test_the_table_has_rates_and_the_difference_to_the_twin():
    scores = {"a": seeds_of([8] * 25, [4] * 25), "b": seeds_of([12] * 25)}
    first, second = table([ROW_A, ROW_B], scores)
    assert first[:6] == ["a", 10, 2, "30.0", "30.0", "40.0 20.0"]
    assert first[6:] == ["", "", "", "40.2", "50.0"]
    assert second[6:9] == ["a", "+30.0 (+30.0 to +30.0)", "+100.0"]


def test_a_difference_of_few_speakers_has_no_interval(tmp_path):
    scores = {"a": seeds_of([8, 4, 3]), "b": seeds_of([12, 10, 8])}
    lines = table([ROW_A, ROW_B], scores)
    assert lines[1][6:9] == ["a", "+25.0", "+100.0"]
    plot({"cv": lines, "ls": lines[:1]}, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("less a", "cv", "ls"))


def test_seeds_of_an_earlier_run_are_read_as_saved(tmp_path):
    file = tmp_path / "results.json"
    assert read_results(file, "T") == EarlierResults({}, {})
    scores = {"a": seeds_of([8, 0, 3], [4, 5, 6]), "b": seeds_of([12, 20, 1])}
    seeds = {(name, i + 1): seed for name, of in scores.items() for i, seed in enumerate(of)}
    save_seeds(file, "T", seeds)
    read = read_results(file, "T").seeds
    assert list(read) == [("a", 1), ("a", 2), ("b", 1)]
    again = {"a": [read["a", 1], read["a", 2]], "b": [read["b", 1]]}
    assert table([ROW_A, ROW_B], again) == table([ROW_A, ROW_B], scores)
    assert read["a", 1].commit == "abc"
    # In the order of the grid, and without what it does not have.
    assert list(collect([], [ROW_B, ROW_A], read)) == [("b", 1), ("a", 1), ("a", 2)]
    assert list(collect([], [ROW_B], read)) == [("b", 1)]


def test_a_kept_difference_needs_an_unchanged_twin():
    (first,), (second,) = (table([ROW_A], {"a": seeds_of([n] * 25)}) for n in (8, 4))
    both = table([ROW_A, ROW_B], {"a": seeds_of([8] * 25), "b": seeds_of([12] * 25)})
    kept = {line[0]: line for line in both}
    assert merge_lines([], kept) == merge_lines([first], kept) == kept
    found = merge_lines([second], kept)
    assert found["a"] == second
    assert found["b"] == [*kept["b"][:6], "", "", "", *kept["b"][9:]]
    # It is also kept if only the row is scored again with equal figures.
    (alone,) = table([ROW_B], {"b": seeds_of([12] * 25)})
    assert alone[6:9] == ["", "", ""]
    assert merge_lines([alone], kept) == kept


@pytest.mark.parametrize(
    "row, missing",
    [
        ({"budget": "huge"}, "'huge'"),
        ({"twin": "nobody"}, "'nobody'"),
        ({"first": {"mixture": "mini", "row": "nobody"}}, "'nobody'"),
    ],
)
def test_unknown_names_in_a_row_are_errors(tmp_path, row, missing):
    grid = {"base": "conf/train_asr_conmamba_small.yaml", "budgets": {"short": 10}}
    grid["rows"] = {"a": {"budget": "short", "seeds": [1]} | row}
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(grid))
    with pytest.raises(MlmaError, match=f"grid.yaml: a: {missing} does not exist"):
        read_grid(path)


def test_unknown_rows_in_a_pair_are_errors(tmp_path):
    row = {"budget": "short", "seeds": [1]}
    grid = {"base": "conf/train_asr_conmamba_small.yaml", "budgets": {"short": 10}}
    grid |= {"rows": {"a": row}, "pairs": [["a", "b"]]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    with pytest.raises(MlmaError, match="grid.yaml: pairs: row 'b' does not exist"):
        read_grid(tmp_path / "grid.yaml")


def test_pairs_are_compared_if_both_rows_are_finished():
    few, many = seeds_of([4] * 25), seeds_of([8] * 25, [8] * 25)
    scores = {"near": {"a": few, "b": many}, "far": {"a": few}}
    lines = pairs_table([("a", "b"), ("b", "c")], scores)
    assert lines == [["a", "b", "near", "1, 2", "-20.0 (-20.0 to -20.0)", "-50.0"]]


def test_a_changed_initial_row_has_its_own_folder(tmp_path):
    start = {"mixture": "mini", "row": "a"}
    other = start | {"name": "c", "config": {"optim_conf": {"lr": 0.5}}}
    row = {"budget": "short", "seeds": [1]}
    grid = {"base": "conf/train_asr_conmamba_small.yaml", "budgets": {"short": 10}}
    grid["rows"] = {"a": row, "b": row | {"first": start}, "d": row | {"first": other}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    plain, same, changed = read_grid(tmp_path / "grid.yaml")[1]
    assert same.first == ("mini", plain) and same.start().name == "a_seed1_mini"
    assert changed.start().name == "c_seed1_mini" and changed.config == plain.config
    config = changed.first[1].config
    assert config["optim_conf"] == plain.config["optim_conf"] | {"lr": 0.5}
    assert config | {"optim_conf": 0} == plain.config | {"optim_conf": 0}


def test_bad_json_is_named(tmp_path):
    (tmp_path / "found.json").write_text("{")
    with pytest.raises(MlmaError, match="found.json: not JSON"):
        read_results(tmp_path / "found.json", "T")
