"""What the teacher makes of a text before it decides: the vector that its last layer reads, as a second target.

The student's last hidden layer is to tell that vector by a linear map, which is trained beside it and thrown away
(Romero et al. 2015, "FitNets"): where there are few labels, logits say little about what a text is like. Vectors are
kept as a random projection to few columns, which leaves their distances as they are (Johnson and Lindenstrauss 1984).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

HIDDEN: Final = "hidden"
_SEED: Final = 0


class HiddenReader:
    """Reads the vectors (B, W) that the last layer of a teacher is given, and projects them to (B, P).

    Args:
        model: Sequence classifier.
        size: Columns P; narrower vectors are kept whole.
    """

    def __init__(self, model: PreTrainedModel, size: int) -> None:
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        self._layer = next((layer for layer in layers[::-1] if layer.out_features == model.config.num_labels), None)
        self._size = size
        self._found: list[Tensor] = []

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Note what the layer is given meanwhile."""
        if self._layer is None:
            yield
            return
        hook = self._layer.register_forward_pre_hook(lambda _, inputs: self._found.append(inputs[0].detach()))
        try:
            yield
        finally:
            hook.remove()

    def take(self, num_texts: int) -> Tensor | None:
        """Return the projected vectors (B, P) of the texts just read; None where a teacher has none of a text.

        Decoders, whose last layer reads every token, have none.
        """
        found, self._found = self._found, []
        if len(found) != 1 or found[0].dim() != 2 or len(found[0]) != num_texts:
            return None
        vectors = found[0].float()
        if vectors.shape[1] <= self._size:
            return vectors
        return vectors @ torch.from_numpy(_projection(vectors.shape[1], self._size)).to(vectors.device)


class HiddenMap(nn.Linear):
    """The linear map from the student's last hidden layer to the teacher's vector.

    Args:
        width: Of the student's layer H.
        size: Of the teacher's vector P.
        weight: Of the loss.
        variance: Of a column of the teacher's vectors, on average: the loss does not depend on their scale.
        seed: Of its weights.
    """

    def __init__(self, width: int, size: int, *, weight: float, variance: float, seed: int) -> None:
        super().__init__(width, size)
        self._scale = weight / variance
        generator = torch.Generator().manual_seed(seed)  # the same in all processes
        with torch.no_grad():
            self.weight.uniform_(-(width**-0.5), width**-0.5, generator=generator)
            self.bias.zero_()

    def loss(self, encoded: Tensor, hidden: Tensor) -> Tensor:
        """Return the mean squared error over texts and columns, in units of the variance, times the weight."""
        found: Tensor = self(encoded)
        return (found.float() - hidden.float()).square().mean() * self._scale


def hidden_column(vectors: npt.NDArray[np.float32]) -> pa.Array:
    """Return vectors (B, P) as a column of lists in half precision."""
    largest = np.finfo(np.float16).max
    values = np.clip(vectors, -largest, largest).astype(np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), vectors.shape[1])


def hidden_matrix(column: pa.ChunkedArray) -> npt.NDArray[np.float16]:
    """Return the vectors (B, P) of a column."""
    width = column.type.list_size
    parts = [np.asarray(chunk.flatten()).reshape(-1, width) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.zeros((0, width), np.float16)


def has_hidden(path: Path) -> bool:
    """Tell whether a shard of logits has the teacher's vectors, too."""
    return HIDDEN in pq.read_schema(path).names


def size_and_variance(path: Path) -> tuple[int, float]:
    """Return the columns P of the vectors of a shard, and the mean variance of one."""
    vectors = hidden_matrix(pq.read_table(path, columns=[HIDDEN])[HIDDEN]).astype(np.float64)
    return vectors.shape[1], float(vectors.var(axis=0).mean()) if len(vectors) else 0.0


def _projection(width: int, size: int) -> npt.NDArray[np.float32]:
    """Return a random matrix (W, P), always the same, that leaves lengths as they are on average."""
    random: Any = np.random.default_rng([_SEED, width, size])
    matrix: npt.NDArray[np.float32] = random.standard_normal((width, size), dtype=np.float32) / np.float32(size**0.5)
    return matrix
