"""What the parts of a corpus have found, put together range by range, so that only one range is in memory.

Each step keeps the most frequent: what is found raises the bound of what may still be among the K.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hf_sparse.runtime.jit import Ids, Keys, Offsets
from hf_sparse.vocabulary.parts import NO_WORD, Part
from hf_sparse.vocabulary.shelf import Array, Shelf

# Memory that a distinct word takes while it is merged: its bytes, numbers, and the slots of two hash tables.
WORD_BYTES: Final = 200
# The same of an n-gram of a run: key, two counts, their sorted copies and the order.
ENTRY_BYTES: Final = 64
# One key in so many says where in a run a range begins.
SAMPLE_EVERY: Final = 1024
# Fewer entries are not worth more threads.
_FEWEST_SHARED: Final = 1 << 18


@dataclass(kw_only=True)
class Race:
    """The bound that an n-gram must reach to be among the `num_ngrams` most frequent.

    Attributes:
        num_ngrams: K, how many are wanted.
        min_documents: In how many texts one must occur.
        bound: The smallest count that may be among the K, as far as is known.
        counts: The counts of the finished levels.
    """

    num_ngrams: int
    min_documents: int
    bound: int
    counts: list[Offsets] = field(default_factory=list)

    def tighten(self, counts: Offsets) -> None:
        """Raise the bound by what has been found of a level."""
        found = np.concatenate([*self.counts, counts])
        if found.size >= self.num_ngrams:
            place = found.size - self.num_ngrams
            self.bound = max(self.bound, int(np.partition(found, place)[place]))


def merge_words(
    parts: Sequence[Part], shelf: Shelf, race: Race, *, memory: int, threads: int
) -> tuple[pa.LargeBinaryArray, Offsets]:
    """Return the words of all parts that are in the race, sorted by code point, and their counts."""
    num_ranges = _num_ranges(sum(part.num_distinct for part in parts), WORD_BYTES, memory, threads)
    edges = [(index << 64) // num_ranges for index in range(num_ranges + 1)]

    def merge(index: int) -> tuple[pa.LargeBinaryArray, Offsets]:
        tables = [_words_between(part, shelf, edges[index], edges[index + 1]) for part in parts]
        sums = [("counts", "sum"), ("documents", "sum")]
        table = pa.concat_tables(tables).group_by("word", use_threads=False).aggregate(sums)
        counts, documents = (table[f"{name}_sum"].to_numpy() for name in ("counts", "documents"))
        stays = (counts >= race.bound) & (documents >= race.min_documents)
        return table["word"].combine_chunks().filter(pa.array(stays)), counts[stays]

    words, counts = [pa.array([], pa.large_binary())], np.zeros(0, dtype=np.int64)
    for number, (found_words, found_counts) in enumerate(_in_order(merge, num_ranges, threads), 1):
        words.append(found_words)
        counts = np.concatenate([counts, found_counts])
        if counts.size > 2 * race.num_ngrams or number == num_ranges:
            race.tighten(counts)
            stays = counts >= race.bound
            words, counts = [_concatenate(words).filter(pa.array(stays))], counts[stays]
    order = pc.sort_indices(words[0])
    return words[0].take(order), counts[order.to_numpy()]


def find_words(part: Part, shelf: Shelf, words: pa.LargeBinaryArray) -> Ids:
    """Return the id (W,) of each word of a part among the words of all, `NO_WORD` where it is not in the race."""
    own = to_words(shelf.get(part.name, "blob"), shelf.get(part.name, "offsets"))
    ids: Ids = pc.index_in(own, value_set=words).fill_null(NO_WORD).to_numpy(zero_copy_only=False).astype(np.int32)
    return ids


def merge_runs(names: Sequence[str], shelf: Shelf, race: Race, *, memory: int, threads: int) -> tuple[Keys, Offsets]:
    """Return the keys, in rising order, and the counts of a level's n-grams that are in the race.

    A run is a group of `keys` in rising order, their `counts`, `documents` (where texts are counted), and `sample`,
    every `SAMPLE_EVERY`-th key.
    """
    samples = {name: shelf.get(name, "sample") for name in names}
    sample = np.sort(np.concatenate(list(samples.values())))
    num_ranges = _num_ranges(sample.size * SAMPLE_EVERY, ENTRY_BYTES, memory, threads)
    edges = [0, *(int(sample[index * sample.size // num_ranges]) for index in range(1, num_ranges)), 1 << 64]

    def merge(index: int) -> tuple[Keys, Offsets]:
        low, high, with_documents = edges[index], edges[index + 1], race.min_documents > 1
        runs = [_run_between(name, shelf, samples[name], low, high, with_documents=with_documents) for name in names]
        keys, counts, documents = (np.concatenate(arrays) for arrays in zip(*runs, strict=True))
        order = np.argsort(keys)
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate([keys[:1] == keys[:1], keys[1:] != keys[:-1]]))
        if not starts.size:
            return keys, np.zeros(0, dtype=np.int64)
        sums = np.add.reduceat(counts[order], starts, dtype=np.int64)
        stays = sums >= race.bound
        if with_documents:
            stays &= np.add.reduceat(documents[order], starts, dtype=np.int64) >= race.min_documents
        return keys[starts[stays]], sums[stays]

    keys, counts = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    waiting_keys, waiting_counts = [keys], [counts]
    for number, (found_keys, found_counts) in enumerate(_in_order(merge, num_ranges, threads), 1):
        waiting_keys.append(found_keys)
        waiting_counts.append(found_counts)
        if sum(found.size for found in waiting_counts) > 2 * race.num_ngrams or number == num_ranges:
            keys, counts = np.concatenate(waiting_keys), np.concatenate(waiting_counts)
            race.tighten(counts)
            stays = counts >= race.bound
            waiting_keys, waiting_counts = [keys[stays]], [counts[stays]]
    return waiting_keys[0], waiting_counts[0]


def to_words(blob: Array, offsets: npt.NDArray[np.int64]) -> pa.LargeBinaryArray:
    """Return words of which the UTF-8 and where each begins (W + 1,) are given."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(np.ascontiguousarray(blob))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), offsets.size - 1, buffers)


