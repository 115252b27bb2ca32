"""The compiled kernel: its tables where they are hard to fill, its words, its manners."""

import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse.runtime import ngram_table
from hf_sparse.runtime.dictionary import Dictionary
from hf_sparse.runtime.kernel import CompiledExtractor
from hf_sparse.runtime.ngram_table import build_ngrams, find_ngrams, spread_key
from hf_sparse.runtime.splitting import word_buffers
from hf_sparse.runtime.texts import Encoder, unchanged_code_points
from hf_sparse.runtime.word_table import find_slot
from hf_sparse.student.extraction_sparse_ngram import NgramExtractor
from hf_sparse.student.unicode_sparse_ngram import code_point_table
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.student.words_sparse_ngram import clean_texts, normalise_texts
from tests import reference
from tests.texts import ANY_TEXT, PIECES


def words_of(dictionary: Dictionary) -> list[bytes]:
    """Return the words of a dictionary, by number."""
    blob, offsets = dictionary.words()
    return [blob[start:stop].tobytes() for start, stop in pairwise(offsets.tolist())]


@pytest.fixture(scope="module")
def kernel() -> CompiledExtractor:
    return CompiledExtractor(NgramVocabulary.from_counts({("a",): 1}), code_point_table())


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
def test_words_are_the_reference_s(kernel: CompiledExtractor, text: str) -> None:
    prepared = normalise_texts(clean_texts([text], "html"))[0]
    assert kernel.words(prepared) == reference.words(text)


# Where blocks of 64 bytes end: behind 64 bytes, before what is not ASCII, and within a break, a word or a symbol.
BLOCK_PIECES = ("a", "B", "7", "_", "I'm", "!", " ", "<br />", "<br", "<", ">", "é", "É", "“", "中", "😀", "\x85", "K")
RUNS = st.tuples(st.sampled_from("x <"), st.integers(50, 70)).map(lambda run: run[0] * run[1])
BLOCKS = st.lists(st.sampled_from(BLOCK_PIECES) | RUNS).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=BLOCKS)
def test_blocks_are_joined(kernel: CompiledExtractor, text: str) -> None:
    """Blocks are cut at every place: the words are the reference's, with the cleaning done by the kernel, too."""
    dictionary = Dictionary(code_point_table(), "html", clean_texts, normalise_texts)
    dictionary.number([text])
    words = reference.words(text)
    assert [word.decode() for word in words_of(dictionary)] == list(dict.fromkeys(words))
    assert kernel.words(normalise_texts(clean_texts([text], "html"))[0]) == words


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(ANY_TEXT, max_size=5), clean=st.sampled_from(["html", "none"]))
def test_dictionary_numbers_words(texts: list[str], clean: str) -> None:
    """Numbers lead back to the words, text by text; a second batch adds to the first."""
    dictionary = Dictionary(code_point_table(), clean, clean_texts, normalise_texts)
    batches = [dictionary.number(batch) for batch in (texts, texts[::-1])]
    words = [word.decode() for word in words_of(dictionary)]
    assert len(set(words)) == len(words)
    for numbers, batch in zip(batches, (texts, texts[::-1]), strict=True):
        expected = [word for text in batch for word in [*reference.words(text, clean), None]]
        assert [words[number] if number >= 0 else None for number in numbers.tolist()] == expected


@pytest.mark.parametrize("joint", ["", "é", "e\u0301", *(" " * length for length in range(55, 66))])
def test_breaks_of_html(joint: str) -> None:
    """The kernel cleans as it splits, and so does the student's code, also where a block of 64 bytes ends."""
    breaks = (
        "<br>",
        "<BR/>",
        "<bR />",
        "<br",
        "<br ",
        "<br /",
        "<b",
        "<",
        "<br  />",
        "<br/ >",
        "<br/x>",
        "<bry>",
        "br>",
    )
    for end in breaks:
        text = f"{joint} a{end}"
        for tail in ("", "z", ">"):
            dictionary = Dictionary(code_point_table(), "html", clean_texts, normalise_texts)
            dictionary.number([text + tail])
            expected = [word.encode() for word in dict.fromkeys(reference.words(text + tail))]
            assert words_of(dictionary) == expected, text + tail


def test_dictionary_grows() -> None:
    dictionary = Dictionary(code_point_table(), "none", clean_texts, normalise_texts)
    for first in range(0, 20_000, 500):
        numbers = dictionary.number([" ".join(map(str, range(first, first + 1000)))])
        assert numbers.tolist() == [*range(first, first + 1000), -1]
    assert words_of(dictionary) == [str(number).encode() for number in range(20_500)]


