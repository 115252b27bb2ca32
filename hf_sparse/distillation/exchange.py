"""What processes that train one student tell each other: n-gram ids, pooled vectors, the gradient of the head.

The table never travels, nor does its gradient. Every process trains on its share of each batch of texts. In a *split*
table each process has some columns of all rows: it pools its columns for the texts of all processes, and an
all-to-all hands each text's whole vector to the process of the text; the gradient goes back the same way. A
*replicated* table is whole in every process: each pools its own texts (for a maximum, all), and the gradients of the
pooled vectors are gathered, so that all processes make the same update. What is sent depends on the batch, not on the
number of rows.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

TableMode = Literal["split", "replicated"]
# torch 2.13 renamed it.
_all_gather_tensor = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
# Columns of float32 that are worth a read of their own: the 32 bytes that a GPU reads at least.
FEWEST_COLUMNS = 8


def column_ranges(width: int, num_processes: int) -> list[tuple[int, int]]:
    """Return the first column of each process and that behind its last, as even as can be."""
    edges = [width * rank // num_processes for rank in range(num_processes + 1)]
    return list(pairwise(edges))


def table_mode(width: int, num_processes: int, *, by_column: bool, wanted: str = "auto") -> TableMode:
    """Return how several processes hold the table.

    Args:
        width: Columns D of the table.
        num_processes: W.
        by_column: Whether each column is pooled by itself, as by mean, sum and maximum.
        wanted: "split", "replicated", or "auto": split where that leaves each process 8 columns.

    Raises:
        ValueError: If this table cannot be held so by several processes.
    """
    if num_processes > 1 and not by_column:
        raise ValueError(
            f"{num_processes} processes were launched, but attentive pooling trains on one; launch one, or set "
            "student.pooling to mean, sum or max"
        )
    if wanted == "split" and width < num_processes:
        raise ValueError(
            f"the table has {width} columns, too few to split them over {num_processes} processes; set table to "
            "replicated, or launch fewer"
        )
    if wanted == "auto":
        return "split" if width >= FEWEST_COLUMNS * num_processes else "replicated"
    return "split" if wanted == "split" else "replicated"


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The n-grams of the texts of all processes, in the order of the batch.

    Attributes:
        ids: (N,) int32.
        lengths: (B,) int64.
        num_texts: Of each process; they add up to B.
    """

    ids: Tensor
    lengths: Tensor
    num_texts: list[int]


@dataclass(kw_only=True)
class Traffic:
    """What the exchange took of one process.

    Attributes:
        bytes: Sent to others.
        seconds: In collective calls: for sending, and for processes that were not there yet.
    """

    bytes: int = 0
    seconds: float = 0.0


