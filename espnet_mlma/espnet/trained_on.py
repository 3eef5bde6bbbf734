"""Record the data and options of a training run, and compare them when it resumes.

ESPnet resumes with any data. With changed data it trains one model on both versions, or skips
training if all epochs are finished. With a changed token list it fails. `trained_on.json` in the
experiment holds digests of the data and the token list, and the options. `collected_from.json`
holds the same for the statistics of stage 10.

    mlma recipe trained-on exp/asr_train    # has its data changed?

Options that match `MAY_CHANGE` may differ on resume. Other values of `ngpu` and `num_workers` give
an equally good model, but not the same bits.
"""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from espnet_mlma import digests, files
from espnet_mlma.arguments import ArgumentParser
from espnet_mlma.errors import MlmaError

TRAINED = "trained_on.json"
COLLECTED = "collected_from.json"

MAY_CHANGE = re.compile(
    r"config|output_dir|resume|version|required|print_config|log_\w+|dry_run|detect_anomaly"
    r"|max_epoch|patience|nbest_averaging_interval|wandb_\w+|num_att_plot|max_cache_\w+"
    r"|valid_max_cache_size|use_(matplotlib|tensorboard|wandb|deepspeed)|create_graph_\w+"
    r"|collect_stats|write_collected_feats|no_forward_run"
    r"|ngpu|num_workers|dist_\w+|local_rank|multiprocessing_distributed|unused_parameters"
    r"|gradient_as_bucket_view|ddp_comm_hook|sharded_ddp|deepspeed_config|cudnn_\w+"
    # These files are compared by content.
    r"|(train|valid)_shape_file|(train|valid)_data_path_and_name_and_type|token_list"
)
# Options that change the statistics of stage 10.
_OF_FEATURES = ("frontend", "frontend_conf", "speech_volume_normalize")
_FILES = ("bpemodel", "non_linguistic_symbols")
# ESPnet's samplers read these from the folder of the data.
_BESIDE = ("utt2category", "utt2dataset")
_PACKAGES = ("espnet", "espnet-mlma", "torch")
# ESPnet's data types whose file has an id and the path of a recording in each line.
_SOUNDS = ("kaldi_ark", "multi_columns_sound", "pipe_wav", "sound", "variable_columns_sound")


