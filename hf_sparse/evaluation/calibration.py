"""Calibration: one temperature that makes a classifier's probabilities honest, and a threshold for each label.

Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks") divides all logits by one number T,
which changes no label of a single-label task. Vector and matrix scaling, histogram binning and isotonic regression
have more parameters and gain little over it in that paper, so they are left out.
"""

import logging
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, ndtr, softmax
from sklearn.metrics import f1_score

from hf_sparse.distillation.recipe_data import ProblemType

logger = logging.getLogger(__name__)

NUM_BINS: Final = 15

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

# Beyond these nothing is measured any more: a student without a mistake on few texts asks for a temperature of 0.
_LOWEST, _HIGHEST = 0.05, 20.0
_CERTAIN = 1e-6
# Logits beyond this are probabilities of 0 and 1 in a file.
_LARGEST_LOGIT: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was fitted.

    Attributes:
        temperature: By which logits are divided.
        thresholds: For each of C labels the probability, without the temperature, above which a text has it; None
            where a text has one label.
    """

    temperature: float
    thresholds: list[float] | None


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How often predictions of about the same probability are right: the bins of a reliability diagram.

    Attributes:
        edges: (bins + 1,) bounds of the bins; a probability equal to a bound belongs to the bin below it.
        counts: (bins,) predictions in each bin.
        stated: (bins,) their mean probability, 0 in an empty bin.
        observed: (bins,) the share of them that is right, 0 in an empty bin.
    """

    edges: Doubles
    counts: npt.NDArray[np.int64]
    stated: Doubles
    observed: Doubles

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of stated and observed, weighted by counts."""
        total = self.counts.sum()
        return float((self.counts * np.abs(self.stated - self.observed)).sum() / total) if total else 0.0

    @property
    def debiased_error(self) -> float:
        """The same less what chance adds to it, at least 0: on few texts honest probabilities have an error too.

        The bias is what drawing the observed shares anew would add, by their normal approximation (Kumar et al. 2019,
        "Verified Uncertainty Calibration"); part of it stays, as they are drawn around what was observed.
        """
        some = self.counts > 0
        if not some.any():
            return 0.0
        counts, gap = self.counts[some], (self.stated - self.observed)[some]
        # One more of each outcome: a bin of one text is not sure of its share.
        share = (counts * self.observed[some] + 1) / (counts + 2)
        deviation = np.sqrt(share * (1 - share) / counts)
        # The mean of a folded normal distribution.
        drawn = deviation * np.sqrt(2 / np.pi) * np.exp(-((gap / deviation) ** 2) / 2)
        drawn += gap * (1 - 2 * ndtr(-gap / deviation))
        bias = float((counts * (drawn - np.abs(gap))).sum() / counts.sum())
        return max(0.0, self.error - bias)


def calibrate(logits: Array, labels: Array, *, problem_type: ProblemType) -> Calibration:
    """Fit a temperature and, for multi-label tasks, thresholds.

    Args:
        logits: (B, C).
        labels: Ids (B,), or multi-hot rows (B, C).
        problem_type: Of the task.

    Raises:
        ValueError: If it is a regression, or there are no texts.
    """
    if problem_type == "regression":
        raise ValueError("a regression gives no probabilities, so there is nothing to calibrate")
    is_multi_label = problem_type == "multi_label_classification"
    thresholds = fit_thresholds(logits, labels) if is_multi_label else None
    return Calibration(temperature=fit_temperature(logits, labels), thresholds=thresholds)


def to_probabilities(logits: Array, *, temperature: float = 1.0, is_multi_label: bool) -> Doubles:
    """Return the softmax, for multi-label tasks the sigmoid, of logits (B, C) divided by a temperature."""
    scaled = logits.astype(np.float64) / temperature
    found: Doubles = expit(scaled) if is_multi_label else softmax(scaled, axis=1)
    return found


def negative_log_likelihood(logits: Array, labels: Array, *, temperature: float = 1.0) -> float:
    """Return the mean over texts, or over all label decisions where labels are multi-hot rows (B, C)."""
    scaled = logits.astype(np.float64) / temperature
    if labels.ndim == 2:
        return float(-log_expit(np.where(labels > 0.5, scaled, -scaled)).mean())
    return float(-log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: Array, labels: Array) -> float:
    """Return the temperature with the smallest negative log-likelihood, between 0.05 and 20.

    The likelihood is concave in 1/T, so it has one maximum on the scale of log T as well.

    Args:
        logits: (B, C).
        labels: Ids (B,), or multi-hot rows (B, C).

    Raises:
        ValueError: If there are no texts.
    """
    if not len(logits):
        raise ValueError("there are no labelled texts to fit a temperature on; name texts with labels")
    found = minimize_scalar(
        lambda exponent: negative_log_likelihood(logits, labels, temperature=float(np.exp(exponent))),
        bounds=(np.log(_LOWEST), np.log(_HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(found.x))
    # Without a mistake the likelihood rises until it is one to the last digit, before the range ends.
    if found.fun < _CERTAIN or not 1.01 * _LOWEST < temperature < 0.99 * _HIGHEST:
        why = "no or next to no mistakes" if temperature < 1 else "probabilities no better than chance"
        logger.warning(
            "the temperature fitted on %d texts, %.3g, is the end of the range or says nothing: the classifier has %s "
            "on them, so its probabilities mean little; fit it on more texts",
            len(logits),
            temperature,
            why,
        )
    return temperature


def fit_thresholds(logits: Array, labels: Array) -> list[float]:
    """Return for each label the threshold on sigmoid(logit) with the best F1.

    A threshold lies halfway, in logits, between the texts it divides; of equal ones the nearest to 0.5 is taken, and
    0.5 for a label that no text has.

    Args:
        logits: (B, C).
        labels: Multi-hot rows (B, C).
    """
    return [_fit_threshold(logits[:, label], labels[:, label] > 0.5) for label in range(logits.shape[1])]


def _fit_threshold(logits: Array, is_label: npt.NDArray[np.bool_]) -> float:
    if not is_label.any():
        return 0.5
    order = np.argsort(-logits, kind="stable")
    ranked = np.clip(logits[order].astype(np.float64), -_LARGEST_LOGIT, _LARGEST_LOGIT)
    hits = np.cumsum(is_label[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + hits[-1])
    # Between the texts above a cut and those below it; the last cut has all texts above.
    below = np.append(ranked[1:], ranked[-1] - 1.0)
    cuts = np.where((below <= 0) & (ranked > 0), 0.0, (ranked + below) / 2)
    best = (ranked > below) & (f1 >= f1[ranked > below].max() - 1e-12)
    return float(expit(cuts[best][np.abs(cuts[best]).argmin()]))


def reliability(probabilities: Array, labels: Array, *, bins: int = NUM_BINS) -> Reliability:
    """Sort predictions into equal-width bins of their probability.

    Single-label: a text's prediction is its most probable label. Multi-label: each label of each text is a prediction,
    which is right where the text has the label.

    Args:
        probabilities: (B, C).
        labels: Ids (B,), or multi-hot rows (B, C).
        bins: Their number.
    """
    if labels.ndim == 2:
        stated, is_right = probabilities.reshape(-1), labels.reshape(-1) > 0.5
    else:
        stated, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, stated, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    some = np.maximum(counts, 1)
    return Reliability(
        edges=edges,
        counts=counts,
        stated=np.bincount(place, weights=stated, minlength=bins) / some,
        observed=np.bincount(place, weights=is_right, minlength=bins) / some,
    )


def expected_calibration_error(probabilities: Array, labels: Array, bins: int = NUM_BINS) -> float:
    """Return the expected calibration error (Guo et al. 2017, equation 3) in [0, 1]; see `reliability`."""
    return reliability(probabilities, labels, bins=bins).error


def cross_fitted_error(logits: Array, labels: Array) -> float | None:
    """Return the calibration error of texts that calibrate each other, without texts of their own to fit on.

    Every second text is divided by the temperature of the others, and the error is that of all of them.

    Args:
        logits: (B, C).
        labels: Ids (B,), or multi-hot rows (B, C).

    Returns:
        The expected calibration error; None for fewer than two texts.
    """
    if len(logits) < 2:
        return None
    probabilities = np.empty(logits.shape)
    for part, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        temperature = fit_temperature(logits[other], labels[other])
        is_multi_label = labels.ndim == 2
        probabilities[part] = to_probabilities(logits[part], temperature=temperature, is_multi_label=is_multi_label)
    return expected_calibration_error(probabilities, labels)


def measure_calibration(logits: Array, labels: Array, calibration: Calibration) -> dict[str, float | int]:
    """Return calibration error and negative log-likelihood before and after a temperature, and F1 by thresholds.

    Args:
        logits: (B, C).
        labels: Ids (B,), or multi-hot rows (B, C).
        calibration: What was fitted.

    Returns:
        `num_texts`, `ece_before`, `ece_after`, `ece_debiased_before`, `ece_debiased_after` (see `Reliability`),
        `nll_before`, `nll_after`; with thresholds `macro_f1_before` (all of them 0.5) and `macro_f1_after`.
    """
    found: dict[str, float | int] = {"num_texts": len(logits)}
    for name, temperature in (("before", 1.0), ("after", calibration.temperature)):
        probabilities = to_probabilities(logits, temperature=temperature, is_multi_label=labels.ndim == 2)
        bins = reliability(probabilities, labels)
        found[f"ece_{name}"], found[f"ece_debiased_{name}"] = bins.error, bins.debiased_error
        found[f"nll_{name}"] = negative_log_likelihood(logits, labels, temperature=temperature)
    if calibration.thresholds is not None:
        plain = to_probabilities(logits, is_multi_label=True)
        for name, thresholds in (("before", 0.5), ("after", np.array(calibration.thresholds))):
            predicted = plain > thresholds
            found[f"macro_f1_{name}"] = float(f1_score(labels > 0.5, predicted, average="macro", zero_division=0.0))
    return found
