"""Finding the tokenizer of a word rule `"hf:<repo or folder>"`; read once, when a vocabulary is made."""

from pathlib import Path
from typing import Final

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from hf_sparse.runtime.student_files import HF_PREFIX, load_tokenizer

_FILE: Final = "tokenizer.json"


def read_tokenizer(word_rule: str) -> bytes | None:
    """Return the `tokenizer.json` of a word rule `"hf:<repo or folder>"`, None for the other rules.

    Raises:
        ValueError: The folder has no `tokenizer.json`, or the repository has none or cannot be reached, or the file
            is not one that the installed `tokenizers` can read.
    """
    if not word_rule.startswith(HF_PREFIX):
        return None
    source = word_rule.removeprefix(HF_PREFIX)
    tokenizer_json = _find(source).read_bytes()
    load_tokenizer(tokenizer_json)
    return tokenizer_json


def _find(source: str) -> Path:
    if Path(source).is_dir():
        file = Path(source) / _FILE
        if not file.is_file():
            raise ValueError(f"the folder {source} has no {_FILE}: save a fast tokenizer there first")
        return file
    try:
        return Path(hf_hub_download(source, _FILE))
    except HFValidationError as error:
        raise ValueError(f"{source!r} is neither a folder nor the name of a repository: {error}") from error
    except LocalEntryNotFoundError as error:
        raise ValueError(f"{_FILE} of {source} is not in the cache and the Hub cannot be reached: {error}") from error
    except EntryNotFoundError as error:
        raise ValueError(f"the repository {source} has no {_FILE}: only fast tokenizers can be word rules") from error
    except HfHubHTTPError as error:
        raise ValueError(f"{_FILE} of {source} could not be downloaded: {error}") from error
