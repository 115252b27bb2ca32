"""Rule `"sklearn"` in the counting: the words of `split_sklearn`, text by text, for every character."""

from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse.student.words_sparse_ngram import clean_texts, split_sklearn
from hf_sparse.vocabulary.sklearn_words import SklearnWords, word_characters
from tests.texts import ANY_TEXT

PIECES = st.sampled_from(
    ["a", "ab", "AB", "Σ", "ΑΣ", "İ", "I", "ß", "ǅ", "é", "<br>", "\ud800", "_", "1", " ", "日本", "\u0345"]
)


def split(words: SklearnWords, texts: list[str]) -> list[list[str]]:
    """Return the words that the numbers stand for."""
    numbers = words.number(texts)
    blob, offsets = words.words()
    known = [blob[start:stop].tobytes().decode() for start, stop in pairwise(offsets.tolist())]
    ends = np.flatnonzero(numbers == -1)
    assert len(ends) == len(texts)
    assert ends.size == 0 or ends[-1] == numbers.size - 1
    return [[known[number] for number in part if number >= 0] for part in np.split(numbers, ends)[: len(texts)]]


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(ANY_TEXT | st.lists(PIECES, max_size=8).map("".join), max_size=6),
    clean=st.sampled_from(["html", "none"]),
)
def test_words_of_any_text(texts: list[str], clean: Literal["html", "none"]) -> None:
    """A second batch finds the words of the first."""
    words = SklearnWords(clean)
    expected = split_sklearn(clean_texts(texts, clean))
    assert split(words, texts) == expected
    assert split(words, texts[::-1]) == expected[::-1]


@pytest.mark.parametrize("around", ["a{}b", "a{} ", "{}a", "{}{}"])
def test_every_character(around: str) -> None:
    """In the middle, at the end and at the beginning of a word, and alone."""
    texts = [
        "\n".join(around.format(*2 * [chr(code_point)]) for code_point in range(first, first + 4096))
        for first in range(0, 0x110000, 4096)
    ]
    words = SklearnWords("none")
    assert split(words, texts) == split_sklearn(texts)


def test_lower_case_is_final() -> None:
    """What has been lowered before the loops is left as it is by them."""
    table = word_characters()
    lowered = table[table < 1 << 31] & 0xFFFFFF
    np.testing.assert_array_equal(table[lowered] & 0xFFFFFF, lowered)
    np.testing.assert_array_equal(table[lowered] >> 24, table[table < 1 << 31] >> 24)
