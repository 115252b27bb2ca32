"""From UTF-8 bytes to lower-case words, by rule `"words"` (see `hf_sparse/student/words_sparse_ngram.py`).

An ASCII text is split 64 bytes at a time: which of them are letters is one 64-bit number, and words begin and end
where its bits change. Other texts go code point by code point through the student's own table.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.jit import Bytes, Flags, Ids, Offsets, inline, jit
from hf_sparse.runtime.vector import ascii_masks, high_bits, trailing_zeros

# The table of code points and its ASCII part.
Characters: TypeAlias = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]
# For each text: whether it is ASCII, and whether line breaks of HTML are still to be removed.
TextFlags: TypeAlias = tuple[Flags, Flags]
# Room for the words of a text: lower case, starts, ends.
WordBuffers: TypeAlias = tuple[Bytes, Ids, Ids]

_LETTER: Final = 1
_ALONE: Final = 2
# Bytes that may be read (never used) behind a text.
PADDING: Final = 64


def split_text(raw: Bytes, is_ascii: bool, clean: bool, characters: Characters) -> WordBuffers:
    """Split one text, given as UTF-8 bytes with `PADDING` bytes behind it, into words.

    Returns:
        Lower-case text as UTF-8 bytes, start and end of each word (T,) in it.
    """
    buffers = word_buffers(raw.size)
    num_words = _split_one(raw, raw.size - PADDING, is_ascii, clean, characters, buffers)
    return buffers[0], buffers[1][:num_words], buffers[2][:num_words]


@jit
def _split_one(raw: Bytes, end: int, is_ascii: bool, clean: bool, characters: Characters, buffers: WordBuffers) -> int:
    return split(raw, 0, end, is_ascii, clean, characters, buffers)


@jit
def word_buffers(num_bytes: int) -> WordBuffers:
    """Return room for the words of a text: lower case may take 3 bytes for 2, and a word takes at least 1."""
    size = num_bytes + 2 * PADDING
    return np.empty(2 * size, np.uint8), np.empty(size, np.int32), np.empty(size, np.int32)


@inline
def split(
    raw: Bytes, start: int, end: int, is_ascii: bool, clean: bool, characters: Characters, buffers: WordBuffers
) -> int:
    """Split the bytes `start .. end` into words and return their number; see `split_text`."""
    if is_ascii:
        num_words = _split_ascii(raw, start, end, clean, buffers)
    else:
        num_words = _split_any(raw, start, end, clean, characters, buffers)
    return num_words


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
def _split_ascii(raw: Bytes, start: int, end: int, clean: bool, buffers: WordBuffers) -> int:
    lowered, starts, ends = buffers
    size = end - start
    one = np.uint64(1)
    letter_before, alone_before = np.uint64(0), np.uint64(0)
    num_starts, num_ends, skipped = 0, 0, 0
    for block in range(0, size, 64):
        letters, alone, opening = ascii_masks(raw, start + block, lowered, block)
        if size - block < 64:
            inside = (one << np.uint64(size - block)) - one
            letters, alone, opening = letters & inside, alone & inside, opening & inside
        if clean:
            if skipped > block:  # a break that began in the block before
                outside = ~((one << np.uint64(skipped - block)) - one)
                letters, alone = letters & outside, alone & outside
            while opening != 0:
                bit = trailing_zeros(opening)
                opening &= opening - one
                length = _break_length(raw, start + block + bit, end)
                if length > 0:
                    skipped = block + bit + length
                    outside = ~(((one << np.uint64(length)) - one) << np.uint64(bit))
                    letters, alone = letters & outside, alone & outside
        letter_left, alone_left = letters << one | letter_before, alone << one | alone_before
        letter_before, alone_before = letters >> np.uint64(63), alone >> np.uint64(63)
        begins = letters & ~letter_left | alone
        stops = ~letters & letter_left | alone_left
        while begins != 0:
            starts[num_starts] = block + trailing_zeros(begins)
            num_starts += 1
            begins &= begins - one
        while stops != 0:
            ends[num_ends] = block + trailing_zeros(stops)
            num_ends += 1
            stops &= stops - one
    if num_ends < num_starts:
        ends[num_ends] = size
    return num_starts


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
def _split_any(raw: Bytes, start: int, end: int, clean: bool, characters: Characters, buffers: WordBuffers) -> int:
    table, ascii_entries = characters
    lowered, starts, ends = buffers
    place, out, word, num_words = start, 0, 0, 0
    while place < end:
        byte = raw[place]
        if byte < 128:
            entry = ascii_entries[byte]
            kind, code_point = np.uint32(entry >> 8), np.uint32(entry & 255)
            skip = _break_length(raw, place, end) if clean and byte == 60 else 0
            if skip:
                kind = np.uint32(0)
            place += max(skip, 1)
        else:
            code_point, size = _decode(raw, place)
            place += size
            kind, code_point = table[code_point] >> np.uint32(24), table[code_point] & np.uint32(0xFFFFFF)
        if kind != _LETTER and out > word:
            starts[num_words], ends[num_words] = word, out
            num_words += 1
            word = out
        if kind in (_LETTER, _ALONE):
            out = _append(code_point, lowered, out)
        if kind == _ALONE:
            starts[num_words], ends[num_words] = word, out
            num_words += 1
            word = out
    if out > word:
        starts[num_words], ends[num_words] = word, out
        num_words += 1
    return num_words


@jit
def measure_texts(raw: Bytes, lengths: Offsets, unchanged: Flags) -> tuple[Offsets, Flags, Flags]:
    """Find where texts of given numbers of code points lie in their UTF-8 bytes.

    Returns:
        Offsets (B + 1,) in bytes; whether each text (B,) is ASCII; whether each has a code point not `unchanged`.
    """
    num_texts = lengths.size
    offsets = np.zeros(num_texts + 1, np.int64)
    is_ascii, changes = np.ones(num_texts, np.bool_), np.zeros(num_texts, np.bool_)
    place = 0
    for text in range(num_texts):
        left = lengths[text]
        while left > 0:
            high = high_bits(raw, place)
            run = min(left, trailing_zeros(high) if high != 0 else 64)
            place += run
            left -= run
            if left > 0 and run < 64:
                code_point, size = _decode(raw, place)
                is_ascii[text] = False
                changes[text] |= not unchanged[code_point]
                place += size
                left -= 1
        offsets[text + 1] = place
    return offsets, is_ascii, changes
