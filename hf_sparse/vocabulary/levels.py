"""The n-grams of a corpus, level by level.

An n-gram is at most as frequent as its prefix and its suffix of n - 1 words. So the n-grams of n words are looked for
only where both are still in the race (Apriori: Agrawal and Srikant 1994): at least as frequent as the K-th most
frequent n-gram found so far. Whatever lies below that bound cannot be among the K. What is counted at a level are
64-bit keys, number of the prefix and id of the last word, sorted and run-length encoded: no hash, no approximation.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from hf_sparse.runtime.jit import Ids, Keys, Offsets
from hf_sparse.vocabulary.merging import (
    SAMPLE_EVERY,
    Race,
    find_words,
    merge_runs,
    merge_words,
    to_arrays,
    to_words,
)
from hf_sparse.vocabulary.occurrences import count_documents, hash_keys, live_keys, number_ngrams, run_lengths
from hf_sparse.vocabulary.parts import END, NO_WORD, Part
from hf_sparse.vocabulary.shelf import Array, Shelf

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Level:
    """The n-grams of one n still in the race, sorted by words: `prefix << 32 | word` (M,) and their counts (M,).

    A prefix is an index into the level before.
    """

    keys: Keys
    counts: Offsets


@dataclass(frozen=True, kw_only=True)
class LevelCounter:
    """Counts the levels of one corpus.

    Attributes:
        parts: The parts that have words.
        part_shelf: Where these are.
        shelf: Where what is found goes.
        race: How many n-grams are wanted, and how frequent they must be.
        memory: Bytes for the parts that are counted, or the ranges that are merged, at a time.
        threads: How many parts or ranges that is.
        progress: Whether to show bars on stderr.
    """

    parts: Sequence[Part]
    part_shelf: Shelf
    shelf: Shelf
    race: Race
    memory: int
    threads: int
    progress: bool

    def count(self, max_n: int, *, stop: int | None = None) -> tuple[pa.LargeBinaryArray, list[Level]]:
        """Return the words, and for every n up to `max_n` the n-grams that may be among the most frequent.

        Args:
            max_n: The longest n-grams.
            stop: Go no further than to these.
        """
        words, first = self._words()
        levels = [first]
        self._log(1, first)
        for n in range(2, min(max_n, stop or max_n) + 1):
            levels.append(self._level(n, levels[-1], words, is_last=n == max_n))
            self._log(n, levels[-1])
        return words, levels

    def count_share(self, n: int, max_n: int, *, rank: int, num_shares: int) -> None:
        """Write the runs of every `num_shares`-th part for a level, of which the levels before are there."""
        words, levels = self.count(max_n, stop=n - 1)
        if f"level-{n}" not in self.shelf:
            self._runs(n, levels[-1], words, self.parts[rank::num_shares], is_last=n == max_n)

    def _words(self) -> tuple[pa.LargeBinaryArray, Level]:
        """Return the words in the race and, as a level, their counts."""
        if "words" not in self.shelf:
            words, counts = merge_words(
                self.parts, self.part_shelf, self.race, memory=self.memory, threads=self.threads
            )
            self.shelf.put("words", to_arrays(words) | {"counts": counts})
        words = to_words(self.shelf.get("words", "blob"), self.shelf.get("words", "offsets"))
        counts = self.shelf.get("words", "counts")
        self.race.tighten(counts)
        self.race.counts.append(counts)
        return words, Level(keys=np.arange(len(words), dtype=np.uint64), counts=counts)

    def _runs(
        self, n: int, before: Level, words: pa.LargeBinaryArray, parts: Sequence[Part], *, is_last: bool
    ) -> None:
        if n == 2:
            self._for_each("finding words", parts, lambda part: self._find_words(part, words))
        slots = hash_keys(before.keys) if n > 2 else None
        self._for_each(f"counting {n}-grams", parts, lambda part: self._count_part(part, n, slots, is_last=is_last))

    def _level(self, n: int, before: Level, words: pa.LargeBinaryArray, *, is_last: bool) -> Level:
        name = f"level-{n}"
        if name not in self.shelf:
            self._runs(n, before, words, self.parts, is_last=is_last)
            runs = [f"run-{n}-{part.name}" for part in self.parts]
            keys, counts = merge_runs(runs, self.shelf, self.race, memory=self.memory, threads=self.threads)
            self.shelf.put(name, {"keys": keys, "counts": counts})
            for run in runs:
                self.shelf.drop(run)
        level = Level(keys=self.shelf.get(name, "keys"), counts=self.shelf.get(name, "counts"))
        self.race.tighten(level.counts)
        self.race.counts.append(level.counts)
        return level

    def _find_words(self, part: Part, words: pa.LargeBinaryArray) -> None:
        name = f"ids-{part.name}"
        if name not in self.shelf:
            self.shelf.put(name, {"ids": find_words(part, self.part_shelf, words)})

    def _count_part(self, part: Part, n: int, slots: tuple[Keys, Ids] | None, *, is_last: bool) -> None:
        """Write the run of a part, and which n-gram of n - 1 words begins at each of its words."""
        shelf, run = self.shelf, f"run-{n}-{part.name}"
        if run in shelf:
            return
        ids = np.append(shelf.get(f"ids-{part.name}", "ids"), np.array([NO_WORD, END], dtype=np.int32))
        words: Ids = ids[self.part_shelf.get(part.name, "numbers")]
        begins = np.maximum(words, END)
        if slots is not None:
            begins = begins if n == 3 else shelf.get(f"begins-{n - 2}-{part.name}", "begins")
            begins = number_ngrams(words, begins, n - 1, *slots)
            if not is_last:
                shelf.put(f"begins-{n - 1}-{part.name}", {"begins": begins})
        keys = live_keys(words, begins, n)
        keys.sort()
        distinct, counts = run_lengths(keys, 1)
        del keys
        group: dict[str, Array] = {"keys": distinct, "counts": counts.astype(np.uint32)}
        group["sample"] = distinct[::SAMPLE_EVERY].copy()
        if self.race.min_documents > 1:
            documents = count_documents(words, begins, n, distinct, counts)
            group["documents"] = documents.astype(np.uint32)
        shelf.put(run, group)
        shelf.drop(f"begins-{n - 2}-{part.name}")

    def _for_each(self, what: str, parts: Sequence[Part], work: Callable[[Part], None]) -> None:
        with (
            ThreadPoolExecutor(self.threads, "hf-sparse-count") as pool,
            tqdm(total=len(parts), desc=what, unit=" parts", disable=not self.progress) as bar,
        ):
            for _ in pool.map(work, parts):
                bar.update()

    def _log(self, n: int, level: Level) -> None:
        logger.info("level %d: %d n-grams may stay (count >= %d)", n, level.keys.size, self.race.bound)
