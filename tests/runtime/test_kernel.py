"""The compiled kernel: its tables where they are hard to fill, its words, its manners."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse.runtime import compiled
from hf_sparse.runtime.dictionary import Dictionary
from hf_sparse.runtime.kernel import CompiledExtractor
from hf_sparse.student.extraction_sparse_ngram import NgramExtractor
from hf_sparse.student.unicode_sparse_ngram import code_point_table
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.student.words_sparse_ngram import clean_texts, normalise_texts
from tests import reference
from tests.texts import ANY_TEXT, PIECES


@pytest.fixture(scope="module")
def kernel() -> CompiledExtractor:
    return CompiledExtractor(NgramVocabulary.from_counts({("a",): 1}), code_point_table())


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
def test_words_are_the_reference_s(kernel: CompiledExtractor, text: str) -> None:
    prepared = normalise_texts(clean_texts([text], "html"))[0]
    assert kernel.words(prepared) == reference.words(text)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(ANY_TEXT, max_size=5), clean=st.sampled_from(["html", "none"]))
def test_dictionary_numbers_words(texts: list[str], clean: str) -> None:
    """Numbers lead back to the words, text by text; a second batch adds to the first."""
    dictionary = Dictionary(code_point_table(), clean)
    batches = [dictionary.number(batch, clean_texts, normalise_texts) for batch in (texts, texts[::-1])]
    words = [word.decode() for word in dictionary.words()]
    assert len(set(words)) == len(words)
    for numbers, batch in zip(batches, (texts, texts[::-1]), strict=True):
        expected = [word for text in batch for word in [*reference.words(text, clean), None]]
        assert [words[number] if number >= 0 else None for number in numbers.tolist()] == expected


@pytest.mark.parametrize("joint", ["", "é"])
def test_breaks_of_html(joint: str) -> None:
    """In ASCII texts the kernel cleans, in others the student's code: both as the reference does."""
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
            dictionary = Dictionary(code_point_table(), "html")
            dictionary.number([text + tail], clean_texts, normalise_texts)
            assert dictionary.words() == [w.encode() for w in dict.fromkeys(reference.words(text + tail))], text + tail


def test_dictionary_grows() -> None:
    dictionary = Dictionary(code_point_table(), "none")
    for first in range(0, 20_000, 500):
        numbers = dictionary.number([" ".join(map(str, range(first, first + 1000)))], clean_texts, normalise_texts)
        assert numbers.tolist() == [*range(first, first + 1000), -1]
    assert dictionary.words() == [str(number).encode() for number in range(20_500)]


def test_words_of_every_length() -> None:
    """Around 7 bytes, where keys stop being the words themselves; pairs that differ in one byte or in length."""
    words = [letter * length + end for letter in "ab" for length in range(12) for end in ("", "é", "x")]
    words = [word for word in words if word]
    vocabulary = NgramVocabulary.from_counts({(word,): 1 for word in set(words)})
    extractor = NgramExtractor(vocabulary, compiled=True)
    texts = [*words, *(word + "b" for word in words), *(word[:-1] for word in words)]
    rows = [vocabulary.row_of((text,)) for text in texts]
    assert extractor.extract(texts).ids.tolist() == [row for row in rows if row > 0]


def test_long_words_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pure Python, with a hash that is the same for all long words, build and find them."""
    words = [b"longlongword", b"longlongwore", b"longlongwordy", b"short"]
    blob = np.frombuffer(b"".join(words), dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, words)])
    python = {name: getattr(compiled, name).py_func for name in ("_find_word", "build_word_slots")}
    monkeypatch.setattr(compiled, "_find_word", python["_find_word"])
    monkeypatch.setattr(compiled, "_word_key", lambda lowered, start, end: np.uint64(end - start > 7 or 1 << 60))
    ids = np.arange(4, dtype=np.int32)
    with np.errstate(over="ignore"):
        slots = python["build_word_slots"](blob, offsets, np.full(4, -1, dtype=np.int32), ids)
        for word, index in [(b"longlongword", 0), (b"longlongwore", 1), (b"longlongwordy", 2), (b"longlongworf", -1)]:
            text = np.frombuffer(word, dtype=np.uint8)
            slot = python["_find_word"](slots, blob, offsets, text, 0, len(word), np.uint64(1))
            found = int(slots[slot, 1]) & 0xFFFFFFFF if slots[slot, 0] else -1
            assert found == index


def test_lower_case_fits_the_buffer(kernel: CompiledExtractor) -> None:
    """Some letters take more bytes in lower case than in upper case: a text full of them stays within the buffer."""
    codes = code_point_table()
    kept = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000 and codes[point] & 0xFFFFFF != point]
    growth = {chr(p): len(chr(int(codes[p]) & 0xFFFFFF).encode()) / len(chr(p).encode()) for p in kept}
    letter = max(growth, key=growth.__getitem__)
    assert growth[letter] > 1
    assert compiled._word_buffers(3000)[0].size >= 3000 * growth[letter]
    assert kernel.words(letter * 3000) == reference.words(letter * 3000)


def test_ngram_table_is_exact() -> None:
    """Every n-gram of a dense trie is found, and no pair that is not one is."""
    generator = np.random.default_rng(0)
    num_words, num_nodes = 300, 30_000
    pairs = generator.choice(num_words * num_words, size=num_nodes - num_words, replace=False)
    prefixes = np.concatenate([np.full(num_words, -1), pairs // num_words]).astype(np.int32)
    words = np.concatenate([np.arange(num_words), pairs % num_words]).astype(np.int32)
    entries, key_bits, low_bits = compiled.build_entries(prefixes, words, num_words)
    ngrams = (entries, key_bits, low_bits, num_words.bit_length())
    expected = np.full((num_words, num_words), -1)
    expected[prefixes[num_words:], words[num_words:]] = np.arange(num_words, num_nodes)
    found = np.empty_like(expected[:60])
    buffers = np.empty(2, np.int64), np.empty(2, np.uint64), np.empty(2, np.uint64)
    for prefix, word in np.ndindex(found.shape):
        # A text of two words, whose nodes are their ids.
        nodes = np.array([[prefix, word], [-1, -1]], dtype=np.int32)
        compiled._find_ngrams(ngrams, nodes[0].copy(), 2, nodes, buffers)
        found[prefix, word] = nodes[1, 0]
    np.testing.assert_array_equal(found, expected[:60])


def test_ngram_table_grows_when_entries_lie_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table in which an n-gram would lie 256 places from home is made larger, until it does not."""
    refused: list[int] = []

    def refuse_twice(entries: np.ndarray, *arguments: object) -> bool:
        refused.append(entries.size)
        return len(refused) > 2

    monkeypatch.setattr(compiled, "_fill_entries", refuse_twice)
    ids = np.arange(3, dtype=np.int32)
    compiled.build_entries(ids - 1, ids, 3)
    assert len(refused) == 3
    assert refused[0] < refused[1] < refused[2]


def test_large_keys_fit_the_entries() -> None:
    """With many words and few n-grams the tag would outgrow its 32 bits: the table gets more slots instead."""
    words = np.array([0, 1, 2, (1 << 30) - 1], dtype=np.int32)
    prefixes = np.array([-1, 0, 1, 2], dtype=np.int32)
    _, key_bits, low_bits = compiled.build_entries(prefixes, words, 1 << 20)
    assert low_bits + 8 <= 32
    assert key_bits >= 21 + 3


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
        "import sys, hf_sparse.runtime.kernel, hf_sparse.runtime.compiled as c;"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'imported';"
        "assert not c.extract_ngrams.signatures, 'compiled'"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
