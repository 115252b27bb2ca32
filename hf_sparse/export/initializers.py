"""The constant tensors of a graph: in its protobuf, or where they are more than one holds in a file beside it.

`onnx.save` would do the same with several copies of the table in memory, and not at all from 2 GiB on, since it begins
with tensors that are in the protobuf. Here bytes go from the mapped weights to the file, some rows at a time.
https://github.com/onnx/onnx/blob/main/docs/ExternalData.md describes the format.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from hf_sparse.files import whole_file

_EXTERNAL_ABOVE: Final = 1_500_000_000  # bytes; a protobuf holds 2 GiB
_EXTERNAL_SMALLEST: Final = 1024
_ALIGNMENT: Final = 65_536  # where every system lets a runtime map a tensor
_BYTES_AT_ONCE: Final = 1 << 24

Array = npt.NDArray[Any]
Reader = Callable[[Array], Array]


class Initializers:
    """Collects the constants of a graph; arrays are kept as they are given and read when they are written."""

    def __init__(self) -> None:
        self._tensors: list[_Tensor] = []

    def add(self, value: Any) -> str:
        """Add an array or a number; return its name."""
        array = np.asarray(value)
        return self._add(blocks=[np.atleast_1d(array)], read=np.asarray, shape=array.shape, dtype=array.dtype)

    def add_rows(self, blocks: Sequence[Array], read: Reader) -> str:
        """Add a tensor whose rows lie in blocks.

        Args:
            blocks: Arrays of the same type and width.
            read: What the tensor has in the place of some rows of a block.

        Returns:
            The name of the tensor.
        """
        first = read(blocks[0][:1])
        return self._add(blocks=blocks, read=read, shape=(sum(map(len, blocks)), *first.shape[1:]), dtype=first.dtype)

    def save(self, graph: onnx.GraphProto, data: Path) -> None:
        """Put the tensors into a graph; if they are too many for it, the bytes of the large ones into a file.

        Args:
            graph: The graph, without initializers.
            data: The file to write then, which must lie beside the model.

        Raises:
            OSError: The file cannot be written.
        """
        if sum(tensor.num_bytes for tensor in self._tensors) <= _EXTERNAL_ABOVE:
            for tensor in self._tensors:
                tensor.describe(graph.initializer.add()).raw_data = b"".join(tensor.chunks())
            return
        with whole_file(data) as temporary, temporary.open("wb") as file:
            for tensor in self._tensors:
                proto = tensor.describe(graph.initializer.add())
                if tensor.num_bytes < _EXTERNAL_SMALLEST:
                    proto.raw_data = b"".join(tensor.chunks())
                else:
                    _write_beside(tensor, proto, file, location=data.name)

    def _add(self, **described: Any) -> str:
        tensor = _Tensor(name=f"constant_{len(self._tensors)}", **described)
        self._tensors.append(tensor)
        return tensor.name


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Sequence[Array]
    read: Reader

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def describe(self, proto: TensorProto) -> TensorProto:
        """Fill in name, shape and type."""
        proto.name, proto.data_type = self.name, helper.np_dtype_to_tensor_dtype(self.dtype)
        proto.dims.extend(self.shape)
        return proto

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the tensor, some rows at a time."""
        for block in self.blocks:
            step = max(1, _BYTES_AT_ONCE * len(block) // max(1, block.nbytes))
            for start in range(0, len(block), step):
                yield self.read(block[start : start + step]).tobytes()


def _write_beside(tensor: _Tensor, proto: TensorProto, file: BinaryIO, *, location: str) -> None:
    """Write the bytes of a tensor, and where they are into its protobuf."""
    file.write(bytes(-file.tell() % _ALIGNMENT))
    place = {"location": location, "offset": file.tell(), "length": tensor.num_bytes}
    for chunk in tensor.chunks():
        file.write(chunk)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        proto.external_data.add(key=key, value=str(value))
