"""The compiled twin of the student's NumPy extraction: the same ids, some times faster.

`compiled.py` has the loops; here is what Python sees of them. A student's own code imports this module where it is
installed, and hands over its arrays and its table of code points: the format of a vocabulary is all they agree on.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.compiled import Bytes, build_entries, build_word_slots, extract_ngrams, split_text

Clean: TypeAlias = Literal["html", "none"]

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
        self._characters = (read_only(table), ascii_table(table))
        blob, offsets = read_only(vocabulary.words), read_only(vocabulary.word_offsets)
        prefixes, words = read_only(vocabulary.node_prefix), read_only(vocabulary.node_word)
        num_words = offsets.size - 1
        word_slots = build_word_slots(blob, offsets, prefixes, words)
        self._words = (word_slots, blob, offsets)
        self._ngrams = (*build_entries(prefixes, words, num_words), (num_words).bit_length())
        self._rows = read_only(np.concatenate((np.zeros(1, dtype=np.int32), vocabulary.node_row)))
        self._max_n = vocabulary.max_n

    def extract(
        self,
        texts: Sequence[str],
        clean_texts: Callable[[Sequence[str], Clean], Sequence[str]],
        normalise_texts: Callable[[Sequence[str]], list[str]],
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Return the ids (N,) int32 of the n-grams of texts and the number of ids (B,) int64 of each.

        Args:
            texts: B texts.
            clean_texts: The student's cleaning, for texts that are not ASCII.
            normalise_texts: The student's step before the splitting, for texts that are not ASCII.
        """
        raw, offsets, cleaned = encode(texts, self._clean, clean_texts, normalise_texts)
        ids, lengths = extract_ngrams(
            raw, offsets, cleaned, self._characters, self._words, self._ngrams, self._rows, self._max_n
        )
        return ids, lengths

    def words(self, text: str) -> list[str]:
        """Return the words of one text that has been cleaned and normalised."""
        raw = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
        lowered, ends = split_text(raw, False, self._characters)
        blob = lowered.tobytes()
        return [blob[start:end].decode("utf-8") for start, end in pairwise([0, *ends.tolist()])]


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a contiguous read-only view: numba compiles once for read-only and once for writable arrays."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view


def ascii_table(table: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    """Return (128,) uint16, the class of each ASCII character in the high byte, its lower case in the low one."""
    entries = table[:128]
    return read_only((entries & 127 | entries >> np.uint32(24) << np.uint32(8)).astype(np.uint16))


def encode(
    texts: Sequence[str],
    clean: Clean,
    clean_texts: Callable[[Sequence[str], Clean], Sequence[str]],
    normalise_texts: Callable[[Sequence[str]], list[str]],
) -> tuple[Bytes, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the texts as UTF-8 bytes, ready to be split.

    Args:
        texts: B texts.
        clean: What cleaning is to be done; that of ASCII texts is left to the splitting.
        clean_texts: The student's cleaning, for the other texts.
        normalise_texts: The student's second step of the word rule, for the other texts.

    Returns:
        The bytes end to end, the offsets (B + 1,) of the texts in them, and whether each still has to be cleaned (B,).
    """
    must_clean = np.full(len(texts), clean == "html")
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    if all(map(str.isascii, texts)):
        raw = "".join(texts).encode("ascii")
        np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    else:
        chosen = [index for index, text in enumerate(texts) if not text.isascii()]
        parts = list(texts)
        normalised = normalise_texts(clean_texts([texts[index] for index in chosen], clean))
        for index, text in zip(chosen, normalised, strict=True):
            parts[index] = text
        must_clean[chosen] = False
        encoded = [part.encode("utf-8") for part in parts]
        raw = b"".join(encoded)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    return np.frombuffer(raw, dtype=np.uint8), offsets, must_clean
