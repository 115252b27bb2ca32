"""The n-gram expert against scikit-learn on dense matrices, and the weights of a mixture against a search."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from hf_sparse.distillation.ensemble import NgramExpert, mixing_weights


def make_features(count: int, num_labels: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return texts of 30 n-grams, of which each label likes other ones."""
    random = np.random.default_rng(seed)
    labels = random.integers(num_labels, size=count)
    liked = random.random((num_labels, 30)) * 0.5
    return (random.random((count, 30)) < liked[labels]).astype(np.float32), labels


@pytest.mark.parametrize("num_labels", [2, 4])
def test_expert_is_logistic_regression_on_weighted_ngrams(num_labels: int) -> None:
    features, labels = make_features(300, num_labels, seed=num_labels)
    expert = NgramExpert.fit(csr_matrix(features), labels, num_labels=num_labels, regularisation=0.5)
    found = expert.logits(csr_matrix(features))
    for label in range(num_labels):
        own, other = features[labels == label].sum(0), features[labels != label].sum(0)
        share = (labels == label).mean()
        ratios = np.log((own + 1) / ((own + other) * share + 1))
        ratios -= np.log((other + 1) / ((own + other) * (1 - share) + 1))
        model = LogisticRegression(C=0.5, solver="liblinear", random_state=0, max_iter=1000, tol=1e-8)
        model.fit(features * ratios, labels == label)
        expected = model.decision_function(features * ratios)
        np.testing.assert_allclose(found[:, label], expected, atol=0.05)
    assert (found.argmax(1) == labels).mean() > 0.6


def test_label_that_never_occurs_is_never_given() -> None:
    features, labels = make_features(100, 3, seed=0)
    labels = np.where(labels == 2, 0, labels)
    expert = NgramExpert.fit(csr_matrix(features), labels, num_labels=3, regularisation=1.0)
    assert 2 not in expert.logits(csr_matrix(features)).argmax(1)


def test_mixing_weights_are_the_best() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(3, size=400)
    sure, unsure = (np.eye(3)[labels] * scale + random.normal(size=(400, 3)) for scale in (2.0, 0.7))
    parts = [(part * 3).astype(np.float32) for part in (sure, unsure, random.normal(size=(400, 3)) * 5)]

    def loss(weights: np.ndarray) -> float:
        logits = sum(weight * part.astype(np.float64) for weight, part in zip(weights, parts, strict=True))
        chosen = logits[np.arange(400), labels]
        return float((np.log(np.exp(logits).sum(1)) - chosen).mean())

    found = mixing_weights(parts, labels)
    assert (found >= 0).all()
    assert found[0] > found[1] > found[2]
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.02:
        assert loss(found) <= loss(np.maximum(found + step, 0)) + 1e-9
