"""The tokenizer: called as any tokenizer, and against the extractor it is built on."""

import copy
import json
import pickle
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, DataCollatorWithPadding

from hf_sparse.student import SparseNgramForSequenceClassification, SparseNgramTokenizer
from hf_sparse.student.encoding_sparse_ngram import share_length
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary, pack_words

ModelFactory = Callable[..., SparseNgramForSequenceClassification]

TEXTS = ["the film was good", "", "unknown words only", "a bad , bad film !"]
PAIRS = ["good film", "the film", "", "was a"]


def ids_of(tokenizer: SparseNgramTokenizer, text: str) -> list[int]:
    """The ids of one text, straight from the extractor."""
    ids: list[int] = tokenizer.extractor.extract([text]).ids.tolist()
    return ids


def pad(row: list[int], width: int, side: str = "right") -> list[int]:
    """A row filled up with zeros."""
    zeros = [0] * (width - len(row))
    return row + zeros if side == "right" else zeros + row


def test_a_text_gives_its_ngrams_in_text_order(tokenizer: SparseNgramTokenizer) -> None:
    encoding = tokenizer("The film was")
    assert encoding.keys() == {"input_ids", "attention_mask"}
    tokens = tokenizer.convert_ids_to_tokens(encoding["input_ids"])
    assert [token for token in tokens if token.count(" ") < 2] == ["the", "the film", "film", "film was", "was"]
    assert encoding["attention_mask"] == [1] * len(tokens)
    assert tokenizer.tokenize("The film was") == tokens
    assert tokenizer.encode("The film was") == encoding["input_ids"]


def test_a_batch_is_what_its_texts_are_one_by_one(tokenizer: SparseNgramTokenizer) -> None:
    batch = tokenizer(TEXTS)
    assert batch["input_ids"] == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert batch["attention_mask"] == [tokenizer(text)["attention_mask"] for text in TEXTS]
    assert batch["input_ids"][1:3] == [[], []]
    assert tokenizer(tuple(TEXTS)) == batch
    assert tokenizer([])["input_ids"] == []
    assert tokenizer("")["input_ids"] == []


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", [None, "np", "pt"])
def test_padding(tokenizer: SparseNgramTokenizer, side: str, kind: str | None) -> None:
    rows = [ids_of(tokenizer, text) for text in TEXTS]
    longest = max(map(len, rows))
    for options, width in [
        ({"padding": True}, longest),
        ({"padding": "longest", "pad_to_multiple_of": 16}, -(-longest // 16) * 16),
        ({"padding": "max_length", "max_length": 40}, 40),
    ]:
        batch = tokenizer(TEXTS, return_tensors=kind, padding_side=side, **options)
        expected = [pad(row, width, side) for row in rows]
        mask = [pad([1] * len(row), width, side) for row in rows]
        assert np.array_equal(np.asarray(batch["input_ids"]), expected)
        assert np.array_equal(np.asarray(batch["attention_mask"]), mask)
        types = {None: list, "np": np.ndarray, "pt": torch.Tensor}
        assert isinstance(batch["input_ids"], types[kind])


def test_tensors_of_one_text_have_a_batch_dimension(tokenizer: SparseNgramTokenizer) -> None:
    assert tokenizer("the film", return_tensors="pt")["input_ids"].tolist() == [ids_of(tokenizer, "the film")]
    assert tokenizer("", return_tensors="pt")["input_ids"].shape == (1, 0)
    assert tokenizer("", return_tensors="np")["input_ids"].dtype == np.int64
    assert tokenizer([], return_tensors="pt", padding=True)["input_ids"].shape == (0, 0)


def test_tensors_of_ragged_rows_are_refused(tokenizer: SparseNgramTokenizer) -> None:
    with pytest.raises(ValueError, match="padding=True"):
        tokenizer(TEXTS, return_tensors="pt")
    with pytest.raises(ValueError, match="truncation=True"):
        tokenizer(TEXTS, return_tensors="np", padding="max_length", max_length=2, truncation=False)


@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_counts_ids(vocabulary: NgramVocabulary, side: str) -> None:
    tokenizer = SparseNgramTokenizer(vocabulary=vocabulary, truncation_side=side, model_max_length=5)
    rows = [ids_of(tokenizer, text) for text in TEXTS]
    for options, length in [({"truncation": True}, 5), ({"max_length": 3}, 3), ({"truncation": False}, 99)]:
        expected = [row[:length] if side == "right" else row[len(row) - min(length, len(row)) :] for row in rows]
        assert tokenizer(TEXTS, **options)["input_ids"] == expected


def test_pairs(tokenizer: SparseNgramTokenizer) -> None:
    first = [ids_of(tokenizer, text) for text in TEXTS]
    second = [ids_of(tokenizer, text) for text in PAIRS]
    batch = tokenizer(TEXTS, PAIRS)
    assert batch["input_ids"] == [a + b for a, b in zip(first, second, strict=True)]
    assert batch["token_type_ids"] == [[0] * len(a) + [1] * len(b) for a, b in zip(first, second, strict=True)]
    assert tokenizer(list(zip(TEXTS, PAIRS, strict=True))) == batch
    assert tokenizer(TEXTS[0], text_pair=PAIRS[0])["input_ids"] == batch["input_ids"][0]
    padded = tokenizer(TEXTS, PAIRS, padding=True, return_tensors="pt")
    assert padded["input_ids"].shape == padded["token_type_ids"].shape == padded["attention_mask"].shape
    without = tokenizer(TEXTS, PAIRS, return_token_type_ids=False, return_attention_mask=False)
    assert without.keys() == {"input_ids"}
    flat = tokenizer.extract(TEXTS, PAIRS)
    assert flat.lengths.reshape(-1, 2).tolist() == [[len(a), len(b)] for a, b in zip(first, second, strict=True)]
    assert flat.ids.tolist() == list(chain(*batch["input_ids"]))


@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
def test_pairs_share_max_length(tokenizer: SparseNgramTokenizer, truncation: str) -> None:
    first, second = ids_of(tokenizer, TEXTS[0]), ids_of(tokenizer, PAIRS[0])
    for max_length in range(5, 15):
        kept = {
            "longest_first": shorten(len(first), len(second), max_length),
            "only_first": (min(len(first), max(max_length - len(second), 0)), len(second)),
            "only_second": (len(first), min(len(second), max(max_length - len(first), 0))),
        }[truncation]
        encoding = tokenizer(TEXTS[0], PAIRS[0], truncation=truncation, max_length=max_length)
        assert encoding["input_ids"] == first[: kept[0]] + second[: kept[1]]


def shorten(first: int, second: int, max_length: int) -> tuple[int, int]:
    """Take ids from the longer text, one by one, and from the second where both are equally long."""
    while first + second > max_length:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return first, second


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40))
def test_the_longer_text_is_cut_first(first: int, second: int, max_length: int) -> None:
    kept = share_length(np.array([first, second]), max_length, "longest_first")
    assert tuple(kept.tolist()) == shorten(first, second, max_length)


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_text_is_encoded_as_the_extractor_does(tokenizer: SparseNgramTokenizer, texts: list[str]) -> None:
    flat = tokenizer.extractor.extract(texts)
    assert list(chain(*tokenizer(texts)["input_ids"])) == flat.ids.tolist()
    assert [len(row) for row in tokenizer(texts)["input_ids"]] == flat.lengths.tolist()


