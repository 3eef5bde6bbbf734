"""Every configuration passes ESPnet's own dry run; the paper's models are what they claim."""

import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from espnet2.tasks.abs_task import scheduler_classes
from espnet2.tasks.asr import ASRTask
from espnet2.train.distributed_utils import DistributedOption
from torch.testing._internal.distributed.fake_pg import FakeStore

import espnet_mlma  # noqa: F401  registers the encoders
from espnet_mlma.decode.folder import read_options

CONF = Path(__file__).resolve().parents[1] / "conf"
TRAIN = sorted(CONF.glob("train_asr_*.yaml"))
# 31 symbols, as the paper's models for LibriSpeech have.
SYMBOLS = ["<blank>", "<unk>", "<space>", *"abcdefghijklmnopqrstuvwxyz'", "<sos/eos>"]
SAMPLE_RATE = 16000
PAPER = ("conmamba", "conmamba_42m", "conformer", "conmamba_best")
paper_sized = pytest.mark.parametrize("name", PAPER)


def path_of(name: str) -> Path:
    return CONF / f"train_asr_{name}.yaml"


def dry_run(config: Path, folder: Path, *options: str) -> None:
    tokens = folder / "tokens.txt"
    tokens.write_text("\n".join(SYMBOLS) + "\n", encoding="utf-8")
    command = ["--config", config, "--dry_run", "true", "--iterator_type", "none"]
    command += ["--output_dir", folder / "out", "--token_list", tokens, "--token_type", "char"]
    ASRTask.main(cmd=[*map(str, command), "--ngpu", "0", *options])


def arguments(name: str, *options: object) -> Namespace:
    """What ESPnet's trainer gets from a configuration and further options."""
    command = ["--config", path_of(name), "--output_dir", "unused", "--ngpu", 0, *options]
    args = ASRTask.get_parser().parse_args([str(word) for word in command])
    args.token_list, args.token_type = SYMBOLS, "char"
    return args


@pytest.mark.parametrize("config", TRAIN, ids=lambda path: path.stem)
def test_dry_run(config, tmp_path):
    dry_run(config, tmp_path)
    assert (tmp_path / "out" / "config.yaml").is_file()


def test_conformer_gets_our_front_end_by_one_option(tmp_path):
    dry_run(CONF / "train_asr_conformer.yaml", tmp_path, "--encoder", "conformer_cnn4")


@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        ("conmamba", [], 31.6),
        ("conmamba_42m", [], 42.0),
        ("conformer", ["--encoder", "conformer_cnn4"], 28.8),
        ("conmamba_best", [], 31.6),
    ],
)
def test_it_has_the_size_of_the_papers(name, options, millions):
    with torch.device("meta"):
        model = ASRTask.build_model(arguments(name, *options))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@paper_sized
def test_it_has_as_many_updates_as_the_papers(name):
    args = arguments(name)
    iterations = args.num_iters_per_epoch * args.max_epoch
    assert args.num_iters_per_epoch % args.accum_grad == 0
    assert args.keep_nbest_models == 10
    assert iterations // args.accum_grad == 127_000


def test_the_paper_sized_models_train_on_as_much_speech_as_mamba_asr():
    """At most: an iteration has batch_bins on all GPUs together, padding included, as theirs."""
    args = arguments("conmamba")
    hours = args.num_iters_per_epoch * args.max_epoch * args.batch_bins / SAMPLE_RATE / 3600
    assert round(hours / 960) == 500
    assert int(hours / 11_840) == 40


@paper_sized
def test_learning_rate_peaks_after_warm_up(name):
    args = arguments(name)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    (optimiser,) = ASRTask.build_optimizers(args, model)
    scheduler = scheduler_classes[args.scheduler](optimiser, **args.scheduler_conf)
    rates = []
    for _ in range(10_000):
        rates.append(scheduler.get_last_lr())
        optimiser.step()
        scheduler.step()
    weights, others = zip(*rates, strict=True)
    assert weights == others
    assert int(np.argmax(weights)) + 1 == 7500
    assert max(weights) == pytest.approx(1e-3)
    # A hundredth of the way after, it falls with the inverse square root.
    assert weights[-1] == pytest.approx(1e-3 * math.sqrt(7500 / 10_000))
    decays = [group["weight_decay"] for group in optimiser.param_groups]
    assert sorted(decays) == [0, 0.0005]


