"""Extraction: NumPy, kernel and reference find the same n-grams in every text."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse.student import extraction_sparse_ngram
from hf_sparse.student.extraction_sparse_ngram import NgramExtractor
from hf_sparse.student.lookup_sparse_ngram import WordLookup
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.student.words_sparse_ngram import segment_texts
from tests import reference
from tests.texts import ANY_TEXT, PIECES, make_tokenizer_json

Rows = dict[tuple[str, ...], int]


def all_rows(vocabulary: NgramVocabulary) -> Rows:
    return {vocabulary.ngram_words(row): row for row in range(1, vocabulary.num_rows)}


@pytest.fixture(scope="module")
def vocabulary() -> NgramVocabulary:
    """N-grams of the hand-picked pieces in many orders; a fifth of them without a row, or not there at all."""
    generator = np.random.default_rng(0)
    counts: Counter[tuple[str, ...]] = Counter()
    for _ in range(400):
        words = reference.words("".join(generator.choice(PIECES, size=30)))
        counts.update(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))
    kept = {ngram: count for ngram, count in counts.items() if generator.random() < 0.8 or ngram in {("a",), ("b",)}}
    return NgramVocabulary.from_counts(kept)


@pytest.fixture(scope="module")
def extractors(vocabulary: NgramVocabulary) -> list[NgramExtractor]:
    return [NgramExtractor(vocabulary, compiled=compiled) for compiled in (False, True)]


@pytest.fixture(scope="module")
def rows(vocabulary: NgramVocabulary) -> Rows:
    return all_rows(vocabulary)


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=5), max_length=st.none() | st.integers(0, 10))
def test_both_paths_agree_with_the_reference(
    extractors: list[NgramExtractor], rows: Rows, texts: list[str], max_length: int | None
) -> None:
    """Ids and lengths, bit for bit, whatever the texts are."""
    expected = [reference.ngram_rows(reference.words(text), rows, 4)[:max_length] for text in texts]
    for extractor in extractors:
        batch = extractor.extract(texts, max_length=max_length)
        assert batch.ids.dtype == np.int32
        assert batch.lengths.dtype == np.int64
        assert batch.lengths.tolist() == list(map(len, expected))
        assert batch.ids.tolist() == list(chain.from_iterable(expected))
        assert extractor.words(texts[0]) == reference.words(texts[0])


def test_order_repeats_and_prefixes_without_a_row() -> None:
    """Ids come by word, then by n; repeats stay; a node that is only a prefix gives no id but leads on."""
    vocabulary = NgramVocabulary.from_counts({("a",): 9, ("b",): 8, ("a", "b"): 7, ("c", "a", "b"): 3})
    rows = all_rows(vocabulary)
    for compiled in (False, True):
        batch = NgramExtractor(vocabulary, compiled=compiled).extract(["A b x C a B", "", "c a"])
        ngrams = ["a", "a b", "b", "c a b", "a", "a b", "b", "a"]
        assert batch.ids.tolist() == [rows[tuple(ngram.split())] for ngram in ngrams]
        assert batch.lengths.tolist() == [7, 0, 1]


def test_empty_inputs(extractors: list[NgramExtractor]) -> None:
    for extractor in extractors:
        for texts in ([], [""], ["", "", " "], ["\ud800"], ["\x00"]):
            batch = extractor.extract(texts)
            assert batch.lengths.tolist() == [0] * len(texts)
            assert batch.ids.size == 0


def test_any_iterable_will_do(extractors: list[NgramExtractor]) -> None:
    expected = extractors[0].extract(["a b", "b"])
    for texts in (("a b", "b"), iter(["a b", "b"]), np.array(["a b", "b"])):
        np.testing.assert_array_equal(extractors[1].extract(texts).ids, expected.ids)


def test_empty_vocabulary() -> None:
    vocabulary = NgramVocabulary.from_counts({})
    for compiled in (False, True):
        assert NgramExtractor(vocabulary, compiled=compiled).extract(["a b"]).lengths.tolist() == [0]


def test_long_text_and_many_texts(extractors: list[NgramExtractor], monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of 300,000 words, one word of 1,000,000 letters, and a batch cut into chunks change nothing."""
    text = "b a ! 0 " * 75_000 + "b" * 1_000_000 + " a"
    short = ["a b", "é ! a", "", "字a b"] * 50
    expected = extractors[0].extract([text, *short])
    monkeypatch.setattr(extraction_sparse_ngram, "_CHUNK_CHARACTERS", 10)
    monkeypatch.setattr(extraction_sparse_ngram, "_CHUNK_TEXTS", 3)
    for extractor in extractors:
        batch = extractor.extract([text, *short])
        np.testing.assert_array_equal(batch.ids, expected.ids)
        np.testing.assert_array_equal(batch.lengths, expected.lengths)
    assert expected.lengths[0] > 200_000


