"""Calibration against definitions written out in loops, and against what is known of the data."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from hf_sparse.evaluation.calibration import (
    calibrate,
    cross_fitted_error,
    expected_calibration_error,
    fit_temperature,
    fit_thresholds,
    measure_calibration,
    negative_log_likelihood,
    reliability,
    to_probabilities,
)


def slow_error(stated: list[float], right: list[bool], bins: int) -> float:
    """The definition of Guo et al. 2017, bin by bin, each (low, high]."""
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        members = [i for i, value in enumerate(stated) if low < value <= high or (index == 0 and value == 0)]
        if members:
            accuracy = sum(right[i] for i in members) / len(members)
            confidence = sum(stated[i] for i in members) / len(members)
            total += len(members) / len(stated) * abs(accuracy - confidence)
    return total


@given(seed=st.integers(0, 10_000), bins=st.sampled_from([1, 4, 15]))
@settings(deadline=None, max_examples=50)
def test_error_is_that_of_the_definition(seed: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(3, 0.3), size=40)
    labels = random.integers(0, 3, 40)
    right = [int(row.argmax()) == label for row, label in zip(probabilities, labels, strict=True)]
    expected = slow_error(probabilities.max(1).tolist(), right, bins)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected)
    several = random.random((40, 3))
    hot = (random.random((40, 3)) < 0.3).astype(np.float32)
    expected = slow_error(several.reshape(-1).tolist(), (hot.reshape(-1) > 0.5).tolist(), bins)
    assert expected_calibration_error(several, hot, bins) == pytest.approx(expected)


def test_error_of_bounds_and_extremes() -> None:
    assert expected_calibration_error(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1, 0])) == 0.0
    assert expected_calibration_error(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 1])) == 1.0
    diagram = reliability(np.array([[0.0, 1.0, 0.5]]), np.array([[0.0, 1.0, 0.0]]), bins=2)
    assert diagram.counts.tolist() == [2, 1]


def test_debiased_error_is_less_what_chance_adds() -> None:
    """The closed form against draws of the shares, and what it is for: honest probabilities of few texts."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(3, 0.5), size=300)
    labels = (probabilities.cumsum(1) < random.random((300, 1))).sum(1)
    bins = reliability(probabilities**2 / (probabilities**2).sum(1, keepdims=True), labels)
    some = bins.counts > 0
    share = (bins.counts * bins.observed + 1) / (bins.counts + 2)
    deviation = np.sqrt(share * (1 - share) / np.maximum(bins.counts, 1))
    drawn = random.normal(bins.observed, deviation, size=(100_000, len(share)))
    redrawn = (np.abs(bins.stated - drawn)[:, some] * bins.counts[some]).sum(1).mean() / bins.counts.sum()
    assert bins.debiased_error == pytest.approx(2 * bins.error - redrawn, abs=1e-4)

    plain, debiased = [], []
    for _ in range(200):
        labels = (probabilities.cumsum(1) < random.random((300, 1))).sum(1)
        bins = reliability(probabilities, labels)
        plain.append(bins.error)
        debiased.append(bins.debiased_error)
    assert np.mean(debiased) < 0.65 * np.mean(plain)
    assert min(debiased) >= 0.0


def test_debiased_error_of_many_texts_is_the_error() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(2, 0.5), size=200_000)
    labels = (probabilities.cumsum(1) < random.random((200_000, 1))).sum(1)
    bins = reliability(probabilities**3 / (probabilities**3).sum(1, keepdims=True), labels)
    assert bins.error > 0.05
    assert bins.debiased_error == pytest.approx(bins.error, rel=0.01)
    assert reliability(np.zeros((0, 2)), np.zeros(0, np.int64)).debiased_error == 0.0


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("is_multi_label", [False, True])
def test_temperature_is_the_scale_that_logits_were_multiplied_by(scale: float, is_multi_label: bool) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(scale=2.0, size=(20_000, 4))
    if is_multi_label:
        labels = (random.random(logits.shape) < to_probabilities(logits, is_multi_label=True)).astype(np.float32)
    else:
        noise = random.gumbel(size=logits.shape)
        labels = (logits + noise).argmax(1)
    temperature = fit_temperature((scale * logits).astype(np.float32), labels)
    assert temperature == pytest.approx(scale, rel=0.05)
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 301))
    losses = [negative_log_likelihood(scale * logits, labels, temperature=t) for t in grid]
    assert negative_log_likelihood(scale * logits, labels, temperature=temperature) <= min(losses) + 1e-9


