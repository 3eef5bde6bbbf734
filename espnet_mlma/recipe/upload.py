"""Stage 15: a packed model to the Hugging Face hub.

python -m espnet_mlma.recipe.upload --packed exp/asr_train/model.zip --repository name/model
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

from espnet_mlma.errors import MlmaError, run_cli


def upload(packed: Path, repository: str) -> None:
    """Unpack a model into a repository, which is made if it is not there.

    Args:
        packed: the zip file of stage 14.
        repository: `<user>/<name>`.

    Raises:
        MlmaError: the zip file is missing, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if not zipfile.is_zipfile(packed):
        raise MlmaError(f"{packed}: not a packed model; run stage 14 first")
    hub = HfApi()
    try:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(packed) as model:
            model.extractall(folder)
            hub.create_repo(repository, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, LocalTokenNotFoundError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MlmaError(f"{repository}: {reason}; `hf auth login` sets who you are") from None


def main() -> None:
    """Entry point; see the module's head."""
    parser = argparse.ArgumentParser(prog="python -m espnet_mlma.recipe.upload")
    parser.add_argument("--packed", type=Path, required=True, help="zip file of stage 14")
    parser.add_argument("--repository", required=True, help="<user>/<name>")
    args = parser.parse_args()
    upload(args.packed, args.repository)


if __name__ == "__main__":
    run_cli(main)
