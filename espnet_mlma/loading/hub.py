"""Download models from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espnet_mlma.errors import MlmaError


def snapshot(hub_id: str, patterns: Sequence[str], kind: str, remedy: str) -> Path:
    """Download a repository's missing files into the hub's cache.

    Args:
        hub_id: `user/name` or `user/name@revision`.
        patterns: of the files to download.
        kind: what the name was looked up as before, for the error.
        remedy: what to do if the hub cannot be reached, for the error.

    Returns:
        The folder in the cache.

    Raises:
        MlmaError: there is no such repository, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    repository, _, revision = hub_id.partition("@")
    try:
        found = snapshot_download(
            repository, revision=revision or None, allow_patterns=list(patterns)
        )
    except (OSError, ValueError, HTTPError) as error:
        raise MlmaError(
            f"{hub_id}: no such {kind}, and not found on the Hugging Face hub "
            f"({type(error).__name__}); {remedy}"
        ) from error
    return Path(found)
