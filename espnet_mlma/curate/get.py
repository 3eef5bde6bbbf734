"""Download a corpus that needs an account: Common Voice from Mozilla Data Collective.

    mlma data get commonvoice --lang it --release 27.0 --output db/commonvoice

The official client downloads; a broken-off download is resumed. The archive's SHA-256 is verified.
It is unpacked into a folder of its name, and then removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espnet_mlma.arguments import ArgumentParser, first_line
from espnet_mlma.claims import claim
from espnet_mlma.errors import MlmaError, one_line
from espnet_mlma.files import replace_folder

_KEY = "MDC_API_KEY"
_SITE = "https://mozilladatacollective.com"
_RELEASE = "27.0"
_PUBLISHER = "Common Voice"  # others publish selections under similar names
_CORPORA = {"commonvoice": "Common Voice Scripted Speech"}
_VERSION = re.compile(r"(?<![\d.])(\d{1,2})[.-](\d)(?!\d)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAGE = 100  # most data sets in an answer of the catalogue
_SHOWN = 5


def main(argv: Sequence[str] | None = None) -> None:
    """Download and unpack a corpus from the command line."""
    parser = ArgumentParser(prog="mlma data get", description=first_line(__doc__))
    parser.add_argument("corpus", choices=tuple(_CORPORA))
    parser.add_argument("--lang", required=True, help="language code, such as it")
    parser.add_argument("--release", help=f"such as 27.0 (default: {_RELEASE})")
    parser.add_argument(
        "--dataset-id", help="of the data set's page, if the catalogue's name is not recognised"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("db/commonvoice"), help="default: db/commonvoice"
    )
    args = parser.parse_args(argv)
    client = _client()
    details = _details(client, args.corpus, args.lang, args.release, args.dataset_id)
    folder = get(client, details, args.output)
    langs = sorted(entry.name for entry in folder.glob("cv-corpus-*/*") if entry.is_dir())
    if args.lang not in langs:
        raise MlmaError(
            f"{folder}: has no cv-corpus-*/{args.lang} (languages: {', '.join(langs) or 'none'}); "
            "check --lang and --dataset-id, and remove the folder"
        )
    print(f"{args.output}: has {folder}")


def get(client: Any, details: Any, output: Path) -> Path:
    """Download an archive, verify it and unpack it; what is there already is kept.

    Args:
        client: the module `datacollective`.
        details: of the data set, as the client returns them.
        output: parent of the unpacked folder.

    Returns:
        The unpacked folder, named after the archive.

    Raises:
        MlmaError: the download failed, the archive is damaged, or it cannot be unpacked.
    """
    name = details.filename or ""
    stem = re.sub(r"\.(tar\.gz|tgz)$", "", name)
    if stem == name or Path(name).name != name or name.startswith("."):
        raise MlmaError(f"{details.id}: its archive '{name}' is not a .tar.gz; download it by hand")
    folder = output / stem
    with claim(folder, "downloads it"):
        if not folder.is_dir():
            archive = _download(client, details, output)
            _verify(archive, details.checksum)
            _unpack(archive, folder)
            archive.unlink()
    return folder


def _client() -> Any:
    try:
        import datacollective
    except ImportError:
        raise MlmaError(
            "the client of Mozilla Data Collective is missing; pip install 'espnet-mlma[data]'"
        ) from None
    # The client reads a file .env when it is imported.
    if not os.environ.get(_KEY, "").strip():
        raise MlmaError(
            f"{_KEY} is not set; make an account on {_SITE}, accept the data set's terms on its "
            "page, create an API key and export it"
        )
    return datacollective


def _details(client: Any, corpus: str, lang: str, release: str | None, id_: str | None) -> Any:
    """Find a data set in the catalogue, or by its id."""
    version = _version(release or _RELEASE)
    if version is None:
        raise MlmaError(f"--release {release}: not a release such as 27.0")
    with _one_line_errors("the catalogue"):
        if id_ is not None:
            one = client.get_dataset_details(id_)
            if release and _version(f"{one.name} {one.filename}") != version:
                raise MlmaError(f"{id_} is {one.name}, not release {release}; check --dataset-id")
            return one
        listed = list(_catalogue(client, _CORPORA[corpus], lang))
    release = release or _RELEASE
    found = [one for one in listed if _version(f"{one.name} {one.filename}") == version]
    found = [one for one in found if _publisher(one) == _PUBLISHER] or found
    if len(found) == 1:
        return found[0]
    names = "; ".join(f"{one.name} ({one.id})" for one in (found or listed)[:_SHOWN]) or "nothing"
    what = "several data sets match" if found else "no data set matches"
    raise MlmaError(
        f"{what} {_CORPORA[corpus]} {release}, '{lang}' (found: {names}); look it up on {_SITE} "
        "and give --dataset-id"
    )


def _catalogue(client: Any, title: str, lang: str) -> Iterator[Any]:
    """Yield the data sets of a corpus in a language."""
    for page in range(1, 100):
        answer = client.list_datasets(title, locale=lang, results_per_page=_PAGE, page_number=page)
        words = title.lower().split()
        for one in answer.items:
            name = f"{one.name} {one.filename}".lower().replace("-", " ")
            if all(word in name for word in words) and one.locale in (lang, None):
                yield one
        if page * _PAGE >= answer.total:
            return


def _publisher(details: Any) -> str | None:
    return details.organization and details.organization.name


def _version(text: str) -> tuple[int, int] | None:
    """Find a release number: `27.0` of a name, `27-0` of an archive, or 27 alone."""
    if text.isdecimal():
        return int(text), 0
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found else None


def _download(client: Any, details: Any, output: Path) -> Path:
    with _one_line_errors(details.filename):
        return client.download_dataset(details.id, download_directory=str(output))


@contextmanager
def _one_line_errors(what: str) -> Iterator[None]:
    """Turn the client's errors into one line each."""
    try:
        yield
    except MlmaError:
        raise
    except Exception as error:  # of the client, of requests and of pydantic
        reason = one_line(str(error.__cause__ or error)) or type(error).__name__
        do = "; run this again to resume" if type(error).__name__ == "DownloadError" else ""
        raise MlmaError(f"{what}: {reason}{do}") from None


def _verify(archive: Path, checksum: str | None) -> None:
    """Compare an archive with its SHA-256.

    Raises:
        MlmaError: they differ; the archive is removed. Or there is no SHA-256 to compare with.
    """
    wanted = (checksum or "").lower().removeprefix("sha256:")
    if not _SHA256.fullmatch(wanted):
        raise MlmaError(
            f"{archive}: no SHA-256 is published for it; verify it and unpack it by hand"
        )
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        archive.unlink()
        raise MlmaError(f"{archive}: the checksum differs; the file is removed; run this again")


def _unpack(archive: Path, folder: Path) -> None:
    needed = 2 * archive.stat().st_size
    free = shutil.disk_usage(archive.parent).free
    if free < needed:
        raise MlmaError(
            f"{archive}: unpacking needs about {needed >> 30} GiB, and {free >> 30} are free; "
            "make room and run this again"
        )

    def fill(new: Path) -> None:
        try:
            with tarfile.open(archive) as members:
                members.extractall(new, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise MlmaError(f"{archive}: cannot unpack it ({error})") from None

    replace_folder(folder, fill)
