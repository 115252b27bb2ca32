r"""Rule `"sklearn"` at the speed of rule `"words"`: the same loops, given another table of characters.

A word of scikit-learn's is a run of `\w` of two characters or more, in lower case. The loops find these runs, and
every other visible ASCII character as a word of its own; what has one character is then left out. Lower case that
depends on neighbours, or takes more than one character, is made by Python before.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.dictionary import Dictionary
from hf_sparse.runtime.jit import Bytes, Ids, Offsets
from hf_sparse.runtime.student_files import LETTER, clean_texts
from hf_sparse.runtime.texts import Clean

_NUM_CODE_POINTS: Final = 0x110000
# A sigma at the end of a word is another letter than elsewhere.
_SIGMA: Final = 0x3A3
# The bit of a table's entry that says: lower case by `str.lower`.
_BY_PYTHON: Final = np.uint32(1 << 31)
# Bytes of UTF-8 that begin no character.
_CONTINUATION: Final = 0x80


class SklearnWords:
    """Numbers the words of texts by rule `"sklearn"` (see `Dictionary`)."""

    def __init__(self, clean: Clean) -> None:
        table = word_characters()
        self._words = Dictionary(table & ~_BY_PYTHON, clean, clean_texts, _lower, lambda _: table < _BY_PYTHON)
        # Whether each word of the dictionary has two characters or more; at the end, what stands behind a text.
        self._is_word = np.ones(1, dtype=np.bool_)

    def number(self, texts: Sequence[str]) -> Ids:
        """Return the numbers of the words of texts, with -1 behind each text."""
        numbers = self._words.number(texts)
        blob, offsets = self._words.words()
        known = self._is_word.size - 1
        if offsets.size - 1 > known:
            begins = (blob[offsets[known] :] & 0xC0) != _CONTINUATION
            sizes = np.add.reduceat(begins, offsets[known:-1] - offsets[known], dtype=np.int64)
            self._is_word = np.concatenate([self._is_word[:-1], sizes > 1, [True]])
        return numbers[self._is_word[numbers]]

    def words(self) -> tuple[Bytes, Offsets]:
        """Return the words numbered so far, and others that have no place in any text."""
        return self._words.words()


@cache
def word_characters() -> npt.NDArray[np.uint32]:
    """Return the table of all code points for rule `"sklearn"`, by the Unicode data of this Python; read-only.

    Returns:
        (1114112,) uint32 as `code_point_table` has it; bit 31 is set where only `str.lower` knows the lower case.
    """
    table = np.empty(_NUM_CODE_POINTS, dtype=np.uint32)
    # A few at a time: as many strings at once would take 80 MB.
    for first in range(0, _NUM_CODE_POINTS, 4096):
        lowered = [chr(code_point).lower() for code_point in range(first, first + 4096)]
        table[first : first + 4096] = [ord(text) | _class(text) << 24 if len(text) == 1 else 0 for text in lowered]
        table[[first + index for index, text in enumerate(lowered) if len(text) != 1]] = _BY_PYTHON
    table[_SIGMA] |= _BY_PYTHON
    table.setflags(write=False)
    return table


def _class(character: str) -> int:
    return LETTER if character.isalnum() or character == "_" else 0


def _lower(texts: Sequence[str]) -> list[str]:
    return [text.lower() for text in texts]
