"""The weights of a student, mapped from its safetensors files without reading them.

The library `safetensors` copies what it gives to NumPy; here an array is a view of the file, whose pages come in when
they are first read and are shared by all processes that map it. https://huggingface.co/docs/safetensors describes the
format.
"""

import json
import math
import mmap
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

WEIGHTS_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"

# NumPy has no bfloat16: its bits, then.
_DTYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "|u1", "I32": "<i4", "I64": "<i8", "F64": "<f8"}


def map_weights(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a student's folder by name, read-only, bfloat16 as uint16.

    Raises:
        FileNotFoundError: There are no weights.
        ValueError: A file is truncated or not of safetensors; the message names it.
    """
    if (folder / INDEX_FILE).is_file():
        shards = sorted(set(json.loads((folder / INDEX_FILE).read_text())["weight_map"].values()))
    elif (folder / WEIGHTS_FILE).is_file():
        shards = [WEIGHTS_FILE]
    else:
        raise FileNotFoundError(f"there is no {WEIGHTS_FILE} in {folder}: it is not the folder of a student")
    tensors: dict[str, npt.NDArray[Any]] = {}
    for shard in shards:
        tensors |= map_file(folder / shard)
    return tensors


def map_file(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of one safetensors file; see `map_weights`."""
    with file.open("rb") as stream:
        size = file.stat().st_size
        head = stream.read(8)
        header_size = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if header_size > size - 8:
            raise ValueError(f"{file} is not a safetensors file, or it is truncated: download or save it again")
        try:
            header = json.loads(stream.read(header_size))
        except ValueError as error:
            raise ValueError(f"{file} is not a safetensors file: {error}") from error
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return {name: _view(file, data, 8 + header_size, name, entry) for name, entry in entries.items()}


def _view(file: Path, data: mmap.mmap, start: int, name: str, entry: dict[str, Any]) -> npt.NDArray[Any]:
    first, last = entry["data_offsets"]
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{file}: tensor {name!r} has type {entry['dtype']}, known are {', '.join(_DTYPES)}")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    count = math.prod(entry["shape"])
    if not 0 <= first <= last <= len(data) - start or last - first != count * dtype.itemsize:
        raise ValueError(f"{file} is truncated: tensor {name!r} does not lie within it; download or save it again")
    return np.frombuffer(data, dtype=dtype, count=count, offset=start + first).reshape(entry["shape"])
