"""Counting look-ups, against a count on strings and against the extraction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_sparse.benchmark.probes import PlainVocabulary, join_probes
from hf_sparse.benchmark.roofline import Sizes, _places, _walk, measure_limits, table_sizes
from hf_sparse.student.extraction_sparse_ngram import NgramExtractor
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from tests.conftest import WORDS


@pytest.fixture(scope="module")
def sparse_vocabulary() -> NgramVocabulary:
    """N-grams with a node that is a prefix only: "the film" has no row."""
    ngrams = [("the",), ("film",), ("the", "film", "was"), ("film", "was"), ("film", "was", "bad"), ("good",)]
    return NgramVocabulary.from_counts({ngram: 100 - index for index, ngram in enumerate(ngrams)})


def count_on_strings(words: list[str], vocabulary: NgramVocabulary) -> tuple[int, int]:
    """Return the look-ups of n-grams and the rows, found by comparing tuples of words."""
    known = vocabulary.word_list
    nodes: list[tuple[str, ...]] = []
    for prefix, word in zip(vocabulary.node_prefix.tolist(), vocabulary.node_word.tolist(), strict=True):
        nodes.append((*(nodes[prefix] if prefix >= 0 else ()), known[word]))
    with_row = {node for node, row in zip(nodes, vocabulary.node_row.tolist(), strict=True) if row > 0}
    look_ups = rows = 0
    for start in range(len(words)):
        for n in range(1, vocabulary.max_n + 1):
            ngram = tuple(words[start : start + n])
            if len(ngram) < n:
                break
            rows += ngram in with_row
            look_ups += n > 1 and ngram[:-1] in nodes and ngram[-1] in known
    return look_ups, rows


@given(words=st.lists(st.sampled_from([*WORDS, "unknown", "words"]), max_size=30))
def test_counts(vocabulary: NgramVocabulary, sparse_vocabulary: NgramVocabulary, words: list[str]) -> None:
    for one in (vocabulary, sparse_vocabulary):
        found = PlainVocabulary(one).probe(words)
        assert len(found.words) == len(words)
        assert (len(found.ngrams), len(found.rows)) == count_on_strings(words, one)
        assert sorted(found.rows) == sorted(
            NgramExtractor(one, compiled=False).extract([" ".join(words)]).ids.tolist()
        )


def test_sequence(vocabulary: NgramVocabulary) -> None:
    texts = ["the film was good", "", "a bäd film!"]
    plain, extractor = PlainVocabulary(vocabulary), NgramExtractor(vocabulary, compiled=False)
    found = join_probes(texts, [plain.probe(extractor.words(text)) for text in texts])
    assert found.num_texts == 3
    assert found.byte_ends.tolist() == [17, 17, 17 + len("a bäd film!".encode())]
    assert found.word_ends.tolist() == [4, 4, 8]
    assert found.words[5] == -1
    assert found.ngram_ends[-1] == len(found.ngrams)
    assert found.row_ends[-1] == found.rows.size
    assert found.rows.tolist()[: found.row_ends[0]] == list(plain.probe(texts[0].split()).rows)


def test_walk_touches_everything(vocabulary: NgramVocabulary) -> None:
    texts = ["the film was good and bad", "a film !"]
    plain, extractor = PlainVocabulary(vocabulary), NgramExtractor(vocabulary, compiled=False)
    sequence = join_probes(texts, [plain.probe(extractor.words(text)) for text in texts])
    sizes = Sizes(word_slots=16, ngram_slots=256, num_rows=vocabulary.num_rows, row_bytes=24)
    random = np.random.default_rng(0)
    word_table = random.integers(1 << 20, size=32).astype(np.uint64)
    ngram_table = random.integers(1 << 20, size=256).astype(np.uint64)
    rows = random.integers(1 << 20, size=(vocabulary.num_rows, 3)).astype(np.uint64)
    words, ngrams = _places(sequence, sizes)
    assert words.max() < sizes.word_slots
    assert ngrams.max() < sizes.ngram_slots
    raw = np.arange(1, 5, dtype=np.uint64)
    ends = np.array([2, 4])
    wanted = raw.sum() + word_table[2 * words].sum() + ngram_table[ngrams].sum() + rows[sequence.rows].sum()
    for ahead in (False, True):
        found = _walk(
            raw, ends, word_table, words, sequence.word_ends, ngram_table, ngrams, sequence.ngram_ends, rows,
            sequence.rows, sequence.row_ends, ahead,
        )  # fmt: skip
        assert int(found) == int(wanted)


def test_equal_keys_lie_together(vocabulary: NgramVocabulary) -> None:
    plain = PlainVocabulary(vocabulary)
    sequence = join_probes(["x", "y"], [plain.probe(["the", "film", "was"]), plain.probe(["the", "film", "was"])])
    sizes = table_sizes(vocabulary, row_bytes=72)
    words, ngrams = _places(sequence, sizes)
    assert words[:3].tolist() == words[3:].tolist()
    half = ngrams.size // 2
    assert ngrams[:half].tolist() == ngrams[half:].tolist()
    assert sizes.word_slots >= 1.5 * len(WORDS)
    assert sizes.ngram_slots >= 2 * vocabulary.node_prefix.size


def test_limits(vocabulary: NgramVocabulary) -> None:
    plain = PlainVocabulary(vocabulary)
    sequence = join_probes(["the film"], [plain.probe(["the", "film"])])
    found = measure_limits(sequence, table_sizes(vocabulary, row_bytes=12), repeats=2)
    assert set(found) == {"loads", "prefetched"}
    assert set(found["loads"]) == {"bytes", "words", "ngrams", "rows", "extraction", "path"}
    assert found["prefetched"]["path"].median > 0