def test_words_of_every_length() -> None:
    """Around 7 bytes, where keys stop being the words themselves; pairs that differ in one byte or in length."""
    words = [letter * length + end for letter in "ab" for length in range(12) for end in ("", "é", "x")]
    words = [word for word in words if word]
    vocabulary = NgramVocabulary.from_counts({(word,): 1 for word in set(words)})
    extractor = NgramExtractor(vocabulary, compiled=True)
    texts = [*words, *(word + "b" for word in words), *(word[:-1] for word in words)]
    rows = [vocabulary.row_of((text,)) for text in texts]
    assert extractor.extract(texts).ids.tolist() == [row for row in rows if row > 0]


def test_long_words_with_one_hash_are_told_apart() -> None:
    """With a key that is the same for all long words, put them into a table and find them."""
    words = [b"longlongword", b"longlongwore", b"longlongwordy", b"a word that is longer than sixteen", b"eightbyt"]
    strangers = [
        b"longlongworf",
        b"a word that is lonfer than sixteen",
        b"b word that is longer than sixteen",
        b"eightby",
    ]
    blob = np.frombuffer(b"".join(words) + bytes(8), dtype=np.uint8)
    slots = np.zeros((16, 2), dtype=np.uint64)
    table = (slots, blob, np.cumsum([0, *map(len, words)]))

    @numba.njit
    def find(table: Any, text: Any, size: int) -> Any:
        return find_slot(table, text, 0, size, np.uint64(1))

    for index, word in enumerate(words):
        slots[find(table, np.frombuffer(word + bytes(8), dtype=np.uint8), len(word))] = (1, index)
    assert np.count_nonzero(slots[:, 0]) == len(words)
    for word in [*words, *strangers[:-1]]:
        slot = find(table, np.frombuffer(word + bytes(8), dtype=np.uint8), len(word))
        found = int(slots[slot, 1]) if slots[slot, 0] else -1
        assert found == (words.index(word) if word in words else -1)


def test_lower_case_fits_the_buffer(kernel: CompiledExtractor) -> None:
    """Some letters take more bytes in lower case than in upper case: a text full of them stays within the buffer."""
    codes = code_point_table()
    kept = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000 and codes[point] & 0xFFFFFF != point]
    growth = {chr(p): len(chr(int(codes[p]) & 0xFFFFFF).encode()) / len(chr(p).encode()) for p in kept}
    letter = max(growth, key=growth.__getitem__)
    assert growth[letter] > 1
    assert word_buffers(3000)[0].size >= 3000 * growth[letter]
    assert kernel.words(letter * 3000) == reference.words(letter * 3000)


@numba.njit
def _find_all(ngrams: Any, prefixes: Any, words: Any) -> Any:
    mixed, found = np.empty(words.size, np.uint64), np.empty(words.size, np.int32)
    for index in range(words.size):
        mixed[index] = spread_key(prefixes[index], words[index], ngrams)
    find_ngrams(ngrams, mixed, words.size, found)
    return found


