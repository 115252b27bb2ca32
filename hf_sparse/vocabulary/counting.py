"""Counting n-grams: the most frequent ones of a corpus, exactly, in as much memory as is given.

Parts of the corpus (`parts.py`) are counted one by one, by several threads, each into a run of sorted keys, and the
runs are merged by ranges of keys (`merging.py`), level by level (`levels.py`). Parts, runs and the n-gram that begins
at each word stay in memory, or go to files; then memory depends on the size of a part and on K, not on the corpus, and
a counting that is killed goes on where it was.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from hf_sparse import __version__
from hf_sparse.files import fingerprint, parse_size
from hf_sparse.processors import available_processors
from hf_sparse.runtime.student_files import NgramVocabulary, check_word_rule, resolve_clean
from hf_sparse.vocabulary.levels import Level, LevelCounter
from hf_sparse.vocabulary.merging import Race
from hf_sparse.vocabulary.parts import NamedTexts, Part, named_texts, numbering_of, read_parts
from hf_sparse.vocabulary.shelf import Shelf
from hf_sparse.vocabulary.word_tokenizer import read_tokenizer

# Bytes of memory for each character of a part that is being made or counted: 5 characters a word, 40 bytes a word and
# key, the texts themselves, and the new words of a part at worst.
_CHARACTER_BYTES: Final = 24
# The same for each word of a part that is counted.
_WORD_BYTES: Final = 60
# What Python and the libraries take, and the least that can be done with the rest.
_BASE_BYTES: Final = 400_000_000
_SMALLEST_MEMORY: Final = 700_000_000
_UNBOUNDED: Final = 1 << 40
# Where memory would allow more: small enough for many threads, large enough for what a part costs by itself.
_PART_CHARACTERS: Final = 16 << 20


def count_ngrams(
    texts: Iterable[str] | Sequence[NamedTexts],
    *,
    num_ngrams: int,
    max_n: int = 4,
    word_rule: str = "words",
    clean: str | None = None,
    min_documents: int = 1,
    min_count: int = 1,
    memory: int | str | None = None,
    folder: Path | None = None,
    threads: int | None = None,
    progress: bool = True,
    total: int | None = None,
) -> NgramVocabulary:
    """Return the vocabulary of the most frequent n-grams of a corpus.

    Ties at the cut are decided by the order of the vocabulary: shorter n-grams first, then by words.

    Args:
        texts: The texts (the documents); read once. No n-gram crosses from one to the next. Or sets of texts by name:
            those whose parts are in the folder are not read.
        num_ngrams: How many n-grams to keep; where there are fewer, all.
        max_n: The number of words of the longest n-grams.
        word_rule: `"words"`, `"sklearn"` or `"hf:<repo or folder>"`; see `words_sparse_ngram.py`.
        clean: `"html"` or `"none"`; None is the default of the word rule.
        min_documents: Leave out n-grams that occur in fewer texts.
        min_count: Leave out n-grams that occur fewer times.
        memory: Bytes of memory to use, as a number or as `"2GB"`; the rest goes to files. What is chosen must fit:
            about 100 bytes for each of the `num_ngrams`. None keeps everything in memory.
        folder: For these files; an interrupted counting of the same texts goes on from what it finds there. The caller
            removes it. None is a temporary folder if memory is bounded.
        threads: How many to use; None is one for each processor.
        progress: Whether to show progress bars on stderr.
        total: The number of texts, for the bar's estimate, where `texts` has no length.

    Raises:
        ValueError: A number is below 1, the word rule or the cleaning does not exist, or there is no n-gram to keep.
        TypeError: A text is not a string.
    """
    counting = Counting(
        num_ngrams=num_ngrams,
        max_n=max_n,
        word_rule=word_rule,
        clean=clean,
        min_documents=min_documents,
        min_count=min_count,
        memory=memory,
        threads=threads,
        progress=progress,
    )
    with _workplace(folder, is_bounded=memory is not None) as place:
        return counting.vocabulary(texts, place, total=total)


class Counting:
    """A counting, whole or step by step, so that the steps can be shared out; see `count_ngrams` for the arguments."""

    def __init__(
        self,
        *,
        num_ngrams: int,
        max_n: int = 4,
        word_rule: str = "words",
        clean: str | None = None,
        min_documents: int = 1,
        min_count: int = 1,
        memory: int | str | None = None,
        threads: int | None = None,
        progress: bool = True,
    ) -> None:
        self._threads = threads if threads is not None else len(available_processors())
        self._limits = {
            "num_ngrams": num_ngrams,
            "max_n": max_n,
            "min_documents": min_documents,
            "min_count": min_count,
        }
        for name, value in (self._limits | {"threads": self._threads}).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._budget = _Budget.of(memory, threads=self._threads)
        check_word_rule(word_rule)
        self._word_rule, self._clean = word_rule, resolve_clean(word_rule, clean)
        self._tokenizer = read_tokenizer(word_rule)
        self._progress = progress

    def vocabulary(
        self, texts: Iterable[str] | Sequence[NamedTexts], place: Path | None, *, total: int | None = None
    ) -> NgramVocabulary:
        """Do all that is not there yet, and return the vocabulary."""
        counter, num_texts = self._counter(texts, place, total=total)
        words, levels = counter.count(self._limits["max_n"])
        if not levels[0].keys.size:
            raise ValueError(
                f"no n-gram of the {num_texts} texts occurs {self._limits['min_count']} times in "
                f"{self._limits['min_documents']} texts; lower min_documents (in a recipe vocabulary.min_documents) "
                "or name more texts"
            )
        arrays = _select(levels, words, self._limits["num_ngrams"])
        return NgramVocabulary(
            **arrays,
            max_n=self._limits["max_n"],
            num_rows=arrays["node_row"].size + 1,
            word_rule=self._word_rule,
            clean=self._clean,
            tokenizer_json=None if self._tokenizer is None else np.frombuffer(self._tokenizer, dtype=np.uint8),
        )

    def read(self, texts: Sequence[NamedTexts], place: Path) -> None:
        """Make the parts of a share of the texts."""
        self._parts(texts, place, total=None)

    def merge(self, texts: Sequence[NamedTexts], place: Path, *, n: int) -> None:
        """Finish all levels up to n, from whatever runs are there."""
        self._counter(texts, place)[0].count(self._limits["max_n"], stop=n)

    def count_share(self, texts: Sequence[NamedTexts], place: Path, *, n: int, rank: int, num_shares: int) -> None:
        """Write the runs of a share of the parts for level n; the levels before are there."""
        self._counter(texts, place)[0].count_share(n, self._limits["max_n"], rank=rank, num_shares=num_shares)

    def _counter(
        self, texts: Iterable[str] | Sequence[NamedTexts], place: Path | None, *, total: int | None = None
    ) -> tuple[LevelCounter, int]:
        """Return what counts the levels, and the number of texts."""
        parts, shelf = self._parts(texts, place, total=total)
        num_texts = sum(part.num_texts for part in parts)
        if not any(part.num_words for part in parts):
            raise ValueError(f"there are no words in the corpus of {num_texts} texts: nothing to count")
        limits, digests = self._limits, [part.digest for part in parts]
        counter = LevelCounter(
            parts=[part for part in parts if part.num_words],
            part_shelf=shelf,
            shelf=_shelf(place, "counts", limits | {"parts": digests} | self._settings()),
            race=Race(
                num_ngrams=limits["num_ngrams"],
                min_documents=limits["min_documents"],
                bound=max(limits["min_count"], limits["min_documents"]),
            ),
            memory=self._budget.memory,
            threads=self._budget.threads_for(parts),
            progress=self._progress,
        )
        return counter, num_texts

    def _parts(
        self, texts: Iterable[str] | Sequence[NamedTexts], place: Path | None, *, total: int | None
    ) -> tuple[list[Part], Shelf]:
        settings = self._settings()
        if not named_texts(texts):  # their parts are found again by what they are cut into
            settings["characters"] = self._budget.part_characters
        shelf = _shelf(place, "parts", settings)
        parts = read_parts(
            texts,
            shelf,
            new_numbering=numbering_of(self._word_rule, self._clean, self._tokenizer),
            part_characters=self._budget.part_characters,
            threads=self._threads,
            progress=self._progress,
            total=total,
        )
        return parts, shelf

    def _settings(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._tokenizer or b"").hexdigest()
        return {"version": __version__, "word_rule": self._word_rule, "clean": self._clean, "tokenizer": digest}


@dataclass(frozen=True, kw_only=True)
class _Budget:
    """How much is in memory at a time."""

    memory: int
    threads: int
    part_characters: int

    @classmethod
    def of(cls, memory: int | str | None, *, threads: int) -> "_Budget":
        if memory is None:
            return cls(memory=_UNBOUNDED, threads=threads, part_characters=_PART_CHARACTERS)
        size = parse_size(memory) if isinstance(memory, str) else memory
        if size < _SMALLEST_MEMORY:
            raise ValueError(f"memory must be at least {_SMALLEST_MEMORY // 10**6}MB, got {memory}")
        # A third for what is shared: the n-grams of a level, and the table that finds them.
        free = (size - _BASE_BYTES) * 2 // 3
        part = free // (threads * _CHARACTER_BYTES)
        return cls(memory=free, threads=threads, part_characters=min(part, _PART_CHARACTERS))

    def threads_for(self, parts: Sequence[Part]) -> int:
        """Return how many parts fit into memory at a time; others than this process may have made them, larger."""
        largest = max(part.num_words for part in parts) * _WORD_BYTES
        return max(1, min(self.threads, self.memory // largest))


@contextmanager
def _workplace(folder: Path | None, *, is_bounded: bool) -> Iterator[Path | None]:
    """Yield the folder for files: the one that is given, a temporary one, or none where all stays in memory."""
    if folder is None and is_bounded:
        with tempfile.TemporaryDirectory(prefix="hf-sparse-count-") as temporary:
            yield Path(temporary)
    else:
        yield folder


def _shelf(place: Path | None, name: str, settings: Mapping[str, Any]) -> Shelf:
    """Return the shelf of a step; what other settings have left there is another shelf's."""
    return Shelf(None if place is None else place / f"{name}-{fingerprint(settings)[:16]}")


def _select(levels: list[Level], words: pa.LargeBinaryArray, num_ngrams: int) -> dict[str, Any]:
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
    texts = words.take(pa.array(kept_words)).to_pylist()
    return {
        "words": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "word_offsets": np.cumsum([0, *map(len, texts)], dtype=np.int64),
        "node_prefix": nodes[prefixes[order]],
        "node_word": new_ids[word_ids[order]],
        "node_row": np.arange(1, order.size + 1, dtype=np.int32),
        "counts": counts[order],
    }
