"""Texts, or ids of n-grams, to the pooled rows of each text: all of a student before its dense layers.

Between finding an n-gram and adding its row all rows of the text are asked for, so that they arrive together and not
one after the other: most of them are not in a cache, and this alone is worth a factor of four.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np

from hf_sparse.runtime.extraction import Tables, Texts, borrow_tables, find_ids, longest_text, text_buffers
from hf_sparse.runtime.jit import Floats, Ids, Offsets, inline, jit
from hf_sparse.runtime.rows import FORMATS, add_rows
from hf_sparse.runtime.vector import borrow, prefetch_address

# Address of each row block (K,) int64; rows of a block, bytes of a row, columns D.
Table: TypeAlias = tuple[Offsets, int, int, int]

# How the rows of a text become one vector.
MODES: Final = {"mean": 0, "sum": 1, "max": 2}
_LINE: Final = 64
_PAIRED: Final = FORMATS["int4"]
_MAX: Final = MODES["max"]


@inline
def _add_columns(addresses: Offsets, num_ids: int, width: int, totals: Floats, row_format: int, maximum: int) -> None:
    """Add rows of one format; the widest vectors first, what is left by itself (int4 has pairs of columns)."""
    column = 0
    while column + 64 <= width:
        add_rows(addresses, num_ids, column, width, totals, row_format, 64, maximum)
        column += 64
    while column + 8 <= width:
        add_rows(addresses, num_ids, column, width, totals, row_format, 8, maximum)
        column += 8
    while column + 2 <= width:
        add_rows(addresses, num_ids, column, width, totals, row_format, 2, maximum)
        column += 2
    if column < width and row_format != _PAIRED:
        add_rows(addresses, num_ids, column, width, totals, row_format, 1, maximum)


@inline
def _ask_for_rows(table: Table, ids: Ids, first: int, num_ids: int, addresses: Offsets) -> None:
    """Write the addresses of rows and ask for the beginning of each; the processor sees to the rest of wide ones."""
    blocks, block_rows, stride, _ = table
    for index in range(num_ids):
        row: Any = np.int64(ids[first + index])
        block = 0
        if blocks.size > 1:
            block = row // block_rows
            row -= block * block_rows
        address = blocks[block] + row * stride
        addresses[index] = address
        prefetch_address(address)
        prefetch_address(address + min(stride, 2 * _LINE) - 1)


@inline
def _finish(totals: Floats, num_ids: int, mode: int) -> None:
    """Turn sums into means."""
    if mode == 0 and num_ids > 1:
        scale = np.float32(1.0) / np.float32(num_ids)
        for column in range(totals.size):
            totals[column] *= scale


@cache
def ids_pooler(row_format: int, mode: int) -> Callable[[Ids, Offsets, Table], Floats]:
    """Return the compiled function that pools ids (N,), `lengths` (B,) of each text, to (B, D) float32.

    Args:
        row_format: One of `FORMATS`.
        mode: One of `MODES`.
    """
    maximum = int(mode == _MAX)

    @jit
    def pool_ids(ids: Ids, lengths: Offsets, table: Table) -> Floats:
        width = table[3]
        pooled = np.zeros((lengths.size, width), np.float32)
        addresses = np.empty(lengths.max() if lengths.size else 0, np.int64)
        first = 0
        for text in range(lengths.size):
            num_ids = lengths[text]
            _ask_for_rows(table, ids, first, num_ids, addresses)
            totals = pooled[text]
            if maximum and num_ids > 0:
                totals[:] = -np.inf
            _add_columns(addresses, num_ids, width, totals, row_format, maximum)
            _finish(totals, num_ids, mode)
            first += num_ids
        return pooled

    return pool_ids


@cache
def texts_pooler(row_format: int, mode: int) -> Callable[[Texts, Tables, Table], Floats]:
    """Return the compiled function that pools the rows of B texts to (B, D) float32; see `ids_pooler`."""
    maximum = int(mode == _MAX)

    @jit
    def pool_texts(texts: Texts, tables: Tables, table: Table) -> Floats:
        offsets, max_n, width = texts[1], tables[4], table[3]
        tables, table = borrow_tables(tables), (borrow(table[0]), table[1], table[2], width)
        num_texts = offsets.size - 1
        longest = longest_text(offsets, 0, num_texts)
        buffers = text_buffers(longest, max_n)
        ids = np.empty(longest * max_n + 1, np.int32)
        addresses = np.empty((2, longest * max_n), np.int64)
        pooled = np.zeros((num_texts, width), np.float32)
        num_asked = 0
        for text in range(num_texts + 1):
            num_ids = 0
            if text < num_texts:
                num_ids = find_ids(texts, text, tables, buffers, ids, 0, False)
                _ask_for_rows(table, ids, 0, num_ids, addresses[text % 2])
            if text > 0:
                # While its rows were on their way, the n-grams of the next text were looked up.
                totals = pooled[text - 1]
                if maximum and num_asked > 0:
                    totals[:] = -np.inf
                _add_columns(addresses[(text - 1) % 2], num_asked, width, totals, row_format, maximum)
                _finish(totals, num_asked, mode)
            num_asked = num_ids
        return pooled

    return pool_texts
