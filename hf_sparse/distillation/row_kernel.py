"""The fused step of row-wise Adagrad on the CPU: gradient, square and update of a row while it is in the cache.

Row by row, so that the result does not depend on how the rows are shared out among threads.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.jit import Floats, Ids, Offsets, jit_sums

# Shares for each thread: rows differ in how often they occur.
_SHARES: Final = 8
SQUARES: Final = 1
UPDATE: Final = 2


@dataclass(frozen=True, kw_only=True)
class Incidence:
    """In which texts rows occur.

    Attributes:
        rows: (U,) rising numbers of rows.
        ends: (U + 1,) where the occurrences of each row begin and end.
        texts: (N,) the text of each occurrence.
        weights: (N,) the weight of each occurrence in its text.
    """

    rows: Ids
    ends: Offsets
    texts: Ids
    weights: Floats


def adagrad_rows(
    blocks: list[Floats],
    square_sums: list[Floats],
    incidence: Incidence,
    gradient: Floats,
    squares: Floats,
    *,
    what: int,
    width: int,
    lr: float,
    eps: float,
    threads: ThreadPoolExecutor,
    num_threads: int,
) -> None:
    """Find the squares of the gradients of some rows, or update these rows, or both.

    Args:
        blocks: Row blocks of the table (rows, D), of equal size but for the last; updated in place.
        square_sums: The accumulator of each row (rows,); updated in place.
        incidence: The rows.
        gradient: (B, D) of the pooled vectors.
        squares: (U,) the squared norm of each row's gradient: written with `SQUARES`, else read.
        what: `SQUARES`, `UPDATE`, or both, `SQUARES | UPDATE`.
        width: By which squares are divided: the columns of a whole row.
        lr: Learning rate.
        eps: Added to the root of the accumulator.
        threads: Who does it.
        num_threads: How many they are.
    """
    block_rows = len(blocks[0])
    edges = np.searchsorted(incidence.rows, np.arange(len(blocks) + 1) * block_rows).tolist()
    shares: list[tuple[int, int, int]] = []
    for index, (first, last) in enumerate(pairwise(edges)):
        # As many occurrences each.
        goals = np.linspace(incidence.ends[first], incidence.ends[last], _SHARES * num_threads + 1)
        cuts = np.unique(np.clip(np.searchsorted(incidence.ends, goals), first, last)).tolist()
        shares += [(index, start, stop) for start, stop in pairwise(cuts)]

    def take(share: tuple[int, int, int]) -> None:
        index, start, stop = share
        _take_rows(
            (start, stop, index * block_rows, what),
            (incidence.rows, incidence.ends, incidence.texts, incidence.weights),
            gradient,
            (blocks[index], square_sums[index], squares),
            (np.float32(width), np.float32(lr), np.float32(eps)),
        )

    list(threads.map(take, shares))


@jit_sums
def _take_rows(
    share: tuple[int, int, int, int],
    incidence: tuple[Ids, Offsets, Ids, Floats],
    gradient: Floats,
    state: tuple[Floats, Floats, Floats],
    factors: tuple[Any, Any, Any],
) -> None:
    start, stop, first_row, what = share
    rows, ends, texts, weights = incidence
    table, square_sum, squares = state
    width, lr, eps = factors
    total = np.empty(table.shape[1], np.float32)
    for index in range(start, stop):
        total[:] = np.float32(0)
        for place in range(ends[index], ends[index + 1]):
            weight, text = weights[place], texts[place]
            for column in range(total.size):
                total[column] += weight * gradient[text, column]
        if what & SQUARES:
            square = np.float32(0)
            for column in range(total.size):
                square += total[column] * total[column]
            squares[index] = square
        if what & UPDATE:
            row = rows[index] - first_row
            square_sum[row] += squares[index] / width
            scale = -lr / (np.sqrt(square_sum[row]) + eps)
            for column in range(total.size):
                table[row, column] += scale * total[column]


def as_array(values: Any) -> npt.NDArray[Any]:
    """Return the memory of a tensor on the CPU."""
    array: npt.NDArray[Any] = values.detach().numpy()
    return array
