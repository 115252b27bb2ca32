"""The table of a vocabulary's longer n-grams: exact, one cache line a look-up.

The key of an n-gram, node of its prefix and id of its last word, goes through a mixing that loses nothing. The high
bits say in which bucket of eight entries it lies, and an entry holds the low bits, so that equal bits are equal keys.
Where a bucket is full, an entry goes into one of the next seven and says so in three bits. An entry of 8 bytes is
these bits (its tag) and the node; 0 is an empty one.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.jit import SPREAD, Ids, Keys, inline, jit
from hf_sparse.runtime.vector import find_eight, prefetch

# The entries, and the number of bits of a word in a key, of a key, and of its low part.
Ngrams: TypeAlias = tuple[Keys, int, int, int]

_BUCKET: Final = 8
_DISPLACEMENT_BITS: Final = 3
_FURTHEST: Final = (1 << _DISPLACEMENT_BITS) - 1


@inline
def spread_key(prefix: Any, word: Any, ngrams: Ngrams) -> Any:
    """Return the key of an n-gram after a one-to-one mixing of its bits."""
    _, word_bits, key_bits, _ = ngrams
    key = np.uint64(prefix) << np.uint64(word_bits) | np.uint64(word)
    key ^= key >> np.uint64(key_bits // 2)
    return key * np.uint64(SPREAD) & (np.uint64(1) << np.uint64(key_bits)) - np.uint64(1)


@jit
def _fill(ngrams: Ngrams, nodes: Ids, prefixes: Ids, words: Ids) -> bool:
    """Put n-grams into an empty table; return whether all lie close enough to their bucket."""
    entries, _, _, low_bits = ngrams
    low_mask = (np.uint64(1) << np.uint64(low_bits)) - np.uint64(1)
    for index in range(nodes.size):
        mixed = spread_key(prefixes[index], words[index], ngrams)
        home = np.int64(mixed >> np.uint64(low_bits)) * _BUCKET
        place = home
        while entries[place] != 0:
            place += 1
            if place - home == _BUCKET * (_FURTHEST + 1):
                return False
        tag = mixed & low_mask | np.uint64((place - home) // _BUCKET) << np.uint64(low_bits)
        entries[place] = tag << np.uint64(32) | np.uint64(nodes[index])
    return True


def build_ngrams(
    nodes: npt.NDArray[np.int32], prefixes: npt.NDArray[np.int32], words: npt.NDArray[np.int32], num_words: int
) -> Ngrams:
    """Return the table of n-grams of two words or more.

    Args:
        nodes: Their own nodes (M,), all above 0.
        prefixes: The nodes of their prefixes (M,).
        words: The ids of their last words (M,).
        num_words: Number of words that there are.
    """
    highest = max(int(nodes.max(initial=1)), int(prefixes.max(initial=1)))
    word_bits, node_bits = max(1, num_words.bit_length()), highest.bit_length()
    # Two to four entries a bucket: hardly one is full, and what is not there is known to be missing by one line.
    bucket_bits = max(1, (nodes.size // 4).bit_length())
    while True:
        key_bits = max(word_bits + node_bits, bucket_bits)
        low_bits = key_bits - bucket_bits
        if low_bits + _DISPLACEMENT_BITS <= 32:
            entries = _aligned_zeros(_BUCKET * ((1 << bucket_bits) + _FURTHEST + 1))
            ngrams = (entries, word_bits, key_bits, low_bits)
            if _fill(ngrams, nodes, prefixes, words):
                return ngrams
        bucket_bits += 1


def _aligned_zeros(size: int) -> Keys:
    """Return zeros that begin on a cache line."""
    memory = np.zeros(size + _BUCKET, dtype=np.uint64)
    skipped = -memory.ctypes.data % 64 // memory.itemsize
    return memory[skipped : skipped + size]


@inline
def find_ngrams(ngrams: Ngrams, mixed: Keys, num_keys: int, found: Ids) -> None:
    """Write the nodes of n-grams given by their mixed keys, 0 for those that are not there.

    All cache lines are asked for before the first is read: the look-ups do not wait for each other.
    """
    entries, _, _, low_bits = ngrams
    low_mask = (np.uint64(1) << np.uint64(low_bits)) - np.uint64(1)
    for index in range(num_keys):
        prefetch(entries, _BUCKET * np.int64(mixed[index] >> np.uint64(low_bits)))
    for index in range(num_keys):
        bucket = _BUCKET * np.int64(mixed[index] >> np.uint64(low_bits))
        tag = mixed[index] & low_mask
        node: Any = find_eight(entries, bucket, tag)
        displacement = 0
        # Entries fill a bucket from its start: behind one whose last is empty there is nothing to look for.
        while entries[bucket + _BUCKET - 1] != 0 and node == 0 and displacement < _FURTHEST:
            displacement += 1
            bucket += _BUCKET
            node = find_eight(entries, bucket, tag | np.uint64(displacement) << np.uint64(low_bits))
        found[index] = np.int32(node)
