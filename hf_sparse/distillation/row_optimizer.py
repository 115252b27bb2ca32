"""Optimisers of the n-gram table that touch only the rows of a batch.

The gradient of a row is the weighted sum of the pooled gradients of the texts it occurs in. It is computed from the
ids and the gradient of the pooled vectors, block of unique rows by block, with an embedding_bag over the transposed
incidence: the "table" is the pooled gradient, the "bag" of a row is the list of its texts. No sparse tensor and no
(N, D) gradient is ever made, which makes a step several times faster than torch.optim.SparseAdam at a fraction of its
memory. Row-wise Adagrad keeps one float a row; lazy Adam (moments of untouched rows stand still) two a weight. On the
CPU row-wise Adagrad is one compiled loop over the rows (`row_kernel.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_sparse.distillation.row_kernel import (
    SQUARES,
    UPDATE,
    Incidence,
    Threads,
    adagrad_rows,
    as_array,
    winning_values,
)

TensorKind = TypeVar("TensorKind", bound=Tensor)

# Rows of gradient held at once: with 256 columns this is 2 MB, which stays in a core's cache.
BLOCK_UNIQUE_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class RowGradient:
    """Gradient of some rows of the table: `rows` (U,) sorted and unique, `values` (U, D)."""

    rows: Tensor
    values: Tensor


def pooled_row_gradients(
    ids: Tensor,  # (N,) rows of the table
    lengths: Tensor,  # (B,) n-grams of each text
    pooled_gradient: Tensor,  # (B, D)
    *,
    mean: bool,
) -> Iterator[RowGradient]:
    """Yield the gradient of the rows in `ids`, a block of unique rows at a time, for mean or sum pooling."""
    if ids.numel() == 0:
        return
    texts = torch.repeat_interleave(torch.arange(len(lengths), device=ids.device), lengths)
    sorted_ids, order = torch.sort(ids, stable=True)
    texts = texts[order]
    weights = (1.0 / lengths.clamp(min=1)).to(pooled_gradient.dtype)[texts] if mean else None
    rows, counts = torch.unique_consecutive(sorted_ids, return_counts=True)
    ends = torch.zeros(len(rows) + 1, dtype=torch.int64, device=ids.device)
    torch.cumsum(counts, 0, out=ends[1:])
    starts = ends[::BLOCK_UNIQUE_ROWS].tolist()
    starts = [*starts, int(ends[-1])] if len(rows) % BLOCK_UNIQUE_ROWS else starts
    for block, (start, stop) in enumerate(pairwise(starts)):
        first = block * BLOCK_UNIQUE_ROWS
        values = F.embedding_bag(
            texts[start:stop],
            pooled_gradient,
            ends[first : first + BLOCK_UNIQUE_ROWS + 1] - start,
            mode="sum",
            per_sample_weights=weights[start:stop] if weights is not None else None,
            include_last_offset=True,
        )
        yield RowGradient(rows=rows[first : first + BLOCK_UNIQUE_ROWS], values=values)


@dataclass(frozen=True, kw_only=True)
class PooledGradient:
    """The gradient of the pooled vectors of a batch, from which that of the rows follows.

    Pooling is by mean, by sum or, with `winners`, by maximum.

    Attributes:
        ids: (N,) rows of the table.
        lengths: (B,) n-grams of each text.
        gradient: (B, D).
        mean: Whether a text's vector is the mean of its rows, or their sum.
        winners: (B, D) which row each column of a text's vector is from, of those in `ids` or others; -1: of none.
    """

    ids: Tensor
    lengths: Tensor
    gradient: Tensor
    mean: bool = False
    winners: Tensor | None = None

    def __iter__(self) -> Iterator[RowGradient]:
        if self.winners is not None:
            return self._of_winners()
        return pooled_row_gradients(self.ids, self.lengths, self.gradient, mean=self.mean)

    def _of_winners(self) -> Iterator[RowGradient]:
        if self.ids.numel():
            incidence = self.incidence()
            values = winning_values(incidence, as_array(self.gradient.float()))
            yield RowGradient(rows=torch.from_numpy(incidence.rows), values=torch.from_numpy(values))

    @classmethod
    def join(cls, parts: "Sequence[PooledGradient]") -> "PooledGradient":
        """Return that of a batch, given those of its parts, which are pooled alike."""
        if len(parts) == 1:
            return parts[0]
        winners = [part.winners for part in parts if part.winners is not None]
        return cls(
            ids=torch.cat([part.ids for part in parts]),
            lengths=torch.cat([part.lengths for part in parts]),
            gradient=torch.cat([part.gradient for part in parts]),
            mean=parts[0].mean,
            winners=torch.cat(winners) if winners else None,
        )

    def incidence(self) -> Incidence:
        """Return in which texts each row occurs."""
        texts = torch.repeat_interleave(torch.arange(len(self.lengths), dtype=torch.int32), self.lengths)
        sorted_ids, order = torch.sort(self.ids, stable=True)
        texts = texts[order]
        if self.winners is not None:
            is_new = (sorted_ids.diff(prepend=sorted_ids[:1] - 1) != 0) | (texts.diff(prepend=texts[:1]) != 0)
            sorted_ids, texts = sorted_ids[is_new], texts[is_new]
        weights = 1.0 / self.lengths.clamp(min=1) if self.mean else torch.ones(len(self.lengths))
        rows, counts = torch.unique_consecutive(sorted_ids, return_counts=True)
        ends = torch.zeros(len(rows) + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=ends[1:])
        return Incidence(
            rows=as_array(rows),
            ends=as_array(ends),
            texts=as_array(texts),
            weights=as_array(weights.float()[texts]),
            winners=None if self.winners is None else as_array(self.winners),
        )


def rows_by_block(rows: Tensor, blocks: Sequence[TensorKind]) -> Iterator[tuple[TensorKind, Tensor, slice]]:
    """Yield each block with rising `rows` in it: the block, the rows counted from its start, and which they are."""
    block_rows, first = blocks[0].shape[0], 0
    edges = torch.arange(1, len(blocks) + 1, device=rows.device) * block_rows
    for index, stop in enumerate(torch.searchsorted(rows, edges).tolist()):
        if stop > first:
            yield blocks[index], rows[first:stop] - index * block_rows, slice(first, stop)
        first = stop


class RowOptimizer(torch.optim.Optimizer):
    """Base of the row optimisers: holds the row blocks of a table and walks over the rows of a gradient.

    Args:
        blocks: Row blocks of the table, each (block_rows, D); row r lies in block r // block_rows.
        lr: Learning rate.
    """

    def __init__(self, blocks: Sequence[torch.nn.Parameter], *, lr: float) -> None:
        super().__init__(list(blocks), {"lr": lr})
        self._pending: list[Iterable[RowGradient]] = []
        for block in blocks:
            self._create_state(block)

    def accumulate(self, gradients: Iterable[RowGradient]) -> None:
        """Add the row gradients of a batch to the next step."""
        self._pending.append(gradients)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update the rows of the accumulated gradients.

        Raises:
            ValueError: If a closure is given, or gradients of several batches wait (merge the batches instead).
        """
        if closure is not None:
            raise ValueError("a row optimiser takes no closure; call accumulate() and then step()")
        if len(self._pending) > 1:
            raise ValueError("a row optimiser steps after each batch; merge the batches to accumulate gradients")
        lr = self.param_groups[0]["lr"]
        self._begin_step()
        for gradients in self._pending:
            if not (isinstance(gradients, PooledGradient) and self._update_fused(gradients, lr=lr)):
                for gradient in gradients:
                    for block, rows, values in self._by_block(gradient):
                        self._update(block, rows, values.to(block.dtype), lr=lr)
        self._pending.clear()

    def _by_block(self, gradient: RowGradient) -> Iterator[tuple[torch.nn.Parameter, Tensor, Tensor]]:
        blocks = self.param_groups[0]["params"]
        if len(blocks) == 1:
            yield blocks[0], gradient.rows.long(), gradient.values
            return
        for block, rows, which in rows_by_block(gradient.rows.long(), blocks):
            yield block, rows, gradient.values[which]

    def _begin_step(self) -> None:
        """Do what happens once a step."""

    def _update_fused(self, gradient: PooledGradient, *, lr: float) -> bool:
        """Update all rows of a batch at once, if there is a loop for it; return whether there is."""
        return False

    def _create_state(self, block: torch.nn.Parameter) -> None:
        raise NotImplementedError

    def _update(self, block: torch.nn.Parameter, rows: Tensor, gradient: Tensor, *, lr: float) -> None:
        raise NotImplementedError


