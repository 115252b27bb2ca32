"""Write `hf_sparse/student/unicode_sparse_ngram.py`, the table of code points that the word rule is pinned to.

The table is made once, with the Unicode 14.0 data of Python 3.11, and committed: a student must split words the same
way under every later Python. Run `python -m hf_sparse.vocabulary.unicode_table` under Python 3.11 to write it again;
a test makes it again and compares.
"""

import base64
import sys
import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

UNICODE_VERSION: Final = "14.0.0"
NUM_CODE_POINTS: Final = sys.maxunicode + 1
SEPARATOR, LETTER, ALONE, DROPPED = range(4)

# Names rather than ranges: `unicodedata` knows no scripts, and these prefixes cover every letter of the four scripts
# that are written without spaces and read character by character.
_ALONE_NAMES: Final = (
    "CJK UNIFIED IDEOGRAPH",
    "CJK COMPATIBILITY IDEOGRAPH",
    "IDEOGRAPHIC",
    "HANGZHOU NUMERAL",
    "HIRAGANA",
    "HENTAIGANA",
    "KATAKANA",
    "BOPOMOFO",
)
_VARIATION_SELECTORS: Final = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
TARGET: Final = Path(__file__).parents[1] / "student" / "unicode_sparse_ngram.py"


def classify(code_point: int) -> int:
    """Return the class of a code point: `SEPARATOR`, `LETTER`, `ALONE` or `DROPPED`."""
    character = chr(code_point)
    category = unicodedata.category(character)
    if category == "Cf" or any(code_point in selectors for selectors in _VARIATION_SELECTORS):
        return SEPARATOR if category == "Cn" else DROPPED
    if category[0] in "CZ":
        return SEPARATOR
    if category[0] in "PS" and category != "Pc":
        return ALONE
    return ALONE if unicodedata.name(character, "").startswith(_ALONE_NAMES) else LETTER


def lower(code_point: int) -> int:
    """Return the one code point that a code point becomes in lower case, whatever stands around it."""
    # Only U+0130 has a longer lower case: `i` and a combining dot.
    return ord(chr(code_point).lower()[0])


def encode_numbers(numbers: list[int]) -> bytes:
    """Write non-negative integers as little-endian base-128 digits, the high bit set on all but the last digit."""
    encoded = bytearray()
    for number in numbers:
        rest = number
        while rest >= 128:
            encoded.append(rest & 127 | 128)
            rest >>= 7
        encoded.append(rest)
    return bytes(encoded)


def class_runs() -> list[int]:
    """Return every run of equal classes as the number `length * 4 + class`."""
    runs: list[list[int]] = []
    for code_point in range(NUM_CODE_POINTS):
        kind = classify(code_point)
        if runs and runs[-1][1] == kind:
            runs[-1][0] += 1
        else:
            runs.append([1, kind])
    return [length * 4 + kind for length, kind in runs]


def _lower_runs() -> Iterator[tuple[int, int, int, int]]:
    """Yield runs of upper-case code points at a step of 1 or 2 with one distance: (start, step, number, distance)."""
    changed = {point: lower(point) - point for point in range(NUM_CODE_POINTS) if lower(point) != point}
    while changed:
        start = min(changed)
        distance = changed[start]
        step = 1 if changed.get(start + 1) == distance else 2
        number = 1
        while changed.get(start + step * number) == distance:
            number += 1
        for index in range(number):
            del changed[start + step * index]
        yield start, step, number, distance


def lower_runs() -> list[int]:
    """Return the lower-casing as four numbers a run: start - previous start, step, number, zigzag of the distance."""
    numbers: list[int] = []
    previous = 0
    for start, step, number, distance in _lower_runs():
        numbers += [start - previous, step, number, 2 * distance if distance >= 0 else -2 * distance - 1]
        previous = start
    return numbers


_MODULE: Final = '''\
"""The code points of Unicode {version}: class and lower case of each, pinned so that no Python changes them.

Written by `python -m hf_sparse.vocabulary.unicode_table`; do not edit. The classes are those of the word rule in
`words_sparse_ngram.py`. Both strings are base-85 of little-endian base-128 numbers (high bit: more digits follow).
"""

import base64
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

UNICODE_VERSION: Final = "{version}"
SEPARATOR: Final = 0
LETTER: Final = 1
ALONE: Final = 2
DROPPED: Final = 3

# One number a run of equal classes: length * 4 + class.
_CLASS_RUNS: Final = (
{classes}
)

# Four numbers a run of upper-case code points that lie at one distance from their lower case:
# start - previous start, step, number of code points, distance (2 * d, or -2 * d - 1 when negative).
_LOWER_RUNS: Final = (
{lowers}
)


def _numbers(text: str) -> npt.NDArray[np.int64]:
    """Decode a string of base-128 numbers."""
    digits = np.frombuffer(base64.b85decode(text), dtype=np.uint8).astype(np.int64)
    starts = np.flatnonzero(np.concatenate(([True], digits[:-1] < 128)))
    position = np.arange(digits.size) - np.repeat(starts, np.diff(np.append(starts, digits.size)))
    numbers: npt.NDArray[np.int64] = np.add.reduceat((digits & 127) << (7 * position), starts)
    return numbers


@cache
def code_point_table() -> npt.NDArray[np.uint32]:
    """Return the table of all code points, made on the first call and then shared; read-only.

    Returns:
        (1114112,) uint32: the lower-case code point in bits 0-23, the class in bits 24-31.
    """
    runs = _numbers(_CLASS_RUNS)
    classes = np.repeat((runs & 3).astype(np.uint32), runs >> 2)
    table = np.arange(classes.size, dtype=np.uint32)
    start = 0
    for gap, step, number, zigzag in _numbers(_LOWER_RUNS).reshape(-1, 4).tolist():
        start += gap
        table[start : start + step * number : step] += np.uint32(((zigzag >> 1) ^ -(zigzag & 1)) & 0xFFFFFFFF)
    table |= classes << np.uint32(24)
    table.setflags(write=False)
    return table
'''


def _quoted(numbers: list[int]) -> str:
    """Return the numbers as lines of Python string literals."""
    text = base64.b85encode(encode_numbers(numbers)).decode("ascii")
    return "\n".join(f'    "{line}"' for line in textwrap.wrap(text, 110, break_on_hyphens=False))


def module_text() -> str:
    """Return the text of the table's module.

    Raises:
        RuntimeError: This Python's Unicode data are not version 14.0.0.
    """
    if unicodedata.unidata_version != UNICODE_VERSION:
        raise RuntimeError(
            f"the table is pinned to Unicode {UNICODE_VERSION} (Python 3.11), "
            f"but this Python knows {unicodedata.unidata_version}"
        )
    return _MODULE.format(version=UNICODE_VERSION, classes=_quoted(class_runs()), lowers=_quoted(lower_runs()))


if __name__ == "__main__":
    TARGET.write_text(module_text(), encoding="utf-8")
