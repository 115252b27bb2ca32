"""The vocabulary of n-grams: a trie in six arrays and one file, `vocabulary.safetensors`.

An n-gram is a node: the node of its prefix and the id of its last word. No n-gram is kept as a string; its text is
rebuilt by walking the prefixes. Nodes are sorted by count (descending), then n (ascending), then words in code-point
order, word by word, and an n-gram is at most as frequent as its prefix, so a prefix always stands before its
continuations. Nodes are not rows: a node that is there only as the prefix of others has row -1. Row 0 of the student's
table is padding, row 1 the most frequent n-gram.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from .lookup_sparse_ngram import NgramLookup
from .vocabulary_format_sparse_ngram import FORMAT_VERSION, read_fields, serialise
from .words_sparse_ngram import HF_PREFIX, Clean, check_word_rule, resolve_clean

VOCABULARY_FILE: Final = "vocabulary.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class NgramVocabulary:
    """Which n-grams have a row, and under which word rule; W words, M nodes.

    `words` (bytes,) uint8 holds the distinct words in UTF-8 end to end and `word_offsets` (W + 1,) int64 where each
    begins. `node_prefix` (M,) int32 is the node of all words but the last, -1 for a single word; `node_word` (M,)
    int32 the last word's id; `node_row` (M,) int32 the row of the student's table, -1 for none. `counts` (M,) int64
    are the counts in the corpus, when known. `num_rows` counts the rows of the table, the padding row included.
    `tokenizer_json` (bytes,) uint8 is the tokenizer of a word rule `"hf:"`.
    """

    words: npt.NDArray[np.uint8]
    word_offsets: npt.NDArray[np.int64]
    node_prefix: npt.NDArray[np.int32]
    node_word: npt.NDArray[np.int32]
    node_row: npt.NDArray[np.int32]
    max_n: int
    num_rows: int
    word_rule: str = "words"
    clean: Clean = "html"
    counts: npt.NDArray[np.int64] | None = None
    tokenizer_json: npt.NDArray[np.uint8] | None = None
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[tuple[str, ...], int],
        *,
        word_rule: str = "words",
        clean: str | None = None,
        tokenizer_json: bytes | None = None,
    ) -> "NgramVocabulary":
        """Build a vocabulary of the given n-grams, for small ones; large ones come from counting a corpus.

        A prefix that is missing becomes a node without a row, with the count of its most frequent continuation.

        Args:
            counts: The count of each n-gram, given as the tuple of its words.
            word_rule: The rule that splits texts into these words.
            clean: How texts are cleaned; None is the default of the word rule.
            tokenizer_json: The tokenizer of a word rule `"hf:"`.

        Raises:
            ValueError: An n-gram is empty, or the word rule or the cleaning does not exist.
        """
        if () in counts:
            raise ValueError("an n-gram must have at least one word, got ()")
        known: dict[tuple[str, ...], int] = {}
        for ngram, count in counts.items():
            for n in range(1, len(ngram) + 1):
                known[ngram[:n]] = max(known.get(ngram[:n], 0), count)
        ngrams = sorted(known, key=lambda ngram: (-known[ngram], len(ngram), ngram))
        words = list(dict.fromkeys([*(ngram[0] for ngram in ngrams if len(ngram) == 1), *(g[-1] for g in ngrams)]))
        word_ids = {word: index for index, word in enumerate(words)}
        nodes = {ngram: node for node, ngram in enumerate(ngrams)}
        has_row = np.array([ngram in counts for ngram in ngrams], dtype=bool)
        blob, offsets = pack_words(words)
        vocabulary = cls(
            words=blob,
            word_offsets=offsets,
            node_prefix=np.array([nodes.get(ngram[:-1], -1) for ngram in ngrams], dtype=np.int32),
            node_word=np.array([word_ids[ngram[-1]] for ngram in ngrams], dtype=np.int32),
            node_row=np.where(has_row, np.cumsum(has_row), -1).astype(np.int32),
            counts=np.array([known[ngram] for ngram in ngrams], dtype=np.int64),
            max_n=max(map(len, ngrams), default=1),
            num_rows=len(counts) + 1,
            word_rule=word_rule,
            clean=resolve_clean(word_rule, clean),
            tokenizer_json=None if tokenizer_json is None else np.frombuffer(tokenizer_json, dtype=np.uint8),
        )
        vocabulary.validate()
        return vocabulary

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "NgramVocabulary":
        """Read and validate a vocabulary.

        Args:
            path: The file, or the folder that holds a `vocabulary.safetensors`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is truncated, not a vocabulary, of an unknown format version, or breaks a rule that
                `validate` checks; the message names the file.
        """
        file = Path(path) / VOCABULARY_FILE if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"there is no vocabulary at {file}")
        try:
            vocabulary = cls(**read_fields(file))
            vocabulary.validate()
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not a valid vocabulary: {error}") from error
        with file.open("rb") as stream:
            # A cached property keeps its value in `__dict__`: the hash is the file's, whoever wrote it.
            vocabulary.__dict__["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
        return vocabulary

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the vocabulary in one step: the file is there whole, or as it was before.

        Args:
            path: The file, or a folder, in which it becomes `vocabulary.safetensors`.

        Returns:
            The file written.

        Raises:
            OSError: The file could not be written (a full disk); nothing is left behind.
        """
        file = Path(path) / VOCABULARY_FILE if Path(path).is_dir() else Path(path)
        descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                for part in serialise(self):
                    stream.write(part)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OSError(error.errno, f"could not write the vocabulary to {file}: {error.strerror}") from error
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return file

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the vocabulary's file, in hexadecimal; equal vocabularies have equal files."""
        digest = hashlib.sha256()
        for part in serialise(self):
            digest.update(part)
        return digest.hexdigest()

    @property
    def num_words(self) -> int:
        """The number of distinct words."""
        return self.word_offsets.size - 1

    @property
    def num_ngrams(self) -> int:
        """The number of n-grams that have a row."""
        return int(np.count_nonzero(self.node_row > 0))

    @property
    def is_word(self) -> npt.NDArray[np.uint8]:
        """1 for the rows (V,) of single words, 0 for those of longer n-grams and padding."""
        marks = np.zeros(self.num_rows, dtype=np.uint8)
        marks[self.node_row[(self.node_prefix < 0) & (self.node_row > 0)]] = 1
        return marks

    @cached_property
    def word_list(self) -> list[str]:
        """The words as strings, by id."""
        return unpack_words(self.words, self.word_offsets)

    @cached_property
    def lookup(self) -> NgramLookup:
        """The exact look-up of the trie, made on first use."""
        return NgramLookup(self.node_prefix, self.node_word, self.num_words)

    def ngram_words(self, row: int) -> tuple[str, ...]:
        """Return the words of the n-gram of a row.

        Raises:
            ValueError: No n-gram has this row.
        """
        node = int(self._row_nodes[row]) if 0 < row < self.num_rows else -1
        if node < 0:
            raise ValueError(f"no n-gram has row {row}: rows go from 1 to {self.num_rows - 1}")
        words: list[str] = []
        while node >= 0:
            words.append(self._word(int(self.node_word[node])))
            node = int(self.node_prefix[node])
        return tuple(reversed(words))

    def ngram_text(self, row: int) -> str:
        """Return the words of the n-gram of a row with spaces between them."""
        return " ".join(self.ngram_words(row))

    def row_of(self, words: Sequence[str]) -> int:
        """Return the row of an n-gram given as its words, -1 when it has none."""
        node = -1
        for n, word in enumerate(words):
            word_id = np.array([self._word_ids.get(word, -1)], dtype=np.int32)
            if word_id[0] < 0:
                return -1
            single = n == 0
            prefix = np.array([node], dtype=np.int32)
            node = int((self.lookup.find_single(word_id) if single else self.lookup.find_longer(prefix, word_id))[0])
            if node < 0:
                return -1
        return int(self.node_row[node]) if node >= 0 else -1

    def validate(self) -> None:
        """Check everything that the look-ups and the compiled kernel take for granted.

        Raises:
            ValueError: Something is out of range; the message says what.
        """
        check_word_rule(self.word_rule)
        resolve_clean(self.word_rule, self.clean)
        if self.word_rule.startswith(HF_PREFIX) and self.tokenizer_json is None:
            raise ValueError(f"the word rule {self.word_rule!r} needs its tokenizer, but tokenizer_json is missing")
        self._validate_words()
        self._validate_nodes()
        self._validate_rows()

    def _validate_words(self) -> None:
        offsets = self.word_offsets
        ordered = offsets.size > 0 and offsets[0] == 0 and offsets[-1] == self.words.size
        if not ordered or bool(np.any(np.diff(offsets) <= 0)):
            raise ValueError("word_offsets must rise from 0 to the length of words, and no word may be empty")
        try:
            words = self.word_list
        except UnicodeDecodeError as error:
            raise ValueError(f"words is not valid UTF-8: {error}") from error
        if len(set(words)) < len(words):
            raise ValueError("words must be distinct")

    def _validate_nodes(self) -> None:
        num_nodes = self.node_prefix.size
        if self.node_word.size != num_nodes or self.node_row.size != num_nodes:
            raise ValueError(
                "node_prefix, node_word and node_row must have one length, got "
                f"{num_nodes}, {self.node_word.size} and {self.node_row.size}"
            )
        if self.counts is not None and self.counts.size != num_nodes:
            raise ValueError(f"counts must have the length of node_prefix, {num_nodes}, got {self.counts.size}")
        if bool(np.any(self.node_prefix < -1)) or bool(np.any(self.node_prefix >= np.arange(num_nodes))):
            raise ValueError("node_prefix must be -1 or the index of an earlier node")
        if bool(np.any(self.node_word < 0)) or bool(np.any(self.node_word >= self.num_words)):
            raise ValueError(f"node_word must lie in 0 .. {self.num_words - 1}, the ids of the words")
        keys = np.sort((self.node_prefix.astype(np.int64) + 1) * max(self.num_words, 1) + self.node_word)
        if bool(np.any(keys[1:] == keys[:-1])):
            raise ValueError("two nodes are the same n-gram")
        deepest = self.node_prefix
        for _ in range(self.max_n - 1):
            deepest = np.where(deepest >= 0, self.node_prefix[deepest], np.int32(-1))
        if self.max_n < 1 or bool(np.any(deepest >= 0)):
            raise ValueError(f"max_n is {self.max_n}, but a node has more words")

    def _validate_rows(self) -> None:
        rows = self.node_row[self.node_row != -1]
        if bool(np.any(rows < 1)) or bool(np.any(rows >= self.num_rows)):
            raise ValueError(f"node_row must be -1 or lie in 1 .. num_rows - 1 = {self.num_rows - 1}")
        if rows.size and int(np.bincount(rows).max()) > 1:
            raise ValueError("two nodes have the same row")

    @cached_property
    def _row_nodes(self) -> npt.NDArray[np.int32]:
        nodes = np.full(self.num_rows, -1, dtype=np.int32)
        with_row = np.flatnonzero(self.node_row > 0)
        nodes[self.node_row[with_row]] = with_row
        return nodes

    @cached_property
    def _word_ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.word_list)}

    def _word(self, word_id: int) -> str:
        return bytes(self.words[self.word_offsets[word_id] : self.word_offsets[word_id + 1]]).decode("utf-8")


def pack_words(words: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return words as one run of UTF-8 bytes (bytes,) and the offsets (W + 1,) of its parts.

    Raises:
        ValueError: A word holds a lone surrogate, which UTF-8 cannot.
    """
    try:
        encoded = [word.encode("utf-8") for word in words]
    except UnicodeEncodeError as error:
        raise ValueError(f"words must not hold lone surrogates, got {error.object!r}") from error
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def unpack_words(words: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> list[str]:
    """Return the words of one run of UTF-8 bytes (bytes,) with their offsets (W + 1,)."""
    blob = words.tobytes()
    if blob.isascii():
        text = blob.decode("ascii")
        return [text[start:end] for start, end in pairwise(offsets.tolist())]
    return [blob[start:end].decode("utf-8") for start, end in pairwise(offsets.tolist())]
