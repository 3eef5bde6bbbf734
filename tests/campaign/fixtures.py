"""Tiny models and sounds to damage."""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module
from pathlib import Path

import numpy as np
import soundfile

TOKENS = ["<blank>", "<unk>", "<space>", *"abcdefghij", "<sos/eos>"]
RATE = 16000
_STATISTICS = "exp/stats/train/feats_stats.npz"


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """(samples,) float64: tones that swell and fade, and some noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(120, 400) * (1 + 0.3 * np.sin(2 * np.pi * 1.3 * time))
    tones = np.sin(2 * np.pi * np.cumsum(pitch) / rate) * np.sin(2 * np.pi * 2 * time)
    return 0.3 * tones + rng.normal(0, 0.02, len(time))


def clip(path: Path, seconds: float = 2.0, seed: int = 0) -> Path:
    """Write a sound as a WAV file; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(seconds, seed), RATE, format="WAV")
    return path


def experiment(folder: Path, bpe: bool = False) -> Path:
    """Write an untrained model as training leaves it, with its statistics.

    Args:
        folder: becomes the folder above `exp/model`.
        bpe: with tokens of SentencePiece, else of characters.

    Returns:
        The experiment folder.
    """
    import sentencepiece
    import torch
    import yaml
    from espnet2.tasks.asr import ASRTask

    place = folder / "exp" / "model"
    place.mkdir(parents=True)
    (folder / _STATISTICS).parent.mkdir(parents=True)
    np.savez(folder / _STATISTICS, count=100, sum=np.zeros(80), sum_square=np.ones(80) * 100)
    options: dict = {"token_list": TOKENS, "token_type": "char"}
    if bpe:
        prefix = folder / "data" / "bpe"
        prefix.parent.mkdir()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a bad cab", "feed a head", "big cage", "i dig jade"] * 5),
            model_prefix=str(prefix),
            vocab_size=20,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        lines = prefix.with_suffix(".vocab").read_text(encoding="utf-8").splitlines()
        pieces = [line.split("\t")[0] for line in lines[3:]]
        options = {
            "token_list": ["<blank>", "<unk>", *pieces, "<sos/eos>"],
            "token_type": "bpe",
            "bpemodel": "data/bpe.model",
        }
    arguments = vars(ASRTask.get_parser().parse_args(["--output_dir", "exp/model"])) | options
    arguments |= {
        "encoder": "conmamba",
        "encoder_conf": {"output_size": 16, "num_blocks": 2, "linear_units": 32},
        "model_conf": {"ctc_weight": 1.0},
        "frontend_conf": {"fs": "16k", "hop_length": 160, "center": False},
        "normalize": "global_mvn",
        "normalize_conf": {"stats_file": str(folder / _STATISTICS)},
    }
    torch.manual_seed(0)
    model = ASRTask.build_model(Namespace(**arguments))
    arguments["normalize_conf"] = {"stats_file": _STATISTICS}
    # Blank must not win every frame, or there is nothing to compare.
    with torch.no_grad():
        model.ctc.ctc_lo.bias[0] -= 0.5
        model.ctc.ctc_lo.weight.mul_(4)
    (place / "config.yaml").write_text(yaml.safe_dump(arguments))
    torch.save(model.state_dict(), place / "valid.cer_ctc.ave.pth")
    return place


def pack(place: Path, target: Path) -> Path:
    """Pack an experiment as stage 14 does."""
    import os

    from espnet2.main_funcs.pack_funcs import pack

    before = Path.cwd()
    os.chdir(place.parents[1])
    try:
        pack(
            {"asr_model_file": f"exp/{place.name}/valid.cer_ctc.ave.pth"},
            {"asr_train_config": f"exp/{place.name}/config.yaml"},
            str(target),
            option=[_STATISTICS],
        )
    finally:
        os.chdir(before)
    return target


def import_readers() -> None:
    """Import what stages 1 to 3 need, once for all forked processes."""
    import_module("espnet_mlma.data.prepare")
    import_module("espnet_mlma.data.format_audio")


def import_models() -> None:
    """Import what models need, likewise; a fork of what has so much mapped takes its time."""
    import torch

    torch.set_num_threads(1)  # OpenMP's threads do not live on in a forked process
    from espnet_mlma.espnet.imports import import_espnet

    import_espnet()
    import_readers()
    for name in ("cli", "decode", "decode.formats"):
        import_module(f"espnet_mlma.{name}")
