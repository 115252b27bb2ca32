"""The vocabulary: order, look-ups, and a file that is whole, reproducible and checked."""

import dataclasses
import errno
import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from tests.texts import make_tokenizer_json

COUNTS = {
    ("b",): 9,
    ("a",): 9,
    ("é",): 9,
    ("a", "b"): 9,
    ("字", "b"): 5,
    ("字",): 7,
    ("a", "b", "c"): 2,
    ("x", "a"): 2,
    ("\U0001f600",): 1,
    ("\uffee",): 1,
}
# By count, then n, then words; `c` and `x` are words without a row, and `x` is the prefix of a row.
ORDER = ["a", "b", "é", "a b", "字", "字 b", "x a", "a b c", "\uffee", "\U0001f600"]


@pytest.fixture
def vocabulary() -> NgramVocabulary:
    return NgramVocabulary.from_counts(COUNTS)


def test_order_of_rows(vocabulary: NgramVocabulary) -> None:
    assert [vocabulary.ngram_text(row) for row in range(1, vocabulary.num_rows)] == ORDER
    assert vocabulary.num_ngrams == len(COUNTS) == vocabulary.num_rows - 1
    assert vocabulary.max_n == 3


def test_words_are_compared_word_by_word() -> None:
    """`a c` comes before `a! b`, though the text `a! b` comes first."""
    counts = {("a",): 1, ("a!",): 1, ("b",): 1, ("c",): 1, ("a", "c"): 1, ("a!", "b"): 1}
    vocabulary = NgramVocabulary.from_counts(counts)
    assert [vocabulary.ngram_text(row) for row in (5, 6)] == ["a c", "a! b"]


def test_rows_and_words_are_inverse(vocabulary: NgramVocabulary) -> None:
    for row in range(1, vocabulary.num_rows):
        assert vocabulary.row_of(vocabulary.ngram_words(row)) == row
    for words in [(), ("x",), ("c",), ("unknown",), ("b", "a"), ("a", "b", "c", "a"), ("a", "unknown")]:
        assert vocabulary.row_of(words) == -1, words
    for row in (0, -1, vocabulary.num_rows):
        with pytest.raises(ValueError, match=f"no n-gram has row {row}: rows go from 1 to 10"):
            vocabulary.ngram_words(row)


def test_missing_prefixes_become_nodes_without_a_row(vocabulary: NgramVocabulary) -> None:
    without_row = np.flatnonzero(vocabulary.node_row == -1)
    assert [vocabulary.word_list[vocabulary.node_word[node]] for node in without_row] == ["x"]
    assert vocabulary.counts is not None
    assert vocabulary.counts[without_row].tolist() == [2]


def test_from_counts_refuses_the_empty_ngram() -> None:
    with pytest.raises(ValueError, match="at least one word"):
        NgramVocabulary.from_counts({(): 1})


@pytest.mark.parametrize("word", ["", "\ud800"])
def test_from_counts_refuses_words_that_cannot_be(word: str) -> None:
    with pytest.raises(ValueError, match=r"empty|surrogate"):
        NgramVocabulary.from_counts({(word,): 1})


@pytest.mark.parametrize("with_counts", [True, False])
@pytest.mark.parametrize("word_rule", ["words", "sklearn", "hf:some/repo"])
def test_save_and_load(tmp_path: Path, with_counts: bool, word_rule: str) -> None:
    tokenizer = make_tokenizer_json() if word_rule.startswith("hf:") else None
    vocabulary = NgramVocabulary.from_counts(COUNTS, word_rule=word_rule, tokenizer_json=tokenizer)
    if not with_counts:
        vocabulary = dataclasses.replace(vocabulary, counts=None)
    file = vocabulary.save(tmp_path)
    assert file == tmp_path / "vocabulary.safetensors"
    assert os.listdir(tmp_path) == ["vocabulary.safetensors"]  # noqa: PTH208 - the names, and nothing but them
    loaded = NgramVocabulary.load(tmp_path)
    for field in dataclasses.fields(NgramVocabulary):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(vocabulary, field.name), err_msg=field.name)
        assert type(getattr(loaded, field.name)) is type(getattr(vocabulary, field.name)), field.name
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert loaded.sha256 == vocabulary.sha256 == digest
    again = NgramVocabulary.load(file).save(tmp_path / "again.safetensors")
    assert again.read_bytes() == file.read_bytes()


def test_file_is_safetensors(vocabulary: NgramVocabulary, tmp_path: Path) -> None:
    """The library reads what is written by hand, and its metadata say which format it is."""
    file = vocabulary.save(tmp_path / "v.safetensors")
    with safe_open(file, framework="np") as stored:
        assert stored.metadata()["format_version"] == "1"
    np.testing.assert_array_equal(load_file(file)["node_prefix"], vocabulary.node_prefix)
    assert file.stat().st_mode & 0o777 == 0o644


def test_empty_vocabulary_round_trip(tmp_path: Path) -> None:
    vocabulary = NgramVocabulary.load(NgramVocabulary.from_counts({}).save(tmp_path))
    assert vocabulary.num_rows == 1
    assert vocabulary.row_of(("a",)) == -1