def test_extract_cuts_each_text(tokenizer: SparseNgramTokenizer) -> None:
    batch = tokenizer.extract(TEXTS, max_length=2)
    assert batch.ids.dtype == np.int32
    assert batch.lengths.tolist() == [2, 0, 0, 2]
    with pytest.raises(ValueError, match="4 texts, but 1 text_pairs"):
        tokenizer.extract(TEXTS, ["one"])


def test_words_given_one_by_one_are_joined(tokenizer: SparseNgramTokenizer) -> None:
    words = ["the", "film", "was"]
    assert tokenizer(words, is_split_into_words=True) == tokenizer("the film was")
    assert tokenizer([words, []], is_split_into_words=True) == tokenizer(["the film was", ""])


def test_special_tokens_in_a_text_are_text(tokenizer: SparseNgramTokenizer) -> None:
    assert 0 not in tokenizer("the [PAD] film")["input_ids"]


@pytest.mark.parametrize("wrong", [3, [3], [None], ["the", None], [["a", "b", "c"]]])
def test_what_is_no_text_is_refused(tokenizer: SparseNgramTokenizer, wrong: Any) -> None:
    with pytest.raises(ValueError, match="texts must be strings"):
        tokenizer(wrong)


def test_what_ngrams_cannot_give_is_refused(tokenizer: SparseNgramTokenizer) -> None:
    with pytest.raises(NotImplementedError, match="return_offsets_mapping"):
        tokenizer("the film", return_offsets_mapping=True)
    with pytest.raises(ValueError, match="cannot add"):
        tokenizer.add_tokens(["zebra"])
    assert tokenizer.add_tokens(["the film"]) == 0


def test_lengths_and_special_masks_on_request(tokenizer: SparseNgramTokenizer) -> None:
    batch = tokenizer(TEXTS, padding=True, return_length=True, return_special_tokens_mask=True)
    assert batch["length"] == tokenizer.extract(TEXTS).lengths.tolist()
    assert np.array_equal(1 - np.array(batch["attention_mask"]), batch["special_tokens_mask"])


def test_decoding_gives_ngram_texts(tokenizer: SparseNgramTokenizer) -> None:
    ids = tokenizer("the film")["input_ids"]
    assert tokenizer.decode(ids) == "the | the film | film"
    assert tokenizer.decode(torch.tensor(ids)) == tokenizer.decode(np.array(ids)) == tokenizer.decode(ids)
    assert tokenizer.decode([0, ids[0]]) == "[PAD] | the"
    assert tokenizer.decode([0, ids[0]], skip_special_tokens=True) == "the"
    assert tokenizer.batch_decode([ids, []]) == ["the | the film | film", ""]
    with pytest.raises(ValueError, match="row 999"):
        tokenizer.decode([999])


