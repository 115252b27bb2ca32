"""The file of a vocabulary: a safetensors file with six or seven tensors of one dimension, and settings as metadata.

It is written by hand, because the library `safetensors` writes metadata in a random order, and the hash of the file
must be reproducible. https://huggingface.co/docs/safetensors describes the format; the library reads it.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

FORMAT_VERSION: Final = 1

_DTYPES: Final = {
    "words": "U8",
    "word_offsets": "I64",
    "node_prefix": "I32",
    "node_word": "I32",
    "node_row": "I32",
    "counts": "I64",
    "tokenizer_json": "U8",
}
_OPTIONAL: Final = ("counts", "tokenizer_json")
_SETTINGS: Final = ("clean", "format_version", "max_n", "num_rows", "word_rule")


def serialise(vocabulary: object) -> Iterator[bytes | memoryview]:
    """Yield the file of an `NgramVocabulary` in parts; equal vocabularies give equal bytes."""
    header: dict[str, Any] = {"__metadata__": {name: str(getattr(vocabulary, name)) for name in _SETTINGS}}
    arrays: list[npt.NDArray[Any]] = []
    end = 0
    # Eight-byte tensors first, so that every tensor is aligned.
    for name in sorted(_DTYPES, key=lambda name: (-int(_DTYPES[name][1:]), name)):
        array = getattr(vocabulary, name)
        if array is not None:
            arrays.append(np.ascontiguousarray(array))
            start, end = end, end + array.nbytes
            header[name] = {"dtype": _DTYPES[name], "shape": [array.size], "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for array in arrays:
        yield memoryview(array.view(np.uint8).data)


def read_fields(file: Path) -> dict[str, Any]:
    """Return the fields of the `NgramVocabulary` that a file holds.

    Raises:
        SafetensorError: The file is truncated, or not of safetensors at all.
        ValueError: It has another format version, lacks a tensor or has one of another type or shape.
        KeyError: A setting is missing.
    """
    with safe_open(file, framework="np") as stored:
        settings = stored.metadata() or {}
        version = settings.get("format_version")
        if version != str(FORMAT_VERSION):
            raise ValueError(f"its format version is {version}, this code reads {FORMAT_VERSION}")
        present = set(stored.keys())
        fields: dict[str, Any] = {}
        for name, dtype in _DTYPES.items():
            if name not in present:
                if name in _OPTIONAL:
                    continue
                raise ValueError(f"it has no tensor {name!r}")
            part = stored.get_slice(name)
            if part.get_dtype() != dtype or len(part.get_shape()) != 1:
                raise ValueError(
                    f"its tensor {name!r} must be {dtype} with one dimension, "
                    f"got {part.get_dtype()} with shape {part.get_shape()}"
                )
            fields[name] = stored.get_tensor(name)
    numbers = {name: int(settings[name]) for name in ("max_n", "num_rows")}
    return fields | numbers | {name: settings[name] for name in ("word_rule", "clean")}
