"""Row gradients against autograd, row optimisers against dense loops and torch's own."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_sparse.distillation import row_optimizer
from hf_sparse.distillation.row_kernel import Threads, as_array, maximum_rows
from hf_sparse.distillation.row_optimizer import (
    LazyAdam,
    PooledGradient,
    RowOptimizer,
    RowwiseAdagrad,
    pooled_row_gradients,
)

ROWS, WIDTH = 40, 5


def make_batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids with repetitions, lengths with empty texts, and a gradient of the pooled vectors."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([7, 0, 13, 1, 0])
    ids = torch.randint(1, ROWS, (int(lengths.sum()),), generator=generator, dtype=torch.int32)
    return ids, lengths, torch.randn(len(lengths), WIDTH, generator=generator)


def dense_gradient(ids: torch.Tensor, lengths: torch.Tensor, pooled: torch.Tensor, *, mean: bool) -> torch.Tensor:
    """Return the gradient of the whole table by autograd."""
    table = torch.zeros(ROWS, pooled.shape[1], requires_grad=True)
    for row, part in enumerate(torch.split(ids, lengths.tolist())):
        if len(part):
            vectors = F.embedding(part, table)
            ((vectors.mean(0) if mean else vectors.sum(0)) * pooled[row]).sum().backward()
    assert table.grad is not None
    return table.grad


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("block", [1, 3, 2048])
def test_row_gradients_equal_autograd(monkeypatch: pytest.MonkeyPatch, mean: bool, block: int) -> None:
    monkeypatch.setattr(row_optimizer, "BLOCK_UNIQUE_ROWS", block)
    ids, lengths, pooled = make_batch(0)
    found = torch.zeros(ROWS, WIDTH)
    seen = []
    for gradient in pooled_row_gradients(ids, lengths, pooled, mean=mean):
        seen += gradient.rows.tolist()
        found[gradient.rows.long()] = gradient.values
    assert seen == sorted(set(ids.tolist()))
    torch.testing.assert_close(found, dense_gradient(ids, lengths, pooled, mean=mean))


def test_batch_without_ngrams_has_no_gradient() -> None:
    nothing = pooled_row_gradients(
        torch.zeros(0, dtype=torch.int32), torch.zeros(3, dtype=torch.int64), torch.ones(3, WIDTH), mean=True
    )
    assert list(nothing) == []


def run_steps(make: Callable[[list[torch.nn.Parameter]], RowOptimizer], block_rows: int) -> torch.Tensor:
    """Return the table after three steps, held in blocks of so many rows."""
    table = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(9))
    blocks = [torch.nn.Parameter(part.clone()) for part in torch.split(table, block_rows)]
    optimizer = make(blocks)
    for seed in range(3):
        ids, lengths, pooled = make_batch(seed)
        optimizer.accumulate(pooled_row_gradients(ids, lengths, pooled, mean=True))
        optimizer.step()
    return torch.cat([block.detach() for block in blocks])


@pytest.mark.parametrize("block_rows", [ROWS, 15, 7])
def test_rowwise_adagrad_equals_a_dense_loop(block_rows: int) -> None:
    found = run_steps(lambda blocks: RowwiseAdagrad(blocks, lr=0.1), block_rows)
    table = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(9))
    square_sum = torch.zeros(ROWS)
    for seed in range(3):
        gradient = dense_gradient(*make_batch(seed), mean=True)
        square_sum += gradient.square().mean(1)
        table -= 0.1 * gradient / (square_sum.sqrt() + 1e-8)[:, None]
    torch.testing.assert_close(found, table)


@pytest.mark.parametrize("block_rows", [ROWS, 15, 7])
def test_lazy_adam_equals_sparse_adam(block_rows: int) -> None:
    found = run_steps(lambda blocks: LazyAdam(blocks, lr=0.1), block_rows)
    table = torch.nn.Parameter(torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(9)))
    optimizer = torch.optim.SparseAdam([table], lr=0.1)
    for seed in range(3):
        ids, lengths, pooled = make_batch(seed)
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        bags = F.embedding_bag(ids.long(), table, offsets, mode="sum", include_last_offset=True, sparse=True)
        optimizer.zero_grad()
        ((bags / lengths.clamp(min=1)[:, None]) * pooled).sum().backward()
        optimizer.step()
    # SparseAdam adds eps before its bias correction, LazyAdam, like Adam, after it.
    torch.testing.assert_close(found, table.detach(), atol=1e-5, rtol=1e-4)


def maxima(ids: torch.Tensor, lengths: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each text's maxima and whose they are, one after the other."""
    best, winners = torch.zeros(len(lengths), table.shape[1]), torch.full((len(lengths), table.shape[1]), -1)
    for text, part in enumerate(torch.split(ids, lengths.tolist())):
        for column in range(table.shape[1]):
            rows = [row for row in part.tolist() if row != 0]
            if rows:
                winner = max(rows, key=lambda row: float(table[row, column]))
                best[text, column], winners[text, column] = table[winner, column], winner
    return best, winners.int()


