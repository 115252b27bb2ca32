"""The config of a student as the runtime takes it: not trusted, since compiled loops go by its numbers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hf_sparse.files import read_json

CONFIG_FILE: Final = "config.json"
_FORMAT_VERSIONS: Final = (1, 2)


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_list_of_counts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _names_labels(value: object) -> bool:
    """Whether it names labels 0, 1, ..., or leaves that to transformers."""
    return value is None or (isinstance(value, dict) and set(value) == {str(index) for index in range(len(value))})


def _is_temperature(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is None
    return 0 < value < math.inf


# What a config must say, and may say; that pooling and types of rows are known is checked where they are used.
_NEEDED: Final[dict[str, tuple[Callable[[object], bool], str]]] = {
    "vocab_size": (_is_count, "a whole number above 0"),
    "embedding_size": (_is_count, "a whole number above 0"),
    "block_rows": (_is_count, "a whole number above 0"),
    "hidden_sizes": (_is_list_of_counts, "a list of whole numbers above 0"),
    "pooling": (lambda value: isinstance(value, str), "a string"),
    "activation": (lambda value: value in ("relu", "tanh"), "'relu' or 'tanh'"),
    "sentence_pairs": (lambda value: isinstance(value, bool), "true or false"),
}
_OPTIONAL: Final[dict[str, tuple[Callable[[object], bool], str]]] = {
    "table_dtype": (lambda value: isinstance(value, str), "a string"),
    "pair_bags": (lambda value: value in ("sides", "overlap"), "'sides' or 'overlap'"),
    "alignment_size": (lambda value: value == 0 or _is_count(value), "a whole number, or 0"),
    "folded": (lambda value: value in (None, "hidden", "classifier"), "'hidden', 'classifier' or null"),
    "id2label": (_names_labels, "an object with a name for each of the labels 0, 1, ..."),
    "calibration_temperature": (_is_temperature, "a finite number above 0, or null"),
}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config of a student.

    Args:
        folder: Its folder.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not that of a student, or says what cannot be; the message names what.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"there is no {CONFIG_FILE} in {folder}: it is not the folder of a student")
    config = read_json(path)
    if config.get("model_type") != "sparse_ngram":
        raise ValueError(f"{folder} holds a model of type {config.get('model_type')!r}, not a sparse_ngram student")
    if config.get("format_version") not in _FORMAT_VERSIONS:
        raise ValueError(
            f"{folder} has format version {config.get('format_version')}, this runtime reads up to "
            f"{_FORMAT_VERSIONS[-1]}: install a newer hf-sparse"
        )
    missing = [name for name in _NEEDED if name not in config]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: save the student again")
    for name, (fits, wanted) in (_NEEDED | _OPTIONAL).items():
        if name in config and not fits(config[name]):
            raise ValueError(
                f"{name} in {path} is {config[name]!r:.80}, but must be {wanted}: download or save it again"
            )
    return config
