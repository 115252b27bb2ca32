"""Batches of pairs: bags, and dropout within them."""

import numpy as np
import pytest
import torch

from hf_sparse.distillation.batches import BatchMaker, bag_numbers
from hf_sparse.distillation.stream import TextBatch
from tests.distillation.letters import ROWS, LetterTokenizer


def batch(texts: list[str], partners: list[str] | None) -> TextBatch:
    return TextBatch(
        texts=texts,
        text_pairs=partners,
        numbers=np.arange(len(texts)),
        logits=None,
        labels=None,
        epoch=0,
        num_in_batch=len(texts),
    )


def maker(**settings: object) -> BatchMaker:
    shape = {"tokenizer": LetterTokenizer(), "problem_type": "single_label_classification", "num_labels": 2}
    return BatchMaker(**(shape | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(("overlap", "lengths"), [(False, [3, 3, 0, 1]), (True, [1, 1, 4, 0, 1, 0])])
def test_bags_of_pairs(overlap: bool, lengths: list[int]) -> None:
    found = maker(overlap=overlap)(batch(["abc", ""], ["cbd", "x"]))
    assert found.lengths.tolist() == lengths
    assert found.num_in_batch == 2
    assert sorted(found.ids.tolist()) == sorted(ord(letter) % 49 + 1 for letter in "abccbdx")


def test_words_that_only_one_side_has_are_further_bags() -> None:
    letters = torch.zeros(ROWS, dtype=torch.uint8)
    letters[[ord(letter) % (ROWS - 1) + 1 for letter in "abx"]] = 1
    found = maker(overlap=True, is_word=letters)(batch(["abc", ""], ["cbd", "x"]))
    assert found.lengths.tolist() == [1, 1, 4, 0, 1, 0, 1, 1]
    assert found.words is not None
    assert found.words.tolist() == [1, 0, 0, 1]
    assert found.ids.tolist()[-2:] == [ord(letter) % (ROWS - 1) + 1 for letter in "ax"]


def test_what_is_dropped_from_one_side_is_shared_all_the_same() -> None:
    texts = ["abcdefgh"] * 50
    found = maker(overlap=True, ngram_dropout=0.5)(batch(texts, texts))
    first, second, shared = found.lengths.view(-1, 3).sum(0).tolist()
    assert (first, second) == (0, 0)
    assert 0.4 < shared / (16 * len(texts)) < 0.6


def test_numbers_of_bags() -> None:
    assert bag_numbers(np.array([4, 7]), 1).tolist() == [4, 7]
    assert bag_numbers(np.array([4, 7]), 2).tolist() == [8, 9, 14, 15]
    assert bag_numbers(np.array([4, 7]), 3).tolist() == [12, 13, 14, 21, 22, 23]
    assert bag_numbers(np.array([], np.int64), 0).tolist() == []
