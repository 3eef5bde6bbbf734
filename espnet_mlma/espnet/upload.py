"""Upload a packed model to the Hugging Face hub: stage 15.

mlma recipe upload --packed exp/asr_train/model.zip --repository name/model
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser
from espnet_mlma.errors import MlmaError


def upload(packed: Path, repository: str) -> None:
    """Unpack a model into a repository; create the repository if it does not exist.

    Args:
        packed: the zip file of stage 14.
        repository: `<user>/<name>`.

    Raises:
        MlmaError: the zip file is missing or damaged, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    # The hub's client decides which library its HTTPError comes from.
    from huggingface_hub.errors import (
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
        LocalTokenNotFoundError,
    )

    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(packed) as model:
                model.extractall(folder)
        except (OSError, zipfile.BadZipFile, zlib.error) as error:
            raise MlmaError(
                f"{packed}: damaged, or not a packed model ({error}); run stage 14 again"
            ) from None
        hub = HfApi()
        try:
            hub.create_repo(repository, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=folder)
        except (HTTPError, LocalTokenNotFoundError, ValueError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise MlmaError(
                f"{repository}: {reason}; check the network, or log in by `hf auth login`"
            ) from None


def main(argv: Sequence[str] | None = None) -> None:
    """Upload the model named on the command line."""
    parser = ArgumentParser(prog="mlma recipe upload")
    parser.add_argument("--packed", type=Path, required=True, help="zip file of stage 14")
    parser.add_argument("--repository", required=True, help="<user>/<name>")
    args = parser.parse_args(argv)
    upload(args.packed, args.repository)
