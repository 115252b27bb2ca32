"""Metrics against scikit-learn's own functions."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from hf_sparse.evaluation.metrics import agreement, predictions_of, retention, score

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(200, 4)).astype(np.float32)


def test_single_label() -> None:
    gold = RANDOM.integers(0, 4, 200)
    found = score(LOGITS, gold, problem_type="single_label_classification")
    predicted = LOGITS.argmax(1)
    assert found["accuracy"] == metrics.accuracy_score(gold, predicted)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(gold, predicted, average="macro"))


def test_macro_f1_counts_a_label_that_is_never_given() -> None:
    found = score(
        np.eye(3, dtype=np.float32)[[0, 0, 0]], np.array([0, 1, 2]), problem_type="single_label_classification"
    )
    assert found["macro_f1"] == pytest.approx(0.5 / 3)


def test_multi_label() -> None:
    gold = (RANDOM.random((200, 4)) < 0.4).astype(np.float32)
    found = score(LOGITS, gold, problem_type="multi_label_classification")
    predicted = LOGITS > 0
    assert found["accuracy"] == pytest.approx((predicted == gold).mean())
    assert found["subset_accuracy"] == metrics.accuracy_score(gold, predicted)
    for average in ("micro", "macro"):
        assert found[f"{average}_f1"] == pytest.approx(metrics.f1_score(gold, predicted, average=average))


def test_regression() -> None:
    gold = RANDOM.normal(size=200)
    found = score(LOGITS[:, :1], gold, problem_type="regression")
    assert found["mean_squared_error"] == pytest.approx(metrics.mean_squared_error(gold, LOGITS[:, 0]))
    assert found["pearson"] == pytest.approx(stats.pearsonr(gold, LOGITS[:, 0]).statistic)
    assert score(np.zeros((200, 1), np.float32), gold, problem_type="regression")["pearson"] == 0.0


def test_agreement_is_with_the_teachers_decisions() -> None:
    teacher = RANDOM.normal(size=(200, 4)).astype(np.float32)
    same = (LOGITS.argmax(1) == teacher.argmax(1)).mean()
    assert agreement(LOGITS, teacher, problem_type="single_label_classification") == pytest.approx(same)
    decisions = ((LOGITS > 0) == (teacher > 0)).mean()
    assert agreement(LOGITS, teacher, problem_type="multi_label_classification") == pytest.approx(decisions)
    assert agreement(2 * teacher[:, :1] + 1, teacher[:, :1], problem_type="regression") == pytest.approx(1.0)
    assert agreement(teacher, teacher, problem_type="single_label_classification") == 1.0


def test_retention() -> None:
    kept = retention({"accuracy": 0.9}, {"accuracy": 0.8}, problem_type="single_label_classification")
    assert kept == pytest.approx(1.125)
    assert retention({"macro_f1": 0.2}, {"macro_f1": 0.4}, problem_type="multi_label_classification") == 0.5
    for useless in (0.0, -0.1):
        assert retention({"pearson": 0.2}, {"pearson": useless}, problem_type="regression") is None


def test_predictions() -> None:
    logits = np.array([[0.1, -2.0], [-1.0, 3.0]], np.float32)
    assert predictions_of(logits, problem_type="single_label_classification").tolist() == [0, 1]
    assert predictions_of(logits, problem_type="multi_label_classification").tolist() == [[1, 0], [0, 1]]
    assert predictions_of(logits, problem_type="regression").tolist() == pytest.approx([0.1, -1.0])
