"""Texts to the ids of their n-grams.

A text goes through these steps, each over data that the one before left in the cache: split it into words, find the
words' ids, find the n-grams order by order (what is not found is not looked up again at the next order), write their
ids. All are compiled into one function that runs without the GIL.
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.jit import Bytes, Ids, Keys, Offsets, inline, jit
from hf_sparse.runtime.ngram_table import Ngrams, find_ngrams, spread_key
from hf_sparse.runtime.splitting import PADDING, Characters, TextFlags, WordBuffers, split, word_buffers
from hf_sparse.runtime.word_table import Words, find_words

# Texts as UTF-8 bytes with `PADDING` bytes behind them, their offsets (B + 1,), and what is known of each.
Texts: TypeAlias = tuple[Bytes, Offsets, TextFlags]
# What a vocabulary compiles to: code points, words, n-grams, number of rows, longest n-gram.
Tables: TypeAlias = tuple[Characters, Words, Ngrams, int, int]
# Room for one text: its words; their ids; places, mixed keys and nodes of the n-grams of one order; nodes by order.
TextBuffers: TypeAlias = tuple[WordBuffers, Ids, Ids, Keys, Ids, npt.NDArray[np.int32]]

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
        np.empty(size, np.uint64),
        np.empty(size, np.int32),
        np.empty((max_n, size), np.int32),
    )


@jit
def find_ids(
    texts: Texts, text: int, tables: Tables, buffers: TextBuffers, ids: Ids, num_ids: int, in_order: bool
) -> int:
    """Write the ids of a text's n-grams behind those already there; return the new number of ids.

    In order means as they stand in the text, shorter ones first; else they come order by order, which is faster.
    """
    raw, offsets, (is_ascii, must_clean) = texts
    characters, word_table, ngram_table, num_rows, max_n = tables
    word_room, words, places, mixed, found, nodes = buffers
    lowered, starts, ends = word_room
    num_words = split(raw, offsets[text], offsets[text + 1], is_ascii[text], must_clean[text], characters, word_room)
    singles = nodes[0]
    find_words(word_table, lowered, starts, ends, num_words, mixed, words, singles)
    # No n-gram goes beyond the text: behind it stand words that are in no vocabulary.
    words[num_words : num_words + max_n] = _NO_WORD
    num_places = 0
    for place in range(num_words):
        # Written in any case and kept by counting on: no branch, which the processor could not foresee.
        mixed[num_places] = spread_key(singles[place], words[place + 1], ngram_table)
        places[num_places] = place
        num_places += (singles[place] > 0) & (words[place + 1] >= 0)
    if not in_order:
        num_ids = _append(singles, num_words, num_rows, ids, num_ids)
    for n in range(1, max_n):
        find_ngrams(ngram_table, mixed, num_places, found)
        if in_order:
            nodes[n, :num_words] = 0
            for index in range(num_places):
                nodes[n, places[index]] = found[index]
        else:
            num_ids = _append(found, num_places, num_rows, ids, num_ids)
        num_longer = 0
        for index in range(num_places):
            place, node = places[index], found[index]
            mixed[num_longer] = spread_key(node, words[place + n + 1], ngram_table)
            places[num_longer] = place
            num_longer += (node > 0) & (words[place + n + 1] >= 0)
        num_places = num_longer
    if in_order:
        for place in range(num_words):
            num_ids = _append(nodes[:, place], max_n, num_rows, ids, num_ids)
    return num_ids


@inline
def _append(nodes: Ids, number: int, num_rows: int, ids: Ids, num_ids: int) -> int:
    """Write those nodes that are rows: a node is numbered as its row, and what lies beyond only begins others."""
    for index in range(number):
        node = nodes[index]
        ids[num_ids] = node
        num_ids += (node > 0) & (node < num_rows)
    return num_ids


@jit
def extract_ngrams(texts: Texts, tables: Tables) -> tuple[Ids, Offsets]:
    """Return the ids (N,) int32 of all texts and the number of ids (B,) int64 of each."""
    raw, offsets, _ = texts
    max_n = tables[4]
    num_texts = offsets.size - 1
    buffers = text_buffers(longest_text(offsets, 0, num_texts), max_n)
    ids, lengths = np.empty(raw.size * max_n + 1, np.int32), np.empty(num_texts, np.int64)
    num_ids = 0
    for text in range(num_texts):
        before = num_ids
        num_ids = find_ids(texts, text, tables, buffers, ids, num_ids, True)
        lengths[text] = num_ids - before
    return ids[:num_ids].copy(), lengths
