"""From texts to the row ids of their n-grams, for whole batches at once.

This is the NumPy path, which needs nothing but the files of the student. Where the package `hf_sparse` is installed
and knows the vocabulary's format, its compiled kernel gives the same ids, some times faster.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .lookup_sparse_ngram import WordLookup
from .unicode_sparse_ngram import code_point_table
from .vocabulary_sparse_ngram import NgramVocabulary
from .words_sparse_ngram import (
    HF_PREFIX,
    clean_texts,
    encode_tokens,
    load_tokenizer,
    normalise_texts,
    segment_texts,
    split_sklearn,
    word_strings,
)

# A batch is cut into chunks of about this many characters and at most this many texts, to bound the memory taken.
_CHUNK_CHARACTERS: Final = 1 << 20
_CHUNK_TEXTS: Final = 1 << 13


@dataclass(frozen=True, kw_only=True)
class NgramBatch:
    """The n-grams of B texts, end to end: `ids` (N,) int32, of which `lengths` (B,) int64 belong to each text."""

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]


class NgramExtractor:
    """Turns texts into the row ids of their n-grams.

    The ids of a text stand in the order of the word an n-gram begins with, shorter n-grams first; an n-gram that
    occurs twice is there twice. What has no row is left out.
    """

    def __init__(self, vocabulary: NgramVocabulary, *, compiled: bool | None = None) -> None:
        """Prepare the look-ups.

        Args:
            vocabulary: The n-grams and their rows.
            compiled: Whether to use the compiled kernel of the package `hf_sparse`; None uses it when it is installed
                and knows the format of the vocabulary.

        Raises:
            ValueError: `compiled` is True and there is no kernel for this vocabulary.
        """
        self.vocabulary = vocabulary
        self._kernel = None if compiled is False else _load_kernel(vocabulary)
        if compiled and self._kernel is None:
            raise ValueError(
                f"there is no compiled kernel for word rule {vocabulary.word_rule!r} and format version "
                f"{vocabulary.format_version} here: leave `compiled` at None, or install a newer hf-sparse"
            )
        if self._kernel is None:
            _ = vocabulary.lookup

    @property
    def is_compiled(self) -> bool:
        """Whether the compiled kernel is in use."""
        return self._kernel is not None

    def extract(self, texts: Iterable[str], *, max_length: int | None = None) -> NgramBatch:
        """Return the n-gram ids of texts.

        Args:
            texts: B texts; any `str` will do.
            max_length: How many ids to keep of each text, from its start; None keeps all.

        Raises:
            ValueError: `max_length` is negative.
            TypeError: `texts` is one string, or one of them is not a string.
        """
        texts = texts if isinstance(texts, list | tuple | str) else list(texts)
        if isinstance(texts, str) or not all(map(str.__instancecheck__, texts)):
            raise TypeError("texts must be strings in a list or another iterable")
        if max_length is not None and max_length < 0:
            raise ValueError(f"max_length must be at least 0, got {max_length}")
        ids, lengths = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int64)]
        for chunk in _chunks(texts):
            chunk_ids, chunk_lengths = self._extract(chunk)
            if max_length is not None:
                chunk_ids, chunk_lengths = _truncate(chunk_ids, chunk_lengths, max_length)
            ids.append(chunk_ids)
            lengths.append(chunk_lengths)
        return NgramBatch(ids=np.concatenate(ids), lengths=np.concatenate(lengths))

    def words(self, text: str) -> list[str]:
        """Return the words of a text, those too that are not in the vocabulary."""
        cleaned = clean_texts([text], self.vocabulary.clean)
        if self.vocabulary.word_rule == "words":
            if self._kernel is not None:
                return list(self._kernel.words(normalise_texts(cleaned)[0]))
            return word_strings(segment_texts(cleaned, "none"))
        if self.vocabulary.word_rule == "sklearn":
            return split_sklearn(cleaned)[0]
        tokens, _ = encode_tokens(self._tokenizer, cleaned)
        return [self._tokenizer.id_to_token(token) for token in tokens.tolist()]

    def _extract(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        if self._kernel is not None:
            result: tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]] = self._kernel.extract(
                texts, clean_texts, normalise_texts
            )
            return result
        word_ids, num_words = self._find_words(texts)
        return self._find_ngrams(word_ids, num_words)

    def _find_words(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the word ids (T,) of all texts, -1 for unknown words, and the number of words (B,) of each."""
        if self.vocabulary.word_rule == "words":
            segments = segment_texts(texts, self.vocabulary.clean)
            return self._word_lookup.find(segments), segments.num_words
        cleaned = clean_texts(texts, self.vocabulary.clean)
        if self.vocabulary.word_rule.startswith(HF_PREFIX):
            tokens, num_tokens = encode_tokens(self._tokenizer, cleaned)
            return self._token_words[tokens], num_tokens
        words = split_sklearn(cleaned)
        num_words = np.fromiter(map(len, words), np.int64, len(words))
        ids = (self._word_ids.get(word, -1) for text_words in words for word in text_words)
        return np.fromiter(ids, np.int32, int(num_words.sum())), num_words

    def _find_ngrams(
        self, word_ids: npt.NDArray[np.int32], num_words: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the ids (N,) and lengths (B,) of texts given as word ids (T,) and numbers of words (B,)."""
        vocabulary, lookup = self.vocabulary, self.vocabulary.lookup
        # After each text stands a word -1, at which every n-gram ends.
        text_ends = np.cumsum(num_words + 1)
        words = np.full(word_ids.size + num_words.size, -1, dtype=np.int32)
        is_word = np.ones(words.size, dtype=bool)
        is_word[text_ends - 1] = False
        words[is_word] = word_ids
        rows = np.full((words.size, vocabulary.max_n), -1, dtype=np.int32)
        nodes = lookup.find_single(words)
        places = np.flatnonzero(nodes >= 0)
        nodes = nodes[places]
        rows[places, 0] = vocabulary.node_row[nodes]
        for n in range(1, vocabulary.max_n):
            following = words[places + n]
            known = following >= 0
            places, following, nodes = places[known], following[known], nodes[known]
            nodes = lookup.find_longer(nodes, following)
            places, nodes = places[nodes >= 0], nodes[nodes >= 0]
            rows[places, n] = vocabulary.node_row[nodes]
        kept = rows > 0
        before = np.concatenate(([0], np.cumsum(np.count_nonzero(kept, axis=1))[text_ends - 1]))
        return rows[kept], np.diff(before)

    @cached_property
    def _word_lookup(self) -> WordLookup:
        return WordLookup(self.vocabulary.word_list)

    @cached_property
    def _word_ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.vocabulary.word_list)}

    @cached_property
    def _tokenizer(self) -> Any:
        assert self.vocabulary.tokenizer_json is not None, "validate() requires a tokenizer for the rule hf:"
        return load_tokenizer(self.vocabulary.tokenizer_json.tobytes())

    @cached_property
    def _token_words(self) -> npt.NDArray[np.int32]:
        """The word id of each token id, -1 for tokens that are not in the vocabulary."""
        tokens = self._tokenizer.get_vocab(with_added_tokens=True)
        word_ids = np.full(max(tokens.values(), default=0) + 1, -1, dtype=np.int32)
        for token, token_id in tokens.items():
            word_ids[token_id] = self._word_ids.get(token, -1)
        return word_ids


def _load_kernel(vocabulary: NgramVocabulary) -> Any:
    """Return the compiled kernel for a vocabulary, or None where `hf_sparse` or numba is missing or too old."""
    try:
        from hf_sparse.runtime.kernel import FORMAT_VERSIONS, CompiledExtractor
    except ImportError:
        return None
    if vocabulary.word_rule != "words" or vocabulary.format_version not in FORMAT_VERSIONS:
        return None
    return CompiledExtractor(vocabulary, code_point_table())


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut texts into chunks of bounded size; a single long text is a chunk of its own."""
    first, characters = 0, 0
    for index, text in enumerate(texts):
        if index > first and (characters + len(text) > _CHUNK_CHARACTERS or index - first == _CHUNK_TEXTS):
            yield texts[first:index]
            first, characters = index, 0
        characters += len(text)
    if first < len(texts):
        yield texts[first:]


def _truncate(
    ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64], max_length: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Keep the first `max_length` ids of each text."""
    if not bool(np.any(lengths > max_length)):
        return ids, lengths
    starts = np.cumsum(lengths) - lengths
    kept = np.arange(ids.size) - np.repeat(starts, lengths) < max_length
    return ids[kept], np.minimum(lengths, max_length)