def test_few_texts_without_a_mistake_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit_temperature(6.0 * np.eye(3, dtype=np.float32), np.arange(3))
    assert "no or next to no mistakes on them" in caplog.text


def test_a_classifier_without_mistakes_gets_the_end_of_the_range_and_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        temperature = fit_temperature(np.eye(3, dtype=np.float32), np.arange(3))
    assert temperature == pytest.approx(0.05, rel=1e-3)
    assert "fit it on more texts" in caplog.text


def test_nothing_to_fit_on() -> None:
    with pytest.raises(ValueError, match="no labelled texts"):
        fit_temperature(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="regression gives no probabilities"):
        calibrate(np.zeros((3, 1)), np.zeros(3), problem_type="regression")


@given(seed=st.integers(0, 10_000), digits=st.sampled_from([0, 3]))
@settings(deadline=None, max_examples=60)
def test_thresholds_have_the_best_f1_of_all(seed: int, digits: int) -> None:
    """Few digits make ties."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(25, 3)).round(digits)
    labels = (random.random((25, 3)) < [0.5, 0.1, 0.0]).astype(np.float32)
    found = fit_thresholds(logits, labels)
    for label in range(3):
        scores, gold = logits[:, label], labels[:, label] > 0.5
        probabilities = to_probabilities(logits, is_multi_label=True)[:, label]
        if not gold.any():
            assert found[label] == 0.5
            continue
        cuts = [*np.unique(scores), -10.0, 0.0]
        best = max(f1_score(gold, scores > cut, zero_division=0.0) for cut in cuts)
        assert f1_score(gold, probabilities > found[label]) == pytest.approx(best)
        if f1_score(gold, scores > 0, zero_division=0.0) == pytest.approx(best):
            assert found[label] == 0.5


def test_measures_before_and_after() -> None:
    random = np.random.default_rng(1)
    logits = 3 * random.normal(size=(500, 3))
    hot = (random.random((500, 3)) < to_probabilities(logits / 3 - 1, is_multi_label=True)).astype(np.float32)
    calibration = calibrate(logits, hot, problem_type="multi_label_classification")
    measured = measure_calibration(logits, hot, calibration)
    assert measured["ece_after"] < measured["ece_before"]
    assert measured["nll_after"] < measured["nll_before"]
    assert measured["macro_f1_after"] > measured["macro_f1_before"]
    single = calibrate(logits, hot.argmax(1), problem_type="single_label_classification")
    assert single.thresholds is None
    assert "macro_f1_after" not in measure_calibration(logits, hot.argmax(1), single)


def test_texts_that_calibrate_each_other() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(scale=2.0, size=(4001, 3))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(1)
    even, odd = fit_temperature(3 * logits[0::2], labels[0::2]), fit_temperature(3 * logits[1::2], labels[1::2])
    rows = [
        to_probabilities(3 * logits[i : i + 1], temperature=odd if i % 2 == 0 else even, is_multi_label=False)[0]
        for i in range(len(logits))
    ]
    expected = slow_error([row.max() for row in rows], [row.argmax() == y for row, y in zip(rows, labels)], 15)  # noqa: B905
    found = cross_fitted_error(3 * logits, labels)
    assert found == pytest.approx(expected)
    assert found < 0.03 < expected_calibration_error(to_probabilities(3 * logits, is_multi_label=False), labels)
    assert cross_fitted_error(logits[:1], labels[:1]) is None
