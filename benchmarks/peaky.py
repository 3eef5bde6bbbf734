"""A model with random weights, whose emissions may look like those of a trained one."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
import yaml
from common import ROOT
from espnet2.tasks.asr import ASRTask
from torch import Tensor, nn

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.loading.paths import AVERAGES

# How far a frame's own symbol is above the others. With it a prefix beam tries 3 symbols a frame
# beside blank where 18 are written in 10 s; of the recipe's trained models it tries 2 to 11.
SHARPNESS = 0.06


def write_experiment(
    folder: Path, utterances: list[np.ndarray], vocabulary: int, symbols: float | None
) -> None:
    """conf/train_asr_conmamba.yaml with sentencepieces, as training leaves it.

    Args:
        folder: gets config.yaml, the checkpoint and the sentencepiece model.
        utterances: what it will recognise, each (time,) samples at 16 kHz.
        vocabulary: its size.
        symbols: how many are to be written in 10 s; None leaves the weights as initialised.
    """
    syllables = ["".join(two) for two in itertools.product("bdfgklmnprstvz", "aeiou")]
    draw = random.Random(0)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=("".join(draw.choices(syllables, k=3)) for _ in range(20000)),
        model_prefix=folder / "bpe",
        vocab_size=vocabulary,
        minloglevel=2,
    )
    pieces = [line.split("\t")[0] for line in (folder / "bpe.vocab").read_text().splitlines()[3:]]
    config = ROOT / "conf" / "train_asr_conmamba.yaml"
    args = ASRTask.get_parser().parse_args(["--config", str(config), "--output_dir", str(folder)])
    args.token_list = ["<blank>", "<unk>", *pieces, "<sos/eos>"]
    args.token_type, args.bpemodel, args.normalize = "bpe", str(folder / "bpe.model"), None
    torch.manual_seed(0)
    model = ASRTask.build_model(args).eval()
    if symbols is not None:
        frames = torch.cat([encode(model, samples) for samples in utterances])
        seconds = sum(map(len, utterances)) / SAMPLE_RATE
        sharpen(model.ctc.ctc_lo, frames, round(symbols * seconds / 10))
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    torch.save(model.state_dict(), folder / AVERAGES[0])


@torch.no_grad()
def sharpen(layer: nn.Linear, frames: Tensor, count: int) -> None:
    """Make an output layer write blanks, and here and there a symbol.

    It becomes a linear discriminant. Frames are drawn at random and given to the symbols in turn,
    but for <unk> and <sos/eos>, the first after blank and the last; blank has the other frames.

    Args:
        layer: from frames to symbols, blank first.
        frames: (frames, channels) of all utterances.
        count: how many are drawn.
    """
    mean = frames.double().mean(0)
    centred = frames.double() - mean
    # The last norm has left one direction without variance.
    whiten = SHARPNESS * torch.linalg.pinv(centred.T.cov(), rtol=1e-6, hermitian=True)
    drawn = centred[torch.randperm(len(frames))[:count]]
    owners = 2 + torch.arange(count) % (layer.out_features - 3)
    shares = F.one_hot(owners, layer.out_features).double().T  # (symbols, drawn)
    weight = shares @ drawn @ whiten
    # Half way between the frames that are the symbol's own and those that are not.
    half = shares @ (drawn @ whiten * drawn).sum(1) / (2 * shares.sum(1).clamp(min=1))
    layer.weight.copy_(weight)
    layer.bias.copy_(-weight @ mean - half)
    layer.bias[[1, -1]] = -100
    # Blank must have the rest, also of the frames that are like many.
    layer.bias[0] = layer(frames)[:, 2:-1].amax(1).quantile(1 - count / len(frames))


@torch.no_grad()
def encode(model: nn.Module, samples: np.ndarray) -> Tensor:
    """The encoder's output (frames, channels) for samples (time,)."""
    return model.encode(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))[0][0]