@pytest.mark.parametrize("width", [1, 16, 77])
@pytest.mark.parametrize("block_rows", [ROWS, 15, 1])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_maxima_are_those_of_a_loop(width: int, block_rows: int, num_threads: int) -> None:
    """With texts that have nothing but padding, and rows that are there twice."""
    table = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(4))
    ids, lengths, _ = make_batch(2)
    ids = torch.cat([ids, torch.tensor([0, 0, 5, 0, 5, 7], dtype=torch.int32)])
    lengths = torch.cat([lengths, torch.tensor([2, 4])])
    blocks = [as_array(part.clone()) for part in torch.split(table, block_rows)]
    best, winners = maximum_rows(blocks, as_array(ids), as_array(lengths), threads=Threads(), num_threads=num_threads)
    expected = maxima(ids, lengths, table)
    assert torch.equal(torch.from_numpy(best), expected[0])
    assert torch.equal(torch.from_numpy(winners), expected[1])
    nothing = maximum_rows(
        blocks, as_array(ids[:0]), as_array(lengths[:0]), threads=Threads(), num_threads=num_threads
    )
    assert nothing[0].shape == nothing[1].shape == (0, width)


def test_maxima_keep_what_is_not_a_number() -> None:
    table = torch.ones(3, 2)
    table[1, 0] = torch.nan
    for ids in ([1, 2], [2, 1]):
        best, _ = maximum_rows(
            [as_array(table)], np.array(ids, np.int32), np.array([2]), threads=Threads(), num_threads=1
        )
        np.testing.assert_equal(best, [[np.nan, 1.0]])


@pytest.mark.parametrize("block_rows", [ROWS, 15, 1])
def test_gradients_of_maxima_equal_autograd(block_rows: int) -> None:
    """The fused step, and the gradients of all rows, of some and of none, against autograd."""
    table = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(4))
    ids, lengths, pooled = make_batch(0)
    whole = table.clone().requires_grad_()
    for text, part in enumerate(torch.split(ids, lengths.tolist())):
        if len(part):
            (F.embedding(part, whole).max(0).values * pooled[text]).sum().backward()
    assert whole.grad is not None
    batch = PooledGradient(ids=ids, lengths=lengths, gradient=pooled, winners=maxima(ids, lengths, table)[1])
    for step in (1, 3, ROWS):  # those of every third row are all that is asked for, those of none
        is_some = ids % step == 0
        some = [int(part.sum()) for part in torch.split(is_some, lengths.tolist())]
        rows = torch.zeros(ROWS, WIDTH)
        for gradient in replace(batch, ids=ids[is_some], lengths=torch.tensor(some)):
            rows[gradient.rows.long()] = gradient.values
        is_asked = (torch.arange(ROWS) % step == 0)[:, None]
        torch.testing.assert_close(rows, whole.grad * is_asked)
    blocks = [torch.nn.Parameter(part.clone()) for part in torch.split(table, block_rows)]
    optimizer = RowwiseAdagrad(blocks, lr=0.1)
    optimizer.accumulate(batch)
    optimizer.step()
    squares = whole.grad.square().mean(1)
    expected = table - 0.1 * whole.grad / (squares.sqrt() + 1e-8)[:, None]
    torch.testing.assert_close(torch.cat([block.detach() for block in blocks]), expected)
    torch.testing.assert_close(torch.cat([optimizer.state[block]["square_sum"] for block in blocks]), squares)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("width", [1, 16, 77])
