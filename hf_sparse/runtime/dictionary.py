"""Numbering the words of a corpus, for the counting of its n-grams."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.jit import Flags
from hf_sparse.runtime.kernel import read_only
from hf_sparse.runtime.numbering import move_slots, number_words
from hf_sparse.runtime.texts import Clean, Encoder


class Dictionary:
    """Numbers the words of texts in the order of their first occurrence, and keeps each word once."""

    def __init__(
        self,
        table: npt.NDArray[np.uint32],
        clean: Clean,
        clean_texts: Callable[[Sequence[str], Clean], Sequence[str]],
        normalise_texts: Callable[[Sequence[str]], list[str]],
        find_unchanged: Callable[[npt.NDArray[np.uint32]], Flags] | None = None,
    ) -> None:
        """Start empty; see `Encoder` for the arguments."""
        self._characters = read_only(table)
        self._encoder = Encoder(table, clean, clean_texts, normalise_texts, find_unchanged)
        self._num_words = 0
        self._slots = np.zeros((16, 2), dtype=np.uint64)
        self._blob = np.zeros(0, dtype=np.uint8)
        self._offsets = np.zeros(1, dtype=np.int64)

    def number(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the numbers of the words of texts, with -1 behind each text."""
        encoded = self._encoder.encode(texts)
        self._reserve(encoded[0].size)
        numbers, self._num_words = number_words(
            encoded, self._characters, self._slots, self._blob, self._offsets, self._num_words
        )
        return np.asarray(numbers, dtype=np.int32)

    def words(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return the words by number: their UTF-8, and where each begins (W + 1,)."""
        offsets = self._offsets[: self._num_words + 1]
        return self._blob[: offsets[-1]], offsets

    def _reserve(self, num_bytes: int) -> None:
        """Make room for texts of some bytes, at worst as many new words, lower case taking 3 bytes for 2."""
        num_words = self._num_words + num_bytes
        # Words are read eight bytes at a time, the last one too.
        blob_size = int(self._offsets[self._num_words]) + 2 * num_bytes + 8
        if num_words >= self._offsets.size:
            self._offsets = np.resize(self._offsets, 2 * num_words + 1)
        if blob_size > self._blob.size:
            self._blob = np.resize(self._blob, 2 * blob_size)
        if 3 * num_words > 2 * len(self._slots):
            slots = np.zeros((1 << (3 * num_words).bit_length(), 2), dtype=np.uint64)
            move_slots(self._slots, slots)
            self._slots = slots
