"""Counting: exactly the n-grams, counts and order of a dictionary, whatever is pruned on the way."""

import json
import os
import unittest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from hf_sparse.processors import available_processors
from hf_sparse.student.extraction_sparse_ngram import NgramExtractor
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.vocabulary import counting, levels, merging, parts
from hf_sparse.vocabulary.counting import count_ngrams
from hf_sparse.vocabulary.shelf import Shelf
from tests import reference
from tests.texts import ANY_TEXT, make_tokenizer_json

Counts = list[tuple[tuple[str, ...], int]]


def ngram_counts(vocabulary: NgramVocabulary) -> Counts:
    vocabulary.validate()
    assert vocabulary.counts is not None
    assert vocabulary.node_row.tolist() == list(range(1, vocabulary.num_rows))
    return [(vocabulary.ngram_words(row), int(vocabulary.counts[row - 1])) for row in range(1, vocabulary.num_rows)]


@pytest.fixture(scope="module")
def real_texts() -> list[str]:
    """English prose and code that every Python brings along: the sources of `unittest`, cut into paragraphs."""
    files = sorted(Path(unittest.__file__).parent.glob("*.py"))
    return [part for file in files for part in file.read_text(encoding="utf-8").split("\n\n")]


def cut_small(patch: pytest.MonkeyPatch, *, characters: int) -> None:
    """Cut a corpus into parts of some characters, and what they found into ranges of a few entries."""
    patch.setattr(parts, "_BATCH_CHARACTERS", characters)
    patch.setattr(counting, "_PART_CHARACTERS", characters)
    patch.setattr(counting, "_BASE_BYTES", 0)
    patch.setattr(counting, "_SMALLEST_MEMORY", 0)
    patch.setattr(merging, "SAMPLE_EVERY", 2)
    patch.setattr(levels, "SAMPLE_EVERY", 2)
    if characters < 1 << 20:
        patch.setattr(counting, "_UNBOUNDED", 40 * characters)


few_words = st.lists(st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join), max_size=8)


@settings(max_examples=200, deadline=None)
@given(
    texts=few_words | st.lists(ANY_TEXT, max_size=6),
    num_ngrams=st.sampled_from([1, 2, 5, 20, 1000]),
    max_n=st.integers(1, 5),
    min_documents=st.integers(1, 3),
    min_count=st.integers(1, 3),
    part_characters=st.sampled_from([1, 20, 1 << 20]),
    threads=st.integers(1, 3),
)
def test_counts_like_a_dictionary(
    texts: list[str],
    num_ngrams: int,
    max_n: int,
    min_documents: int,
    min_count: int,
    part_characters: int,
    threads: int,
) -> None:
    """Any texts, any settings, however the texts are cut into parts and the n-grams into ranges: the same n-grams with
    the same counts in the same order, ties at the cut included."""  # noqa: D205, D209
    arguments = {
        "threads": threads,
        "num_ngrams": num_ngrams,
        "max_n": max_n,
        "min_documents": min_documents,
        "min_count": min_count,
    }
    expected = reference.count(
        map(reference.words, texts),
        num_ngrams=num_ngrams,
        max_n=max_n,
        min_documents=min_documents,
        min_count=min_count,
    )
    with pytest.MonkeyPatch.context() as patch:
        cut_small(patch, characters=part_characters)
        if expected:
            assert ngram_counts(count_ngrams(texts, progress=False, **arguments)) == expected
        else:
            with pytest.raises(ValueError, match=r"no words in the corpus|no n-gram of the"):
                count_ngrams(texts, progress=False, **arguments)


@pytest.mark.parametrize("min_documents", [1, 3])
@pytest.mark.parametrize("num_ngrams", [10, 1000, 10_000_000])
def test_real_texts(real_texts: list[str], num_ngrams: int, min_documents: int) -> None:
    """A few hundred thousand n-grams, with cuts that make the pruning work and one that does not."""
    vocabulary = count_ngrams(real_texts, num_ngrams=num_ngrams, min_documents=min_documents, progress=False)
    documents = [reference.words(text) for text in real_texts]
    expected = reference.count(documents, num_ngrams=num_ngrams, max_n=4, min_documents=min_documents)
    assert ngram_counts(vocabulary) == expected


