"""Read and check a config.yaml that training wrote, and find its files where they are now."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast
from zipfile import ZipFile, is_zipfile

import numpy as np

from espnet_mlma.data.tables import folders_above
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_lines, read_yaml

Task = Literal["asr", "s2t_ctc"]

# Keys of the configurations of ESPnet's other tasks.
_OF_OTHER_TASKS = ("src_token_list", "transcript_token_list", "subtask_series")
_COMPUTING_ENCODERS = frozenset(
    [
        "branchformer",
        "conformer",
        "conformer_cnn4",
        "conmamba",
        "contextual_block_conformer",
        "contextual_block_transformer",
        "e_branchformer",
        "e_branchformer_ctc",
        "longformer",
        "multiconv_conformer",
        "rnn",
        "torchaudiohubert",
        "transformer",
        "transformer_multispkr",
        "vgg_rnn",
    ]
)
# Classes that only compute. Others of ESPnet's, such as `frontend: s3prl` or `encoder: hubert`,
# download, unpickle or write files that the configuration names; it may be a stranger's.
_COMPUTING = {
    "frontend": frozenset({"default", "sliding_window", "wav2vec_cnn"}),
    "specaug": frozenset({"clip_specaug", "specaug"}),
    "normalize": frozenset({"global_mvn", "utterance_mvn"}),
    "model": frozenset({"espnet", "espnet_ctc", "maskctc", "mlma_ctc", "pit_espnet"}),
    "preencoder": frozenset({"linear", "sinc"}),
    "encoder": _COMPUTING_ENCODERS,
    "promptencoder": _COMPUTING_ENCODERS,
    "postencoder": frozenset({"length_adaptor"}),
    "decoder": frozenset(
        [
            "dynamic_conv",
            "dynamic_conv2d",
            "lightweight_conv",
            "lightweight_conv2d",
            "linear_decoder",
            "mlm",
            "rnn",
            "s4",
            "transducer",
            "transformer",
        ]
    ),
}
# Frames of features to a frame of the encoder, by input layer; the encoders' default input layers.
_SUBSAMPLING = {
    **{"linear": 1, "cnn4": 4, "cnn8": 8, "conv1d1": 1, "conv1d2": 2, "conv1d3": 3},
    **{"conv2d": 4, "conv2d1": 1, "conv2d2": 2, "conv2d6": 6, "conv2d8": 8},
}
_INPUT_LAYERS = {
    **{"conmamba": "cnn4", "e_branchformer_ctc": "conv2d8"},
    **dict.fromkeys(["branchformer", "conformer", "e_branchformer", "transformer"], "conv2d"),
}
_HOP_SAMPLES = 128  # ESPnet's default front-end
# Bytes. The features' statistics are a few numbers for each of some hundred bins.
_LARGEST_STATISTICS = 16 << 20


def read(config: Path) -> dict[str, Any]:
    """Read a configuration that a model can be built from.

    The paths that a loaded model needs (`bpemodel`, `normalize_conf.stats_file`) become absolute;
    `token_list` becomes a list. A path that is not found stays unchanged.

    Args:
        config: the file.

    Raises:
        MlmaError: it cannot be read, is not of a CTC model, names a class that may access other
            files, or has a value of the wrong type.
    """
    arguments = read_yaml(config, "give a config.yaml that training wrote")
    if task_of(arguments) is None:
        raise MlmaError(
            f"{config}: not of a CTC model; give one that ESPnet's asr or s2t_ctc task trained"
        )
    for key, value in arguments.items():
        if str(key).endswith("_conf") and not isinstance(value, dict | None):
            raise MlmaError(f"{config}: {key} is {_shown(value)}; give a mapping of options")
    for key, computing in _COMPUTING.items():
        value = arguments.get(key)
        is_none = value is None and key != "encoder"
        if not is_none and not (isinstance(value, str) and value in computing):
            raise MlmaError(
                f"{config}: {key} is {_shown(value)}, which may download or run files; give one of "
                f"{', '.join(sorted(computing))}"
            )
    if not isinstance(arguments.get("token_type"), str):
        raise MlmaError(
            f"{config}: token_type is {_shown(arguments.get('token_type'))}; give char or bpe"
        )
    rows = arguments.get("train_data_path_and_name_and_type") or []
    if not isinstance(rows, list | tuple) or not all(
        isinstance(row, list | tuple) and row and isinstance(row[0], str) for row in rows
    ):
        raise MlmaError(
            f"{config}: train_data_path_and_name_and_type is not a list of lists of text; take the "
            "file of the training"
        )
    arguments["init"] = None  # every parameter comes from the checkpoint
    arguments["token_list"] = _tokens(config, arguments)
    if isinstance(written := arguments.get("bpemodel"), str):
        arguments["bpemodel"] = str(find(config, written) or written)
    statistics = (arguments.get("normalize_conf") or {}).get("stats_file")
    if statistics is not None:
        arguments["normalize_conf"]["stats_file"] = str(_statistics(config, str(statistics)))
    pieces_of(arguments)  # finds a damaged file now and not at the first alignment
    return arguments


def task_of(config: dict[str, Any]) -> Task | None:
    """Return ESPnet's task that a configuration belongs to; None: the task is not supported.

    Args:
        config: a config.yaml that training wrote.
    """
    if config.get("model") == "espnet_ctc" and "token_list" in config:
        return "s2t_ctc"
    is_other = config.get("preprocessor") == "s2t" or any(key in config for key in _OF_OTHER_TASKS)
    return None if is_other or not {"encoder", "ctc_conf", "token_list"} <= set(config) else "asr"


def frame_samples(config: dict[str, Any]) -> int | None:
    """Return the samples from one encoder frame to the next, as the configuration says.

    Args:
        config: from `read`.

    Returns:
        Samples; None: only the model can tell, see `AcousticModel.frame_samples`.
    """
    encoder = config["encoder"]
    options = config.get("encoder_conf") or {}
    layer = options.get("input_layer", _INPUT_LAYERS.get(encoder))
    subsampling = _SUBSAMPLING.get("cnn4" if encoder == "conformer_cnn4" else layer)
    hop = (config.get("frontend_conf") or {}).get("hop_length", _HOP_SAMPLES)
    is_plain = config.get("frontend", "default") == "default" and not config.get("postencoder")
    if not is_plain or subsampling is None or not isinstance(hop, int) or hop < 1:
        return None
    return hop * subsampling


def find(config: Path, written: str) -> Path | None:
    """Find a file that a configuration names, also after model or recipe were moved.

    Training writes paths relative to the recipe's folder, or absolute paths of its machine. The
    path and its last parts are looked up in the folders above the configuration, nearest first,
    then in the current folder, then beside the configuration.

    Args:
        config: the configuration.
        written: the path in it.

    Returns:
        An absolute path to a file; None: it is not found.
    """
    return next((path for path in _places(config, Path(written)) if os.path.isfile(path)), None)


def _places(config: Path, written: Path) -> Iterator[Path]:
    if written.is_absolute():
        yield written
    parts = written.parts[1:] if written.is_absolute() else written.parts
    above = folders_above(config)
    for first in range(max(1, len(parts) - 1)):
        end = Path(*parts[first:])
        yield from (folder / end for folder in above)
        if first == 0:
            yield written.absolute()
    yield config.absolute().parent / written.name
    yield written.absolute()


def pieces_of(config: dict[str, Any]) -> Callable[[str], list[str]] | None:
    """Load the SentencePiece model that splits text into a model's symbols; alignment needs it.

    Args:
        config: from `read`.

    Returns:
        A function from text to symbols; None: the model is not `bpe`, or its `bpemodel` is missing.

    Raises:
        MlmaError: the file is damaged, or has another vocabulary.
    """
    file = config.get("bpemodel")
    if config["token_type"] != "bpe" or not isinstance(file, str) or not os.path.isfile(file):
        return None
    from sentencepiece import SentencePieceProcessor

    try:
        processor = cast(Any, SentencePieceProcessor)(model_proto=Path(file).read_bytes())
        pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    except (OSError, RuntimeError):
        processor, pieces = None, []
    if processor is None or not pieces:
        raise MlmaError(f"{file}: a damaged SentencePiece model; copy it again")
    known = len(set(pieces) & set(config["token_list"]))
    if 2 * known < len(pieces):
        raise MlmaError(
            f"{file}: only {known} of its {len(pieces)} pieces are symbols of the model; copy the "
            "file of the training"
        )
    return lambda text: processor.encode(text, out_type=str)


def _tokens(config: Path, arguments: dict[str, Any]) -> list[str]:
    tokens = arguments["token_list"]
    if isinstance(tokens, str):
        file = find(config, tokens)
        if file is None:
            raise MlmaError(f"{config}: token_list {tokens} is not found; copy it with the model")
        try:
            tokens = [line.rstrip() for line in read_lines(file)]
        except OSError as error:
            raise MlmaError(f"{file}: cannot be read ({error}); copy it again") from None
    if not isinstance(tokens, list | tuple) or not tokens:
        raise MlmaError(f"{config}: token_list is {_shown(tokens)}; give a list of symbols")
    if wrong := [token for token in tokens if not isinstance(token, str) or not token]:
        raise MlmaError(
            f"{config}: token_list has {_shown(wrong[0])}, which is not a text; quote it"
        )
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise MlmaError(f"{config}: token_list has {twice!r} twice; take the one of training")
    blank = (arguments.get("model_conf") or {}).get("sym_blank", "<blank>")
    if tokens[0] != blank:
        raise MlmaError(
            f"{config}: token_list begins with {tokens[0]!r}, not with CTC's {blank!r}; take the "
            "one of training"
        )
    return list(tokens)


def _shown(value: object) -> str:
    return textwrap.shorten(repr(value), 80, placeholder=" ...")


def _statistics(config: Path, written: str) -> Path:
    """Find the file of the features' statistics and check it."""
    path = find(config, written)
    if path is None:
        raise MlmaError(f"{config}: {written} is not found; copy it with the model")
    try:
        if is_zipfile(path):
            with ZipFile(path) as members:
                size = sum(member.file_size for member in members.infolist())
        else:
            size = path.stat().st_size
        if size > _LARGEST_STATISTICS:
            raise ValueError(f"{size} bytes")
        found = np.load(path)  # without pickles
        if isinstance(found, np.ndarray):  # of Kaldi
            arrays = [found]
            is_whole = found.ndim == 2 and len(found) == 2
        else:
            arrays = [found[key] for key in ("count", "sum", "sum_square")]
            count, total, squares = arrays
            is_whole = count.size == 1 and total.ndim == 1 and total.shape == squares.shape
        if not is_whole or not all(a.dtype.kind in "iuf" and np.isfinite(a).all() for a in arrays):
            raise ValueError("other arrays")
    except Exception as error:  # a damaged file may raise any
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise MlmaError(
            f"{path}: damaged statistics of features ({reason}); copy it again"
        ) from None
    return path
