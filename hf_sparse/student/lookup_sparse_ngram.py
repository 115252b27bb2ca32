"""Exact look-up of many keys at once in NumPy: an open-addressing table, and the words of a vocabulary.

`NgramLookup` finds continuations: `(node of the prefix, id of the next word)` is one 64-bit key, so nothing is
approximate. `WordLookup` hashes all words of a batch by prefix sums and then compares each word found, code point by
code point, with the vocabulary's.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from .words_sparse_ngram import Segments

_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER: Final = 0xD1342543DE82EF95  # odd, so that it has an inverse modulo 2**64
_INVERSE: Final = pow(_MULTIPLIER, -1, 1 << 64)
_GROUP_CODES: Final = 1 << 18


class HashTable:
    """A table of distinct 64-bit keys, searched for whole arrays of keys: linear probing, at most half full."""

    def __init__(self, keys: npt.NDArray[np.uint64]) -> None:
        """Build the table; the value of a key is its index in `keys` (N,), and the keys are distinct."""
        bits = max(4, (2 * keys.size - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        slots = ((keys * _SPREAD) >> self._shift).astype(np.int64)
        order = np.argsort(slots, kind="stable")
        # A key lies at its slot or right behind the key before it: positions p with p[i] = max(slot[i], p[i-1] + 1).
        # The table is as long as the last one needs, so that no search wraps around.
        steps = np.arange(keys.size)
        positions = steps + np.maximum.accumulate(slots[order] - steps)
        size = max(1 << bits, int(positions[-1]) + 1 if keys.size else 0) + 1
        self._keys = np.zeros(size, dtype=np.uint64)
        self._values = np.full(size, -1, dtype=np.int32)
        self._keys[positions] = keys[order]
        self._values[positions] = order

    def find(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        """Return the index of each key (M,) among the table's keys, -1 for those that are not there."""
        slots = ((keys * _SPREAD) >> self._shift).astype(np.int64)
        found = self._values[slots]
        wrong = np.flatnonzero((self._keys[slots] != keys) & (found >= 0))
        while wrong.size:
            slots[wrong] += 1
            found[wrong] = self._values[slots[wrong]]
            wrong = wrong[(self._keys[slots[wrong]] != keys[wrong]) & (found[wrong] >= 0)]
        return found


class NgramLookup:
    """Finds the node of an n-gram from the node of its prefix and its last word."""

    def __init__(self, node_prefix: npt.NDArray[np.int32], node_word: npt.NDArray[np.int32], num_words: int) -> None:
        """Build the look-up of a trie: `node_prefix` and `node_word` are (nodes,), prefix -1 for a single word."""
        single = node_prefix < 0
        self._nodes = np.flatnonzero(~single).astype(np.int32)
        self._num_words = np.uint64(max(num_words, 1))
        self._table = HashTable(self._keys(node_prefix[self._nodes], node_word[self._nodes]))
        self._node_of_word = np.full(num_words + 1, -1, dtype=np.int32)
        self._node_of_word[node_word[single]] = np.flatnonzero(single)

    def _keys(self, prefixes: npt.NDArray[np.int32], words: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
        return prefixes.astype(np.uint64) * self._num_words + words.astype(np.uint64)

    def find_single(self, words: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the node of each single word (M,), -1 where the word (or -1) has none."""
        return self._node_of_word[words]

    def find_longer(self, prefixes: npt.NDArray[np.int32], words: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the node of each prefix (M,) continued by its word (M,), both at least 0; -1 where there is none."""
        if not self._nodes.size:
            return np.full(prefixes.size, -1, dtype=np.int32)
        found = self._table.find(self._keys(prefixes, words))
        return np.where(found >= 0, self._nodes[found], np.int32(-1))


def _powers(base: int, number: int) -> npt.NDArray[np.uint64]:
    """Return the powers 0 .. number-1 of an odd base modulo 2**64."""
    powers = np.full(number, np.uint64(base))
    powers[0] = 1
    return np.multiply.accumulate(powers)


class WordLookup:
    """Finds the ids of the words of a batch that rule `"words"` has split.

    A word of code points `c` has the hash `sum(c[i] * m**i) mod 2**64`, which for all words together are two prefix
    sums and a multiplication by `m**-start`. What is found is compared code point by code point, so two words with one
    hash are never taken for each other. Should two words *of the vocabulary* share a hash, a dictionary is used.
    """

    def __init__(self, words: list[str]) -> None:
        """Build the look-up; the id of a word is its index in `words` (W,), which are distinct."""
        text = "".join(words)
        self._codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        self._lengths = np.fromiter(map(len, words), np.int64, len(words))
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._longest = int(self._lengths.max(initial=0))
        self._powers = _powers(_MULTIPLIER, _GROUP_CODES + self._longest)
        self._inverses = _powers(_INVERSE, _GROUP_CODES + self._longest)
        hashes = np.empty(len(words), dtype=np.uint64)
        for group in self._groups(self._starts):
            hashes[group] = self._hash(self._codes, self._starts[group], self._starts[group] + self._lengths[group])
        self._table = HashTable(hashes)
        collide = np.unique(hashes).size < hashes.size
        self._ids = {word: index for index, word in enumerate(words)} if collide else None

    def find(self, segments: Segments) -> npt.NDArray[np.int32]:
        """Return the id of each word (T,), -1 for those that are not in the vocabulary."""
        found = np.full(segments.starts.size, -1, dtype=np.int32)
        lengths = segments.ends - segments.starts
        # A word longer than all of the vocabulary's is not hashed: the powers of the multiplier end there.
        short = np.flatnonzero(lengths <= self._longest)
        starts = segments.starts[short]
        for group in self._groups(starts):
            found[short[group]] = self._find(segments.codes, starts[group], lengths[short[group]])
        return found

    def _find(
        self,
        codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint32],
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int32]:
        if self._ids is not None:
            texts = ("".join(map(chr, codes[s : s + n].tolist())) for s, n in zip(starts, lengths, strict=True))
            return np.fromiter((self._ids.get(text, -1) for text in texts), np.int32, starts.size)
        found = self._table.find(self._hash(codes, starts, starts + lengths))
        found[(found >= 0) & (self._lengths[found] != lengths)] = -1
        hits = np.flatnonzero(found >= 0)
        if hits.size:
            lengths = lengths[hits]
            firsts = np.cumsum(lengths) - lengths
            inside = np.arange(int(lengths.sum()))
            ours = self._codes[np.repeat(self._starts[found[hits]] - firsts, lengths) + inside]
            theirs = codes[np.repeat(starts[hits] - firsts, lengths) + inside]
            found[hits[np.logical_or.reduceat(ours != theirs, firsts)]] = -1
        return found

    def _hash(
        self,
        codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint32],
        starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.uint64]:
        """Return the hashes of words that together span fewer code points than there are powers."""
        first, last = int(starts[0]), int(ends[-1])
        sums = np.zeros(last - first + 1, dtype=np.uint64)
        np.cumsum(codes[first:last] * self._powers[: last - first], out=sums[1:])
        hashes = (sums[ends - first] - sums[starts - first]) * self._inverses[starts - first]
        hashes ^= hashes >> np.uint64(32)
        return hashes

    def _groups(self, starts: npt.NDArray[np.int64]) -> Iterator[slice]:
        """Yield slices of words, in text order, that start within `_GROUP_CODES` code points of each other."""
        first = 0
        while first < starts.size:
            last = int(np.searchsorted(starts, starts[first] + _GROUP_CODES))
            yield slice(first, last)
            first = last