def test_words_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up stays exact when the hashes of a text's or of the vocabulary's words collide."""

    def hash_by_length(self: WordLookup, codes: object, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        return ((ends - starts) % 2).astype(np.uint64)

    monkeypatch.setattr(WordLookup, "_hash", hash_by_length)
    assert WordLookup(["aaa"]).find(segment_texts(["a aaa aab"], "none")).tolist() == [-1, 0, -1]
    segments = segment_texts(["bb aaa é a longer bb"], "none")
    assert WordLookup(["é", "bb"]).find(segments).tolist() == [1, -1, 0, -1, -1, 1]
    assert WordLookup(["é", "a", "aaa", "bb"]).find(segments).tolist() == [3, 2, 0, 1, -1, 3]


def test_thue_morse_words_collide_and_are_told_apart() -> None:
    """Two words whose polynomial hashes are equal modulo 2**64 for any multiplier."""
    first = "".join("ab"[bin(i).count("1") & 1] for i in range(2048))
    second = first.translate(str.maketrans("ab", "ba"))
    lookup = WordLookup([first, "a"])
    assert lookup.find(segment_texts([f"{second} {first} a"], "none")).tolist() == [-1, 0, 1]
    both = NgramVocabulary.from_counts({(first,): 2, (second,): 1})
    for compiled in (False, True):
        assert NgramExtractor(both, compiled=compiled).extract([f"{second} {first}"]).ids.tolist() == [2, 1]


def test_sklearn_rule() -> None:
    vocabulary = NgramVocabulary.from_counts({("don",): 3, ("go",): 2, ("don", "go"): 1}, word_rule="sklearn")
    extractor = NgramExtractor(vocabulary)
    assert extractor.words("Don't GO a") == ["don", "go"]
    batch = extractor.extract(["Don't GO a", "", "\ud800", "x<br>go"])
    assert batch.ids.tolist() == [1, 3, 2, 2]
    assert batch.lengths.tolist() == [3, 0, 0, 1]
    assert not extractor.is_compiled


def test_tokens_as_words() -> None:
    """The tokens of a Hub tokenizer are the words; cleaning comes first."""
    vocabulary = NgramVocabulary.from_counts(
        {("b",): 3, ("a",): 3, ("a", "b"): 2, ("[UNK]",): 1},
        word_rule="hf:some/repo",
        tokenizer_json=make_tokenizer_json(),
    )
    extractor = NgramExtractor(vocabulary)
    assert extractor.words("a b zz") == ["a", "b", "[UNK]"]
    batch = extractor.extract(["a b", "a<br />zz", "", "\ud800"])
    assert [vocabulary.ngram_text(row) for row in batch.ids.tolist()] == ["a", "a b", "b", "a", "[UNK]", "[UNK]"]
    assert batch.lengths.tolist() == [3, 2, 0, 1]


def test_compiled_is_refused_where_there_is_no_kernel(vocabulary: NgramVocabulary) -> None:
    sklearn = NgramVocabulary.from_counts({("go",): 1}, word_rule="sklearn")
    with pytest.raises(ValueError, match="no compiled kernel for word rule 'sklearn'"):
        NgramExtractor(sklearn, compiled=True)
    assert NgramExtractor(vocabulary).is_compiled
    assert not NgramExtractor(vocabulary, compiled=False).is_compiled


def test_kernel_steps_aside_for_an_unknown_format(
    vocabulary: NgramVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_sparse.runtime.kernel.FORMAT_VERSIONS", frozenset({99}))
    assert not NgramExtractor(vocabulary).is_compiled


def test_numpy_path_without_the_package(vocabulary: NgramVocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `hf_sparse.runtime` cannot be imported, NumPy does the work."""
    monkeypatch.setitem(__import__("sys").modules, "hf_sparse.runtime.kernel", None)
    extractor = NgramExtractor(vocabulary)
    assert not extractor.is_compiled
    assert extractor.extract(["a b"]).lengths[0] > 0


@pytest.mark.parametrize("texts", ["a b", [b"a"], [None], ["a", 1]])
def test_texts_must_be_strings(extractors: list[NgramExtractor], texts: list[str]) -> None:
    with pytest.raises(TypeError, match="texts must be strings in a list"):
        extractors[0].extract(texts)


def test_negative_max_length(extractors: list[NgramExtractor]) -> None:
    with pytest.raises(ValueError, match="max_length must be at least 0, got -1"):
        extractors[0].extract(["a"], max_length=-1)
