"""Words that share values by their spelling: sums, gradients and training against plain, slow forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_sparse.distillation.row_optimizer import PooledGradient, RowGradient
from hf_sparse.distillation.subwords import Spellings, SubwordRows
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary

WORDS = ["walk", "walks", "walked", "talk", "x", "!", "日", "naïve"]
WIDTH = 6


def make_vocabulary() -> NgramVocabulary:
    counts = {(word,): 50 - index for index, word in enumerate(WORDS)}
    return NgramVocabulary.from_counts(counts | {("walk", "!"): 45, ("zebra", "walk"): 3})


def make_rows(*, block_rows: int = 64) -> tuple[SubwordRows, list[Tensor], Spellings]:
    """Return random values of parts and a random table of blocks for the vocabulary above."""
    vocabulary = make_vocabulary()
    spellings = Spellings.of(vocabulary)
    rows = SubwordRows(spellings, num_rows=vocabulary.num_rows, width=WIDTH, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    rows.table.data = torch.randn(rows.table.shape, generator=generator)
    table = torch.randn(vocabulary.num_rows, WIDTH, generator=generator)
    return rows, list(table.split(block_rows)), spellings


def parts_by_row(spellings: Spellings) -> dict[int, list[int]]:
    """The slow form of what `Spellings` holds."""
    ends = spellings.ends.tolist()
    return {
        row: spellings.parts[ends[index] : ends[index + 1]].tolist()
        for index, row in enumerate(spellings.rows.tolist())
    }


def slow_table(table: Tensor, parts: Tensor, spellings: Spellings) -> Tensor:
    """Return the table with what words share, row by row, such that autograd sees both."""
    found = parts_by_row(spellings)
    rows = [
        table[row] + (parts[found[row]].sum(0) / len(found[row]) ** 0.5 if row in found else 0)
        for row in range(len(table))
    ]
    return torch.stack(rows)


def test_spellings_are_shared_character_ngrams() -> None:
    vocabulary = make_vocabulary()
    found = parts_by_row(Spellings.of(vocabulary))
    by_word = {vocabulary.ngram_words(row)[0]: set(parts) for row, parts in found.items()}
    assert set(by_word) == {"walk", "walks", "walked", "talk"}  # the others share nothing; zebra has no row
    # ^wa ^wal wal walk alk, and with talk: alk, lk$, alk$; parts of one word alone have no number
    assert by_word["walk"] & by_word["walks"] == by_word["walk"] & by_word["walked"]
    assert len(by_word["walk"] & by_word["walks"]) == 6  # \2wa \2wal \2walk wal walk alk
    assert len(by_word["walk"] & by_word["talk"]) == 3  # alk alk\3 lk\3
    assert Spellings.of(vocabulary).num_parts == len(set.union(*by_word.values()))


@pytest.mark.parametrize("block_rows", [64, 3, 1])
def test_rows_are_added_and_put_back_to_the_bit(block_rows: int) -> None:
    rows, blocks, spellings = make_rows(block_rows=block_rows)
    before = torch.cat(blocks)
    expected = slow_table(before, rows.table, spellings)
    with rows.added(blocks):
        torch.testing.assert_close(torch.cat(blocks), expected)
    assert torch.equal(torch.cat(blocks), before)
    ids = torch.tensor([5, 1, 1, 9], dtype=torch.int32)
    with rows.added(blocks, ids):
        seen = torch.cat(blocks)
    torch.testing.assert_close(seen[ids.long()], expected[ids.long()])
    others = [row for row in range(len(before)) if row not in ids]
    assert torch.equal(seen[others], before[others])
    assert torch.equal(torch.cat(blocks), before)


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.lists(st.integers(1, len(WORDS) + 2), max_size=9), min_size=1, max_size=5), mean=st.booleans()
)
def test_gradients_of_pooled_texts_are_those_of_autograd(texts: list[list[int]], mean: bool) -> None:
    rows, blocks, spellings = make_rows()
    table, parts = torch.cat(blocks).requires_grad_(), rows.table.detach().clone().requires_grad_()
    effective = slow_table(table, parts, spellings)
    sums = [effective[text].sum(0) / (max(1, len(text)) if mean else 1) for text in texts]
    pooled_gradient = torch.randn(len(texts), WIDTH, generator=torch.Generator().manual_seed(1))
    (torch.stack(sums) * pooled_gradient).sum().backward()
    found = rows.gradients(
        PooledGradient(
            ids=torch.tensor([row for text in texts for row in text], dtype=torch.int32),
            lengths=torch.tensor([len(text) for text in texts]),
            gradient=pooled_gradient,
            mean=mean,
        )
    )
    dense = torch.zeros_like(rows.table)
    for each in found:
        assert bool((each.rows.diff() > 0).all())
        dense[each.rows] += each.values
    torch.testing.assert_close(dense, torch.zeros_like(dense) if parts.grad is None else parts.grad)


def test_gradients_of_rows_are_those_of_autograd() -> None:
    rows, blocks, spellings = make_rows()
    table, parts = torch.cat(blocks).requires_grad_(), rows.table.detach().clone().requires_grad_()
    read = torch.tensor([1, 2, 3, 6])
    values = torch.randn(len(read), WIDTH, generator=torch.Generator().manual_seed(1))
    (slow_table(table, parts, spellings)[read] * values).sum().backward()
    (found,) = rows.gradients([RowGradient(rows=read, values=values)])
    dense = torch.zeros_like(rows.table)
    dense[found.rows] = found.values
    torch.testing.assert_close(dense, parts.grad)
    assert list(rows.gradients([])) == []
    assert list(rows.gradients([RowGradient(rows=torch.tensor([6]), values=values[:1])])) == []  # "!" shares nothing