def test_full_disk_leaves_the_old_file(
    vocabulary: NgramVocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a temporary file nor half a vocabulary stays, and the message names the file."""
    file = vocabulary.save(tmp_path)
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write the vocabulary to .*vocabulary\.safetensors: No space"):
        NgramVocabulary.from_counts({("new",): 1}).save(tmp_path)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == before


def test_save_into_a_missing_folder(vocabulary: NgramVocabulary, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        vocabulary.save(tmp_path / "missing" / "v.safetensors")


def test_load_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no vocabulary at"):
        NgramVocabulary.load(tmp_path)


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_load_truncated_file(vocabulary: NgramVocabulary, tmp_path: Path, size: int) -> None:
    file = vocabulary.save(tmp_path)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"vocabulary\.safetensors is not a valid vocabulary"):
        NgramVocabulary.load(file)


def test_load_foreign_files(vocabulary: NgramVocabulary, tmp_path: Path) -> None:
    file = tmp_path / "v.safetensors"
    file.write_bytes(b"not safetensors at all" * 10)
    with pytest.raises(ValueError, match=r"v\.safetensors is not a valid vocabulary"):
        NgramVocabulary.load(file)
    save_file({"weight": np.zeros(3)}, file)
    with pytest.raises(ValueError, match="format version is None"):
        NgramVocabulary.load(file)
    dataclasses.replace(vocabulary, format_version=2).save(file)
    with pytest.raises(ValueError, match="format version is 2, this code reads 1"):
        NgramVocabulary.load(file)


def test_load_wrong_tensors(vocabulary: NgramVocabulary, tmp_path: Path) -> None:
    file = vocabulary.save(tmp_path)
    with safe_open(file, framework="np") as stored:
        metadata = stored.metadata()
    tensors = load_file(file)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"node_row": tensors["node_row"].astype(np.int64)}, "'node_row' must be I32 with one dimension, got I64"),
        ({"node_row": tensors["node_row"].reshape(1, -1)}, "'node_row' must be I32 with one dimension"),
        ({"node_word": None}, "it has no tensor 'node_word'"),
    ]
    for change, message in cases:
        save_file({k: v for k, v in (tensors | change).items() if v is not None}, file, metadata)
        with pytest.raises(ValueError, match=message):
            NgramVocabulary.load(file)
    for name in ("max_n", "num_rows", "word_rule", "clean"):
        save_file(tensors, file, {key: value for key, value in metadata.items() if key != name})
        with pytest.raises(ValueError, match=name):
            NgramVocabulary.load(file)


def changed(array: np.ndarray, index: int, value: int) -> np.ndarray:
    copy = array.copy()
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("node_prefix", 0, 0, "earlier node"),
        ("node_prefix", 3, 3, "earlier node"),
        ("node_prefix", 3, -2, "earlier node"),
        ("node_prefix", 3, 2**31 - 1, "earlier node"),
        ("node_prefix", 3, 1, None),
        ("node_prefix", 4, 8, "earlier node"),
        ("node_word", 0, -1, "node_word must lie in"),
        ("node_word", 0, 99, "node_word must lie in"),
        ("node_word", 1, 0, "the same n-gram"),
        ("node_row", 0, 0, "node_row must be -1 or lie in"),
        ("node_row", 0, -2, "node_row must be -1 or lie in"),
        ("node_row", 0, 11, "node_row must be -1 or lie in"),
        ("node_row", 0, 2, "the same row"),
        ("word_offsets", 0, 1, "word_offsets must rise"),
        ("word_offsets", -1, 3, "word_offsets must rise"),
        ("word_offsets", 1, 9, "word_offsets must rise"),
        ("word_offsets", 1, 0, "word_offsets must rise"),
        ("words", 0, 0xFF, "not valid UTF-8"),
        ("words", 0, ord("b"), "words must be distinct"),
    ],
)
def test_arrays_out_of_range_are_refused(
    vocabulary: NgramVocabulary, tmp_path: Path, field: str, index: int, value: int, message: str | None
) -> None:
    """What a compiled kernel would follow out of bounds, or what would make two n-grams one, does not load."""
    broken = dataclasses.replace(vocabulary, **{field: changed(getattr(vocabulary, field), index, value)})
    broken.save(tmp_path)
    if message is None:
        NgramVocabulary.load(tmp_path)
        return
    with pytest.raises(ValueError, match=f"vocabulary.safetensors is not a valid vocabulary: .*{message}"):
        NgramVocabulary.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_rows": 5}, "node_row must be -1 or lie in"),
        ({"max_n": 2}, "max_n is 2, but a node has more words"),
        ({"max_n": 0}, "max_n is 0"),
        ({"counts": np.zeros(3, dtype=np.int64)}, "counts must have the length"),
        ({"node_row": np.zeros(3, dtype=np.int32)}, "must have one length"),
        ({"word_offsets": np.zeros(0, dtype=np.int64)}, "word_offsets must rise"),
        ({"word_rule": "letters"}, "word_rule must be"),
        ({"word_rule": "hf:some/repo"}, "tokenizer_json is missing"),
        ({"clean": "xml"}, "clean must be one of"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    vocabulary: NgramVocabulary, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(vocabulary, **change).validate()


def test_header_length_beyond_the_file(vocabulary: NgramVocabulary, tmp_path: Path) -> None:
    file = vocabulary.save(tmp_path)
    file.write_bytes(struct.pack("<Q", 1 << 60) + file.read_bytes()[8:])
    with pytest.raises(ValueError, match="not a valid vocabulary"):
        NgramVocabulary.load(file)
