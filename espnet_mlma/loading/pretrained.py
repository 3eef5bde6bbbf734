"""Start a training from a model: its configuration, its tokens, and its parameters by symbol.

    mlma recipe pretrained --model MODEL --output exp/pretrained_x
    mlma recipe pretrained --model MODEL --output exp/pretrained_x \
        --token_list data/token_list/char/tokens.txt --init exp/asr_x/pretrained.pth

The first command writes what stages 5, 10 and 11 need: `fine_tuned.yaml`, `tokens.txt` and, for
BPE, `bpe.model`. The second one writes the initial parameters for an extended token list: rows of
known symbols are the model's, rows of new ones are initialised as in training from nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import espnet_mlma  # noqa: F401  registers the encoders
from espnet_mlma import digests, files
from espnet_mlma.arguments import ArgumentParser, first_line
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder
from espnet_mlma.loading import checkpoint, configuration
from espnet_mlma.loading.paths import located

CONFIG, TOKENS, BPE, RECORD = "fine_tuned.yaml", "tokens.txt", "bpe.model", "model.json"
# Share of the peak learning rate of the model's own training.
_RATE = 1 / 3
_WARMUP_STEPS = 200
# Options of a trained model's configuration that describe a training and not its data.
_KEPT = (
    *("frontend", "frontend_conf", "specaug", "specaug_conf", "preencoder", "preencoder_conf"),
    *("encoder", "encoder_conf", "postencoder", "postencoder_conf", "decoder", "decoder_conf"),
    *("model", "model_conf", "ctc_conf", "preprocessor", "preprocessor_conf", "optim"),
    *("exclude_weight_decay", "grad_clip", "accum_grad", "batch_type", "batch_bins", "max_epoch"),
    *("use_amp", "amp_dtype", "best_model_criterion", "keep_nbest_models", "num_att_plot"),
    *("num_workers", "log_interval", "use_tensorboard", "seed", "iterator_type", "max_batch_size"),
    *("category_upsampling_factor", "dataset_upsampling_factor", "num_iters_per_epoch"),
    *("valid_iterator_type", "valid_batch_type", "valid_batch_bins", "valid_max_batch_size"),
)
# Options that a checkpoint depends on.
_ARCHITECTURE = (
    *("frontend", "frontend_conf", "encoder", "encoder_conf", "decoder", "decoder_conf", "model"),
)


def fine_tuning(config: Mapping[str, Any]) -> dict[str, Any]:
    """Make the configuration of a fine-tuning from that of a trained model.

    Args:
        config: of the model, as ESPnet's trainer wrote it.

    Returns:
        The same model and batches, with a third of the peak learning rate, ESPnet's `warmuplr` and
        200 steps of warm-up. Synthesis on access is replaced by `preprocessor: non_speech`.
    """
    kept = {key: config[key] for key in _KEPT if config.get(key) is not None}
    if kept.get("preprocessor") == "espeak":
        kept |= {"preprocessor": "non_speech", "preprocessor_conf": {}}
    optim = dict(config.get("optim_conf") or {})
    schedule = config.get("scheduler_conf") or {}
    peak = max(schedule.get("warmup_lr_list") or [float(optim.get("lr", 0.001))])
    kept["optim_conf"] = optim | {"lr": float(f"{peak * _RATE:.3g}")}
    return kept | {"scheduler": "warmuplr", "scheduler_conf": {"warmup_steps": _WARMUP_STEPS}}


def write_start(model: str, out: Path) -> None:
    """Write a folder with a model's configuration for fine-tuning and its tokens.

    Args:
        model: experiment folder, packed zip, or hub id.
        out: the folder; kept if it was made from the same model.

    Raises:
        MlmaError: the model cannot be read, or the folder was made from another one.
    """
    with located(Path(model)) as (config_file, model_file):
        record = {"model": digests.of_file(model_file), "config": digests.of_file(config_file)}
        if out.is_dir():
            _check_record(out / RECORD, record, "remove it, or give another --expdir")
            return
        _, config = checkpoint.from_files(config_file, model_file)  # fails now, not in stage 11

        def fill(new: Path) -> None:
            text = yaml.safe_dump(fine_tuning(config), sort_keys=False)
            (new / CONFIG).write_text(f"# Fine-tuning of {model}\n{text}", encoding="utf-8")
            tokens = "".join(f"{token}\n" for token in config["token_list"])
            (new / TOKENS).write_text(tokens, encoding="utf-8")
            if config.get("token_type") == "bpe":
                shutil.copyfile(config["bpemodel"], new / BPE)
            (new / RECORD).write_text(json.dumps(record), encoding="utf-8")

        replace_folder(out, fill)


def write_parameters(model: str, token_list: Path, config: Path | None, init: Path) -> int:
    """Write the initial parameters of a training with more tokens than a model has.

    Args:
        model: as for `write_start`.
        token_list: of the training; it begins with the model's tokens but the last one.
        config: training configuration; None: the model's. It must describe the same network.
        init: file to write, for ESPnet's `--init_param`; kept if it was made from the same inputs.

    Returns:
        The number of new tokens.

    Raises:
        MlmaError: the network differs, or the file was made from another model or token list.
    """
    tokens = files.read_text(token_list, "run stage 5").splitlines()
    place = init.with_suffix(".json")
    with located(Path(model)) as (config_file, model_file):
        record = {"model": digests.of_file(model_file), "tokens": digests.of_file(token_list)}
        known = list(configuration.read(config_file)["token_list"])
        if init.exists():
            _check_record(place, record, "remove the experiment, or give another --asr_tag")
            return len(tokens) - len(known)
        loaded, old = checkpoint.from_files(config_file, model_file)
        if [*tokens[: len(known) - 1], tokens[-1]] != known:
            raise MlmaError(f"{token_list}: does not extend the model's tokens; run stage 5 again")
        if config is not None:
            _check_network(config, old)
        state = mapped(loaded.state_dict(), _fresh(old, tokens), known, tokens)
    init.parent.mkdir(parents=True, exist_ok=True)
    files.write(place, json.dumps(record))  # first: a killed run maps again
    with files.whole(init) as new:
        torch.save(state, new)
    return len(tokens) - len(known)


def mapped(
    old: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    known: Sequence[str],
    tokens: Sequence[str],
) -> dict[str, Tensor]:
    """Copy parameters; along an axis of tokens, copy the rows of known symbols.

    Args:
        old: parameters of the model.
        fresh: of the same network with `tokens`, as initialised.
        known: tokens of the model.
        tokens: of the new network.

    Raises:
        MlmaError: a parameter is missing, or differs in another axis than that of the tokens.
    """
    places = {token: place for place, token in enumerate(known)}
    pairs = [(new, places[token]) for new, token in enumerate(tokens) if token in places]
    new_rows, old_rows = (torch.tensor(rows) for rows in zip(*pairs, strict=True))
    if old.keys() != fresh.keys():
        name = min(old.keys() ^ fresh.keys())
        raise MlmaError(f"{name}: only one of the networks has it; use the model's --asr_config")
    found = {}
    for name, value in fresh.items():
        source, value = old[name], value.clone()
        is_alike = source.dim() == value.dim()
        sizes = list(zip(source.shape, value.shape, strict=is_alike))
        axes = [axis for axis, (before, now) in enumerate(sizes) if before != now]
        is_of_tokens = all(sizes[axis] == (len(known), len(tokens)) for axis in axes)
        if not is_alike or not is_of_tokens or len(axes) > 1:
            raise MlmaError(
                f"{name}: {tuple(source.shape)} in the model and {tuple(value.shape)} here; use "
                "the model's --asr_config"
            )
        if axes:
            value.index_copy_(axes[0], new_rows, source.index_select(axes[0], old_rows))
        else:
            value = source.clone()
        found[name] = value
    return found


def _fresh(config: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Tensor]:
    """Initialise a model's network with other tokens."""
    from espnet2.tasks.asr import ASRTask

    torch.manual_seed(0)
    arguments = argparse.Namespace(**{**config, "token_list": list(tokens)})
    return ASRTask.build_model(arguments).state_dict()