@pytest.mark.parametrize("block_rows", [ROWS, 15, 7, 1])
def test_fused_adagrad_equals_that_of_torch(width: int, block_rows: int, mean: bool) -> None:
    """The compiled loop against the steps in torch, which run where there is no loop; any number of threads."""
    generator = torch.Generator().manual_seed(4)
    table = torch.randn(ROWS, width, generator=generator)
    found = {}
    for name, num_threads in (("torch", 1), ("fused", 1), ("threads", 3)):
        blocks = [torch.nn.Parameter(part.clone()) for part in torch.split(table, block_rows)]
        optimizer = RowwiseAdagrad(blocks, lr=0.1)
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        for seed in range(4):
            ids, lengths, _ = make_batch(seed)
            gradient = torch.randn(len(lengths), width, generator=torch.Generator().manual_seed(seed))
            batch = PooledGradient(ids=ids, lengths=lengths, gradient=gradient, mean=mean)
            optimizer.accumulate(iter(batch) if name == "torch" else batch)
            optimizer.step()
        torch.set_num_threads(before)
        squares = torch.cat([optimizer.state[block]["square_sum"] for block in blocks])
        found[name] = torch.cat([torch.cat([block.detach() for block in blocks]), squares[:, None]], dim=1)
    torch.testing.assert_close(found["fused"], found["torch"])
    assert torch.equal(found["threads"], found["fused"])
    assert not torch.equal(found["fused"][:, :width], table)


def test_fused_step_of_some_columns() -> None:
    """Processes that have some columns each, and add up their squares, make the step of one that has all."""
    table = torch.randn(ROWS, 9, generator=torch.Generator().manual_seed(4))
    ids, lengths, _ = make_batch(0)
    gradient = torch.randn(len(lengths), 9)
    whole = torch.nn.Parameter(table.clone())
    optimizer = RowwiseAdagrad([whole], lr=0.1)
    optimizer.accumulate(PooledGradient(ids=ids, lengths=lengths, gradient=gradient, mean=True))
    optimizer.step()
    squares = dense_gradient(ids, lengths, gradient, mean=True).square().sum(1)[ids.unique().long()]
    for columns in (slice(0, 4), slice(4, 9)):
        part = torch.nn.Parameter(table[:, columns].clone())
        split = RowwiseAdagrad([part], lr=0.1, add_up=lambda values: values.copy_(squares), width=9)
        split.accumulate(PooledGradient(ids=ids, lengths=lengths, gradient=gradient[:, columns], mean=True))
        split.step()
        torch.testing.assert_close(part, whole[:, columns])


def test_fused_step_without_ngrams() -> None:
    table = torch.nn.Parameter(torch.ones(ROWS, WIDTH))
    optimizer = RowwiseAdagrad([table], lr=0.1)
    nothing = torch.zeros(0, dtype=torch.int32)
    lengths = torch.zeros(3, dtype=torch.int64)
    optimizer.accumulate(PooledGradient(ids=nothing, lengths=lengths, gradient=torch.ones(3, WIDTH), mean=True))
    optimizer.step()
    assert torch.equal(table, torch.ones(ROWS, WIDTH))


def test_untouched_rows_stay_as_they_are() -> None:
    found = run_steps(lambda blocks: RowwiseAdagrad(blocks, lr=0.1), ROWS)
    touched = set().union(*(make_batch(seed)[0].tolist() for seed in range(3)))
    table = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(9))
    rest = [row for row in range(ROWS) if row not in touched]
    assert rest
    assert torch.equal(found[rest], table[rest])


def test_two_batches_in_one_step_are_refused() -> None:
    optimizer = RowwiseAdagrad([torch.nn.Parameter(torch.zeros(ROWS, WIDTH))], lr=0.1)
    for seed in range(2):
        optimizer.accumulate(pooled_row_gradients(*make_batch(seed), mean=True))
    with pytest.raises(ValueError, match="merge the batches"):
        optimizer.step()
