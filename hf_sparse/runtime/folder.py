"""Where the files of a student are: in a folder, or on the Hub."""

import os
from collections.abc import Sequence
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
        FileNotFoundError: There is no such folder or repository, or no config.json in it.
        ValueError: It is no name of a repository.
        OSError: The Hub does not let it be read, or fails.
    """
    folder = Path(folder_or_repo)
    if not folder.is_dir():
        if str(folder_or_repo).count("/") > 1 or str(folder_or_repo).startswith((".", "~", "/")):
            raise FileNotFoundError(f"there is no folder {folder_or_repo}")
        folder = fetch(str(folder_or_repo), revision=revision, files=_FILES)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"there is no config.json in {folder}: it is not the folder of a student")
    return folder


def fetch(repo: str, *, revision: str | None = None, files: Sequence[str] | None = None) -> Path:
    """Return the folder of the Hub's cache that holds files of a repository, downloaded where they are not there yet.

    Args:
        repo: Id of a repository of models.
        revision: Branch, tag or commit of the repository.
        files: Patterns of names; None is all.

    Raises:
        FileNotFoundError: There is no such repository or revision, or the Hub cannot be reached and it is not cached.
        ValueError: It is no name of a repository.
        OSError: The Hub does not let it be read, or fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=None if files is None else list(files)))
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is neither a folder nor the name of a repository on the Hub") from error
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{repo!r} is no folder here, not in the Hub's cache, and the Hub is not reached; look at the name, the "
            f"network and HF_HUB_OFFLINE ({error})"
        ) from error
    except GatedRepoError as error:
        raise OSError(f"{repo} is gated: ask for access on its page, then log in with `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo} has no branch, tag or commit {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{repo!r} is neither a folder here nor a repository of the Hub that you may read; to read a private one, "
            "log in with `hf auth login` or set HF_TOKEN"
        ) from error