def _check_network(config: Path, old: Mapping[str, Any]) -> None:
    """Refuse a training configuration of another network."""
    wanted = files.read_yaml(config, "give another --asr_config")
    for key in _ARCHITECTURE:
        given = wanted.get(key)
        if not isinstance(given, dict):
            differs = given is not None and given != old.get(key)
        else:
            differs = any(old.get(key, {}).get(name) != value for name, value in given.items())
        if differs:
            raise MlmaError(
                f"{config}: {key} is not that of the pretrained model; leave out --asr_config, or "
                "give the model's"
            )


def _check_record(path: Path, record: Mapping[str, str], remedy: str) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != record:
        raise MlmaError(f"{path.parent}: was made from another model or token list; {remedy}")


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare a fine-tuning from the command line."""
    parser = ArgumentParser(prog="mlma recipe pretrained", description=first_line(__doc__))
    parser.add_argument("--model", required=True, help="experiment folder, zip or hub id")
    parser.add_argument("--output", type=Path, required=True, help="folder for what it starts from")
    parser.add_argument("--token_list", type=Path, help="of stage 5; also write --init")
    parser.add_argument("--config", type=Path, help="training configuration, to compare")
    parser.add_argument("--init", type=Path, help="initial parameters to write")
    args = parser.parse_args(argv)
    write_start(args.model, args.output)
    if args.init is not None and args.token_list is not None:
        new = write_parameters(args.model, args.token_list, args.config, args.init)
        print(f"  initial parameters in {args.init}: {new} new tokens")
        return
    rate = files.read_yaml(args.output / CONFIG, "remove the folder")["optim_conf"]["lr"]
    print(f"{args.output}: fine-tuning of {args.model} with a learning rate of {rate:g}")
