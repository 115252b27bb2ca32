"""A corpus as word ids: 4 bytes a word, each distinct word kept once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from hf_sparse.runtime.dictionary import Dictionary
from hf_sparse.student.unicode_sparse_ngram import code_point_table
from hf_sparse.student.words_sparse_ngram import (
    Clean,
    clean_texts,
    encode_tokens,
    load_tokenizer,
    normalise_texts,
    split_sklearn,
)

_BATCH_CHARACTERS: Final = 1 << 20
_BATCH_TEXTS: Final = 1 << 12


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts as ids: `word_ids` (T,) int32 holds the words of all texts, with -1 behind each text.

    Ids are those of `words` (W,), in UTF-8 and sorted: the order of ids is the order of words by code point.
    """

    word_ids: npt.NDArray[np.int32]
    words: list[bytes]
    num_texts: int


class _Numbering(Protocol):
    """Numbers the words of batches of texts as they come."""

    def number(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the numbers of the words of texts, with -1 behind each text."""
        ...

    def words(self) -> list[bytes]:
        """Return the words numbered so far."""
        ...


def read_corpus(
    texts: Iterable[str],
    *,
    word_rule: str,
    clean: Clean,
    tokenizer_json: bytes | None = None,
    progress: bool = True,
    total: int | None = None,
) -> Corpus:
    """Split texts into words and number the words.

    Args:
        texts: The texts; read once, batch by batch.
        word_rule: The rule that splits them.
        clean: How they are cleaned first.
        tokenizer_json: The tokenizer of a word rule `"hf:"`.
        progress: Whether to show a progress bar on stderr.
        total: The number of texts, for the bar's estimate, where `texts` has no length.

    Raises:
        TypeError: `texts` is one string, or one of them is not a string.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be many strings, got one")
    numbering: _Numbering
    if word_rule == "words":
        numbering = Dictionary(code_point_table(), clean, clean_texts, normalise_texts)
    elif word_rule == "sklearn":
        numbering = _Sklearn(clean)
    else:
        assert tokenizer_json is not None, "a rule hf: comes with its tokenizer"
        numbering = _Tokens(clean, tokenizer_json)
    size = total if total is not None else len(texts) if isinstance(texts, Sequence) else None
    parts = [np.zeros(0, dtype=np.int32)]
    num_texts = 0
    with tqdm(total=size, desc="reading", unit=" texts", unit_scale=True, disable=not progress) as bar:
        for batch in _batches(texts):
            parts.append(numbering.number(batch))
            num_texts += len(batch)
            bar.update(len(batch))
    word_ids = np.concatenate(parts)
    words, ranks = _sort(numbering.words())
    word_ids[:] = ranks[word_ids]
    return Corpus(word_ids=word_ids, words=words, num_texts=num_texts)


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


def _sort(words: list[bytes]) -> tuple[list[bytes], npt.NDArray[np.int32]]:
    """Return the words sorted and the new number of each old one, with -1 for -1 at the end."""
    order = sorted(range(len(words)), key=words.__getitem__)
    ranks = np.full(len(words) + 1, -1, dtype=np.int32)
    ranks[order] = np.arange(len(words), dtype=np.int32)
    return [words[index] for index in order], ranks


def _close_texts(word_ids: npt.NDArray[np.int32], num_words: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Return word ids (T,) of texts of `num_words` (B,) words with -1 behind each text."""
    closed: npt.NDArray[np.int32] = np.insert(word_ids, np.cumsum(num_words), -1)
    return closed


class _Sklearn:
    """Rule `"sklearn"`, by a Python dictionary."""

    def __init__(self, clean: Clean) -> None:
        self._clean = clean
        self._numbers: defaultdict[str, int] = defaultdict(count().__next__)

    def number(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        words = split_sklearn(clean_texts(texts, self._clean))
        num_words = np.fromiter(map(len, words), np.int64, len(words))
        numbers = map(self._numbers.__getitem__, chain.from_iterable(words))
        return _close_texts(np.fromiter(numbers, np.int32, int(num_words.sum())), num_words)

    def words(self) -> list[bytes]:
        return [word.encode("utf-8") for word in self._numbers]


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
        self._numbers = np.array([n if word else -1 for n, word in enumerate(self._words)], dtype=np.int32)

    def number(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        tokens, num_tokens = encode_tokens(self._tokenizer, clean_texts(texts, self._clean))
        return _close_texts(self._numbers[tokens], num_tokens)

    def words(self) -> list[bytes]:
        return self._words
