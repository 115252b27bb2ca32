"""The roofline: how fast memory alone would allow a text to become a label.

The way of a text reads its bytes once, one cache line for every look-up (of a word or an n-gram, whether it is found
or not) and every row once. How many those are is counted on real texts (`probes.py`); how long they take is measured
here by a loop that does nothing else, on arrays of the size of the student's own, at the places of the real texts
(whose frequent words and n-grams are in the processor's caches), in two ways:

*   *loads*: each thing is read when its turn comes, and the processor overlaps what it can by itself: what plain code
    reaches that computes nothing;
*   *prefetched*: all look-ups and rows of a text are asked for before the first is read: the limit.

Run as a process of its own, pinned like the contestants: `python -m hf_sparse.benchmark.roofline SPEC.json`.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from hf_sparse.benchmark.probes import PlainVocabulary, ProbeSequence, join_probes
from hf_sparse.runtime.vector import prefetch
from hf_sparse.student.extraction_sparse_ngram import NgramExtractor
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary

Way = Literal["loads", "prefetched"]

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_WORD_ENTRY_BYTES = 16
_NGRAM_ENTRY_BYTES = 8
_REPEATS = 15


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Microseconds a text, median of the repeats, with the distance of their quartiles."""

    median: float
    iqr: float


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Slots of the word table (16 bytes each) and of the n-gram table (8), rows and bytes a row."""

    word_slots: int
    ngram_slots: int
    num_rows: int
    row_bytes: int


def table_sizes(vocabulary: NgramVocabulary, *, row_bytes: int) -> Sizes:
    """Return the sizes of open-addressing tables at most two thirds (words) and half (n-grams) full."""
    num_words = vocabulary.word_offsets.size - 1
    return Sizes(
        word_slots=1 << max(4, (3 * num_words // 2 - 1).bit_length()),
        ngram_slots=1 << max(8, (2 * vocabulary.node_prefix.size - 1).bit_length()),
        num_rows=vocabulary.num_rows,
        row_bytes=row_bytes,
    )


@njit(cache=True, nogil=True)
def _walk(
    raw: Any,
    byte_ends: Any,
    word_table: Any,
    words: Any,
    word_ends: Any,
    ngram_table: Any,
    ngrams: Any,
    ngram_ends: Any,
    rows: Any,
    row_places: Any,
    row_ends: Any,
    ahead: Any,
) -> Any:
    """Read, text by text: the bytes, a cache line for each look-up, the rows; return a sum that needs all of it.

    With `ahead`, the look-ups of n-grams and the rows of a text are asked for first; the words' table is small.
    """
    total = np.uint64(0)
    byte, word, ngram, row = 0, 0, 0, 0
    for text in range(byte_ends.size):
        if ahead:
            for index in range(ngram, ngram_ends[text]):
                prefetch(ngram_table, ngrams[index])
            for index in range(row, row_ends[text]):
                prefetch(rows, row_places[index] * rows.shape[1])
                prefetch(rows, (row_places[index] + 1) * rows.shape[1] - 1)
        while byte < byte_ends[text]:
            total += raw[byte]
            byte += 1
        while word < word_ends[text]:
            total += word_table[2 * words[word]]
            word += 1
        while ngram < ngram_ends[text]:
            total += ngram_table[ngrams[ngram]]
            ngram += 1
        while row < row_ends[text]:
            place = row_places[row]
            for column in range(rows.shape[1]):
                total += rows[place, column]
            row += 1
    return total


def measure_limits(sequence: ProbeSequence, sizes: Sizes, *, repeats: int = _REPEATS) -> dict[str, dict[str, Limit]]:
    """Measure what memory allows, in microseconds a text.

    Returns:
        For `loads` and `prefetched`: the limits `bytes`, `words`, `ngrams` and `rows` one by one, `extraction`
        (the first three in one go) and `path` (all of it).
    """
    words, ngrams = _places(sequence, sizes)
    none = np.zeros_like(sequence.byte_ends)
    raw = np.ones(int(sequence.byte_ends[-1]) // 8 + sequence.num_texts, dtype=np.uint64)
    # Filled: pages that were never written to are all one page of zeros, which stays in the cache.
    word_table = np.ones(2 * sizes.word_slots, dtype=np.uint64)
    ngram_table = np.ones(sizes.ngram_slots, dtype=np.uint64)
    rows = np.ones((sizes.num_rows, -(-sizes.row_bytes // 8)), dtype=np.uint64)
    byte_ends = sequence.byte_ends // 8
    found: dict[str, dict[str, Limit]] = {}
    ways: tuple[Way, Way] = ("loads", "prefetched")
    for way in ways:
        parts: dict[str, tuple[bool, bool, bool, bool]] = {
            "bytes": (True, False, False, False),
            "words": (False, True, False, False),
            "ngrams": (False, False, True, False),
            "rows": (False, False, False, True),
            "extraction": (True, True, True, False),
            "path": (True, True, True, True),
        }
        times: dict[str, list[float]] = {name: [] for name in parts}
        for repeat in range(repeats + 1):
            for name, (with_bytes, with_words, with_ngrams, with_rows) in parts.items():
                start = time.perf_counter()
                _walk(
                    raw,
                    byte_ends if with_bytes else none,
                    word_table,
                    words,
                    sequence.word_ends if with_words else none,
                    ngram_table,
                    ngrams,
                    sequence.ngram_ends if with_ngrams else none,
                    rows,
                    sequence.rows,
                    sequence.row_ends if with_rows else none,
                    way == "prefetched",
                )
                # The first repeat loads the compiled loop.
                if repeat:
                    times[name].append((time.perf_counter() - start) / sequence.num_texts * 1e6)
        found[way] = {name: _limit(values) for name, values in times.items()}
    return found


def measure_roofline(spec: dict[str, Any]) -> dict[str, Any]:
    """Count the look-ups of texts and measure the limits for each form of a student.

    Args:
        spec: `vocabulary` (folder), `texts` (JSON file), `num_texts`, and `row_bytes` by the name of the form.
    """
    vocabulary = NgramVocabulary.load(spec["vocabulary"])
    texts = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))[: spec["num_texts"]]
    plain, extractor = PlainVocabulary(vocabulary), NgramExtractor(vocabulary)
    sequence = join_probes(texts, [plain.probe(extractor.words(text)) for text in texts])
    counts = {
        "bytes": float(sequence.byte_ends[-1]) / len(texts),
        "word_look_ups": sequence.words.size / len(texts),
        "ngram_look_ups": len(sequence.ngrams) / len(texts),
        "rows": sequence.rows.size / len(texts),
    }
    forms = {}
    for name, size in spec["row_bytes"].items():
        sizes = table_sizes(vocabulary, row_bytes=size)
        limits = measure_limits(sequence, sizes)
        forms[name] = {
            "sizes": asdict(sizes),
            "microseconds": {
                way: {part: asdict(limit) for part, limit in parts.items()} for way, parts in limits.items()
            },
        }
    return {"texts": len(texts), "a_text": counts, "forms": forms}


def _places(sequence: ProbeSequence, sizes: Sizes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the slots of the words and of the n-grams that are looked up."""
    keys = sequence.ngrams[:, 0].astype(np.uint64) << np.uint64(32) | sequence.ngrams[:, 1].astype(np.uint64)
    return _spread(sequence.words.astype(np.uint64), sizes.word_slots), _spread(keys, sizes.ngram_slots)


def _spread(keys: npt.NDArray[np.uint64], slots: int) -> npt.NDArray[np.int64]:
    """Return a slot for each key: equal keys have equal ones, others are spread as by any good hash."""
    mixed = (keys ^ (keys >> np.uint64(29))) * _SPREAD
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _SPREAD
    return (mixed >> np.uint64(64 - (slots - 1).bit_length())).astype(np.int64)


def _limit(values: list[float]) -> Limit:
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return Limit(median=median, iqr=high - low)


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, settings["processors"])
    print(json.dumps(measure_roofline(settings)))
