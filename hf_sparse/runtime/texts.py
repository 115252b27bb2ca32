"""Python strings as one run of UTF-8 bytes that the loops can read, without work for each text in Python."""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.extraction import Texts
from hf_sparse.runtime.jit import Bytes, Flags, Offsets
from hf_sparse.runtime.splitting import PADDING, find_changes

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
        find_unchanged: Callable[[npt.NDArray[np.uint32]], Flags] | None = None,
    ) -> None:
        """Keep what the student does with its texts.

        Args:
            table: (1114112,) uint32, the lower case and class of each code point: the student's own.
            clean: Which cleaning is to be done; the loops do it themselves.
            clean_texts: The student's cleaning, for texts that need the next step.
            normalise_texts: The student's step before the splitting, for texts that it changes.
            find_unchanged: Which code points (1114112,) that step leaves as they are wherever they stand, given the
                table; None: those of rule `"words"`.
        """
        self._table = table
        self._unchanged: Flags | None = None
        self._clean = clean
        self._clean_texts = clean_texts
        self._normalise_texts = normalise_texts
        self._find_unchanged = find_unchanged or unchanged_code_points

    def encode(self, texts: Sequence[str]) -> Texts:
        """Return the bytes of B texts, ready for the loops.

        Raises:
            ValueError: The texts have 2 GB or more.
        """
        must_clean = np.full(len(texts), self._clean == "html")
        if all(map(str.isascii, texts)):
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))
            return _bytes("".join((*texts, _END)).encode("ascii")), _offsets(lengths), must_clean
        if self._unchanged is None:  # takes some 50 ms, which only texts that are not ASCII pay
            self._unchanged = self._find_unchanged(self._table)
        # Joined as strings, all of them would take up to four bytes a character.
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        raw, offsets = _join(encoded)
        chosen = np.flatnonzero(find_changes(raw, offsets, self._unchanged)).tolist()
        if chosen:
            cleaned = self._clean_texts([texts[index] for index in chosen], self._clean)
            for index, text in zip(chosen, self._normalise_texts(cleaned), strict=True):
                encoded[index] = text.encode("utf-8", "surrogatepass")
            # Cleaned before what normalising made of them: it may bring forth a `<` that is none.
            must_clean[chosen] = False
            raw, offsets = _join(encoded)
        return raw, offsets, must_clean


def _join(encoded: Sequence[bytes]) -> tuple[Bytes, Offsets]:
    """Return texts of UTF-8 end to end, with `PADDING` bytes behind them, and their offsets (B + 1,)."""
    return _bytes(b"".join((*encoded, bytes(PADDING)))), _offsets(
        np.fromiter(map(len, encoded), np.int64, len(encoded))
    )


def _bytes(joined: bytes) -> Bytes:
    raw = np.frombuffer(joined, dtype=np.uint8)
    if raw.size >= 1 << 31:
        raise ValueError(f"texts of 2 GB or more cannot be read at once, got {raw.size} bytes: cut them into parts")
    return raw


def _offsets(lengths: Offsets) -> Offsets:
    offsets = np.zeros(lengths.size + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def unchanged_code_points(table: npt.NDArray[np.uint32]) -> Flags:
    """Return which code points (1114112,) a text may have and still be its own NFKC form, separators aside.

    These neither decompose, nor join what stands before them, nor are reordered: the quick check of Unicode Standard
    Annex 15 with "maybe" counted as "no". Separators become spaces before; what is dropped must be seen to.
    """
    stable = _stable_code_points()
    unchanged: Flags = table < np.uint32(_SEPARATOR + 1 << 24)
    unchanged[: stable.size] |= stable & (table[: stable.size] >> np.uint32(24) != _DROPPED)
    return unchanged


@cache
def _stable_code_points() -> Flags:
    """Return which of the first code points are their own NFKC form wherever they stand."""
    stable = np.empty(_LAST_CHECKED + 1, dtype=np.bool_)
    joining = {code_point for jamo in _JOINING_JAMO for code_point in jamo}
    # A few at a time: as many strings at once would leave memory behind that the system does not get back.
    for first in range(0, stable.size, 1024):
        characters = list(map(chr, range(first, min(first + 1024, stable.size))))
        for decomposition in filter(None, map(unicodedata.decomposition, characters)):
            parts = decomposition.split()
            if len(parts) == 2 and not parts[0].startswith("<"):
                joining.add(int(parts[1], 16))
        here = slice(first, first + len(characters))
        stable[here] = [unicodedata.is_normalized("NFKC", character) for character in characters]
        stable[here] &= np.fromiter(map(unicodedata.combining, characters), np.int64, len(characters)) == 0
    stable[[code_point for code_point in joining if code_point < stable.size]] = False
    return stable