class RowwiseAdagrad(RowOptimizer):
    """Adagrad with one accumulator a row: the mean square of the row's gradient.

    Args:
        blocks: Row blocks of the table.
        lr: Learning rate; 0.05 suits tables of n-grams.
        eps: Added to the root of the accumulator.
        add_up: Adds a tensor up over the processes that have the other columns of the rows; None: there are none.
        width: Columns of the whole rows, if `add_up` is given.
    """

    def __init__(
        self,
        blocks: Sequence[torch.nn.Parameter],
        *,
        lr: float = 0.05,
        eps: float = 1e-8,
        add_up: Callable[[Tensor], Tensor] | None = None,
        width: int | None = None,
    ) -> None:
        self._eps = eps
        self._add_up = add_up
        self._width = width
        self._threads = Threads()
        super().__init__(blocks, lr=lr)

    def _create_state(self, block: torch.nn.Parameter) -> None:
        self.state[block]["square_sum"] = torch.zeros(block.shape[0], dtype=torch.float32, device=block.device)

    def _update(self, block: torch.nn.Parameter, rows: Tensor, gradient: Tensor, *, lr: float) -> None:
        square_sum = self.state[block]["square_sum"]
        # One pass over the gradient for its squares, one to scale it in place: it is not needed any more.
        squares = torch.linalg.vector_norm(gradient, dim=1, dtype=torch.float32).square_()
        if self._add_up is not None:
            squares = self._add_up(squares)
        accumulated = square_sum[rows].add_(squares, alpha=1 / (self._width or gradient.shape[1]))
        square_sum[rows] = accumulated
        scale = (-lr / accumulated.sqrt().add_(self._eps)).to(gradient.dtype)
        block.index_add_(0, rows, gradient.mul_(scale[:, None]))

    def _update_fused(self, gradient: PooledGradient, *, lr: float) -> bool:
        blocks = self.param_groups[0]["params"]
        if any(block.device.type != "cpu" or block.dtype != torch.float32 for block in blocks):
            return False
        if not gradient.ids.numel():
            return True
        incidence = gradient.incidence()
        squares = torch.empty(len(incidence.rows))
        pooled = as_array(gradient.gradient.float().contiguous())

        def take(what: int) -> None:
            adagrad_rows(
                [as_array(block) for block in blocks],
                [as_array(self.state[block]["square_sum"]) for block in blocks],
                incidence,
                pooled,
                as_array(squares),
                what=what,
                width=self._width or blocks[0].shape[1],
                lr=lr,
                eps=self._eps,
                threads=self._threads,
                num_threads=torch.get_num_threads(),
            )

        if self._add_up is None:
            take(SQUARES | UPDATE)
        else:
            take(SQUARES)
            self._add_up(squares)
            take(UPDATE)
        return True


