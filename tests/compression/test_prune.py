"""A pruned student finds what the whole one finds, less what was pruned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse.compression import compress
from hf_sparse.compression.prune import (
    ngrams_for_size,
    occurrences,
    prune_student,
    prune_vocabulary,
    rank_rows,
    shifts,
)
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification, SparseNgramTokenizer
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.vocabulary import count_ngrams
from tests.conftest import PAIR_SHAPES

WORDS = ["the", "film", "was", "good", "bad", "!", "a", "not"]
CORPUS = ["the film was good", "the film was not good !", "a bad film", "a bad , bad film !", "good good film"] * 2
VOCABULARY = count_ngrams(CORPUS, num_ngrams=60, progress=False)


def new_student(vocabulary: NgramVocabulary = VOCABULARY, **changes: Any) -> SparseNgramForSequenceClassification:
    """A student of a vocabulary with random weights."""
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary.num_rows, "embedding_size": 8, "hidden_sizes": [6], "initializer_range": 1.0}
    sizes |= {"vocabulary_sha256": vocabulary.sha256, "num_labels": 3}
    model = SparseNgramForSequenceClassification(SparseNgramConfig(**(sizes | changes))).eval()
    model.model.mark_words(torch.from_numpy(vocabulary.is_word))
    return model


@settings(max_examples=60, deadline=None)
@given(
    kept=st.sets(st.integers(1, VOCABULARY.num_rows - 1), min_size=1),
    texts=st.lists(st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=8).map(" ".join), max_size=4),
    compiled=st.booleans(),
)
def test_pruned_vocabulary_finds_what_is_kept(kept: set[int], texts: list[str], compiled: bool) -> None:
    from hf_sparse.student.extraction_sparse_ngram import NgramExtractor

    pruned = prune_vocabulary(VOCABULARY, np.array(sorted(kept, reverse=True)))
    pruned.validate()
    whole = NgramExtractor(VOCABULARY, compiled=compiled).extract(texts)
    small = NgramExtractor(pruned, compiled=compiled).extract(texts)
    expected = [VOCABULARY.ngram_text(row) for row in whole.ids.tolist() if row in kept]
    assert [pruned.ngram_text(row) for row in small.ids.tolist()] == expected
    parts = np.split(whole.ids, np.cumsum(whole.lengths)[:-1]) if texts else []
    assert small.lengths.tolist() == [sum(row in kept for row in part.tolist()) for part in parts]
    # Nothing is left that leads nowhere: every word is used, every node is a row or the prefix of another.
    assert set(pruned.node_word.tolist()) == set(range(pruned.num_words))
    is_prefix = np.isin(np.arange(pruned.node_prefix.size), pruned.node_prefix)
    assert (is_prefix | (pruned.node_row > 0)).all()
    assert pruned.num_ngrams == len(kept) == pruned.num_rows - 1


@pytest.mark.parametrize("by", ["frequency", "norm"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_rows": 7},
        {"pooling": "sum"},
        {"pooling": "max"},
        {"hidden_sizes": []},
        PAIR_SHAPES["overlap"],
        PAIR_SHAPES["aligned"],
    ],
)
def test_pruned_student_is_the_student_on_what_is_kept(by: Any, changes: dict[str, Any]) -> None:
    model = new_student(**changes)
    counts = occurrences(VOCABULARY)
    kept = set(rank_rows(model, VOCABULARY, by=by, counts=counts)[:20].tolist())
    pruned, vocabulary = prune_student(model, VOCABULARY, keep=20, by=by)
    assert pruned.config.vocab_size == 21 == vocabulary.num_rows
    assert pruned.config.vocabulary_sha256 == vocabulary.sha256
    texts = [*CORPUS, "", "film film"]
    whole = SparseNgramTokenizer(vocabulary=VOCABULARY).extract(texts)
    small = SparseNgramTokenizer(vocabulary=vocabulary).extract(texts)
    is_kept = np.isin(whole.ids, list(kept))
    lengths = np.array([part.sum() for part in np.split(is_kept, np.cumsum(whole.lengths)[:-1])])
    with torch.no_grad():
        expected = model.classify(model.pool(torch.from_numpy(whole.ids[is_kept]), torch.from_numpy(lengths)))
        found = pruned.classify(pruned.pool(torch.from_numpy(small.ids), torch.from_numpy(small.lengths)))
    torch.testing.assert_close(found, expected)


def test_shift_is_what_leaving_out_does() -> None:
    """Without one of its n-grams, the first layer of a text moves by the shift over the number that is left."""
    model = new_student()
    ids = np.arange(1, VOCABULARY.num_rows)  # a text in which each n-gram is once, so the mean row is the text's own
    counts = np.bincount(ids, minlength=VOCABULARY.num_rows)
    table, layer = model.model.table.blocks[0].detach(), model.model.hidden_layers[0].weight.detach()
    for row in (1, 5, VOCABULARY.num_rows - 1):
        others = ids[ids != row]
        moved = layer @ (table[others].mean(0) - table[ids].mean(0))
        expected = float(moved.norm()) * len(others)
        assert shifts(model, counts)[row] == pytest.approx(expected, rel=1e-4)


def test_frequency_is_that_of_the_texts_or_of_the_vocabulary() -> None:
    model = new_student()
    by_corpus = rank_rows(model, VOCABULARY, by="frequency", counts=occurrences(VOCABULARY))
    counts = [corpus_count(VOCABULARY, row) for row in by_corpus.tolist()]
    assert counts == sorted(counts, reverse=True)
    texts = ["not good not good"]
    best = rank_rows(model, VOCABULARY, by="frequency", counts=occurrences(VOCABULARY, texts=texts))[:3]
    assert {VOCABULARY.ngram_text(row) for row in best.tolist()} == {"not", "good", "not good"}
    ids = SparseNgramTokenizer(vocabulary=VOCABULARY).extract(texts).ids
    np.testing.assert_array_equal(occurrences(VOCABULARY, ids=ids), occurrences(VOCABULARY, texts=texts))


def corpus_count(vocabulary: NgramVocabulary, row: int) -> int:
    """How often an n-gram occurs, by reading."""
    needle = vocabulary.ngram_words(row)
    total = 0
    for text in CORPUS:
        words = text.split()
        total += sum(tuple(words[i : i + len(needle)]) == needle for i in range(len(words)))
    return total


@pytest.mark.parametrize("table_dtype", ["float32", "int8", "int4"])
@pytest.mark.parametrize(
    ("shape", "folded", "target"),
    [
        ({}, False, 14_000),
        ({}, True, 14_000),
        (PAIR_SHAPES["aligned"] | {"embedding_size": 32, "alignment_size": 24, "hidden_sizes": []}, False, 36_000),
    ],
    ids=["dense", "folded", "aligned"],
)
def test_the_most_that_fit(tmp_path: Path, table_dtype: str, shape: dict[str, Any], folded: bool, target: int) -> None:
    """The files are no larger than asked for, and the estimate wastes at most a header of 4 kB."""
    generator = np.random.default_rng(0)
    texts = [" ".join(map(str, generator.geometric(0.05, size=20))) for _ in range(200)]
    large = count_ngrams(texts, num_ngrams=800, progress=False)
    model = new_student(large, **shape)
    model.save_pretrained(tmp_path / "student")
    SparseNgramTokenizer(vocabulary=large).save_pretrained(tmp_path / "student")
    keep = ngrams_for_size(model, large, target_bytes=target, table_dtype=table_dtype, folded=folded)
    assert 1 < keep < large.num_ngrams
    small = tmp_path / "small"
    size = f"{target // 1000}kB"
    compress(str(tmp_path / "student"), str(small), target_size=size, table_dtype=table_dtype, fold=folded)
    assert NgramVocabulary.load(small).num_ngrams == keep
    written = sum(file.stat().st_size for file in small.glob("*.safetensors"))
    assert target - 4096 <= written <= target
    assert ngrams_for_size(model, large, target_bytes=10**6, table_dtype=table_dtype, folded=folded) == 800


def test_mistakes() -> None:
    model = new_student()
    with pytest.raises(ValueError, match="between 1 and the student's 40"):
        prune_student(model, VOCABULARY, keep=61)
    with pytest.raises(ValueError, match="'luck'"):
        rank_rows(model, VOCABULARY, by="luck")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no counts; give texts"):
        rank_rows(model, VOCABULARY)
    with pytest.raises(ValueError, match="quantised"):
        prune_student(new_student(table_dtype="int8"), VOCABULARY, keep=3)
    with pytest.raises(ValueError, match="prune the student it was made from"):
        rank_rows(new_student(table_dtype="int8"), VOCABULARY)
    with pytest.raises(ValueError, match="100 bytes are too few"):
        ngrams_for_size(model, VOCABULARY, target_bytes=100, table_dtype="int8", folded=True)