class Exchange:
    """The exchange of one process among W; with one process nothing is sent and nothing is copied.

    Args:
        width: Columns D of the table.
        mode: How the table is held.
        rank: Of this process.
        num_processes: W; `torch.distributed` must be initialised if there are several.
    """

    def __init__(self, width: int, *, mode: TableMode, rank: int = 0, num_processes: int = 1) -> None:
        self.rank = rank
        self.num_processes = num_processes
        self.mode = mode
        ranges = column_ranges(width, num_processes) if mode == "split" else [(0, width)] * num_processes
        self.columns = ranges[rank]
        self._widths = [stop - start for start, stop in ranges]
        self._traffic = Traffic()

    @property
    def is_split(self) -> bool:
        """Whether this process has a part of the columns only."""
        return self.mode == "split" and self.num_processes > 1

    def take_traffic(self) -> Traffic:
        """Return what the exchange took since the last call."""
        traffic, self._traffic = self._traffic, Traffic()
        return traffic

    def gather(self, ids: Tensor, lengths: Tensor) -> Gathered:
        """Return the n-grams of all processes' texts."""
        if self.num_processes == 1:
            return Gathered(ids=ids, lengths=lengths, num_texts=[len(lengths)])
        sizes = self._all_gather(torch.tensor([len(lengths), len(ids)], device=ids.device)).tolist()
        room = max(num_texts + num_ids for num_texts, num_ids in sizes)
        message = ids.new_zeros(room)
        message[: len(lengths)] = lengths.to(ids.dtype)
        message[len(lengths) : len(lengths) + len(ids)] = ids
        found = self._all_gather(message)
        lengths = torch.cat([part[:texts] for part, (texts, _) in zip(found, sizes, strict=True)])
        parts = [part[texts : texts + size] for part, (texts, size) in zip(found, sizes, strict=True)]
        return Gathered(ids=torch.cat(parts), lengths=lengths.long(), num_texts=[texts for texts, _ in sizes])

    def to_texts(self, columns: Tensor, num_texts: Sequence[int]) -> Tensor:
        """Turn this process's columns of all texts (B, D_r) into all columns of its own texts (B_r, D)."""
        if not self.is_split:
            return columns
        mine = num_texts[self.rank]
        sent = [texts * columns.shape[1] for texts in num_texts]
        received = [mine * width for width in self._widths]
        parts = self._all_to_all(columns.reshape(-1), sent, received).split(received)
        return torch.cat([part.view(mine, -1) if mine else part.view(0, width)
                          for part, width in zip(parts, self._widths, strict=True)], dim=1)  # fmt: skip

    def to_columns(self, gradient: Tensor, num_texts: Sequence[int]) -> Tensor:
        """Turn all columns of this process's texts (B_r, D) into its own columns of all texts (B, D_r)."""
        if self.num_processes == 1:
            return gradient
        if not self.is_split:
            return self._gather_rows(gradient, num_texts)
        width = self._widths[self.rank]
        message = torch.cat([part.reshape(-1) for part in gradient.split(self._widths, dim=1)])
        sent = [gradient.shape[0] * other for other in self._widths]
        received = [texts * width for texts in num_texts]
        return self._all_to_all(message, sent, received).view(-1, width)

    def own_texts(self, gathered: Gathered) -> tuple[int, int]:
        """Return where this process's texts begin and end among those of all."""
        first = sum(gathered.num_texts[: self.rank])
        return first, first + gathered.num_texts[self.rank]

    def add(self, values: Tensor) -> Tensor:
        """Add a tensor up over all processes, in place."""
        if self.num_processes > 1:
            # A ring sends each value on twice, but for the share that is a process's own.
            with self._counted(2 * values.nbytes * (self.num_processes - 1) // self.num_processes):
                dist.all_reduce(values)
        return values

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows (B, ...) of all processes, this one's being (B_r, ...)."""
        if self.num_processes == 1:
            return rows
        num_rows = self._all_gather(torch.tensor([len(rows)], device=rows.device)).flatten().tolist()
        return self._gather_rows(rows, num_rows)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.num_processes > 1:
            dist.barrier()

    def _gather_rows(self, rows: Tensor, num_rows: Sequence[int]) -> Tensor:
        message = rows.new_zeros(max(num_rows), *rows.shape[1:])
        message[: len(rows)] = rows
        found = self._all_gather(message)
        return torch.cat([part[:size] for part, size in zip(found, num_rows, strict=True)])

    def _all_gather(self, values: Tensor) -> Tensor:
        """Return the values of all processes, stacked."""
        found = values.new_empty(self.num_processes, *values.shape)
        with self._counted(values.nbytes * (self.num_processes - 1)):
            _all_gather_tensor(found.view(-1), values.contiguous().view(-1))
        return found

    def _all_to_all(self, values: Tensor, sent: list[int], received: list[int]) -> Tensor:
        found = values.new_empty(sum(received))
        with self._counted((values.numel() - sent[self.rank]) * values.element_size()):
            dist.all_to_all_single(found, values.contiguous(), received, sent)
        return found

    @contextmanager
    def _counted(self, num_bytes: int) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._traffic.seconds += time.monotonic() - began
        self._traffic.bytes += num_bytes
