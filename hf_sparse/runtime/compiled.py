"""The loops of the compiled kernel, in numba: UTF-8 bytes to words to n-gram ids.

A text goes through four loops, each over data that the one before left in the cache: split it into words, find the
words' ids, find the n-grams order by order (the look-ups of one order do not depend on each other, so the processor
overlaps their cache misses, and what is not found is not looked up again at the next order), write the ids in text
order. Both tables are exact:

*   A word of up to 7 bytes *is* its 64-bit key (with its length in the top byte). A longer word has a 56-bit hash for
    its key and is compared byte by byte when found.
*   The key of an n-gram, prefix node and word id, goes through a multiplication that loses nothing. Its high bits say
    where to look, and the entry holds the low ones, 8 bits more than the position leaves open: an entry is never
    further than 255 places from where its key belongs, so equal bits are equal keys. An entry of 8 bytes is these bits
    and the node.

All loops are in this file: numba's cache on disk knows a function by the file that it is in, and would not see a
change in another. Nothing is compiled at import.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Flags: TypeAlias = npt.NDArray[np.bool_]
Ids: TypeAlias = npt.NDArray[np.int32]
Keys: TypeAlias = npt.NDArray[np.uint64]
Offsets: TypeAlias = npt.NDArray[np.int64]
# The table of code points and its ASCII part.
Characters: TypeAlias = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]
# The table of words, and the words themselves with their offsets.
Words: TypeAlias = tuple[Keys, Bytes, Offsets]
# The table of n-grams, and the number of bits of a key, of its low part, and of a word in it.
Ngrams: TypeAlias = tuple[Keys, int, int, int]
Function = TypeVar("Function", bound=Callable[..., Any])

_LETTER: Final = 1
_ALONE: Final = 2
_SHORT_BYTES: Final = 7
_HASH_MASK: Final = (1 << 56) - 1
_SPREAD: Final = 0x9E3779B97F4A7C15
# An entry of the n-gram table lies at most 2**8 - 1 places behind where its key belongs.
_DISPLACEMENT_BITS: Final = 8


def jit(function: Function) -> Function:
    """Compile a function on its first call, without the GIL; cached on disk wherever numba finds a place for it."""
    try:
        compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # read-only site-packages and no home directory
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return cast("Function", compiled)


def split_text(raw: Bytes, clean: bool, characters: Characters) -> tuple[Bytes, Offsets]:
    """Split one text, given as UTF-8 bytes, into words.

    Returns:
        The lower-case words end to end as UTF-8 bytes, and the end of each word (T,).
    """
    lowered, ends, keys = _word_buffers(raw.size)
    num_words = _split(raw, 0, raw.size, clean, characters, lowered, ends, keys)
    return lowered[: ends[num_words - 1] if num_words else 0], ends[:num_words]


@jit
def _word_buffers(num_bytes: int) -> tuple[Bytes, Offsets, Keys]:
    """Return buffers for the words of a text: lower case may take 3 bytes for 2, and a word takes at least 1."""
    size = num_bytes + 8
    return np.empty(2 * size, np.uint8), np.empty(size, np.int64), np.empty(size, np.uint64)


@jit
def _is_break(raw: Bytes, place: int, end: int) -> int:
    """Return the length of the `<br>`, `<br/>` or `<br />` that begins at a place, 0 if there is none."""
    if place + 3 < end and (raw[place + 1] | 32) == 98 and (raw[place + 2] | 32) == 114:
        last = place + 3
        if raw[last] == 32 and last + 1 < end:
            last += 1
        if raw[last] == 47 and last + 1 < end:
            last += 1
        if raw[last] == 62:
            return last + 1 - place
    return 0


@jit
def _decode(raw: Bytes, place: int) -> Any:
    """Return the code point of valid UTF-8 at a place, and its number of bytes."""
    first = np.uint32(raw[place])
    if first < 0xE0:
        return (first & 0x1F) << 6 | raw[place + 1] & 0x3F, 2
    if first < 0xF0:
        return (first & 0xF) << 12 | (raw[place + 1] & 0x3F) << 6 | raw[place + 2] & 0x3F, 3
    high = (first & 7) << 18 | (raw[place + 1] & 0x3F) << 12
    return high | (raw[place + 2] & 0x3F) << 6 | raw[place + 3] & 0x3F, 4


@jit
def _append(code_point: Any, lowered: Bytes, place: int) -> int:
    """Write a code point as UTF-8 and return the place behind it."""
    if code_point < 0x80:
        lowered[place] = code_point
        return place + 1
    if code_point < 0x800:
        lowered[place] = 0xC0 | code_point >> 6
        lowered[place + 1] = 0x80 | code_point & 0x3F
        return place + 2
    if code_point < 0x10000:
        lowered[place] = 0xE0 | code_point >> 12
        lowered[place + 1] = 0x80 | code_point >> 6 & 0x3F
        lowered[place + 2] = 0x80 | code_point & 0x3F
        return place + 3
    lowered[place] = 0xF0 | code_point >> 18
    lowered[place + 1] = 0x80 | code_point >> 12 & 0x3F
    lowered[place + 2] = 0x80 | code_point >> 6 & 0x3F
    lowered[place + 3] = 0x80 | code_point & 0x3F
    return place + 4


@jit
def _word_key(lowered: Bytes, start: int, end: int) -> Any:
    """Return the key of a word: up to 7 bytes and their number, or 56 bits of a hash (and 0 in the top byte)."""
    key = np.uint64(0)
    if end - start <= _SHORT_BYTES:
        for place in range(start, end):
            key = key << np.uint64(8) | np.uint64(lowered[place])
        return key | np.uint64(end - start) << np.uint64(56)
    for place in range(start, end):
        key = (key ^ np.uint64(lowered[place])) * np.uint64(_SPREAD)
        key ^= key >> np.uint64(29)
    # 0 marks an empty slot.
    return key & np.uint64(_HASH_MASK) | np.uint64(1)


@jit
def _split(
    raw: Bytes, start: int, end: int, clean: bool, characters: Characters, lowered: Bytes, ends: Offsets, keys: Keys
) -> int:
    """Split the bytes `start .. end` into words and return their number; see `split_text`."""
    # The end of a word is written out three times: as a function of its own it cost 7 of 40 microseconds a text.
    table, ascii_entries = characters
    place, out, word, num_words = start, 0, 0, 0
    while place < end:
        byte = raw[place]
        if byte < 128:
            entry = ascii_entries[byte]
            kind = np.uint32(entry >> 8)
            code_point = np.uint32(entry & 255)
            if kind == _LETTER:
                lowered[out] = code_point
                out += 1
                place += 1
                continue
            skip = _is_break(raw, place, end) if clean and byte == 60 else 0
            if skip:
                kind = np.uint32(0)
            place += max(skip, 1)
        else:
            code_point, size = _decode(raw, place)
            place += size
            kind, code_point = table[code_point] >> np.uint32(24), table[code_point] & np.uint32(0xFFFFFF)
            if kind == _LETTER:
                out = _append(code_point, lowered, out)
                continue
        if out > word:
            keys[num_words] = _word_key(lowered, word, out)
            ends[num_words] = out
            num_words += 1
            word = out
        if kind == _ALONE:
            out = _append(code_point, lowered, out)
            keys[num_words] = _word_key(lowered, word, out)
            ends[num_words] = out
            num_words += 1
            word = out
    if out > word:
        keys[num_words] = _word_key(lowered, word, out)
        ends[num_words] = out
        num_words += 1
    return num_words


@jit
def _first_slot(key: Any, mask: int) -> Any:
    """Return where in a table of mask + 1 slots to look for a word first."""
    return np.int64(key * np.uint64(_SPREAD) >> np.uint64(32)) & mask


@jit
def _find_word(slots: Keys, blob: Bytes, offsets: Offsets, lowered: Bytes, start: int, end: int, key: Any) -> Any:
    """Return the slot of a word, or the empty slot where it would go."""
    mask = slots.shape[0] - 1
    slot = _first_slot(key, mask)
    while slots[slot, 0] != 0:
        if slots[slot, 0] == key:
            if end - start <= _SHORT_BYTES:
                return slot
            first = offsets[slots[slot, 1] & np.uint64(0xFFFFFFFF)]
            size = offsets[(slots[slot, 1] & np.uint64(0xFFFFFFFF)) + np.uint64(1)] - first
            same = size == end - start
            place = 0
            while same and place < size:
                same = blob[first + place] == lowered[start + place]
                place += 1
            if same:
                return slot
        slot = slot + 1 & mask
    return slot


@jit
def build_word_slots(blob: Bytes, offsets: Offsets, prefixes: Ids, words: Ids) -> Keys:
    """Return the table of words (slots, 2) uint64: key, and node of the single word << 32 | word id.

    The node of a word that is not an n-gram by itself is 0xFFFFFFFF.
    """
    num_words = offsets.size - 1
    nodes = np.full(num_words, 0xFFFFFFFF, np.uint64)
    for node in range(prefixes.size):
        if prefixes[node] < 0:
            nodes[words[node]] = np.uint64(node)
    size = 16
    while size < num_words + num_words // 2:
        size *= 2
    slots = np.zeros((size, 2), np.uint64)
    for word in range(num_words):
        key = _word_key(blob, offsets[word], offsets[word + 1])
        slot = _find_word(slots, blob, offsets, blob, offsets[word], offsets[word + 1], key)
        slots[slot, 0] = key
        slots[slot, 1] = nodes[word] << np.uint64(32) | np.uint64(word)
    return slots


@jit
def _spread_key(prefix: Any, word: Any, word_bits: int, key_bits: int) -> Any:
    """Return the key of an n-gram after a one-to-one mixing of its `key_bits` bits."""
    key = np.uint64(prefix) << np.uint64(word_bits) | np.uint64(word)
    key ^= key >> np.uint64(key_bits // 2)
    return key * np.uint64(_SPREAD) & (np.uint64(1) << np.uint64(key_bits)) - np.uint64(1)


@jit
def _fill_entries(entries: Keys, prefixes: Ids, words: Ids, word_bits: int, key_bits: int, low_bits: int) -> bool:
    """Put every n-gram of two words or more into an empty table; return whether all lie close to their place."""
    tag_mask = (np.uint64(1) << np.uint64(low_bits + _DISPLACEMENT_BITS)) - np.uint64(1)
    for node in range(prefixes.size):
        if prefixes[node] >= 0:
            mixed = _spread_key(prefixes[node], words[node], word_bits, key_bits)
            home = np.int64(mixed >> np.uint64(low_bits))
            slot = home
            while entries[slot] != 0:
                slot += 1
                if slot - home >= 1 << _DISPLACEMENT_BITS:
                    return False
            entries[slot] = (mixed & tag_mask) << np.uint64(32) | np.uint64(node + 1)
    return True


def build_entries(
    prefixes: npt.NDArray[np.int32], words: npt.NDArray[np.int32], num_words: int
) -> tuple[npt.NDArray[np.uint64], int, int]:
    """Return the table of n-grams (slots,) uint64, and the number of bits of a key and of its low part."""
    word_bits = num_words.bit_length()
    slot_bits = max(8, (2 * prefixes.size).bit_length())
    while True:
        key_bits = max(word_bits + prefixes.size.bit_length(), slot_bits)
        low_bits = key_bits - slot_bits
        if low_bits + _DISPLACEMENT_BITS <= 32:
            entries = np.zeros((1 << slot_bits) + (2 << _DISPLACEMENT_BITS), dtype=np.uint64)
            if _fill_entries(entries, prefixes, words, word_bits, key_bits, low_bits):
                return entries, key_bits, low_bits
        slot_bits += 1


@jit
def _find_behind(entries: Keys, home: Any, tag: Any) -> Any:
    """Return the node of an n-gram that is not at its home slot but may lie behind it, -1 if it does not."""
    # Beyond that distance, where only a very crowded table has entries, equal tags would not be equal keys.
    for slot in range(home + 1, home + (1 << _DISPLACEMENT_BITS)):
        entry = entries[slot]
        if entry == 0:
            return -1
        if entry >> np.uint64(32) == tag:
            return np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
    return -1


@jit
def _find_words(
    lookup: Words, lowered: Bytes, ends: Offsets, keys: Keys, num_words: int, words: Ids, nodes: Ids
) -> None:
    """Write the ids of a text's words and the nodes of the single words, -1 where there is none."""
    slots, blob, offsets = lookup
    start = 0
    for index in range(num_words):
        slot = _find_word(slots, blob, offsets, lowered, start, ends[index], keys[index])
        start = ends[index]
        if slots[slot, 0] == 0:
            words[index] = -1
            nodes[0, index] = -1
        else:
            value = slots[slot, 1]
            words[index] = np.int32(value & np.uint64(0xFFFFFFFF))
            nodes[0, index] = np.int32(np.uint32(value >> np.uint64(32)))


