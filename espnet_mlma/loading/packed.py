"""Read models that ESPnet packed: a zip or its unpacked folder, with the files in meta.yaml."""

from __future__ import annotations

import stat
import zlib
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml

META = "meta.yaml"
# A zip may unpack to this many times its size, and always to this many bytes.
_LARGEST_RATIO = 20
_ALWAYS_BYTES = 64 << 20
_REMEDY = "copy it again, or ask who packed it"


def unpack(archive: Path, folder: Path) -> tuple[Path, Path]:
    """Unpack a model.

    Args:
        archive: the zip.
        folder: an empty folder; nothing is written elsewhere.

    Returns:
        Configuration and checkpoint in the folder.

    Raises:
        MlmaError: the zip is damaged, is no packed model, has paths outside the archive, or would
            unpack to far more than its size.
    """
    try:
        with ZipFile(archive) as packed:
            members = packed.infolist()
            _check(members, archive)
            meta = next((m.filename for m in members if Path(m.filename).name == META), None)
            if meta is None:
                raise MlmaError(f"{archive}: no {META}, so it is no packed model; {_REMEDY}")
            packed.extractall(folder)
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise MlmaError(f"{archive}: damaged ({reason}); {_REMEDY}") from None
    except OSError as error:
        raise MlmaError(
            f"{archive}: cannot be unpacked into {folder.parent} ({error.strerror or error}); "
            "make room, or set TMPDIR"
        ) from None
    try:
        return named_files(folder / meta, folder)
    except MlmaError as error:  # the temporary folder means nothing to the user
        raise MlmaError(str(error).replace(f"{folder}/", f"{archive}: ")) from None


def named_files(meta: Path, folder: Path) -> tuple[Path, Path]:
    """Find configuration and checkpoint by their names in a meta.yaml.

    Args:
        meta: the file.
        folder: its paths are relative to this one.

    Raises:
        MlmaError: it has no model of a CTC task, or a file is missing.
    """
    names = read_yaml(meta, "unpack the model again")
    packed = {}
    for part in ("yaml_files", "files"):
        files = names.get(part) or {}
        if not isinstance(files, dict):
            raise MlmaError(f"{meta}: {part} is not a mapping of names to files; {_REMEDY}")
        packed |= files
    for task in ("asr", "s2t"):
        config, model = packed.get(f"{task}_train_config"), packed.get(f"{task}_model_file")
        if config is not None and model is not None:
            return _inside(folder, config, meta), _inside(folder, model, meta)
    given = sorted(map(str, packed))
    raise MlmaError(f"{meta}: has {given}; give a model of ESPnet's asr or s2t task")


def _check(members: list[ZipInfo], archive: Path) -> None:
    for member in members:
        path = PurePosixPath(member.filename)
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or is_link:
            raise MlmaError(f"{archive}: {member.filename!r} leads out of the archive; {_REMEDY}")
    size = sum(member.file_size for member in members)
    most = max(_ALWAYS_BYTES, _LARGEST_RATIO * archive.stat().st_size)
    if size > most:
        raise MlmaError(
            f"{archive}: would unpack to {size / 1e9:.1f} GB, more than {_LARGEST_RATIO} times its "
            f"size; {_REMEDY}"
        )


def _inside(folder: Path, name: object, meta: Path) -> Path:
    """Find a file of a meta.yaml; ESPnet packs an absolute path without its first slash."""
    path = PurePosixPath(str(name).lstrip("/"))
    if not isinstance(name, str) or ".." in path.parts:
        raise MlmaError(f"{meta}: {name!r} leads out of the model; {_REMEDY}")
    if not (folder / path).is_file():
        raise MlmaError(f"{meta}: {folder / path}: no such file; copy or download the whole model")
    return folder / path