def test_batches_do_not_matter(real_texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = real_texts[:300]
    whole = count_ngrams(texts, num_ngrams=2000, progress=False)
    monkeypatch.setattr(parts, "_BATCH_CHARACTERS", 100)
    monkeypatch.setattr(parts, "_BATCH_TEXTS", 3)
    assert count_ngrams(iter(texts), num_ngrams=2000, progress=False).sha256 == whole.sha256


@pytest.mark.parametrize("min_documents", [1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_memory_does_not_matter(
    real_texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, min_documents: int
) -> None:
    """In parts, ranges and files: the vocabulary, bit for bit, of a counting in memory."""
    texts = real_texts[:1500]
    arguments = {"num_ngrams": 3000, "min_documents": min_documents, "progress": False}
    expected = count_ngrams(texts, **arguments).sha256
    cut_small(monkeypatch, characters=5_000)
    for folder in (None, tmp_path / "counting"):
        found = count_ngrams(iter(texts), memory=500_000, folder=folder, threads=threads, **arguments)
        assert found.sha256 == expected
    assert len(list(tmp_path.rglob("part-*.safetensors"))) > 20


@pytest.mark.parametrize("word_rule", ["words", "sklearn"])
def test_interrupted_counting_goes_on(
    real_texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word_rule: str
) -> None:
    """It ends after any number of files, once and again: what is there is not done anew; the result is the same."""
    texts = real_texts[:400]
    arguments = {"num_ngrams": 800, "min_documents": 2, "word_rule": word_rule, "threads": 1, "progress": False}
    expected = count_ngrams(texts, **arguments).sha256
    cut_small(monkeypatch, characters=4_000)
    original, written = Shelf.put, 0

    def count_files(shelf: Shelf, group: str, arrays: dict[str, np.ndarray]) -> None:
        nonlocal written
        if written == stop:
            raise KeyboardInterrupt
        original(shelf, group, arrays)
        written += 1

    monkeypatch.setattr(Shelf, "put", count_files)
    stop = -1
    count_ngrams(texts, memory="1MB", folder=tmp_path / "whole", **arguments)
    total = written
    assert total > 40
    in_all = 0
    for stop in (*range(0, 4), 7, 9, 7, 6, 3, 2, 1, 1, 1, 5, 1000):  # noqa: B007
        written = 0
        try:
            found = count_ngrams(texts, memory="1MB", folder=tmp_path / "counting", **arguments)
        except KeyboardInterrupt:
            found = None
        in_all += written
    assert found is not None
    assert found.sha256 == expected
    assert in_all == total


def test_another_corpus_in_the_same_folder(
    real_texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other texts or settings have left is neither used nor removed."""
    cut_small(monkeypatch, characters=3_000)
    arguments = {"memory": "1MB", "folder": tmp_path, "progress": False}
    (tmp_path / "notes.txt").write_text("mine")
    count_ngrams(real_texts[:100], num_ngrams=500, **arguments)
    texts = [*real_texts[:60], "something else", *real_texts[60:90]]
    for settings_ in ({"num_ngrams": 500}, {"num_ngrams": 400}, {"num_ngrams": 400, "min_documents": 2}):
        expected = count_ngrams(texts, progress=False, **settings_).sha256
        assert count_ngrams(texts, **arguments, **settings_).sha256 == expected
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_memory_that_is_too_small() -> None:
    with pytest.raises(ValueError, match="memory must be at least 700MB, got 100MB"):
        count_ngrams(["a"], num_ngrams=1, memory="100MB")
    with pytest.raises(ValueError, match="such as 50MB, got 'much'"):
        count_ngrams(["a"], num_ngrams=1, memory="much")


def test_ngrams_do_not_cross_texts() -> None:
    vocabulary = count_ngrams(["a b", "c d"], num_ngrams=100, progress=False)
    assert [ngram for ngram, _ in ngram_counts(vocabulary) if len(ngram) > 1] == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize("num_ngrams", [500, 10_000_000])
def test_sklearn_rule_is_count_vectorizer(real_texts: list[str], num_ngrams: int) -> None:
    """The paper's vocabulary: all n-grams with their counts; with a cut, the same above the count of the cut."""
    texts = [*real_texts[:400], "Fußball ÀÉ naïve ÇA x² don't 日本語 ΣΑΣ İ"]
    vectorizer = CountVectorizer(ngram_range=(1, 4), max_features=num_ngrams)
    counts = np.asarray(vectorizer.fit_transform(texts).sum(axis=0)).ravel()
    theirs = {tuple(ngram.split(" ")): int(counts[column]) for ngram, column in vectorizer.vocabulary_.items()}
    ours = dict(ngram_counts(count_ngrams(texts, num_ngrams=num_ngrams, word_rule="sklearn", progress=False)))
    assert len(ours) == len(theirs)
    cut = min(ours.values()) if num_ngrams < 1000 else 0
    assert cut == 0 or cut == min(theirs.values())
    assert {g: c for g, c in ours.items() if c > cut} == {g: c for g, c in theirs.items() if c > cut}


def test_sklearn_extraction_is_transform(real_texts: list[str]) -> None:
    """How often each n-gram occurs in each text, as `CountVectorizer.transform` has it."""
    texts = real_texts[:100]
    vocabulary = count_ngrams(texts, num_ngrams=300, word_rule="sklearn", progress=False)
    ngrams = [vocabulary.ngram_text(row) for row in range(1, vocabulary.num_rows)]
    theirs = CountVectorizer(ngram_range=(1, 4), vocabulary=ngrams).transform(texts).toarray()
    batch = NgramExtractor(vocabulary).extract(texts)
    ours = np.zeros_like(theirs)
    np.add.at(ours, (np.repeat(np.arange(len(texts)), batch.lengths), batch.ids - 1), 1)
    np.testing.assert_array_equal(ours, theirs)


def test_extraction_gives_the_counts_back(real_texts: list[str]) -> None:
    """Counting and extraction agree: over the corpus, each row comes up as often as its n-gram was counted."""
    vocabulary = count_ngrams(real_texts, num_ngrams=5000, progress=False)
    ids = NgramExtractor(vocabulary).extract(real_texts).ids
    np.testing.assert_array_equal(np.bincount(ids, minlength=5001)[1:], vocabulary.counts)


def test_tokens_of_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(make_tokenizer_json())
    texts = ["a b a b", "b<br />c zz", "", "\ud800"]
    vocabulary = count_ngrams(texts, num_ngrams=100, word_rule=f"hf:{tmp_path}", progress=False)
    documents = [["a", "b", "a", "b"], ["b", "c", "[UNK]"], [], ["[UNK]"]]
    assert ngram_counts(vocabulary) == reference.count(documents, num_ngrams=100, max_n=4)
    assert vocabulary.tokenizer_json is not None
    assert json.loads(vocabulary.tokenizer_json.tobytes())["model"]["type"] == "WordLevel"
    saved = NgramVocabulary.load(vocabulary.save(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    assert NgramExtractor(saved).extract(texts).ids.size == vocabulary.counts.sum()


def test_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no tokenizer\.json: save a fast tokenizer"):
        count_ngrams(["a"], num_ngrams=1, word_rule=f"hf:{tmp_path}")
    with pytest.raises(ValueError, match="neither a folder nor the name of a repository"):
        count_ngrams(["a"], num_ngrams=1, word_rule="hf:no/such/folder")
    with pytest.raises(ValueError, match="the Hub cannot be reached"):
        count_ngrams(["a"], num_ngrams=1, word_rule="hf:nobody/nothing")


@pytest.mark.parametrize("texts", [[], [""], ["\n", "\ud800", "<br>"]])
def test_corpus_without_words(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=f"no words in the corpus of {len(texts)} texts"):
        count_ngrams(texts, num_ngrams=10, progress=False)


@pytest.mark.parametrize("name", ["num_ngrams", "max_n", "min_documents", "min_count", "threads"])
def test_numbers_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        count_ngrams(["a"], **{"num_ngrams": 1, name: 0})


def test_texts_must_be_strings() -> None:
    with pytest.raises(TypeError, match="texts must be strings, got bytes"):
        count_ngrams([b"a"], num_ngrams=1, progress=False)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="texts must be many strings, got one"):
        count_ngrams("a text", num_ngrams=1, progress=False)


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    count_ngrams(iter(["a b", "a"]), num_ngrams=5, total=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "reading" in shown.err
    assert "2.00/2.00" in shown.err
    assert "counting" in shown.err
    count_ngrams(["a b"], num_ngrams=5, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("num_shares", [1, 2, 5])
@pytest.mark.parametrize("max_n", [1, 4])
def test_shares(
    real_texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_shares: int, max_n: int
) -> None:
    """Step by step, each share by itself and in any order; what was read is not read again."""
    cut_small(monkeypatch, characters=5000)
    reads: list[int] = []

    def sets() -> list[parts.NamedTexts]:
        def read(index: int) -> list[str]:
            reads.append(index)
            return real_texts[100 * index : 100 * index + 100]

        numbers = range(-(-len(real_texts) // 100))
        return [parts.NamedTexts(name=f"set{index}", read=lambda index=index: read(index)) for index in numbers]  # type: ignore[misc]

    def step() -> counting.Counting:
        return counting.Counting(num_ngrams=500, max_n=max_n, min_documents=2, memory=10**9, threads=2, progress=False)

    for rank in reversed(range(num_shares)):
        step().read(sets()[rank::num_shares], tmp_path)
    assert sorted(reads) == list(range(len(sets())))
    for n in range(2, max_n + 1):
        step().merge(sets(), tmp_path, n=n - 1)
        for rank in reversed(range(num_shares)):
            step().count_share(sets(), tmp_path, n=n, rank=rank, num_shares=num_shares)
            step().count_share(sets(), tmp_path, n=n, rank=rank, num_shares=num_shares)  # a job that ran twice
    found = step().vocabulary(sets(), tmp_path)
    assert len(reads) == len(sets())
    expected = count_ngrams(real_texts, num_ngrams=500, max_n=max_n, min_documents=2, progress=False)
    assert ngram_counts(found) == ngram_counts(expected)


def test_threads_where_the_system_does_not_say_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_processors() == list(range(os.cpu_count() or 1))
    assert count_ngrams(["a b"], num_ngrams=3, progress=False).num_ngrams == 3
