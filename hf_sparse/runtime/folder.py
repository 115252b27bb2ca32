"""Where the files of a student are: in a folder, or on the Hub."""

import os
from pathlib import Path
from typing import Final

# Configurations, vocabulary and weights; not the code, which only `trust_remote_code` runs.
_FILES: Final = ("*.json", "vocabulary.safetensors", "model*.safetensors")


def student_folder(folder_or_repo: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """Return the folder of a student, that of the Hub's cache for the id of a repository.

    Args:
        folder_or_repo: A folder, or the id of a repository on the Hub.
        revision: Branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: There is no such folder, or no config.json in it.
    """
    folder = Path(folder_or_repo)
    if not folder.is_dir():
        if str(folder_or_repo).count("/") > 1 or str(folder_or_repo).startswith((".", "~", "/")):
            raise FileNotFoundError(f"there is no folder {folder_or_repo}")
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(str(folder_or_repo), revision=revision, allow_patterns=list(_FILES)))
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"there is no config.json in {folder}: it is not the folder of a student")
    return folder
