"""The compiled bags of pairs, against the student's."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse.runtime.pairs import Alignment, bag_shares, overlap_bags, pair_features, with_words
from hf_sparse.student import SparseNgramConfig, alignment_sparse_ngram
from hf_sparse.student import pairs_sparse_ngram as student
from tests.student.test_pairs import PAIRS


@settings(deadline=None)
@given(PAIRS)
def test_the_same_bags(pairs: list[tuple[list[int], list[int]]]) -> None:
    sides = [side for pair in pairs for side in pair]
    ids = np.array([row for side in sides for row in side], np.int32)
    lengths = np.array([len(side) for side in sides], np.int64)
    order, expected = student.overlap_order(torch.from_numpy(ids), torch.from_numpy(lengths))
    found, counts = overlap_bags(ids, lengths)
    np.testing.assert_array_equal(found, ids[order.numpy()])
    np.testing.assert_array_equal(counts, expected.numpy())
    np.testing.assert_array_equal(bag_shares(counts), student.bag_shares(expected).numpy())


@settings(deadline=None)
@given(PAIRS, st.integers(0, 2**10 - 1))
def test_the_same_words(pairs: list[tuple[list[int], list[int]]], marks: int) -> None:
    sides = [side for pair in pairs for side in pair]
    ids = np.array([row for side in sides for row in side], np.int32)
    ids, lengths = overlap_bags(ids, np.array([len(side) for side in sides], np.int64))
    is_word = np.array([marks >> row & 1 for row in range(10)], np.uint8)
    expected = alignment_sparse_ngram.with_words(*map(torch.from_numpy, (ids, lengths, is_word)))
    for found, wanted in zip(with_words(ids, lengths, is_word), expected, strict=True):
        np.testing.assert_array_equal(found, wanted.numpy())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=6), st.sampled_from([0.0, 1.0, 100.0]))
def test_the_same_alignment(counts: list[tuple[int, int]], scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    words = torch.tensor([count for pair in counts for count in pair], dtype=torch.int64)
    rows = scale * torch.randn(int(words.sum()), 7, generator=generator)
    config = SparseNgramConfig(
        vocab_size=4, embedding_size=7, sentence_pairs=True, pair_bags="overlap", alignment_size=5, num_labels=2
    )
    layer = alignment_sparse_ngram.WordAlignment(config)
    with torch.no_grad():
        expected = layer(rows[:, -5:], words).numpy()
    weights = {f"model.alignment.{name}": value.detach().numpy() for name, value in layer.state_dict().items()}
    alignment = Alignment.from_weights(config.to_dict(), weights)
    assert alignment is not None
    np.testing.assert_allclose(alignment(rows.numpy(), words.numpy()), expected, rtol=1e-4, atol=1e-5 * scale * scale)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"is_word": None}, {}, "alignment.is_word must have the shape .4,. by config.json, but there is none"),
        ({"is_word": np.zeros(3, np.uint8)}, {}, "but it is uint8 .3,."),
        ({"is_word": np.zeros(4, np.float32)}, {}, "but it is float32 .4,."),
        ({"compare.bias": np.zeros(4, np.float32)}, {}, "alignment.compare.bias must have the shape .5,."),
        ({}, {"embedding_size": 5}, "alignment_size is 5, but a row has 5 columns"),
    ],
)
def test_alignments_that_cannot_be(changes: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    config = {"vocab_size": 4, "embedding_size": 7, "alignment_size": 5} | settings
    parts = {"is_word": (4, np.uint8), "compare.weight": ((5, 20), np.float32), "compare.bias": (5, np.float32)}
    weights = {name: np.zeros(shape, dtype) for name, (shape, dtype) in parts.items()} | changes
    named = {f"model.alignment.{name}": value for name, value in weights.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        Alignment.from_weights(config, named)


def test_the_same_features() -> None:
    for name, bags in (("sides", 2), ("overlap", 3)):
        pooled = np.random.default_rng(0).normal(size=(4 * bags, 5)).astype(np.float32)
        expected = student.pair_features(torch.from_numpy(pooled), name).numpy()
        np.testing.assert_array_equal(pair_features(pooled, name), expected)
