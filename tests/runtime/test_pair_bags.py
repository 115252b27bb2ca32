"""The compiled bags of pairs, against the student's."""

import numpy as np
import torch
from hypothesis import given, settings

from hf_sparse.runtime.pairs import bag_shares, overlap_bags, pair_features
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


def test_the_same_features() -> None:
    for name, bags in (("sides", 2), ("overlap", 3)):
        pooled = np.random.default_rng(0).normal(size=(4 * bags, 5)).astype(np.float32)
        expected = student.pair_features(torch.from_numpy(pooled), name).numpy()
        np.testing.assert_array_equal(pair_features(pooled, name), expected)
