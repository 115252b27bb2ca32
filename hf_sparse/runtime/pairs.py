"""Pairs of texts: their n-grams sorted into bags, and what the head reads of the bags' vectors.

The same as in the student's `pairs_sparse_ngram.py` and `alignment_sparse_ngram.py`, which say what that is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.jit import Bytes, Floats, Ids, Offsets, inline, jit, jit_sums
from hf_sparse.runtime.weights import as_float32

NUM_BAGS: Final = {"sides": 2, "overlap": 3}
SHARPNESS: Final = np.float32(3.0)


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


@jit
def with_words(ids: Ids, lengths: Offsets, is_word: Bytes) -> tuple[Ids, Offsets, Offsets]:
    """Add the words that only one side of a pair has as bags of their own, so that pooling gives their rows.

    Args:
        ids: Rows (N,), grouped by bag.
        lengths: N-grams of each bag (3B,).
        is_word: 1 for the rows (V,) of single words.

    Returns:
        Rows (N + M,), n-grams of each bag (3B + M,), and how many words (2B,) of each side were added.
    """
    num_pairs = lengths.size // 3
    words = np.zeros(2 * num_pairs, np.int64)
    found = np.empty(2 * ids.size, np.int32)
    found[: ids.size] = ids
    place, start = ids.size, 0
    for bag in range(lengths.size):
        end = start + lengths[bag]
        if bag % 3 < 2:
            before = place
            for index in range(start, end):
                if is_word[ids[index]]:
                    found[place] = ids[index]
                    place += 1
            words[bag // 3 * 2 + bag % 3] = place - before
        start = end
    sizes = np.ones(lengths.size + place - ids.size, np.int64)
    sizes[: lengths.size] = lengths
    return found[:place], sizes, words


@jit_sums
def attend(rows: Floats, words: Offsets) -> Floats:
    """Return what each word finds in the other text of its pair: a mean by the softmax of products.

    Args:
        rows: Rows of words (M, A), grouped by side.
        words: How many each side has (2B,), the sides interleaved.

    Returns:
        Means (M, A); zeros where the other side has no words.
    """
    found = np.zeros_like(rows)
    scores = np.empty(words.max() if words.size else 0, np.float32)
    start = 0
    for side in range(words.size):
        num_own, num_other = words[side], words[side + 1 - 2 * (side % 2)]
        first = start + num_own if side % 2 == 0 else start - num_other
        for own in range(start, start + num_own):
            highest = np.float32(-np.inf)
            for other in range(num_other):
                product = np.float32(0)
                for column in range(rows.shape[1]):
                    product += rows[own, column] * rows[first + other, column]
                scores[other] = product * SHARPNESS
                highest = max(highest, scores[other])
            total = np.float32(0)
            for other in range(num_other):
                scores[other] = np.exp(scores[other] - highest)
                total += scores[other]
            for other in range(num_other):
                weight = scores[other] / total
                for column in range(rows.shape[1]):
                    found[own, column] += weight * rows[first + other, column]
        start += num_own
    return found


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Aligns the words that only one text of a pair has with those that only the other has.

    `is_word` (V,) has 1 for the rows of single words; `weight` (A, 4A) and `bias` (A,) compare two words.
    """

    is_word: Bytes
    weight: Floats
    bias: Floats

    @classmethod
    def from_weights(cls, config: Mapping[str, Any], weights: Mapping[str, npt.NDArray[Any]]) -> "Alignment | None":
        """Take it from the weights of a student; None where the config says that nothing is aligned.

        Raises:
            ValueError: It is not among the weights, or does not fit the config.
        """
        size, num_rows = config.get("alignment_size", 0), config["vocab_size"]
        if not size:
            return None
        wanted = {"is_word": (num_rows,), "compare.weight": (size, 4 * size), "compare.bias": (size,)}
        found = {name: weights.get(f"model.alignment.{name}") for name in wanted}
        for name, shape in wanted.items():
            array = found[name]
            if array is None or array.shape != shape or (array.dtype == np.uint8) != (name == "is_word"):
                what = "there is none" if array is None else f"it is {array.dtype} {array.shape}"
                raise ValueError(
                    f"the weights model.alignment.{name} must have the shape {shape} by config.json, but {what}; "
                    "download or save the student again"
                )
        if size >= config["embedding_size"]:
            raise ValueError(
                f"alignment_size is {size}, but a row has {config['embedding_size']} columns; save it again"
            )
        weight, bias = (as_float32(weights[f"model.alignment.compare.{name}"]) for name in ("weight", "bias"))
        return cls(is_word=weights["model.alignment.is_word"], weight=weight, bias=bias)

    @property
    def size(self) -> int:
        """Columns A of a row by which words are aligned: the last ones."""
        return self.bias.size

    def __call__(self, rows: Floats, words: Offsets) -> Floats:
        """Align words.

        Args:
            rows: Rows of words (M, D), grouped by side.
            words: How many each side has (2B,), the sides interleaved.

        Returns:
            Comparisons (2B, A), the maximum over the words of each side; zeros for a side without words.
        """
        own = np.ascontiguousarray(rows[:, -self.size :])
        found = attend(own, words)
        features = np.concatenate((own, found, own * found, np.abs(own - found)), axis=1)
        compared = np.maximum(features @ self.weight.T + self.bias, 0)
        best = np.zeros((words.size, self.size), np.float32)
        has_words = words > 0
        if len(compared):
            best[has_words] = np.maximum.reduceat(compared, (np.cumsum(words) - words)[has_words], axis=0)
        return best


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