def describe(args: Namespace) -> dict[str, Any]:
    """Describe the data, token list, options and versions of a training run.

    Args:
        args: parsed options of ESPnet's `asr_train`.

    Raises:
        MlmaError: a table or the token list cannot be read.
    """
    data = {}
    for part in ("train", "valid"):
        rows = getattr(args, f"{part}_data_path_and_name_and_type", None) or []
        for path, name, kind in rows:
            data[f"{part} {name}"] = _table(Path(path), kind)
        for name in _BESIDE if rows else ():
            if (table := Path(rows[0][0]).with_name(name)).is_file():
                data[f"{part} {name}"] = _table(table, "text")
    tokens = _tokens(getattr(args, "token_list", None))
    return {
        "data": data,
        "token_list": {"digest": digests.of_value(tokens), "symbols": len(tokens)},
        "options": _options(args),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def check(experiment: Path, now: Mapping[str, Any]) -> None:
    """Check that an experiment resumes with its original data and options.

    Args:
        experiment: folder of the training run. If an earlier version left no record, only the token
            list in its `config.yaml` is compared.
        now: result of `describe`.

    Raises:
        MlmaError: the data, the token list or a fixed option has changed.
    """
    before = _read(experiment / TRAINED) or _of_config(experiment)
    other = _other_data(before, now) or _other_tokens(before, now) or _other_option(before, now)
    if other:
        raise MlmaError(
            f"{experiment}: training was started with {other}; remove the folder, or train into "
            "another one (--asr_tag of asr.sh, --output_dir of asr_train)"
        )


def check_data(experiment: Path) -> None:
    """Check that the data of an experiment has not changed; missing files are skipped.

    Args:
        experiment: folder of the training run; its record has paths relative to the working folder.

    Raises:
        MlmaError: the data has changed.
    """
    before = (_read(experiment / TRAINED) or {}).get("data", {})
    there = {name: one for name, one in before.items() if Path(one["file"]).exists()}
    now = {name: _table(Path(one["file"]), one["kind"]) for name, one in there.items()}
    if other := _other_data({"data": there}, {"data": now}):
        raise MlmaError(
            f"{experiment}: training was started with {other}; remove the folder to train again"
        )


def write(experiment: Path, now: Mapping[str, Any]) -> None:
    """Write the record of a training run that starts or resumes."""
    files.write(experiment / TRAINED, json.dumps(now, indent=1, ensure_ascii=False) + "\n")


def write_collected(folder: Path, now: Mapping[str, Any]) -> None:
    """Write the record of finished statistics."""
    files.write(folder / COLLECTED, json.dumps(now, indent=1, ensure_ascii=False) + "\n")


def check_statistics(args: Namespace, now: Mapping[str, Any]) -> None:
    """Check that the statistics of stage 10 are whole and match the training data.

    Args:
        args: parsed options of ESPnet's `asr_train`.
        now: result of `describe`.

    Raises:
        MlmaError: they are damaged, come from other data or features, or list other utterances.
    """
    for part in ("train", "valid"):
        rows = getattr(args, f"{part}_data_path_and_name_and_type", None) or ()
        for shapes in map(Path, getattr(args, f"{part}_shape_file", None) or ()):
            records = [_read(path) for path in shapes.parents[1].glob(f"logdir/*/{COLLECTED}")]
            for record in records:
                other = _other_data(record, now) or _other_tokens(record, now)
                other = other or _other_option(record, now, _OF_FEATURES)
                if other:
                    raise MlmaError(
                        f"{shapes.parents[1]}: statistics were collected with {other}; "
                        "run stage 10 again"
                    )
            if not records and rows and shapes.is_file() and Path(rows[0][0]).is_file():
                _check_ids(shapes, Path(rows[0][0]))
    statistics = (getattr(args, "normalize_conf", None) or {}).get("stats_file")
    if statistics is not None:
        _check_npz(Path(statistics))


def _check_ids(shapes: Path, table: Path) -> None:
    """Compare utterance ids, for statistics without a record."""
    known, there = _ids(shapes), _ids(table)
    if known != there:
        odd = min(known ^ there)
        lacking, having = (table, shapes) if odd in known else (shapes, table)
        raise MlmaError(
            f"{lacking}: lacks {odd}, which {having} has; the data have changed; run stage 10 again"
        )


def _check_npz(path: Path) -> None:
    import numpy as np

    try:
        with np.load(path) as found:
            for key in found.files:
                found[key]  # reads the member and verifies its checksum
    except Exception:  # a damaged zip can raise any type
        raise MlmaError(f"{path}: damaged statistics of features; run stage 10 again") from None


def _ids(table: Path) -> set[str]:
    try:
        with table.open(encoding="utf-8") as lines:
            return {line.split(maxsplit=1)[0] for line in lines if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise MlmaError(f"{table}: cannot be read ({error}); run stages 3 to 10 again") from None


def _table(path: Path, kind: str) -> dict[str, Any]:
    if not path.exists():
        raise MlmaError(f"{path}: no such file; run stages 1 to 5 first")
    # ESPnet takes a folder if the data is split.
    tables = sorted(path.iterdir()) if path.is_dir() else [path]
    of = digests.of_sounds if kind in _SOUNDS else digests.of_file
    found = [of(table) for table in tables]
    digest = digests.of_value(found) if path.is_dir() else found[0]
    return {"file": str(path), "kind": kind, "lines": sum(map(_lines, tables)), "digest": digest}


def _lines(table: Path) -> int:
    with table.open("rb") as lines:
        return sum(1 for _ in lines)


def _tokens(given: object) -> list[str]:
    if isinstance(given, list | tuple):
        return [str(token) for token in given]
    if given is None:
        return []
    path = Path(str(given))
    try:
        return list(files.read_lines(path))
    except OSError as error:
        raise MlmaError(f"{path}: no readable token list ({error}); run stage 5 first") from None


def _options(args: Namespace) -> dict[str, Any]:
    options = {name: value for name, value in vars(args).items() if not MAY_CHANGE.fullmatch(name)}
    for name in _FILES:
        if (path := options.get(name)) not in (None, "none") and Path(path).is_file():
            options[name] = digests.of_file(Path(path))
    if isinstance(options.get("normalize_conf"), dict):
        options["normalize_conf"] = {
            name: value for name, value in options["normalize_conf"].items() if name != "stats_file"
        }
    return json.loads(json.dumps(options, default=str))  # tuples as lists, as in the file


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _of_config(experiment: Path) -> dict[str, Any]:
    """Describe the token list in ESPnet's `config.yaml`; empty without one."""
    try:
        config = files.read_yaml(experiment / "config.yaml", "train again")
    except MlmaError:
        return {}
    tokens = config.get("token_list")
    if not isinstance(tokens, list):
        return {}
    tokens = _tokens(tokens)
    return {"token_list": {"digest": digests.of_value(tokens), "symbols": len(tokens)}}


def _other_data(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    old, new = (before or {}).get("data"), now["data"]
    if old is None:
        return None
    for name in sorted({*old, *new}):
        was, is_ = old.get(name), new.get(name)
        if was and is_ and was["digest"] == is_["digest"]:
            continue
        if not (was and is_):
            difference = f"without {is_['file']}" if is_ else f"also with {was['file']}"
            return f"other data: {difference}"
        lines = (
            "" if was["lines"] == is_["lines"] else f", from {was['lines']} to {is_['lines']} lines"
        )
        return f"other data: {is_['file']} has changed{lines}"
    return None


def _other_tokens(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    was, is_ = (before or {}).get("token_list"), now["token_list"]
    if was is None or was["digest"] == is_["digest"]:
        return None
    return f"another token list: {was['symbols']} symbols, now {is_['symbols']}"


def _other_option(
    before: Mapping[str, Any] | None, now: Mapping[str, Any], only: Iterable[str] = ()
) -> str | None:
    old, new = (before or {}).get("options"), now["options"]
    if old is None:
        return None
    # An option missing in the record came with a later version of ESPnet.
    for name in only or sorted(old.keys() & new.keys()):
        was, is_ = old.get(name), new.get(name)
        if was == is_:
            continue
        if isinstance(was, dict) and isinstance(is_, dict):
            inner = min(key for key in {*was, *is_} if was.get(key) != is_.get(key))
            name, was, is_ = f"{name} {inner}", was.get(inner), is_.get(inner)
        return f"another --{name}: {_short(was)}, now {_short(is_)}"
    return None


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def main(argv: Sequence[str] | None = None) -> None:
    """Check the data of the experiment named on the command line."""
    parser = ArgumentParser(prog="mlma recipe trained-on")
    parser.add_argument("experiment", type=Path)
    check_data(parser.parse_args(argv).experiment)
