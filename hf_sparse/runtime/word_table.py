"""The table of a vocabulary's words: exact, with 16 bytes a slot and linear probing.

A word of up to 7 bytes *is* its 64-bit key, with its length in the top byte. A longer one has a 56-bit hash for its
key and is compared when found, eight bytes at a time. A slot is the key and a value, the node of the single word in
the high 32 bits (0 when it is no n-gram by itself) and the word's id in the low ones.
"""

from typing import Any, Final, TypeAlias

import numpy as np

from hf_sparse.runtime.jit import SPREAD, Bytes, Ids, Keys, Offsets, inline, jit
from hf_sparse.runtime.vector import load_word, prefetch

# The slots, and the words themselves (8 readable bytes behind them) with their offsets.
Words: TypeAlias = tuple[Keys, Bytes, Offsets]

SHORT_BYTES: Final = 7
_MULTIPLIER: Final = 0xD1342543DE82EF95
_MISSING: Final = 0xFFFFFFFF  # no node, and word -1


@inline
def word_key(text: Bytes, start: int, size: int) -> Any:
    """Return the key of a word, never 0: itself and its length, or a hash with 0 in the top byte."""
    first = load_word(text, start)
    if size <= SHORT_BYTES:
        key = first & (np.uint64(1) << np.uint64(8 * size)) - np.uint64(1) | np.uint64(size) << np.uint64(56)
    else:
        mixed = np.uint64(size)
        for place in range(start + 8, start + size - 8, 8):
            mixed = (mixed ^ mixed >> np.uint64(29) ^ load_word(text, place)) * np.uint64(_MULTIPLIER)
        mixed = (mixed ^ first) * np.uint64(SPREAD)
        mixed = (mixed ^ mixed >> np.uint64(32) ^ load_word(text, start + size - 8)) * np.uint64(_MULTIPLIER)
        key = mixed >> np.uint64(8) | np.uint64(1)
    return key


@inline
def first_slot(key: Any, slots: Keys) -> Any:
    """Return where in a table to look for a word first; the number of slots is a power of two."""
    return np.int64(key * np.uint64(SPREAD) >> np.uint64(32)) & slots.shape[0] - 1


@inline
def same_long_word(blob: Bytes, first: int, text: Bytes, start: int, size: int) -> Any:
    """Return whether two words of at least 8 bytes are the same."""
    same = True
    for place in range(0, size - 8, 8):
        same &= load_word(blob, first + place) == load_word(text, start + place)
    same &= load_word(blob, first + size - 8) == load_word(text, start + size - 8)
    return same


@inline
def find_slot(table: Words, text: Bytes, start: int, size: int, key: Any) -> Any:
    """Return the slot of a word, or the empty slot where it would go."""
    slots, blob, offsets = table
    slot = first_slot(key, slots)
    found = False
    while not found and slots[slot, 0] != 0:
        if slots[slot, 0] == key:
            found = size <= SHORT_BYTES
            if not found:
                word = np.int64(slots[slot, 1] & np.uint64(0xFFFFFFFF))
                first = offsets[word]
                found = offsets[word + 1] - first == size and same_long_word(blob, first, text, start, size)
        if not found:
            slot = slot + 1 & slots.shape[0] - 1
    return slot


@jit
def build_words(blob: Bytes, offsets: Offsets, single_nodes: Ids) -> Keys:
    """Return the slots (S, 2) uint64 of distinct words, given the node of each as an n-gram (W,), 0 for none."""
    num_words = offsets.size - 1
    size = 16
    while size < 2 * num_words:
        size *= 2
    slots = np.zeros((size, 2), np.uint64)
    table = (slots, blob, offsets)
    for word in range(num_words):
        start = offsets[word]
        key = word_key(blob, start, offsets[word + 1] - start)
        slot = find_slot(table, blob, start, offsets[word + 1] - start, key)
        slots[slot, 0] = key
        slots[slot, 1] = np.uint64(single_nodes[word]) << np.uint64(32) | np.uint64(word)
    return slots


@inline
def find_words(
    table: Words, text: Bytes, starts: Ids, ends: Ids, num_words: int, keys: Keys, words: Ids, nodes: Ids
) -> None:
    """Write the ids of a text's words, -1 for none, and the nodes of the single words, 0 for none."""
    slots = table[0]
    for index in range(num_words):
        key = word_key(text, starts[index], ends[index] - starts[index])
        keys[index] = key
        prefetch(slots, 2 * first_slot(key, slots))
    for index in range(num_words):
        start, size, key = starts[index], ends[index] - starts[index], keys[index]
        slot = first_slot(key, slots)
        # Nearly all words are short and where they belong; the search is for the others.
        if slots[slot, 0] != key or size > SHORT_BYTES:
            slot = find_slot(table, text, start, size, key)
        value = slots[slot, 1] if slots[slot, 0] != 0 else np.uint64(_MISSING)
        words[index] = np.int32(np.uint32(value & np.uint64(0xFFFFFFFF)))
        nodes[index] = np.int32(value >> np.uint64(32))
