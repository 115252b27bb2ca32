"""The weights of a student, mapped from its safetensors files without reading them.

The library `safetensors` copies what it gives to NumPy; here an array is a view of the file, whose pages come in when
they are first read and are shared by all processes that map it. https://huggingface.co/docs/safetensors describes the
format.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_sparse.files import parse_json, read_json
from hf_sparse.runtime.student_files import EDGE_ROWS, check_fingerprint, weights_fingerprint

WEIGHTS_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"

_TABLE: Final = "model.table.blocks."
# As the library safetensors has it.
_LARGEST_HEADER: Final = 100_000_000

# NumPy has no bfloat16: its bits, then.
_DTYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "|u1", "I32": "<i4", "I64": "<i8", "F64": "<f8"}


def map_weights(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a student's folder by name, read-only, bfloat16 as uint16.

    Raises:
        FileNotFoundError: There are no weights.
        ValueError: A file is truncated or not of safetensors; the message names it.
    """
    if (folder / INDEX_FILE).is_file():
        shards = read_shards(folder / INDEX_FILE)
    elif (folder / WEIGHTS_FILE).is_file():
        shards = [WEIGHTS_FILE]
    else:
        raise FileNotFoundError(f"there is no {WEIGHTS_FILE} in {folder}: it is not the folder of a student")
    tensors: dict[str, npt.NDArray[Any]] = {}
    for shard in shards:
        if not (folder / shard).is_file():
            raise FileNotFoundError(f"there is no {shard} in {folder}, which {INDEX_FILE} names: download it again")
        tensors |= map_file(folder / shard)
    return tensors


def read_shards(index: Path) -> list[str]:
    """Return the names of the files that hold the weights by their index.

    Raises:
        ValueError: It is no index, or names something else than a safetensors file beside it.
    """
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not the index of weights ({error}); download or save it again") from error
    for name in names:
        if not isinstance(name, str) or not name.endswith(".safetensors") or "/" in name or "\\" in name:
            raise ValueError(f"{index} names {name!r}, but weights are .safetensors files beside it; do not trust it")
    return names


def map_file(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of one safetensors file; see `map_weights`."""
    with file.open("rb") as stream:
        size = file.stat().st_size
        head = stream.read(8)
        header_size = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if header_size > min(size - 8, _LARGEST_HEADER):
            raise ValueError(f"{file} is not a safetensors file, or it is truncated: download or save it again")
        header = parse_json(stream.read(header_size), where=f"{file} is not a safetensors file; its header")
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _view(file, data, 8 + header_size, name, entry) for name, entry in entries.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a safetensors file: its header lacks {error}") from error


def check_weights(config: Mapping[str, Any], weights: Mapping[str, npt.NDArray[Any]], *, where: object) -> None:
    """Compare weights with the fingerprint in the student's config.

    Args:
        config: What `config.json` holds.
        weights: Tensors by name, as `map_weights` gives them.
        where: The folder, for the message.

    Raises:
        ValueError: The weights belong to another student.
    """
    expected = config.get("weights_fingerprint")
    if expected is None:
        return
    blocks = [weights[name] for name in sorted((name for name in weights if name.startswith(_TABLE)), key=_number)]
    edges = ((len(block), np.concatenate([block[:EDGE_ROWS], block[-EDGE_ROWS:]]).view(np.uint8)) for block in blocks)
    # Marks of words are bytes, and no weights.
    dense = {
        name.removeprefix("model."): as_float32(array)
        for name, array in weights.items()
        if name.startswith("model.") and not name.startswith(_TABLE) and array.dtype != np.uint8
    }
    check_fingerprint(weights_fingerprint(edges, dense), expected, where=where)


def as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return floats of any type, bfloat16 as uint16, as float32."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.ascontiguousarray(array, dtype=np.float32)


def _number(name: str) -> int:
    return int(name.removeprefix(_TABLE))


def _view(file: Path, data: mmap.mmap, start: int, name: str, entry: dict[str, Any]) -> npt.NDArray[Any]:
    first, last = entry["data_offsets"]
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{file}: tensor {name!r} has type {entry['dtype']}, known are {', '.join(_DTYPES)}")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if not all(type(size) is int and size >= 0 for size in entry["shape"]):
        raise ValueError(f"{file}: tensor {name!r} cannot have the shape {entry['shape']!r:.80}; download it again")
    count = math.prod(entry["shape"])
    if not 0 <= first <= last <= len(data) - start or last - first != count * dtype.itemsize:
        raise ValueError(f"{file} is truncated: tensor {name!r} does not lie within it; download or save it again")
    return np.frombuffer(data, dtype=dtype, count=count, offset=start + first).reshape(entry["shape"])