@pytest.mark.parametrize("crowded", [False, True])
def test_ngram_table_is_exact(crowded: bool) -> None:
    """Every n-gram of a dense trie is found, and no pair that is not one is; also where most buckets are full."""
    generator = np.random.default_rng(0)
    num_words, num_nodes = 300, 20_000
    pairs = generator.choice(num_words * num_words, size=num_nodes - num_words, replace=False)
    prefixes, words = (1 + pairs // num_words).astype(np.int32), (pairs % num_words).astype(np.int32)
    nodes = np.arange(num_words + 1, num_nodes + 1, dtype=np.int32)
    if crowded:
        ngrams = _crowded(nodes, prefixes, words, num_words)
    else:
        ngrams = build_ngrams(nodes, prefixes, words, num_words)
    expected = np.zeros((num_words, num_words), dtype=np.int32)
    expected[prefixes - 1, words] = nodes
    grid = np.indices(expected.shape).astype(np.int32)
    found = _find_all(ngrams, grid[0].ravel() + 1, grid[1].ravel())
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def _crowded(nodes: np.ndarray, prefixes: np.ndarray, words: np.ndarray, num_words: int) -> Any:
    """Build a table of 4096 buckets with 4.8 entries each on average."""
    key_bits = num_words.bit_length() + int(nodes.max()).bit_length()
    ngrams = (ngram_table._aligned_zeros(8 * (4096 + 8)), num_words.bit_length(), key_bits, key_bits - 12)
    assert ngram_table._fill(ngrams, nodes, prefixes, words)
    assert np.count_nonzero(ngrams[0][7::8]) > 300
    return ngrams


def test_ngram_table_grows_when_entries_lie_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table in which an n-gram would lie eight buckets from its own is made larger, until it does not."""
    refused: list[int] = []

    def refuse_twice(ngrams: Any, *arguments: object) -> bool:
        refused.append(ngrams[0].size)
        return len(refused) > 2

    monkeypatch.setattr(ngram_table, "_fill", refuse_twice)
    ids = np.arange(1, 4, dtype=np.int32)
    build_ngrams(ids, ids, ids, 3)
    assert len(refused) == 3
    assert refused[0] < refused[1] < refused[2]


def test_large_keys_fit_the_entries() -> None:
    """With many words and few n-grams the tag would outgrow its 32 bits: the table gets more buckets instead."""
    nodes, prefixes = np.array([2, 3, 4], dtype=np.int32), np.array([1, 2, 3], dtype=np.int32)
    words = np.array([1, 2, (1 << 30) - 1], dtype=np.int32)
    ngrams = build_ngrams(nodes, prefixes, words, 1 << 30)
    assert ngrams[3] + 3 <= 32
    assert ngrams[2] >= 31 + 3
    assert _find_all(ngrams, prefixes, words).tolist() == [2, 3, 4]
    assert _find_all(ngrams, prefixes, words - 1).tolist() == [0, 0, 0]


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
def test_texts_of_unchanged_code_points_need_no_normalising(text: str) -> None:
    """What the kernel takes for NFKC already is: with separators as spaces, nothing changes it."""
    table = code_point_table()
    unchanged = unchanged_code_points(table)
    kept = "".join(character for character in text if unchanged[ord(character)])
    spaced = "".join(" " if table[ord(character)] >> 24 == 0 else character for character in kept)
    assert normalise_texts([spaced]) == [spaced]


def test_unchanged_code_points_are_many() -> None:
    """Letters and punctuation of living scripts take the short way; what joins, decomposes or vanishes does not."""
    unchanged = unchanged_code_points(code_point_table())
    assert all(
        unchanged[ord(character)]
        for character in "az09_éüßñçœ“”‘’–—•€£дж中文日本語한국어ひらがなカタカナ\xa0\x85\U0001f600"
    )
    assert not any(unchanged[ord(character)] for character in "…½ﬁ\u0301\u00ad\u200d\ufe0f①㎏\u1161\u11a8")


def test_batches_may_mix_all_kinds_of_texts() -> None:
    """ASCII, untouched and normalised texts in one batch, with lone surrogates at the joints."""
    texts = ["Plain", "na\u00efve \ud83d", "\ude00 e\u0301te\u0301<br>x", "", "…", "\xad", "A" * 200 + "é" + "b" * 200]
    counts = {(word,): 1 for text in texts for word in reference.words(text)}
    extractor = NgramExtractor(NgramVocabulary.from_counts(counts), compiled=True)
    batch = extractor.extract(texts)
    assert batch.lengths.tolist() == [len(reference.words(text)) for text in texts]
    expected = [extractor.vocabulary.row_of((word,)) for text in texts for word in reference.words(text)]
    assert batch.ids.tolist() == expected


def test_encoder_refuses_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Huge:
        size = 1 << 31

    encoder = Encoder(code_point_table(), "html", clean_texts, normalise_texts)
    monkeypatch.setattr(np, "frombuffer", lambda *_, **__: Huge())
    with pytest.raises(ValueError, match="2 GB"):
        encoder.encode(["x"])


def test_threads_share_an_extractor() -> None:
    """The kernel runs without the GIL and keeps nothing between calls."""
    texts = ["".join(PIECES[i % 40 :: 3]) for i in range(200)]
    words = [tuple(reference.words(text)) for text in texts]
    counts = {text_words[i : i + n]: 1 for text_words in words for n in (1, 2) for i in range(len(text_words) - n + 1)}
    extractor = NgramExtractor(NgramVocabulary.from_counts(counts), compiled=True)
    expected = extractor.extract(texts).ids
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(extractor.extract(texts).ids)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_import_compiles_nothing_and_needs_no_torch() -> None:
    """A service that only extracts does not pay for torch and transformers, and an import compiles nothing."""
    code = (
        "import sys, hf_sparse.runtime.kernel, hf_sparse.runtime.extraction as e;"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'imported';"
        "assert not e.extract_ngrams.signatures, 'compiled'"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
