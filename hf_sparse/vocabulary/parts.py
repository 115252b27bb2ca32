"""A corpus in parts, each of which numbers its own words: what one thread, process or machine can do alone.

A part holds 4 bytes a word and every distinct word once, in memory or in a file. Parts are consecutive texts, cut by
their number of characters alone, so that a counting that was interrupted finds the same parts again.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from hf_sparse.runtime.dictionary import Dictionary
from hf_sparse.runtime.jit import Bytes, Ids, Keys, Offsets, jit
from hf_sparse.runtime.student_files import (
    clean_texts,
    code_point_table,
    encode_tokens,
    load_tokenizer,
    normalise_texts,
)
from hf_sparse.runtime.texts import Clean
from hf_sparse.vocabulary.shelf import Array, Shelf
from hf_sparse.vocabulary.sklearn_words import SklearnWords

# A batch leaves room in the dictionary for as many new words.
_BATCH_CHARACTERS: Final = 1 << 18
_BATCH_TEXTS: Final = 1 << 12
# In the place of a word: behind the last one of a text, and a token that is no word.
END: Final = -1
NO_WORD: Final = -2


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part on a shelf.

    The group `name` has `numbers` (T,) int32, the words of all texts, `END` behind each text; and of the words, by
    number, `hashes` (W,) in rising order, `blob` and `offsets` of their UTF-8, how often they occur (`counts`) and in
    how many texts (`documents`). `digest` is that of the texts, empty where the part ends with the process.
    """

    name: str
    digest: str
    num_texts: int
    num_words: int
    num_distinct: int


class _Numbering(Protocol):
    """Numbers the words of batches of texts as they come."""

    def number(self, texts: Sequence[str]) -> Ids:
        """Return the numbers of the words of texts, with `END` behind each text."""
        ...

    def words(self) -> tuple[Bytes, Offsets]:
        """Return the words numbered so far: their UTF-8, and where each begins (W + 1,)."""
        ...


def numbering_of(word_rule: str, clean: Clean, tokenizer_json: bytes | None) -> Callable[[], _Numbering]:
    """Return what makes an empty numbering of a word rule."""
    if word_rule == "words":
        return lambda: Dictionary(code_point_table(), clean, clean_texts, normalise_texts)
    if word_rule == "sklearn":
        return lambda: SklearnWords(clean)
    assert tokenizer_json is not None, "a rule hf: comes with its tokenizer"
    return lambda: _Tokens(clean, tokenizer_json)


@dataclass(frozen=True, kw_only=True)
class NamedTexts:
    """Texts of which the parts can be made alone, without those of others.

    Attributes:
        name: Stands for them in names of files; other texts in the same folder have other names.
        read: Yields the texts.
    """

    name: str
    read: Callable[[], Iterable[str]]


def read_parts(
    texts: Iterable[str] | Sequence[NamedTexts],
    shelf: Shelf,
    *,
    new_numbering: Callable[[], _Numbering],
    part_characters: int,
    threads: int,
    progress: bool,
    total: int | None,
) -> list[Part]:
    """Split texts into words and number the words, part by part; parts that are on the shelf already are kept.

    Args:
        texts: The texts, read once; or sets of them by name, of which those that are done are not read again.
        shelf: Where the parts go.
        new_numbering: Makes an empty numbering.
        part_characters: How many characters make a part.
        threads: How many parts are made at a time.
        progress: Whether to show a progress bar on stderr.
        total: The number of texts, for the bar's estimate, where `texts` has no length.

    Raises:
        TypeError: `texts` is one string, or one of them is not a string.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be many strings, got one")
    sets = named_texts(texts) or [NamedTexts(name="", read=lambda: cast("Iterable[str]", texts))]
    size = total if total is not None or sets[0].name else len(texts) if isinstance(texts, Sequence) else None
    found: list[list[Part]] = []
    waiting: deque[tuple[NamedTexts, list[Part], Future[Part] | None]] = deque()
    with (
        tqdm(total=size, desc="reading", unit=" texts", unit_scale=True, disable=not progress) as bar,
        ThreadPoolExecutor(threads, "hf-sparse-parts") as pool,
    ):

        def take() -> None:
            each, parts, future = waiting.popleft()
            if future is None:
                _remember_parts(each, parts, shelf)
            else:
                parts.append(future.result())
                bar.update(parts[-1].num_texts)

        for each in sets:
            known = _parts_of(each, shelf)
            found.append(known or [])
            if known is not None:
                bar.update(sum(part.num_texts for part in known))
                continue
            prefix = f"{each.name}-" if each.name else ""
            for number, batches in enumerate(_group(_batches(each.read()), part_characters)):
                future = pool.submit(_make_part, f"{prefix}part-{number:05}", batches, shelf, new_numbering)
                waiting.append((each, found[-1], future))
                # No more than one beside those that are being made: their texts are in memory.
                while sum(future is not None for _, _, future in waiting) > threads:
                    take()
            waiting.append((each, found[-1], None))
        while waiting:
            take()
    return [part for parts in found for part in parts]


def named_texts(texts: Iterable[str] | Sequence[NamedTexts]) -> list[NamedTexts]:
    """Return the sets of texts if they have names, else nothing."""
    if not isinstance(texts, Sequence):
        return []
    return [each for each in texts if isinstance(each, NamedTexts)]


def _remember_parts(texts: NamedTexts, parts: Sequence[Part], shelf: Shelf) -> None:
    if texts.name and shelf.outlives_process:
        content = json.dumps([asdict(part) for part in parts]).encode()
        shelf.put(f"set-{texts.name}", {"parts": np.frombuffer(content, dtype=np.uint8)})


def _parts_of(texts: NamedTexts, shelf: Shelf) -> list[Part] | None:
    """Return the parts of a set that has been read, None if it has not."""
    if not texts.name or f"set-{texts.name}" not in shelf:
        return None
    return [Part(**each) for each in json.loads(shelf.get(f"set-{texts.name}", "parts").tobytes())]


def _make_part(name: str, batches: list[list[str]], shelf: Shelf, new_numbering: Callable[[], _Numbering]) -> Part:
    digest = _digest(batches) if shelf.outlives_process else b""
    num_texts = sum(map(len, batches))

    def made(numbers: Ids, num_distinct: int) -> Part:
        num_words = numbers.size - num_texts
        counts = {"num_texts": num_texts, "num_words": num_words, "num_distinct": num_distinct}
        return Part(name=name, digest=digest.hex(), **counts)

    if name in shelf and shelf.get(name, "digest").tobytes() == digest:
        return made(shelf.get(name, "numbers"), shelf.get(name, "hashes").size)
    numbering = new_numbering()
    numbers = np.concatenate([numbering.number(batch) for batch in batches])
    blob, offsets = numbering.words()
    counts, documents = _tally(numbers, offsets.size - 1)
    hashes = _hash_words(blob, offsets)
    # Tokens that never occur are no words of the part.
    order = np.flatnonzero(counts)
    order = order[np.argsort(hashes[order], kind="stable")]
    ranks = np.full(offsets.size + 1, END, dtype=np.int32)
    ranks[NO_WORD] = NO_WORD
    ranks[order] = np.arange(order.size, dtype=np.int32)
    new_offsets = np.zeros(order.size + 1, dtype=np.int64)
    np.cumsum(np.diff(offsets)[order], out=new_offsets[1:])
    group: dict[str, Array] = {
        "digest": np.frombuffer(digest, dtype=np.uint8),
        "numbers": ranks[numbers],
        "hashes": hashes[order],
        "blob": _gather_words(blob, offsets, order, new_offsets),
        "offsets": new_offsets,
        "counts": counts[order],
        "documents": documents[order],
    }
    shelf.put(name, group)
    return made(numbers, order.size)


def _digest(batches: Sequence[Sequence[str]]) -> bytes:
    """Return the sha256 of texts and their lengths."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(np.fromiter(map(len, batch), np.int64, len(batch)).tobytes())
        digest.update("".join(batch).encode("utf-8", "surrogatepass"))
    return digest.digest()