class LazyAdam(RowOptimizer):
    """Adam whose moments change only in the rows of a batch, with the bias correction of the global step.

    Args:
        blocks: Row blocks of the table.
        lr: Learning rate; 0.01 suits tables of n-grams.
        betas: Decay of the moments.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        blocks: Sequence[torch.nn.Parameter],
        *,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._betas = betas
        self._eps = eps
        super().__init__(blocks, lr=lr)

    def _create_state(self, block: torch.nn.Parameter) -> None:
        self.state[block]["exp_avg"] = torch.zeros_like(block, dtype=torch.float32)
        self.state[block]["exp_avg_sq"] = torch.zeros_like(block, dtype=torch.float32)
        self.state[block]["step"] = torch.zeros((), dtype=torch.float32)

    def _begin_step(self) -> None:
        for block in self.param_groups[0]["params"]:
            self.state[block]["step"] += 1

    def _update(self, block: torch.nn.Parameter, rows: Tensor, gradient: Tensor, *, lr: float) -> None:
        state = self.state[block]
        first_decay, second_decay = self._betas
        step = float(state["step"])
        gradient = gradient.float()
        first = state["exp_avg"][rows].lerp_(gradient, 1 - first_decay)
        second = state["exp_avg_sq"][rows].mul_(second_decay).addcmul_(gradient, gradient, value=1 - second_decay)
        state["exp_avg"][rows] = first
        state["exp_avg_sq"][rows] = second
        denominator = (second / (1 - second_decay**step)).sqrt_().add_(self._eps)
        change = first.div_(denominator).mul_(-lr / (1 - first_decay**step))
        block.index_add_(0, rows, change.to(block.dtype))