@jit
def _find_ngrams(ngrams: Ngrams, words: Ids, num_words: int, nodes: Ids, buffers: tuple[Offsets, Keys, Keys]) -> None:
    """Write the nodes of a text's longer n-grams behind those of its words, order by order, -1 where there is none."""
    entries, key_bits, low_bits, word_bits = ngrams
    places, mixed, loaded = buffers
    tag_mask = (np.uint64(1) << np.uint64(low_bits + _DISPLACEMENT_BITS)) - np.uint64(1)
    num_places = 0
    for index in range(num_words):
        places[num_places] = index
        num_places += nodes[0, index] >= 0
    for n in range(1, nodes.shape[0]):
        prefixes, found = nodes[n - 1], nodes[n]
        for index in range(num_words):
            found[index] = -1
        num_keys = 0
        for number in range(num_places):
            place = places[number]
            if place + n < num_words and words[place + n] >= 0:
                mixed[num_keys] = _spread_key(prefixes[place], words[place + n], word_bits, key_bits)
                places[num_keys] = place
                num_keys += 1
        # All loads from the table by themselves: none waits for another, nor for a branch on what it brings.
        for number in range(num_keys):
            loaded[number] = entries[np.int64(mixed[number] >> np.uint64(low_bits))]
        num_places = 0
        for number in range(num_keys):
            entry, tag = loaded[number], mixed[number] & tag_mask
            node: Any = np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
            if entry >> np.uint64(32) != tag and entry != 0:
                node = _find_behind(entries, np.int64(mixed[number] >> np.uint64(low_bits)), tag)
            place = places[number]
            found[place] = node
            places[num_places] = place
            num_places += int(node >= 0)


