"""Training on the CPU: maxima of rows, and the fused step of row-wise Adagrad.

The step finds gradient and square of a row and updates it while it is in the cache. Text by text and row by row, so
that the result does not depend on how texts and rows are shared out among threads.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.jit import Floats, Ids, Offsets, jit, jit_sums

# Shares for each thread: rows differ in how often they occur.
_SHARES: Final = 8
SQUARES: Final = 1
UPDATE: Final = 2
# What stands for the winners where pooling is no maximum: a compiled function needs an array.
_NONE: Final = np.zeros((0, 0), np.int32)


class Threads:
    """Threads that are kept from one call to the next, as long as their number stays."""

    def __init__(self) -> None:
        self._kept: tuple[int, ThreadPoolExecutor] | None = None

    def map(self, take: Callable[[Any], None], shares: Iterable[Any], number: int) -> None:
        """Call `take` with each of the shares, on so many threads."""
        if self._kept is None or self._kept[0] != number:
            self._kept = number, ThreadPoolExecutor(number, "hf-sparse-rows")
        list(self._kept[1].map(take, shares))


def maximum_rows(
    blocks: list[Floats], ids: Ids, lengths: Offsets, *, threads: Threads, num_threads: int
) -> tuple[Floats, Ids]:
    """Return the maximum of each text's rows, and whose it is.

    Args:
        blocks: Row blocks of the table (rows, D), of equal size but for the last.
        ids: (N,) rows, text by text; 0 is padding, and passed over.
        lengths: (B,) how many each text has.
        threads: Who does it.
        num_threads: How many they are.

    Returns:
        Maxima (B, D), and in each place the row (B, D) that it is from; zeros and -1 for a text without rows. Of equal
        values the first one counts.
    """
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    best = np.empty((len(lengths), blocks[0].shape[1]), np.float32)
    winners = np.empty(best.shape, np.int32)

    goals = np.linspace(0, len(ids), _SHARES * num_threads + 1)
    cuts = np.unique([0, *np.searchsorted(ends[1:-1], goals[1:-1]), len(lengths)]).tolist()

    def take(share: tuple[int, int]) -> None:
        for index, block in enumerate(blocks):
            _take_maxima(
                share, (index * len(blocks[0]), index == 0, index == len(blocks) - 1), ids, ends, block, best, winners
            )

    threads.map(take, pairwise(cuts), num_threads)
    return best, winners


@jit
def _take_maxima(
    share: tuple[int, int],
    place: tuple[int, bool, bool],
    ids: Ids,
    ends: Offsets,
    table: Floats,
    best: Floats,
    winners: Ids,
) -> None:
    first_row, is_first, is_last = place
    for text in range(share[0], share[1]):
        if is_first:
            best[text, :] = -np.float32(np.inf)
            winners[text, :] = -1
        for index in range(ends[text], ends[text + 1]):
            row = ids[index]
            inside = row - first_row
            if row == 0 or inside < 0 or inside >= table.shape[0]:
                continue
            for column in range(table.shape[1]):
                value = table[inside, column]
                # The second half keeps what is not a number, so that the loss shows it.
                wins = value > best[text, column] or value != value
                best[text, column] = value if wins else best[text, column]
                winners[text, column] = row if wins else winners[text, column]
        if is_last:
            for column in range(table.shape[1]):
                if winners[text, column] < 0:
                    best[text, column] = np.float32(0)


@dataclass(frozen=True, kw_only=True)
class Incidence:
    """In which texts rows occur.

    Attributes:
        rows: (U,) rising numbers of rows.
        ends: (U + 1,) where the occurrences of each row begin and end.
        texts: (N,) the text of each occurrence.
        weights: (N,) the weight of each occurrence in its text.
        winners: (B, D) which row each column of a text's vector is from, and alone has a gradient; None: all have.
            A row occurs only once in each text then.
    """

    rows: Ids
    ends: Offsets
    texts: Ids
    weights: Floats
    winners: Ids | None = None


def winning_values(incidence: Incidence, gradient: Floats) -> Floats:
    """Return the gradient (U, D) of rows by that of maxima (B, D)."""
    assert incidence.winners is not None
    values = np.zeros((len(incidence.rows), gradient.shape[1]), np.float32)
    _take_values(incidence.rows, incidence.ends, incidence.texts, incidence.winners, gradient, values)
    return values


@jit_sums
def _take_values(rows: Ids, ends: Offsets, texts: Ids, winners: Ids, gradient: Floats, values: Floats) -> None:
    for index in range(len(rows)):
        row = rows[index]
        for place in range(ends[index], ends[index + 1]):
            text = texts[place]
            for column in range(values.shape[1]):
                values[index, column] += gradient[text, column] if winners[text, column] == row else np.float32(0)


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
    threads: Threads,
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
    winners = _NONE if incidence.winners is None else incidence.winners

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
            winners,
            (blocks[index], square_sums[index], squares),
            (np.float32(width), np.float32(lr), np.float32(eps)),
        )

    threads.map(take, shares, num_threads)


@jit_sums
def _take_rows(
    share: tuple[int, int, int, int],
    incidence: tuple[Ids, Offsets, Ids, Floats],
    gradient: Floats,
    winners: Ids,
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
            if winners.size:
                row = rows[index]
                for column in range(total.size):
                    total[column] += gradient[text, column] if winners[text, column] == row else np.float32(0)
            else:
                for column in range(total.size):
                    total[column] += weight * gradient[text, column]
        if what & SQUARES:
            square = np.float32(0)
            for column in range(total.size):
                square += total[column] * total[column]
            squares[index] = square
        if what & UPDATE:
            inside = rows[index] - first_row
            square_sum[inside] += squares[index] / width
            scale = -lr / (np.sqrt(square_sum[inside]) + eps)
            for column in range(total.size):
                table[inside, column] += scale * total[column]


def as_array(values: Any) -> npt.NDArray[Any]:
    """Return the memory of a tensor on the CPU."""
    array: npt.NDArray[Any] = values.detach().numpy()
    return array
