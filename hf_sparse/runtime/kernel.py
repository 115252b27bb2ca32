"""The compiled twin of the student's NumPy extraction: the same ids, some times faster.

The other files have the loops; here is what Python sees of them. A student's own code imports this module where it is
installed, and hands over its arrays and its table of code points: the format of a vocabulary is all they agree on.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.extraction import Tables, extract_ngrams
from hf_sparse.runtime.jit import Bytes
from hf_sparse.runtime.ngram_table import build_ngrams
from hf_sparse.runtime.splitting import PADDING, split_text
from hf_sparse.runtime.texts import Clean, Encoder
from hf_sparse.runtime.word_table import build_words

# The formats of `vocabulary.safetensors` that these kernels read. Students on the Hub carry the code that calls
# `CompiledExtractor`: a change of how it is called needs a new format too.
FORMAT_VERSIONS: Final = frozenset({1})


class Vocabulary(Protocol):
    """What the kernel reads of an `NgramVocabulary`, the package's own or the one that came with a student."""

    @property
    def words(self) -> Bytes:
        """Distinct words in UTF-8, end to end."""
        ...

    @property
    def word_offsets(self) -> npt.NDArray[np.int64]:
        """Offsets of the words (W + 1,)."""
        ...

    @property
    def node_prefix(self) -> npt.NDArray[np.int32]:
        """Node of the prefix of each node (M,), -1 for single words."""
        ...

    @property
    def node_word(self) -> npt.NDArray[np.int32]:
        """Last word of each node (M,)."""
        ...

    @property
    def node_row(self) -> npt.NDArray[np.int32]:
        """Row of each node (M,), -1 for none."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows of the student's table, row 0 included."""
        ...

    @property
    def max_n(self) -> int:
        """Number of words of the longest n-gram."""
        ...

    @property
    def clean(self) -> Clean:
        """Cleaning of the texts."""
        ...


class CompiledExtractor:
    """Turns texts into n-gram ids by the rule `"words"`; the arrays of the vocabulary have been validated."""

    def __init__(self, vocabulary: Vocabulary, table: npt.NDArray[np.uint32]) -> None:
        """Build the look-up tables.

        Args:
            vocabulary: A validated vocabulary.
            table: (1114112,) uint32, the lower case and class of each code point: the student's own.
        """
        self._clean = vocabulary.clean
        self._table = table
        self._encoder: Encoder | None = None
        self.tables = build_tables(vocabulary, table)

    def extract(
        self,
        texts: Sequence[str],
        clean_texts: Callable[[Sequence[str], Clean], Sequence[str]],
        normalise_texts: Callable[[Sequence[str]], list[str]],
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the ids (N,) int32 of the n-grams of texts and the number of ids (B,) int64 of each.

        Args:
            texts: B texts.
            clean_texts: The student's cleaning, for texts that must be normalised.
            normalise_texts: The student's step before the splitting, for texts that it changes.
        """
        if self._encoder is None:
            self._encoder = Encoder(self._table, self._clean, clean_texts, normalise_texts)
        ids, lengths = extract_ngrams(self._encoder.encode(texts), self.tables)
        return ids, lengths

    def words(self, text: str) -> list[str]:
        """Return the words of one text that has been cleaned and normalised."""
        raw = np.frombuffer(text.encode("utf-8", "surrogatepass") + bytes(PADDING), dtype=np.uint8)
        lowered, starts, ends = split_text(raw, False, self.tables[0])
        blob = lowered.tobytes()
        return [blob[start:end].decode("utf-8") for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def build_tables(vocabulary: Vocabulary, table: npt.NDArray[np.uint32]) -> Tables:
    """Return what the loops read of a vocabulary, with its nodes renumbered: a node is its row where it has one."""
    rows, prefixes = vocabulary.node_row, vocabulary.node_prefix
    nodes = np.where(rows > 0, rows, 0).astype(np.int32)
    rowless = np.flatnonzero(rows <= 0)
    nodes[rowless] = vocabulary.num_rows + np.arange(rowless.size)
    offsets = read_only(vocabulary.word_offsets)
    num_words = offsets.size - 1
    is_single = prefixes < 0
    single_nodes = np.zeros(num_words, dtype=np.int32)
    single_nodes[vocabulary.node_word[is_single]] = nodes[is_single]
    blob = read_only(np.concatenate((vocabulary.words, np.zeros(8, dtype=np.uint8))))
    longer = ~is_single
    ngrams = build_ngrams(nodes[longer], nodes[prefixes[longer]], vocabulary.node_word[longer], num_words)
    word_slots = build_words(blob, offsets, single_nodes)
    return read_only(table), (word_slots, blob, offsets), ngrams, vocabulary.num_rows, vocabulary.max_n


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a contiguous read-only view: numba compiles once for read-only and once for writable arrays."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view