@jit
def extract_ngrams(
    raw: Bytes,
    text_offsets: Offsets,
    must_clean: Flags,
    characters: Characters,
    word_lookup: Words,
    ngrams: Ngrams,
    rows: Ids,
    max_n: int,
) -> tuple[Ids, Offsets]:
    """Return the ids (N,) int32 of all texts and the number of ids (B,) int64 of each."""
    num_texts = text_offsets.size - 1
    longest = 0
    for text in range(num_texts):
        longest = max(longest, text_offsets[text + 1] - text_offsets[text])
    # Sized for the worst case, one word a byte; memory that is not written to is never really taken.
    lowered, ends, keys = _word_buffers(longest)
    words, nodes = np.empty(longest + 1, np.int32), np.empty((max_n, longest + 1), np.int32)
    buffers = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint64)
    ids, lengths = np.empty(raw.size * max_n + 1, np.int32), np.empty(num_texts, np.int64)
    num_ids = 0
    for text in range(num_texts):
        start, end = text_offsets[text], text_offsets[text + 1]
        num_words = _split(raw, start, end, must_clean[text], characters, lowered, ends, keys)
        _find_words(word_lookup, lowered, ends, keys, num_words, words, nodes)
        _find_ngrams(ngrams, words, num_words, nodes, buffers)
        before = num_ids
        for index in range(num_words):
            for n in range(max_n):
                # Node -1 has row 0: no branch, which the processor could not foresee.
                row = rows[nodes[n, index] + 1]
                ids[num_ids] = row
                num_ids += row > 0
        lengths[text] = num_ids - before
    return ids[:num_ids].copy(), lengths