def to_arrays(words: pa.LargeBinaryArray) -> dict[str, Array]:
    """Return what `to_words` takes."""
    if not len(words):
        return {"blob": np.zeros(0, np.uint8), "offsets": np.zeros(1, np.int64)}
    offsets = np.frombuffer(words.buffers()[1], dtype=np.int64)[words.offset : words.offset + len(words) + 1]
    blob = words.buffers()[2]
    content = np.frombuffer(b"" if blob is None else blob, dtype=np.uint8)
    return {"blob": content[offsets[0] : offsets[-1]], "offsets": offsets - offsets[0]}


def _num_ranges(entries: int, entry_bytes: int, memory: int, threads: int) -> int:
    """Return into how many ranges entries are cut: those of all threads fit into memory, and all have some to do."""
    return max(threads if entries > _FEWEST_SHARED else 1, -(-entries * entry_bytes * threads // memory))


def _in_order(
    merge: Callable[[int], tuple[Any, Offsets]], num_ranges: int, threads: int
) -> Iterator[tuple[Any, Offsets]]:
    """Yield what comes of each range, in order, while others are being merged."""
    with ThreadPoolExecutor(threads, "hf-sparse-merge") as pool:
        yield from pool.map(merge, range(num_ranges))


def _words_between(part: Part, shelf: Shelf, low: int, high: int) -> pa.Table:
    """Return the words of a part whose hashes are at least `low` and below `high`, with their counts."""
    hashes = shelf.get(part.name, "hashes")
    first, last = _places(hashes, low, high)
    offsets = shelf.get_slice(part.name, "offsets", first, last + 1)
    blob = shelf.get_slice(part.name, "blob", int(offsets[0]), int(offsets[-1]))
    numbers = {name: shelf.get_slice(part.name, name, first, last) for name in ("counts", "documents")}
    return pa.table({"word": to_words(blob, offsets - offsets[0]), **numbers})


def _run_between(
    name: str, shelf: Shelf, sample: Keys, low: int, high: int, *, with_documents: bool
) -> tuple[Keys, Array, Array]:
    """Return the n-grams of a run whose keys are at least `low` and below `high`."""
    first, last = _places(sample, low, high)
    # From the key of the sample before: the first that is in range comes after it.
    first, last = max(0, first - 1) * SAMPLE_EVERY, last * SAMPLE_EVERY
    keys = shelf.get_slice(name, "keys", first, last)
    start, end = _places(keys, low, high)
    counts = shelf.get_slice(name, "counts", first + start, first + end)
    documents = shelf.get_slice(name, "documents", first + start, first + end) if with_documents else counts[:0]
    return keys[start:end], counts, documents


def _places(keys: Keys, low: int, high: int) -> tuple[int, int]:
    first = int(np.searchsorted(keys, np.uint64(low)))
    return first, int(np.searchsorted(keys, np.uint64(high))) if high < 1 << 64 else keys.size


def _concatenate(words: Sequence[pa.Array]) -> pa.LargeBinaryArray:
    chunks = [part for array in words for part in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])]
    return pa.concat_arrays(chunks)