@pytest.fixture(scope="module")
def training_set(tmp_path_factory) -> Path:
    """The tables of five hours of speech, without the speech: clips of two corpora."""
    folder = tmp_path_factory.mktemp("train")
    generator = np.random.default_rng(0)
    kinds = [("it", "cv", 6.0), ("it", "mls", 15.0), ("en", "ls", 12.0)]
    ids = {
        f"{lang}_{corpus}-{i}": (lang, corpus, mean)
        for lang, corpus, mean in kinds
        for i in range(600)
    }
    rows = {
        "wav.scp": {id_: "nowhere.ark:0" for id_ in ids},
        "utt2num_samples": {
            id_: round(SAMPLE_RATE * mean * generator.uniform(0.3, 1.7))
            for id_, (_, _, mean) in ids.items()
        },
        "utt2dataset": {id_: lang for id_, (lang, _, _) in ids.items()},
        "utt2category": {id_: corpus for id_, (_, corpus, _) in ids.items()},
    }
    for name, table in rows.items():
        text = "".join(f"{id_} {value}\n" for id_, value in table.items())
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def samples(training_set) -> dict[str, int]:
    lines = (training_set / "utt2num_samples").read_text(encoding="utf-8").splitlines()
    return {id_: int(number) for id_, number in map(str.split, lines)}


def draw(args: Namespace, training_set: Path, epoch: int, distributed: bool = False):
    """The batches that ESPnet's trainer gets in an epoch."""
    args.train_data_path_and_name_and_type = [
        (str(training_set / "wav.scp"), "speech", "kaldi_ark"),
        (str(training_set / "wav.scp"), "text", "text"),
    ]
    args.train_shape_file = [str(training_set / "utt2num_samples")]
    args.use_preprocessor, args.num_workers = False, 0
    option = DistributedOption(distributed=distributed)
    factory = ASRTask.build_iter_factory(args, option, mode="train")
    return list(factory.build_iter(epoch).batch_sampler)


@paper_sized
@pytest.mark.parametrize("epoch", [1, 3])
def test_batches_are_those_of_the_configuration(name, epoch, training_set, samples):
    args = arguments(name)
    batches = draw(args, training_set, epoch)
    assert len(batches) == args.num_iters_per_epoch
    assert max(map(len, batches)) <= args.max_batch_size
    bins = [max(samples[id_] for id_ in batch) * len(batch) for batch in batches]
    assert max(bins) <= args.batch_bins
    assert np.median(bins) > 0.95 * args.batch_bins
    speech = sum(samples[id_] for batch in batches for id_ in batch)
    assert sum(bins) < 1.15 * speech


def test_gpus_share_a_batch(training_set, samples):
    """The reason why run_paper.sh multiplies batch_bins by their number."""
    gpus, shares = 4, []
    for rank in range(gpus):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=gpus)
        try:
            batches = draw(arguments("conmamba"), training_set, 3, distributed=True)
        finally:
            dist.destroy_process_group()
        shares.append(batches)
    whole = draw(arguments("conmamba", "--min_batch_size", gpus), training_set, 3)
    for batch, *of_gpus in zip(whole, *shares, strict=True):
        assert of_gpus == [batch[rank::gpus] for rank in range(gpus)]
    bins = [
        np.median([max(samples[id_] for id_ in batch) * len(batch) for batch in batches])
        for batches in shares
    ]
    assert sum(bins) == pytest.approx(arguments("conmamba").batch_bins, rel=0.05)
    assert max(bins) < 1.1 * min(bins)


REDUCED = {
    "output_size": 16,
    "linear_units": 32,
    "num_blocks": 3,
    "cnn_module_kernel": 7,
}


@paper_sized
def test_one_step_of_a_reduced_model(name):
    args = arguments(name)
    args.encoder_conf |= REDUCED
    if "interctc_layer_idx" in args.encoder_conf:
        args.encoder_conf["interctc_layer_idx"] = [1, 2]
    torch.manual_seed(0)
    model = ASRTask.build_model(args).train()
    (optimiser,) = ASRTask.build_optimizers(args, model)
    before = {key: value.clone() for key, value in model.named_parameters()}
    lengths = torch.tensor([16000, 12000])
    text = torch.tensor([[3, 4, 5, 4], [6, 7, -1, -1]])
    loss, stats, _ = model(torch.randn(2, 16000) * 0.1, lengths, text, torch.tensor([4, 2]))
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss)
    still = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert still == []
    assert ("loss_cr" in stats) == (name == "conmamba_best")


@pytest.mark.parametrize("config", sorted(CONF.glob("decode_*.yaml")), ids=lambda path: path.stem)
def test_decoding_options_are_known(config):
    batch_seconds, _ = read_options(config)
    assert batch_seconds > 0