def _group(batches: Iterable[list[str]], characters: int) -> Iterator[list[list[str]]]:
    group: list[list[str]] = []
    size = 0
    for batch in batches:
        group.append(batch)
        size += sum(map(len, batch))
        if size >= characters:
            yield group
            group, size = [], 0
    if group:
        yield group


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"texts must be strings, got {type(text).__name__}")
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS or len(batch) == _BATCH_TEXTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@jit
def _tally(numbers: Ids, num_words: int) -> tuple[Offsets, Offsets]:
    """Return how often each word occurs, and in how many texts."""
    counts, documents = np.zeros(num_words, np.int64), np.zeros(num_words, np.int64)
    last = np.full(num_words, -1, np.int64)
    document = 0
    for place in range(numbers.size):
        number = numbers[place]
        if number >= 0:
            counts[number] += 1
            documents[number] += last[number] != document
            last[number] = document
        elif number == END:
            document += 1
    return counts, documents


@jit
def _hash_words(blob: Bytes, offsets: Offsets) -> Keys:
    """Return a hash of each word (FNV-1a, 64 bits): it says which words are merged together, not which are equal."""
    hashes = np.empty(offsets.size - 1, np.uint64)
    for word in range(hashes.size):
        value = np.uint64(0xCBF29CE484222325)
        for place in range(offsets[word], offsets[word + 1]):
            value = (value ^ np.uint64(blob[place])) * np.uint64(0x100000001B3)
        # The high bits of short words differ little.
        hashes[word] = (value ^ value >> np.uint64(29)) * np.uint64(0x9E3779B97F4A7C15)
    return hashes


@jit
def _gather_words(blob: Bytes, offsets: Offsets, order: Offsets, new_offsets: Offsets) -> Bytes:
    """Return the UTF-8 of words in another order."""
    gathered = np.empty(new_offsets[-1], np.uint8)
    for index in range(order.size):
        start = offsets[order[index]]
        for place in range(new_offsets[index + 1] - new_offsets[index]):
            gathered[new_offsets[index] + place] = blob[start + place]
    return gathered


def _close_texts(numbers: npt.NDArray[np.int32], num_words: npt.NDArray[np.int64]) -> Ids:
    """Return word numbers (T,) of texts of `num_words` (B,) words with `END` behind each text."""
    closed: Ids = np.insert(numbers, np.cumsum(num_words), END)
    return closed


def _join(words: Iterable[bytes]) -> tuple[Bytes, Offsets]:
    parts = list(words)
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offsets[1:])
    return np.frombuffer(b"".join(parts), dtype=np.uint8), offsets


class _Tokens:
    """A rule `"hf:"`: token ids are word numbers already."""

    def __init__(self, clean: Clean, tokenizer_json: bytes) -> None:
        self._clean = clean
        self._tokenizer = load_tokenizer(tokenizer_json)
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self._words = [b""] * (max(ids.values(), default=-1) + 1)
        for token, number in ids.items():
            self._words[number] = token.encode("utf-8")
        # A token without text is no word; n-grams end there.
        self._numbers = np.array([n if word else NO_WORD for n, word in enumerate(self._words)], dtype=np.int32)

    def number(self, texts: Sequence[str]) -> Ids:
        tokens, num_tokens = encode_tokens(self._tokenizer, clean_texts(texts, self._clean))
        return _close_texts(self._numbers[tokens], num_tokens)

    def words(self) -> tuple[Bytes, Offsets]:
        return _join(self._words)
