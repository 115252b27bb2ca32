"""Counting n-grams: the most frequent ones of a corpus, exactly, level by level.

An n-gram is at most as frequent as its prefix and its suffix of n - 1 words. So the n-grams of n words are looked for
only where both are still in the race (Apriori: Agrawal and Srikant 1994): at least as frequent as the K-th most
frequent n-gram found so far. Whatever lies below that bound cannot be among the K. What is counted at a level are
64-bit keys, number of the prefix and id of the last word, sorted and run-length encoded: no hash, no approximation.

The corpus is held as word ids. At the peak, 20 bytes a word: 4 for the words, 4 for the n-gram that begins at each,
8 for the keys of a level, the rest for what survives it.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from hf_sparse.runtime.jit import jit
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.student.words_sparse_ngram import check_word_rule, resolve_clean
from hf_sparse.vocabulary.corpus import Corpus, read_corpus
from hf_sparse.vocabulary.word_tokenizer import read_tokenizer

logger = logging.getLogger(__name__)

Ids = npt.NDArray[np.int32]
Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Level:
    """The n-grams of one n still in the race, sorted by words: `prefix << 32 | word` (M,) and their counts (M,).

    A prefix is an index into the level before.
    """

    keys: Keys
    counts: Counts


def count_ngrams(
    texts: Iterable[str],
    *,
    num_ngrams: int,
    max_n: int = 4,
    word_rule: str = "words",
    clean: str | None = None,
    min_documents: int = 1,
    min_count: int = 1,
    progress: bool = True,
    total: int | None = None,
) -> NgramVocabulary:
    """Return the vocabulary of the most frequent n-grams of a corpus.

    Ties at the cut are decided by the order of the vocabulary: shorter n-grams first, then by words.

    Args:
        texts: The texts (the documents); read once. No n-gram crosses from one to the next.
        num_ngrams: How many n-grams to keep; where there are fewer, all.
        max_n: The number of words of the longest n-grams.
        word_rule: `"words"`, `"sklearn"` or `"hf:<repo or folder>"`; see `words_sparse_ngram.py`.
        clean: `"html"` or `"none"`; None is the default of the word rule.
        min_documents: Leave out n-grams that occur in fewer texts.
        min_count: Leave out n-grams that occur fewer times.
        progress: Whether to show progress bars on stderr.
        total: The number of texts, for the bar's estimate, where `texts` has no length.

    Raises:
        ValueError: A number is below 1, the word rule or the cleaning does not exist, or there is no n-gram to keep.
        TypeError: A text is not a string.
    """
    numbers = {"num_ngrams": num_ngrams, "max_n": max_n, "min_documents": min_documents, "min_count": min_count}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    check_word_rule(word_rule)
    cleaning = resolve_clean(word_rule, clean)
    tokenizer_json = read_tokenizer(word_rule)
    corpus = read_corpus(
        texts, word_rule=word_rule, clean=cleaning, tokenizer_json=tokenizer_json, progress=progress, total=total
    )
    if corpus.word_ids.size == corpus.num_texts:
        raise ValueError(f"there are no words in the corpus of {corpus.num_texts} texts: nothing to count")
    levels = _count_levels(corpus, num_ngrams, max_n, min_documents, min_count, progress)
    if not levels[0].keys.size:
        raise ValueError(
            f"no n-gram of the {corpus.num_texts} texts occurs {min_count} times in {min_documents} texts; lower "
            "min_documents (in a recipe vocabulary.min_documents) or name more texts"
        )
    arrays = _select(levels, corpus.words, num_ngrams)
    return NgramVocabulary(
        **arrays,
        max_n=max_n,
        num_rows=arrays["node_row"].size + 1,
        word_rule=word_rule,
        clean=cleaning,
        tokenizer_json=None if tokenizer_json is None else np.frombuffer(tokenizer_json, dtype=np.uint8),
    )


def _count_levels(
    corpus: Corpus, num_ngrams: int, max_n: int, min_documents: int, min_count: int, progress: bool
) -> list[_Level]:
    """Return, for every n, the n-grams that may be among the most frequent."""
    bound = min_count
    levels: list[_Level] = []
    # The number of the n-gram that begins at each word, -1 where it is out of the race. Before level 1: the empty one.
    ids = np.minimum(corpus.word_ids, 0)
    for n in tqdm(range(1, max_n + 1), desc="counting", unit=" levels", disable=not progress):
        keys, counts = _count_level(corpus, ids, n, bound)
        if min_documents > 1:
            numbered = _number(corpus.word_ids, ids, n, *_hash_keys(keys))
            kept = _count_documents(corpus.word_ids, numbered, keys.size) >= min_documents
            keys, counts = keys[kept], counts[kept]
        found = np.concatenate([*(level.counts for level in levels), counts])
        if found.size >= num_ngrams:
            bound = max(bound, int(np.partition(found, found.size - num_ngrams)[found.size - num_ngrams]))
        kept = counts >= bound
        levels.append(_Level(keys=keys[kept], counts=counts[kept]))
        logger.info("level %d: %d n-grams, %d may stay (count >= %d)", n, keys.size, levels[-1].keys.size, bound)
        if n < max_n:
            ids = _number(corpus.word_ids, ids, n, *_hash_keys(levels[-1].keys))
    return levels


def _count_level(corpus: Corpus, ids: Ids, n: int, bound: int) -> tuple[Keys, Counts]:
    """Return the keys, sorted, and the counts of the n-grams of n words that occur at least `bound` times."""
    if n == 1:
        occurrences = np.bincount(corpus.word_ids + 1, minlength=len(corpus.words) + 1)[1:]
        frequent = np.flatnonzero(occurrences >= bound)
        return frequent.astype(np.uint64), occurrences[frequent]
    keys: Keys = _live_keys(corpus.word_ids, ids, n)
    keys.sort()
    distinct, counts = _run_lengths(keys, bound)
    return distinct, counts


def _select(levels: list[_Level], words: list[bytes], num_ngrams: int) -> dict[str, Any]:
    """Return the arrays of the vocabulary of the most frequent n-grams."""
    starts = np.cumsum([0, *(level.keys.size for level in levels)])
    counts = np.concatenate([level.counts for level in levels])
    word_ids = np.concatenate([level.keys & np.uint64(0xFFFFFFFF) for level in levels]).astype(np.int64)
    prefixes = np.concatenate(
        [
            np.full(level.keys.size, -1) if n == 0 else (level.keys >> np.uint64(32)).astype(np.int64) + starts[n - 1]
            for n, level in enumerate(levels)
        ]
    )
    # Levels stand one behind the other, each sorted by words: a stable sort by count alone is the order wanted.
    order = np.argsort(-counts, kind="stable")[:num_ngrams]
    nodes = np.full(counts.size + 1, -1, dtype=np.int32)
    nodes[order] = np.arange(order.size, dtype=np.int32)
    # Every word of an n-gram is an n-gram itself and at least as frequent: it stands before.
    kept_words = word_ids[order[order < starts[1]]]
    new_ids = np.full(len(words), -1, dtype=np.int32)
    new_ids[kept_words] = np.arange(kept_words.size, dtype=np.int32)
    texts = [words[index] for index in kept_words.tolist()]
    return {
        "words": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "word_offsets": np.cumsum([0, *map(len, texts)], dtype=np.int64),
        "node_prefix": nodes[prefixes[order]],
        "node_word": new_ids[word_ids[order]],
        "node_row": np.arange(1, order.size + 1, dtype=np.int32),
        "counts": counts[order],
    }


@jit
def _is_live(ids: Ids, place: int, n: int) -> bool:
    """Return whether an n-gram of n words may begin at a place: its prefix and its suffix are in the race."""
    return ids[place] >= 0 and (n == 1 or ids[place + 1] >= 0)


@jit
def _live_keys(word_ids: Ids, ids: Ids, n: int) -> Keys:
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
def _run_lengths(keys: Keys, bound: int) -> tuple[Keys, Counts]:
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
def _hash_keys(keys: Keys) -> tuple[Keys, Ids]:
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
def _number(word_ids: Ids, ids: Ids, n: int, slot_keys: Keys, slot_ids: Ids) -> Ids:
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


@jit
def _count_documents(word_ids: Ids, numbers: Ids, num_ngrams: int) -> Counts:
    """Return in how many texts each n-gram occurs."""
    counts, last = np.zeros(num_ngrams, np.int64), np.full(num_ngrams, -1, np.int64)
    document = 0
    for place in range(word_ids.size):
        if word_ids[place] < 0:
            document += 1
        elif numbers[place] >= 0 and last[numbers[place]] != document:
            counts[numbers[place]] += 1
            last[numbers[place]] = document
    return counts
