"""From UTF-8 bytes to lower-case words, by rule `"words"` (see `hf_sparse/student/words_sparse_ngram.py`).

ASCII is split 64 bytes at a time: which of them are letters is one 64-bit number, and words begin and end where its
bits change. A block ends before a character that is not ASCII; those go one by one through the student's own table.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.jit import Bytes, Flags, Ids, Offsets, inline, jit
from hf_sparse.runtime.vector import ascii_masks, high_bits, trailing_zeros

# Class and lower case of each code point.
Characters: TypeAlias = npt.NDArray[np.uint32]
# Room for the words of a text: lower case, starts, ends.
WordBuffers: TypeAlias = tuple[Bytes, Ids, Ids]

_LETTER: Final = 1
_ALONE: Final = 2
# Bytes that may be read (never used) behind a text.
PADDING: Final = 64


def split_text(raw: Bytes, clean: bool, characters: Characters) -> WordBuffers:
    """Split one text, given as UTF-8 bytes with `PADDING` bytes behind it, into words.

    Returns:
        Lower-case text as UTF-8 bytes, start and end of each word (T,) in it.
    """
    buffers = word_buffers(raw.size)
    num_words = _split_one(raw, raw.size - PADDING, clean, characters, buffers)
    return buffers[0], buffers[1][:num_words], buffers[2][:num_words]


@jit
def _split_one(raw: Bytes, end: int, clean: bool, characters: Characters, buffers: WordBuffers) -> int:
    return split(raw, 0, end, clean, characters, buffers)


@jit
def word_buffers(num_bytes: int) -> WordBuffers:
    """Return room for the words of a text: lower case may take 3 bytes for 2, and a word takes at least 1."""
    size = num_bytes + 2 * PADDING
    return np.empty(2 * size, np.uint8), np.empty(size, np.int32), np.empty(size, np.int32)


@inline
def _break_length(raw: Bytes, place: int, end: int) -> int:
    """Return the length of the `<br>`, `<br/>` or `<br />` that begins at a place, 0 if there is none."""
    length = 0
    if place + 3 < end and (raw[place + 1] | 32) == 98 and (raw[place + 2] | 32) == 114:
        last = place + 3
        if raw[last] == 32 and last + 1 < end:
            last += 1
        if raw[last] == 47 and last + 1 < end:
            last += 1
        if raw[last] == 62:
            length = last + 1 - place
    return length


@inline
def _decode(raw: Bytes, place: int) -> Any:
    """Return the code point of UTF-8 (lone surrogates too) at a place, and its number of bytes."""
    code_point, size = np.uint32(raw[place]), 1
    if code_point >= 0xF0:
        high = (code_point & 7) << 18 | (raw[place + 1] & 0x3F) << 12
        code_point, size = np.uint32(high | (raw[place + 2] & 0x3F) << 6 | raw[place + 3] & 0x3F), 4
    elif code_point >= 0xE0:
        code_point = np.uint32((code_point & 0xF) << 12 | (raw[place + 1] & 0x3F) << 6 | raw[place + 2] & 0x3F)
        size = 3
    elif code_point >= 0x80:
        code_point, size = np.uint32((code_point & 0x1F) << 6 | raw[place + 1] & 0x3F), 2
    return code_point, size


@inline
def _append(code_point: Any, lowered: Bytes, place: int) -> int:
    """Write a code point as UTF-8 and return the place behind it."""
    size = 1
    if code_point < 0x80:
        lowered[place] = code_point
    elif code_point < 0x800:
        lowered[place] = 0xC0 | code_point >> 6
        lowered[place + 1] = 0x80 | code_point & 0x3F
        size = 2
    elif code_point < 0x10000:
        lowered[place] = 0xE0 | code_point >> 12
        lowered[place + 1] = 0x80 | code_point >> 6 & 0x3F
        lowered[place + 2] = 0x80 | code_point & 0x3F
        size = 3
    else:
        lowered[place] = 0xF0 | code_point >> 18
        lowered[place + 1] = 0x80 | code_point >> 12 & 0x3F
        lowered[place + 2] = 0x80 | code_point >> 6 & 0x3F
        lowered[place + 3] = 0x80 | code_point & 0x3F
        size = 4
    return place + size


@inline
def _outside_breaks(raw: Bytes, place: int, end: int, opening: Any, skipped: int) -> Any:
    """Find the line breaks of HTML that lie in a block, given its `<` and where the last break before it ended.

    Returns:
        The bits of the block that are in none, and where the last one ends.
    """
    one = np.uint64(1)
    outside = ~np.uint64(0)
    if skipped > place:
        outside = ~((one << np.uint64(skipped - place)) - one)
    while opening != 0:
        bit = trailing_zeros(opening)
        opening &= opening - one
        length = _break_length(raw, place + bit, end)
        if length > 0:
            skipped = place + bit + length
            outside &= ~(((one << np.uint64(length)) - one) << np.uint64(bit))
    return outside, skipped


@inline
def _append_bits(bits: Any, place: int, places: Ids, number: int) -> int:
    """Write the places of the bits that are set, the lowest being that of bit 0; return how many there are now."""
    while bits != 0:
        places[number] = place + trailing_zeros(bits)
        number += 1
        bits &= bits - np.uint64(1)
    return number


@inline
def split(raw: Bytes, start: int, end: int, clean: bool, characters: Characters, buffers: WordBuffers) -> int:
    """Split the bytes `start .. end` into words and return their number; see `split_text`."""
    lowered, starts, ends = buffers
    one = np.uint64(1)
    # What the last byte was, 1 or 0, and so whether a word has begun that has not ended.
    letter_before, alone_before = np.uint64(0), np.uint64(0)
    num_starts, num_ends, place, out, skipped = 0, 0, start, 0, start
    while place < end:
        letters, alone, opening, high = ascii_masks(raw, place, lowered, out)
        size = min(64, end - place)
        if high != 0:
            size = min(size, trailing_zeros(high))
        if size > 0:
            inside = ~np.uint64(0) >> np.uint64(64 - size)
            if clean and (opening & inside != 0 or skipped > place):
                outside, skipped = _outside_breaks(raw, place, end, opening & inside, skipped)
                letters, alone = letters & outside, alone & outside
            letters, alone = letters & inside, alone & inside
            letter_left, alone_left = letters << one | letter_before, alone << one | alone_before
            letter_before, alone_before = letters >> np.uint64(size - 1), alone >> np.uint64(size - 1)
            num_starts = _append_bits(letters & ~letter_left | alone, out, starts, num_starts)
            num_ends = _append_bits((~letters & letter_left | alone_left) & inside, out, ends, num_ends)
            place += size
            out += size
        while place < end and raw[place] >= 128:
            code_point, size = _decode(raw, place)
            place += size
            entry = characters[code_point]
            is_letter = np.uint64(entry >> np.uint32(24) == _LETTER)
            is_alone = np.uint64(entry >> np.uint32(24) == _ALONE)
            num_ends = _append_bits(letter_before & ~is_letter | alone_before, out, ends, num_ends)
            num_starts = _append_bits(is_letter & ~letter_before | is_alone, out, starts, num_starts)
            if is_letter | is_alone:
                out = _append(entry & np.uint32(0xFFFFFF), lowered, out)
            letter_before, alone_before = is_letter, is_alone
    if num_ends < num_starts:
        ends[num_ends] = out
    return num_starts


@jit
def find_changes(raw: Bytes, offsets: Offsets, unchanged: Flags) -> Flags:
    """Return whether each text (B,) has a code point that is not `unchanged`."""
    changes = np.zeros(offsets.size - 1, np.bool_)
    for text in range(changes.size):
        place, end = offsets[text], offsets[text + 1]
        while place < end:
            high = high_bits(raw, place)
            if high == 0:
                place += 64
            else:
                place += trailing_zeros(high)
                while place < end and raw[place] >= 128:
                    code_point, size = _decode(raw, place)
                    changes[text] |= not unchanged[code_point]
                    place += size
    return changes
