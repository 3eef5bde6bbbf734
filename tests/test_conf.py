"""Every configuration passes ESPnet's own dry run."""

from pathlib import Path

import pytest
from espnet2.tasks.asr import ASRTask

import espnet_mlma  # noqa: F401  registers the encoders
from espnet_mlma.decode.__main__ import read_options

CONF = Path(__file__).resolve().parents[1] / "conf"
TRAIN = sorted(CONF.glob("train_asr_*.yaml"))


def dry_run(config: Path, folder: Path, *options: str) -> None:
    tokens = folder / "tokens.txt"
    symbols = ["<blank>", "<unk>", "<space>", *"abcdefghijklmnopqrstuvwxyz'", "<sos/eos>"]
    tokens.write_text("\n".join(symbols) + "\n", encoding="utf-8")
    command = ["--config", config, "--dry_run", "true", "--iterator_type", "none"]
    command += ["--output_dir", folder / "out", "--token_list", tokens, "--token_type", "char"]
    ASRTask.main(cmd=[*map(str, command), "--ngpu", "0", *options])


@pytest.mark.parametrize("config", TRAIN, ids=lambda path: path.stem)
def test_dry_run(config, tmp_path):
    dry_run(config, tmp_path)
    assert (tmp_path / "out" / "config.yaml").is_file()


def test_conformer_gets_our_front_end_by_one_option(tmp_path):
    dry_run(CONF / "train_asr_conformer.yaml", tmp_path, "--encoder", "conformer_cnn4")


@pytest.mark.parametrize("config", sorted(CONF.glob("decode_*.yaml")), ids=lambda path: path.stem)
def test_decoding_options_are_known(config):
    batch_seconds, _ = read_options(config)
    assert batch_seconds > 0
