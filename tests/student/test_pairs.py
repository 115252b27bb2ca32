"""The bags of pairs, against sets."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_sparse.student.pairs_sparse_ngram import bag_shares, overlap_order, pair_features
from tests.student.test_modeling import three_bags

SIDE = st.lists(st.integers(1, 9), max_size=8)
PAIRS = st.lists(st.tuples(SIDE, SIDE), max_size=6)


@given(PAIRS, st.sampled_from([torch.int32, torch.int64]))
def test_bags_are_those_of_sets(pairs: list[tuple[list[int], list[int]]], dtype: torch.dtype) -> None:
    sides = [side for pair in pairs for side in pair]
    ids = torch.tensor([row for side in sides for row in side], dtype=dtype)
    order, lengths = overlap_order(ids, torch.tensor([len(side) for side in sides], dtype=torch.int64))
    expected = [bag for pair in pairs for bag in three_bags(*pair)]
    assert lengths.tolist() == [len(bag) for bag in expected]
    assert ids[order].tolist() == [row for bag in expected for row in bag]
    assert sorted(order.tolist()) == list(range(len(ids)))


def test_shares() -> None:
    shares = bag_shares(torch.tensor([1, 2, 1, 0, 0, 0]))
    assert shares.tolist() == [[0.25], [0.5], [0.25], [0.0], [0.0], [0.0]]


def test_features() -> None:
    pooled = torch.tensor([[1.0], [3.0], [5.0]])
    assert pair_features(pooled, "overlap").tolist() == [[1.0, 3.0, 3.0, 2.0, 5.0]]
    assert pair_features(pooled[:2], "sides").tolist() == [[1.0, 3.0, 3.0, 2.0]]
