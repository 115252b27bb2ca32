"""Texts to the ids of their n-grams.

A text goes through these steps, each over data that the one before left in the cache: split it into words, find the
words' ids, find the n-grams order by order (what is not found is not looked up again at the next order), write their
ids. All are compiled into one function that runs without the GIL.
"""

from typing import Any, Final, TypeAlias

import numpy as np

from hf_sparse.runtime.jit import Bytes, Flags, Ids, Keys, Offsets, inline, jit
from hf_sparse.runtime.ngram_table import Ngrams, find_ngrams, spread_key
from hf_sparse.runtime.splitting import PADDING, Characters, WordBuffers, split, word_buffers
from hf_sparse.runtime.vector import borrow
from hf_sparse.runtime.word_table import Words, find_words

# Texts as UTF-8 bytes with `PADDING` bytes behind them, their offsets (B + 1,), and whether the line breaks of HTML
# are still to be removed from each (B,).
Texts: TypeAlias = tuple[Bytes, Offsets, Flags]
# What a vocabulary compiles to: code points, words, n-grams, number of rows, longest n-gram.
Tables: TypeAlias = tuple[Characters, Words, Ngrams, int, int]
# Room for one text: its words; their ids and nodes; places, mixed keys and nodes of the n-grams of one order; and to
# put ids in order: those of two words or more, their places, and how many begin at each place.
TextBuffers: TypeAlias = tuple[WordBuffers, Ids, Ids, Ids, Keys, Ids, tuple[Ids, Ids, Ids]]

_NO_WORD: Final = -1


@jit
def longest_text(offsets: Offsets, first: int, last: int) -> int:
    """Return the number of bytes of the longest of some texts."""
    longest = 0
    for text in range(first, last):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest


@jit
def text_buffers(num_bytes: int, max_n: int) -> TextBuffers:
    """Return room for a text of some bytes, at worst one word a byte; memory not written to is never really taken."""
    size = num_bytes + max_n + PADDING
    return (
        word_buffers(num_bytes),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.uint64),
        np.empty(size, np.int32),
        (np.empty(max_n * size, np.int32), np.empty(max_n * size, np.int32), np.empty(size, np.int32)),
    )


@inline
def find_ids(
    texts: Texts, text: int, tables: Tables, buffers: TextBuffers, ids: Ids, num_ids: int, in_order: bool
) -> int:
    """Write the ids of a text's n-grams behind those already there; return the new number of ids.

    In order means as they stand in the text, shorter ones first; else they come order by order, which is faster.
    """
    raw, offsets, must_clean = texts
    characters, word_table, ngram_table, num_rows, max_n = tables
    word_room, words, singles, places, mixed, found, (longer, longer_places, counts) = buffers
    lowered, starts, ends = word_room
    num_words = split(raw, offsets[text], offsets[text + 1], must_clean[text], characters, word_room)
    find_words(word_table, lowered, starts, ends, num_words, mixed, words, singles)
    # No n-gram goes beyond the text: behind it stand words that are in no vocabulary.
    words[num_words : num_words + max_n] = _NO_WORD
    num_places, num_longer = 0, 0
    for place in range(num_words):
        # Written in any case and kept by counting on: no branch, which the processor could not foresee.
        mixed[num_places] = spread_key(singles[place], words[place + 1], ngram_table)
        places[num_places] = place
        num_places += (singles[place] > 0) & (words[place + 1] >= 0)
        if in_order:
            counts[place] = _is_row(singles[place], num_rows)
    if not in_order:
        num_ids = _append(singles, num_words, num_rows, ids, num_ids)
    for n in range(1, max_n):
        find_ngrams(ngram_table, mixed, num_places, found)
        if in_order:
            for index in range(num_places):
                place, node = places[index], found[index]
                longer[num_longer], longer_places[num_longer] = node, place
                counts[place] += _is_row(node, num_rows)
                num_longer += _is_row(node, num_rows)
        else:
            num_ids = _append(found, num_places, num_rows, ids, num_ids)
        num_left = 0
        for index in range(num_places):
            place, node = places[index], found[index]
            mixed[num_left] = spread_key(node, words[place + n + 1], ngram_table)
            places[num_left] = place
            num_left += (node > 0) & (words[place + n + 1] >= 0)
        num_places = num_left
    if in_order:
        num_ids = _put_in_order(singles, num_words, buffers[6], num_longer, num_rows, ids, num_ids)
    return num_ids


@inline
def _put_in_order(
    singles: Ids, num_words: int, longer: tuple[Ids, Ids, Ids], num_longer: int, num_rows: int, ids: Ids, num_ids: int
) -> int:
    """Write the ids of single words and of longer n-grams as they stand in the text, shorter ones first."""
    nodes, places, counts = longer
    for place in range(num_words):
        ids[num_ids] = singles[place]
        next_place = num_ids + counts[place]
        counts[place] = num_ids + _is_row(singles[place], num_rows)
        num_ids = next_place
    # They come order by order: each goes behind those that already stand at its place.
    for index in range(num_longer):
        place = places[index]
        ids[counts[place]] = nodes[index]
        counts[place] += 1
    return num_ids


@inline
def _is_row(node: Any, num_rows: int) -> Any:
    """Return 1 for a node that is a row: it is numbered as its row, and what lies beyond only begins others."""
    return (node > 0) & (node < num_rows)


@inline
def _append(nodes: Ids, number: int, num_rows: int, ids: Ids, num_ids: int) -> int:
    """Write those nodes that are rows."""
    for index in range(number):
        ids[num_ids] = nodes[index]
        num_ids += _is_row(nodes[index], num_rows)
    return num_ids


@inline
def borrow_tables(tables: Tables) -> Tables:
    """Return tables without counting who reads them; see `borrow`."""
    characters, (slots, blob, offsets), (entries, word_bits, key_bits, low_bits), num_rows, max_n = tables
    words, ngrams = (borrow(slots), borrow(blob), borrow(offsets)), (borrow(entries), word_bits, key_bits, low_bits)
    return borrow(characters), words, ngrams, num_rows, max_n


@jit
def extract_ngrams(texts: Texts, tables: Tables) -> tuple[Ids, Offsets]:
    """Return the ids (N,) int32 of all texts and the number of ids (B,) int64 of each."""
    raw, offsets, _ = texts
    tables, max_n = borrow_tables(tables), tables[4]
    num_texts = offsets.size - 1
    buffers = text_buffers(longest_text(offsets, 0, num_texts), max_n)
    # Room for as many ids as there are bytes, more than most texts have: no page is touched without need.
    ids, lengths = np.empty(raw.size + 1, np.int32), np.empty(num_texts, np.int64)
    num_ids = 0
    for text in range(num_texts):
        needed = num_ids + (offsets[text + 1] - offsets[text]) * max_n + 1
        if needed > ids.size:
            larger = np.empty(max(needed, 2 * ids.size), np.int32)
            larger[:num_ids] = ids[:num_ids]
            ids = larger
        before = num_ids
        num_ids = find_ids(texts, text, tables, buffers, ids, num_ids, True)
        lengths[text] = num_ids - before
    return ids[:num_ids], lengths
