"""Naive-Bayes rows: ratios as counted by hand, directions the same however a table is divided."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from hf_sparse.distillation.batches import StudentBatch
from hf_sparse.distillation.losses import IGNORED_LABEL
from hf_sparse.distillation.naive_bayes import add_ratios, count_ratios, presence

ROWS = 9


def make_batch(texts: Sequence[Sequence[int]], *, sides: int = 1, **values: Any) -> StudentBatch:
    """Return texts given as lists of ids; for pairs two lists a text."""
    ids = torch.tensor([row for text in texts for row in text], dtype=torch.int32)
    lengths = torch.tensor([len(text) for text in texts])
    logits, labels = values.get("logits"), values.get("labels")
    count = len(texts) // sides
    return StudentBatch(ids=ids, lengths=lengths, logits=logits, labels=labels, num_in_batch=count)


def oracle(texts: Sequence[Sequence[int]], targets: np.ndarray) -> np.ndarray:
    """Count texts one by one."""
    ratios = np.zeros((ROWS, targets.shape[1]))
    shares = targets.mean(0)
    for row in range(ROWS):
        having = [target for text, target in zip(texts, targets, strict=True) if row in text]
        for label, share in enumerate(shares):
            within = sum(target[label] for target in having)
            without = len(having) - within
            ratios[row, label] = np.log((within + 1) / (len(having) * share + 1))
            ratios[row, label] -= np.log((without + 1) / (len(having) * (1 - share) + 1))
    pooled = [np.mean([ratios[row] for row in set(text)], axis=0) if text else np.zeros(len(shares)) for text in texts]
    return ratios / np.sqrt(np.mean([vector @ vector for vector in pooled]))


@pytest.mark.parametrize("seed", range(5))
def test_ratios_of_a_teacher(seed: int) -> None:
    random = np.random.default_rng(seed)
    texts = [random.integers(1, ROWS - 1, random.integers(0, 7)).tolist() for _ in range(40)]
    logits = torch.from_numpy(random.normal(size=(40, 3))).float()
    # How long the ratios of a text are is taken from the first batch; here it has all that differ.
    texts += texts
    logits = torch.cat([logits, logits])
    batches = [make_batch(texts[part], logits=logits[part]) for part in (slice(0, 40), slice(40, 80))]
    settings: dict[str, Any] = {"num_rows": ROWS, "num_labels": 3}
    found = count_ratios(batches, problem_type="single_label_classification", **settings)
    np.testing.assert_allclose(found, oracle(texts, torch.softmax(logits, -1).numpy()), atol=1e-5)
    found = count_ratios(batches, problem_type="multi_label_classification", **settings)
    np.testing.assert_allclose(found, oracle(texts, torch.sigmoid(logits).numpy()), atol=1e-5)


def test_ratios_of_gold_labels_leave_texts_without_one_out() -> None:
    texts = [[1, 2], [2, 2, 3], [4], [1], []]
    batch = make_batch(texts, labels=torch.tensor([0, 1, IGNORED_LABEL, 1, 0]))
    found = count_ratios([batch], num_rows=ROWS, num_labels=2, problem_type="single_label_classification")
    known = [text for row, text in enumerate(texts) if row != 2]
    np.testing.assert_allclose(found, oracle(known, np.array([[1, 0], [0, 1], [0, 1], [1, 0]])), atol=1e-6)
    nan = float("nan")
    labels = torch.tensor([[1.0, 1.0], [0.0, 1.0], [nan, nan], [0.0, 0.0], [1.0, 0.0]])
    several = make_batch(texts, labels=labels)
    found = count_ratios([several], num_rows=ROWS, num_labels=2, problem_type="multi_label_classification")
    np.testing.assert_allclose(found, oracle(known, labels[[0, 1, 3, 4]].numpy()), atol=1e-6)


def test_pair_has_the_ngrams_of_both_sides() -> None:
    found = presence(make_batch([[1, 2], [2, 3], [], [5, 5]], sides=2), num_rows=6).toarray()
    assert found.tolist() == [[0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]]


def test_only_frequent_labels_of_many_give_evidence() -> None:
    labels = torch.tensor([*range(100), *range(30, 94)])
    texts = [[1 + label % 7] for label in labels.tolist()]
    batch = make_batch(texts, labels=labels)
    found = count_ratios([batch], num_rows=ROWS, num_labels=100, problem_type="single_label_classification")
    expected = oracle(texts, np.eye(100)[labels])[:, 30:94]
    assert found.shape == expected.shape
    # Their length is that of the kept labels alone.
    np.testing.assert_allclose(found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=1e-5)


def test_regression_has_no_labels() -> None:
    batch = make_batch([[1]], labels=torch.tensor([0.5]))
    with pytest.raises(ValueError, match="a regression has no labels; set it to random"):
        count_ratios([batch], num_rows=ROWS, num_labels=1, problem_type="regression")


def test_directions_do_not_depend_on_the_division() -> None:
    ratios = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    whole = torch.zeros(ROWS, 8)
    add_ratios([whole], ratios, scale=2.0, seed=5, width=8, columns=(0, 8))
    parts = [torch.zeros(4, 3), torch.zeros(5, 3)]
    add_ratios(parts, ratios, scale=2.0, seed=5, width=8, columns=(2, 5))
    torch.testing.assert_close(torch.cat(parts), whole[:, 2:5])
    # Rows that speak alike begin alike, and labels are told apart.
    assert torch.linalg.matrix_rank(whole) == 3
    assert not torch.equal(whole, torch.zeros(ROWS, 8))