def test_the_vocabulary_as_a_dictionary(tokenizer: SparseNgramTokenizer, vocabulary: NgramVocabulary) -> None:
    mapping = tokenizer.get_vocab()
    assert len(mapping) == len(tokenizer) == tokenizer.vocab_size == vocabulary.num_rows
    assert list(mapping.values()) == list(range(vocabulary.num_rows))
    assert tokenizer.pad_token_id == mapping[tokenizer.pad_token] == 0
    for text in ("the", "the film", "bad and", "zebra"):
        assert tokenizer.convert_tokens_to_ids(text) == mapping.get(text)
    assert tokenizer.convert_ids_to_tokens(list(range(1, 20))) == [vocabulary.ngram_text(row) for row in range(1, 20)]


def test_pad_and_the_collator(tokenizer: SparseNgramTokenizer) -> None:
    collate = DataCollatorWithPadding(tokenizer)
    batch = collate([{**tokenizer(text), "label": 1} for text in TEXTS])
    assert torch.equal(batch["input_ids"], tokenizer(TEXTS, padding=True, return_tensors="pt")["input_ids"])
    assert batch["labels"].tolist() == [1] * 4


def test_saving_and_loading(vocabulary: NgramVocabulary, tmp_path: Path) -> None:
    tokenizer = SparseNgramTokenizer(vocabulary=vocabulary, model_max_length=7, padding_side="left")
    for folder in ("one", "two"):
        tokenizer.save_pretrained(tmp_path / folder)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / folder)
        assert isinstance(tokenizer, SparseNgramTokenizer)
        assert (tokenizer.model_max_length, tokenizer.padding_side) == (7, "left")
        assert tokenizer(TEXTS)["input_ids"] == SparseNgramTokenizer(vocabulary=vocabulary)(TEXTS)["input_ids"]
    saved = json.loads((tmp_path / "two" / "tokenizer_config.json").read_text())
    assert saved["vocabulary_sha256"] == vocabulary.sha256
    assert "one" not in json.dumps(saved)


def test_a_million_ngrams_load_in_less_than_two_seconds(tmp_path: Path) -> None:
    words, offsets = pack_words([f"w{index}" for index in range(1000)])
    firsts, lasts = np.repeat(np.arange(1000), 999), np.tile(np.arange(999), 1000)
    vocabulary = NgramVocabulary(
        words=words,
        word_offsets=offsets,
        node_prefix=np.concatenate([np.full(1000, -1), firsts]).astype(np.int32),
        node_word=np.concatenate([np.arange(1000), lasts]).astype(np.int32),
        node_row=np.arange(1, 1_000_001, dtype=np.int32),
        counts=np.arange(1_000_000, 0, -1),
        max_n=2,
        num_rows=1_000_001,
    )
    SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(tmp_path)
    start = time.process_time()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 1_000_001
    assert time.process_time() - start < 2


def test_another_vocabulary_is_noticed(vocabulary: NgramVocabulary, tmp_path: Path) -> None:
    SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(tmp_path)
    NgramVocabulary.from_counts({("other",): 1}).save(tmp_path)
    with pytest.raises(ValueError, match=r"vocabulary.safetensors has SHA-256 .* belongs to another model"):
        SparseNgramTokenizer.from_pretrained(tmp_path)


def test_a_missing_vocabulary_is_named(vocabulary: NgramVocabulary, tmp_path: Path) -> None:
    SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(tmp_path)
    (tmp_path / "vocabulary.safetensors").unlink()
    with pytest.raises((ValueError, OSError), match=str(tmp_path)):
        SparseNgramTokenizer.from_pretrained(tmp_path)


def test_copies_and_pickles_work_and_use_leaves_no_trace(vocabulary: NgramVocabulary) -> None:
    tokenizer = SparseNgramTokenizer(vocabulary=vocabulary)
    new = pickle.dumps(tokenizer)
    expected = tokenizer(TEXTS)
    tokenizer.get_vocab()
    tokenizer.convert_tokens_to_ids("the film")
    assert pickle.dumps(tokenizer) == new  # what `datasets` hashes to find a finished map again
    for other in (pickle.loads(new), copy.deepcopy(tokenizer)):
        assert other(TEXTS) == expected
        assert other.vocabulary_sha256 == other.vocabulary.sha256 == vocabulary.sha256


def test_datasets_map_with_processes(tokenizer: SparseNgramTokenizer) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": TEXTS * 3})
    mapped = data.map(lambda rows: tokenizer(rows["text"]), batched=True, batch_size=4, num_proc=2)
    assert mapped["input_ids"][:4] == tokenizer(TEXTS)["input_ids"]
