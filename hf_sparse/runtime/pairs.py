"""Pairs of texts: their n-grams sorted into bags, and what the head reads of the bags' vectors.

The same as in the student's `pairs_sparse_ngram.py`, which says what the bags are.
"""

from typing import Final

import numpy as np

from hf_sparse.runtime.jit import Floats, Ids, Offsets, inline, jit

NUM_BAGS: Final = {"sides": 2, "overlap": 3}


@inline
def _is_in(ids: Ids, wanted: int) -> bool:
    """Look an id up in sorted ones."""
    low, high = 0, ids.size
    while low < high:
        middle = (low + high) // 2
        if ids[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low < ids.size and ids[low] == wanted


@jit
def overlap_bags(ids: Ids, lengths: Offsets) -> tuple[Ids, Offsets]:
    """Sort the n-grams of pairs into three bags: only in the first text, only in the second, in both.

    Args:
        ids: Rows (N,), grouped by text.
        lengths: N-grams of each text (2B,), the sides interleaved.

    Returns:
        Rows (N,), grouped by bag, and n-grams of each bag (3B,).
    """
    num_pairs = lengths.size // 2
    found = np.empty(ids.size, np.int32)
    counts = np.zeros(3 * num_pairs, np.int64)
    shared = np.empty(ids.size, np.int32)
    start = 0
    for pair in range(num_pairs):
        middle = start + lengths[2 * pair]
        end = middle + lengths[2 * pair + 1]
        place, num_shared = start, 0
        for side in range(2):
            first, last = (start, middle) if side == 0 else (middle, end)
            others = np.sort(ids[middle:end]) if side == 0 else np.sort(ids[start:middle])
            before = place
            for index in range(first, last):
                if _is_in(others, ids[index]):
                    shared[num_shared] = ids[index]
                    num_shared += 1
                else:
                    found[place] = ids[index]
                    place += 1
            counts[3 * pair + side] = place - before
        found[place:end] = shared[:num_shared]
        counts[3 * pair + 2] = num_shared
        start = end
    return found, counts


def bag_shares(lengths: Offsets) -> Floats:
    """Return which part (3B, 1) of a pair's n-grams is in each bag, given the n-grams of each bag (3B,)."""
    counts = lengths.reshape(-1, 3).astype(np.float32)
    shares: Floats = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).reshape(-1, 1)
    return shares


def pair_features(pooled: Floats, pair_bags: str) -> Floats:
    """Compare the bags of pairs: (2B, D) or (3B, D) to (B, 4D) or (B, 5D)."""
    bags = [pooled[index :: NUM_BAGS[pair_bags]] for index in range(NUM_BAGS[pair_bags])]
    first, second = bags[:2]
    return np.concatenate((first, second, first * second, np.abs(first - second), *bags[2:]), axis=1)
