"""The loops over the words of a part: which n-grams occur where, how often, and in how many texts."""

from typing import Any

import numpy as np

from hf_sparse.runtime.jit import Ids, Keys, Offsets, jit
from hf_sparse.vocabulary.parts import END


@jit
def _is_live(ids: Ids, place: int, n: int) -> bool:
    """Return whether an n-gram of n words may begin at a place: its prefix and its suffix are in the race."""
    return ids[place] >= 0 and (n == 1 or ids[place + 1] >= 0)


@jit
def live_keys(word_ids: Ids, ids: Ids, n: int) -> Keys:
    """Return the keys, in text order, of all occurrences of n-grams that are in the race."""
    num_keys = 0
    for place in range(word_ids.size):
        num_keys += _is_live(ids, place, n)
    keys = np.empty(num_keys, np.uint64)
    number = 0
    for place in range(word_ids.size):
        if _is_live(ids, place, n):
            keys[number] = np.uint64(ids[place]) << np.uint64(32) | np.uint64(word_ids[place + n - 1])
            number += 1
    return keys


@jit
def run_lengths(keys: Keys, bound: int) -> tuple[Keys, Offsets]:
    """Return the distinct keys among sorted keys that occur at least `bound` times, and how often they do."""
    num_runs, start = 0, 0
    for place in range(1, keys.size + 1):
        if place == keys.size or keys[place] != keys[start]:
            num_runs += place - start >= bound
            start = place
    distinct, counts = np.empty(num_runs, np.uint64), np.empty(num_runs, np.int64)
    number, start = 0, 0
    for place in range(1, keys.size + 1):
        if place == keys.size or keys[place] != keys[start]:
            if place - start >= bound:
                distinct[number] = keys[start]
                counts[number] = place - start
                number += 1
            start = place
    return distinct, counts


@jit
def hash_keys(keys: Keys) -> tuple[Keys, Ids]:
    """Return an open-addressing table: the keys, and behind each its index, -1 in empty slots."""
    size = 16
    while size < 2 * keys.size:
        size *= 2
    slot_keys, slot_ids = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
    for index in range(keys.size):
        slot = _first_slot(keys[index], size)
        while slot_ids[slot] >= 0:
            slot = slot + 1 & size - 1
        slot_keys[slot] = keys[index]
        slot_ids[slot] = index
    return slot_keys, slot_ids


@jit
def _first_slot(key: Any, size: int) -> Any:
    mixed = (key ^ key >> np.uint64(32)) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed >> np.uint64(24)) & size - 1


@jit
def number_ngrams(word_ids: Ids, ids: Ids, n: int, slot_keys: Keys, slot_ids: Ids) -> Ids:
    """Return the index of the n-gram of n words that begins at each word, -1 where none of the table's does."""
    numbers = np.full(word_ids.size, -1, np.int32)
    for place in range(word_ids.size):
        if _is_live(ids, place, n):
            key = np.uint64(ids[place]) << np.uint64(32) | np.uint64(word_ids[place + n - 1])
            slot = _first_slot(key, slot_ids.size)
            while slot_ids[slot] >= 0 and slot_keys[slot] != key:
                slot = slot + 1 & slot_ids.size - 1
            numbers[place] = slot_ids[slot]
    return numbers


def count_documents(words: Ids, begins: Ids, n: int, keys: Keys, counts: Offsets) -> Offsets:
    """Return in how many texts each n-gram of a part occurs."""
    documents = np.ones(keys.size, dtype=np.int64)
    # What occurs once occurs in one text: most, and they need not be looked up.
    repeated = np.flatnonzero(counts > 1)
    numbers = number_ngrams(words, begins, n, *hash_keys(keys[repeated]))
    documents[repeated] = _count_texts(words, numbers, repeated.size)
    return documents


@jit
def _count_texts(words: Ids, numbers: Ids, num_ngrams: int) -> Offsets:
    """Return in how many texts each n-gram occurs."""
    counts, last = np.zeros(num_ngrams, np.int64), np.full(num_ngrams, -1, np.int64)
    text = 0
    for place in range(words.size):
        if words[place] == END:
            text += 1
        elif numbers[place] >= 0 and last[numbers[place]] != text:
            counts[numbers[place]] += 1
            last[numbers[place]] = text
    return counts
