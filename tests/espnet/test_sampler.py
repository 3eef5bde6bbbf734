"""`batch_type: balanced_length` in ESPnet's task."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.tasks.asr import ASRTask
from espnet2.train.distributed_utils import DistributedOption

import espnet_mlma  # noqa: F401  registers the sampler
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.sampler import BalancedIterFactory

OPTIONS = ["--iterator_type", "category", "--batch_type", "balanced_length", "--num_workers", "2"]
OPTIONS += ["--batch_bins", "200", "--num_iters_per_epoch", "6", "--ngpu", "0"]
OPTIONS += ["--output_dir", "unused", "--use_preprocessor", "false"]


@pytest.fixture
def args(tmp_path) -> Namespace:
    """Options of a training on numbers instead of sound."""
    generator = np.random.default_rng(0)
    rows = {
        f"u{i:03d}": (int(generator.integers(5, 40)), "en" if i % 3 else "it") for i in range(90)
    }
    numbers = {id_: " ".join(["1.5"] * length) for id_, (length, _) in rows.items()}
    for name, table in (
        ("numbers", numbers),
        ("texts", {id_: " ".join(["3"] * 4) for id_ in rows}),
        ("speech_shape", {id_: length for id_, (length, _) in rows.items()}),
        ("text_shape", {id_: 4 for id_ in rows}),
        ("utt2dataset", {id_: lang for id_, (_, lang) in rows.items()}),
        ("utt2category", dict.fromkeys(rows, "cv")),
    ):
        lines = [f"{id_} {value}\n" for id_, value in table.items()]
        (tmp_path / name).write_text("".join(lines))
    args = ASRTask.get_parser().parse_args(OPTIONS)
    data = [(str(tmp_path / "numbers"), "speech", "text_float")]
    data.append((str(tmp_path / "texts"), "text", "text_int"))
    args.train_data_path_and_name_and_type = args.valid_data_path_and_name_and_type = data
    # As ESPnet's asr.sh: lengths of speech, then those of text.
    shapes = [str(tmp_path / "speech_shape"), str(tmp_path / "text_shape")]
    args.train_shape_file = args.valid_shape_file = shapes
    return args


def build(args: Namespace, mode: str):
    return ASRTask.build_iter_factory(args, DistributedOption(distributed=False), mode=mode)


def test_workers_load_the_batches_of_an_epoch(args):
    factory = build(args, "train")
    assert isinstance(factory, BalancedIterFactory)
    loader = factory.build_iter(2)
    found = list(loader)
    assert len(loader) == len(found) == 6
    drawn = list(factory.draw.epoch(2))
    for (ids, batch), expected in zip(found, drawn, strict=True):
        assert list(ids) == expected
        assert batch["speech"].shape[0] == len(ids)
        assert batch["speech"].numel() <= 200
    assert Path(args.train_shape_file[0] + ".clips").is_dir()


def test_an_epoch_continues_after_its_used_batches(args):
    factory = build(args, "train")
    assert isinstance(factory, BalancedIterFactory)
    whole = [list(ids) for ids, _ in factory.build_iter(2)]
    again = factory.build_iter(2, start=4)
    assert len(again) == 2
    assert [list(ids) for ids, _ in again] == whole[4:]


def test_attention_plots_need_no_category_tables(args):
    args.num_att_plot = 3
    assert isinstance(build(args, "plot_att"), SequenceIterFactory)


def test_validation_with_balanced_batches_is_refused(args):
    with pytest.raises(MlmaError, match="set valid_iterator_type: sequence"):
        build(args, "valid")
    args.valid_iterator_type, args.valid_batch_type = "sequence", "numel"
    assert isinstance(build(args, "valid"), SequenceIterFactory)


def test_without_lengths_it_says_what_to_give(args):
    args.train_shape_file = []
    with pytest.raises(MlmaError, match="give --train_shape_file"):
        build(args, "train")


def test_other_batch_types_stay_espnets(args):
    args.batch_type = "catpow"
    with pytest.raises(ValueError, match="category2utt"):
        build(args, "train")
