"""What a sweep keeps of a student, against definitions written out."""

import numpy as np
import pytest
from scipy.special import log_softmax

from hf_sparse.evaluation.calibration import cross_fitted_error
from hf_sparse.sweeps.scoring import score_logits


def test_scores_of_one_label() -> None:
    random = np.random.default_rng(0)
    student, teacher = random.normal(size=(2, 50, 3)).astype(np.float32)
    labels = random.integers(0, 3, 50)
    found = score_logits(student, labels, teacher=teacher, problem_type="single_label_classification")
    assert list(found) == ["accuracy", "macro_f1", "agreement", "divergence", "ece"]
    assert found["accuracy"] == pytest.approx((student.argmax(1) == labels).mean())
    assert found["agreement"] == pytest.approx((student.argmax(1) == teacher.argmax(1)).mean())
    p, q = log_softmax(teacher.astype(float), axis=1), log_softmax(student.astype(float), axis=1)
    assert found["divergence"] == pytest.approx((np.exp(p) * (p - q)).sum(1).mean())
    assert found["ece"] == cross_fitted_error(student, labels)


def test_a_teacher_by_itself_and_numbers() -> None:
    logits = np.array([[0.1], [0.7], [0.4]], dtype=np.float32)
    numbers = np.array([0.2, 0.6, 0.5])
    assert set(score_logits(logits, numbers, problem_type="regression")) == {"mean_squared_error", "pearson"}
    found = score_logits(logits, numbers, teacher=logits, problem_type="regression")
    assert found["divergence"] == 0
    assert found["agreement"] == pytest.approx(1)


def test_several_labels() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, 3)).astype(np.float32)
    labels = (random.random((40, 3)) < 0.5).astype(np.float32)
    found = score_logits(logits, labels, teacher=logits, problem_type="multi_label_classification")
    assert found["agreement"] == 1
    assert found["divergence"] == pytest.approx(0, abs=1e-12)
    assert found["ece"] == cross_fitted_error(logits, labels)
