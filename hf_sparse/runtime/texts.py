"""Python strings as one run of UTF-8 bytes that the loops can read, without work for each text in Python."""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.extraction import Texts
from hf_sparse.runtime.jit import Flags
from hf_sparse.runtime.splitting import PADDING, measure_texts

Clean: TypeAlias = Literal["html", "none"]

_SEPARATOR: Final = 0
_DROPPED: Final = 3
_END: Final = "\0" * PADDING
# Vowels and final consonants of Hangul join what stands before them, by a rule that no table lists.
_JOINING_JAMO: Final = (range(0x1161, 0x1176), range(0x11A8, 0x11C3))
# Rarer characters than those up to here take the long way.
_LAST_CHECKED: Final = 0x1FAFF


class Encoder:
    """Prepares batches of texts for the loops, by one word rule."""

    def __init__(
        self,
        table: npt.NDArray[np.uint32],
        clean: Clean,
        clean_texts: Callable[[Sequence[str], Clean], Sequence[str]],
        normalise_texts: Callable[[Sequence[str]], list[str]],
    ) -> None:
        """Keep what the student does with its texts.

        Args:
            table: (1114112,) uint32, the lower case and class of each code point: the student's own.
            clean: Which cleaning is to be done; the loops do it themselves.
            clean_texts: The student's cleaning, for texts that need the next step.
            normalise_texts: The student's step before the splitting, for texts that it changes.
        """
        self._table = table
        self._unchanged: Flags | None = None
        self._clean = clean
        self._clean_texts = clean_texts
        self._normalise_texts = normalise_texts

    def encode(self, texts: Sequence[str]) -> Texts:
        """Return the bytes of B texts, ready for the loops.

        Raises:
            ValueError: The texts have 2 GB or more.
        """
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        joined = "".join((*texts, _END))
        must_clean = np.full(len(texts), self._clean == "html")
        if joined.isascii():
            offsets = np.zeros(len(texts) + 1, dtype=np.int64)
            np.cumsum(lengths, out=offsets[1:])
            return _bytes(joined), offsets, (np.ones(len(texts), dtype=np.bool_), must_clean)
        if self._unchanged is None:  # takes some 50 ms, which only texts that are not ASCII pay
            self._unchanged = unchanged_code_points(self._table)
        unchanged, raw = self._unchanged, _bytes(joined)
        offsets, is_ascii, changes = measure_texts(raw, lengths, unchanged)
        if changes.any():
            parts = list(texts)
            chosen = np.flatnonzero(changes).tolist()
            cleaned = self._clean_texts([parts[index] for index in chosen], self._clean)
            for index, text in zip(chosen, self._normalise_texts(cleaned), strict=True):
                parts[index] = text
            # Cleaned before what normalising made of them: it may bring forth a `<` that is none.
            must_clean[chosen] = False
            raw = _bytes("".join((*parts, _END)))
            lengths = np.fromiter(map(len, parts), np.int64, len(parts))
            offsets, is_ascii, _ = measure_texts(raw, lengths, unchanged)
        return raw, offsets, (is_ascii, must_clean)


def _bytes(joined: str) -> npt.NDArray[np.uint8]:
    raw = np.frombuffer(joined.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    if raw.size >= 1 << 31:
        raise ValueError(f"texts of 2 GB or more cannot be read at once, got {raw.size} bytes: cut them into parts")
    return raw


def unchanged_code_points(table: npt.NDArray[np.uint32]) -> Flags:
    """Return which code points (1114112,) a text may have and still be its own NFKC form, separators aside.

    These neither decompose, nor join what stands before them, nor are reordered: the quick check of Unicode Standard
    Annex 15 with "maybe" counted as "no". Separators become spaces before; what is dropped must be seen to.
    """
    classes = table >> np.uint32(24)
    unchanged: Flags = classes == _SEPARATOR
    stable = _stable_code_points()
    unchanged[: stable.size] |= stable & (classes[: stable.size] != _DROPPED)
    return unchanged


@cache
def _stable_code_points() -> Flags:
    characters = [chr(code_point) for code_point in range(_LAST_CHECKED + 1)]
    joining = {code_point for jamo in _JOINING_JAMO for code_point in jamo}
    for decomposition in filter(None, map(unicodedata.decomposition, characters)):
        parts = decomposition.split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            joining.add(int(parts[1], 16))
    stable = np.fromiter((unicodedata.is_normalized("NFKC", c) for c in characters), np.bool_)
    stable &= np.fromiter(map(unicodedata.combining, characters), np.int64, len(characters)) == 0
    stable[[code_point for code_point in joining if code_point < stable.size]] = False
    return stable
