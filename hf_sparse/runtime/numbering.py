"""The loops that number the words of a corpus."""

import numpy as np

from hf_sparse.runtime.extraction import Texts, longest_text
from hf_sparse.runtime.jit import Bytes, Ids, Keys, Offsets, jit
from hf_sparse.runtime.splitting import Characters, split, word_buffers
from hf_sparse.runtime.word_table import find_slot, first_slot, word_key


@jit
def move_slots(old: Keys, new: Keys) -> None:
    """Put all words of a table into a larger, empty one; they are distinct, so keys need not be compared."""
    for index in range(old.shape[0]):
        if old[index, 0] != 0:
            slot = first_slot(old[index, 0], new)
            while new[slot, 0] != 0:
                slot = slot + 1 & new.shape[0] - 1
            new[slot] = old[index]


@jit
def number_words(
    texts: Texts, characters: Characters, slots: Keys, blob: Bytes, offsets: Offsets, num_words: int
) -> tuple[Ids, int]:
    """Number the words of texts, adding new ones to the dictionary.

    Returns:
        The numbers, with -1 behind each text, and the new number of words.
    """
    raw, text_offsets, must_clean = texts
    num_texts = text_offsets.size - 1
    room = word_buffers(longest_text(text_offsets, 0, num_texts))
    lowered, starts, ends = room
    table = (slots, blob, offsets)
    numbers = np.empty(raw.size + num_texts, np.int32)
    num_numbers = 0
    for text in range(num_texts):
        first, last = text_offsets[text], text_offsets[text + 1]
        found = split(raw, first, last, must_clean[text], characters, room)
        for index in range(found):
            start, size = starts[index], ends[index] - starts[index]
            key = word_key(lowered, start, size)
            slot = find_slot(table, lowered, start, size, key)
            if slots[slot, 0] == 0:
                slots[slot, 0] = key
                slots[slot, 1] = np.uint64(num_words)
                place = offsets[num_words]
                blob[place : place + size] = lowered[start : start + size]
                num_words += 1
                offsets[num_words] = place + size
            numbers[num_numbers] = np.int32(slots[slot, 1] & np.uint64(0xFFFFFFFF))
            num_numbers += 1
        numbers[num_numbers] = -1
        num_numbers += 1
    return numbers[:num_numbers].copy(), num_words