@jit
def move_slots(old: Keys, new: Keys) -> None:
    """Put all words of a table into a larger, empty one; they are distinct, so keys need not be compared."""
    mask = new.shape[0] - 1
    for index in range(old.shape[0]):
        if old[index, 0] != 0:
            slot = _first_slot(old[index, 0], mask)
            while new[slot, 0] != 0:
                slot = slot + 1 & mask
            new[slot] = old[index]


@jit
def number_words(
    raw: Bytes,
    text_offsets: Offsets,
    must_clean: Flags,
    characters: Characters,
    slots: Keys,
    blob: Bytes,
    offsets: Offsets,
    num_words: int,
) -> tuple[Ids, int]:
    """Number the words of texts, adding new ones to the dictionary; return the numbers and the new number of words."""
    num_texts = text_offsets.size - 1
    longest = 0
    for text in range(num_texts):
        longest = max(longest, text_offsets[text + 1] - text_offsets[text])
    lowered, ends, keys = _word_buffers(longest)
    numbers = np.empty(raw.size + num_texts, np.int32)
    num_numbers = 0
    for text in range(num_texts):
        start, end = text_offsets[text], text_offsets[text + 1]
        found = _split(raw, start, end, must_clean[text], characters, lowered, ends, keys)
        start = 0
        for index in range(found):
            slot = _find_word(slots, blob, offsets, lowered, start, ends[index], keys[index])
            if slots[slot, 0] == 0:
                slots[slot, 0] = keys[index]
                slots[slot, 1] = np.uint64(num_words)
                size = ends[index] - start
                first = offsets[num_words]
                blob[first : first + size] = lowered[start : ends[index]]
                num_words += 1
                offsets[num_words] = first + size
            numbers[num_numbers] = np.int32(slots[slot, 1] & np.uint64(0xFFFFFFFF))
            num_numbers += 1
            start = ends[index]
        numbers[num_numbers] = -1
        num_numbers += 1
    return numbers[:num_numbers].copy(), num_words
