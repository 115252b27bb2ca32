"""Metrics of a classifier as `evaluate` metrics, computed with scikit-learn's definitions.

`evaluate.load` needs the Hub; these are the same metrics as local `evaluate.Metric` classes.
"""

from typing import Any

import datasets
import evaluate
import numpy as np
import numpy.typing as npt
from sklearn import metrics as sklearn_metrics

from hf_sparse.distillation.recipe_data import ProblemType

Array = npt.NDArray[Any]

_DESCRIPTION = "Scores of {kind} predictions, with scikit-learn's definitions."


class _LocalMetric(evaluate.Metric):  # type: ignore[misc]
    """An `evaluate.Metric` that needs no file of its own."""

    kind = ""

    def _feature(self) -> Any:
        return datasets.Value("int64")

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION.format(kind=self.kind),
            citation="",
            features=datasets.Features({"predictions": self._feature(), "references": self._feature()}),
        )


class SingleLabelScores(_LocalMetric):
    """Accuracy and macro-F1 of label ids."""

    kind = "single-label"

    def _compute(self, predictions: Array, references: Array) -> dict[str, float]:
        return {
            "accuracy": float(sklearn_metrics.accuracy_score(references, predictions)),
            "macro_f1": float(sklearn_metrics.f1_score(references, predictions, average="macro", zero_division=0.0)),
        }


class MultiLabelScores(_LocalMetric):
    """Accuracy over all labels of all texts, subset accuracy, micro-F1 and macro-F1 of multi-hot rows."""

    kind = "multi-label"

    def _feature(self) -> Any:
        return datasets.Sequence(datasets.Value("int64"))

    def _compute(self, predictions: Array, references: Array) -> dict[str, float]:
        predicted, expected = np.asarray(predictions), np.asarray(references)
        return {
            "accuracy": float((predicted == expected).mean()),
            "subset_accuracy": float(sklearn_metrics.accuracy_score(expected, predicted)),
            "micro_f1": float(sklearn_metrics.f1_score(expected, predicted, average="micro", zero_division=0.0)),
            "macro_f1": float(sklearn_metrics.f1_score(expected, predicted, average="macro", zero_division=0.0)),
        }


class RegressionScores(_LocalMetric):
    """Mean squared error and Pearson correlation of numbers."""

    kind = "regression"

    def _feature(self) -> Any:
        return datasets.Value("float64")

    def _compute(self, predictions: Array, references: Array) -> dict[str, float]:
        predicted, expected = np.asarray(predictions), np.asarray(references)
        constant = predicted.std() == 0 or expected.std() == 0
        return {
            "mean_squared_error": float(np.square(predicted - expected).mean()),
            "pearson": 0.0 if constant else float(np.corrcoef(predicted, expected)[0, 1]),
        }


_METRICS: dict[str, type[_LocalMetric]] = {
    "single_label_classification": SingleLabelScores,
    "multi_label_classification": MultiLabelScores,
    "regression": RegressionScores,
}
# The metric that retention is the ratio of, and by which checkpoints are chosen.
PRIMARY_METRIC: dict[str, str] = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "macro_f1",
    "regression": "pearson",
}


def predictions_of(logits: Array, *, problem_type: ProblemType) -> Array:
    """Turn logits (B, C) into label ids (B,), multi-hot rows (B, C) or numbers (B,)."""
    if problem_type == "regression":
        return logits[:, 0].astype(np.float64)
    if problem_type == "multi_label_classification":
        return (logits > 0).astype(np.int64)
    labels: Array = logits.argmax(axis=-1).astype(np.int64)
    return labels


def score(logits: Array, references: Array, *, problem_type: ProblemType) -> dict[str, float]:
    """Return the metrics of a problem type for logits (B, C) and gold labels (ids, multi-hot rows or numbers)."""
    predictions = predictions_of(logits, problem_type=problem_type)
    metric = _METRICS[problem_type]()
    result: dict[str, float] = metric.compute(predictions=predictions, references=references)
    return {name: float(value) for name, value in result.items()}


def agreement(student: Array, teacher: Array, *, problem_type: ProblemType) -> float:
    """Return how often student and teacher logits (B, C) give the same label.

    Single-label: share of texts; multi-label: share of all (text, label) decisions; regression: Pearson correlation.
    """
    primary = "pearson" if problem_type == "regression" else "accuracy"
    reference = predictions_of(teacher, problem_type=problem_type)
    return score(student, reference, problem_type=problem_type)[primary]


def retention(student: dict[str, float], teacher: dict[str, float], *, problem_type: ProblemType) -> float | None:
    """Return the student's primary metric divided by the teacher's (None where that is not above 0)."""
    name = PRIMARY_METRIC[problem_type]
    return student[name] / teacher[name] if teacher[name] > 0 else None
