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


@inline
def _attend(rows: Floats, word: int, first: int, last: int, scores: Floats, found: Floats) -> None:
    """Write what a word finds among others: their mean, weighed by the softmax of products; zeros without any.

    Args:
        rows: Rows of words (M, A).
        word: Which one looks.
        first: The first of those that it looks at.
        last: Behind the last one.
        scores: Room for as many.
        found: The mean (A,).
    """
    found[:] = 0
    highest = np.float32(-np.inf)
    for other in range(first, last):
        product = np.float32(0)
        for column in range(rows.shape[1]):
            product += rows[word, column] * rows[other, column]
        scores[other - first] = product * SHARPNESS
        highest = max(highest, scores[other - first])
    total = np.float32(0)
    for other in range(last - first):
        scores[other] = np.exp(scores[other] - highest)
        total += scores[other]
    for other in range(first, last):
        weight = scores[other - first] / total
        for column in range(rows.shape[1]):
            found[column] += weight * rows[other, column]


@jit_sums
def align(rows: Floats, words: Offsets, weight: Floats, bias: Floats) -> Floats:
    """Compare each word with what it finds in the other text of its pair.

    Args:
        rows: Rows of words (M, A), grouped by side.
        words: How many each side has (2B,), the sides interleaved.
        weight: Of the comparison (A, 4A).
        bias: Of the comparison (A,).

    Returns:
        The maximum (2B, A) over the words of each side; zeros for a side without words.
    """
    width = rows.shape[1]
    best = np.zeros((words.size, width), np.float32)
    scores = np.empty(words.max() if words.size else 0, np.float32)
    features = np.empty(4 * width, np.float32)
    found = features[width : 2 * width]
    start = 0
    for pair in range(words.size // 2):
        middle = start + words[2 * pair]
        end = middle + words[2 * pair + 1]
        for word in range(start, end):
            is_first = word < middle
            first, last = (middle, end) if is_first else (start, middle)
            _attend(rows, word, first, last, scores, found)
            for column in range(width):
                own = rows[word, column]
                features[column] = own
                features[2 * width + column] = own * found[column]
                features[3 * width + column] = abs(own - found[column])
            side = 2 * pair if is_first else 2 * pair + 1
            for column in range(width):
                compared = bias[column]
                for place in range(4 * width):
                    compared += weight[column, place] * features[place]
                best[side, column] = max(best[side, column], compared)
        start = end
    return best


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
        found = {}
        for name, shape in wanted.items():
            array = weights.get(f"model.alignment.{name}")
            if array is None or array.shape != shape or (array.dtype == np.uint8) != (name == "is_word"):
                what = "there is none" if array is None else f"it is {array.dtype} {array.shape}"
                raise ValueError(
                    f"the weights model.alignment.{name} must have the shape {shape} by config.json, but {what}; "
                    "download or save the student again"
                )
            found[name] = array
        if size >= config["embedding_size"]:
            raise ValueError(
                f"alignment_size is {size}, but a row has {config['embedding_size']} columns; save it again"
            )
        weight, bias = as_float32(found["compare.weight"]), as_float32(found["compare.bias"])
        return cls(is_word=found["is_word"], weight=weight, bias=bias)

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
        return align(np.ascontiguousarray(rows[:, -self.size :]), words, self.weight, self.bias)


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
