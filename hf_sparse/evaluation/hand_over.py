"""Selective prediction: what it brings to hand the texts that a student is least sure of over to its teacher."""

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score

from hf_sparse.runtime.cascade import HandOverRule, confidence, decide
from hf_sparse.runtime.head import Doubles

# Shares that are tried: every 100th of the texts.
SHARES: Final = tuple(index / 100 for index in range(101))
# No confidence is below the first or above the second.
_NONE, _ALL = 0.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What student and teacher say about B texts: log-probabilities (B, C), and the gold labels (B,)."""

    student: Doubles
    teacher: Doubles
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a threshold brings: the share of texts handed over, accuracy and macro-F1 of the whole."""

    threshold: float
    share: float
    accuracy: float
    macro_f1: float


def thresholds(confidences: Doubles, shares: tuple[float, ...] = SHARES) -> list[float]:
    """Return the threshold for each share, halfway between the confidences (B,) that it divides.

    Texts of equal confidence stay together, so the share handed over may be smaller than the one asked for.
    """
    ranked = np.sort(confidences)
    found = []
    for share in shares:
        place = round(share * len(ranked))
        inside = 0 < place < len(ranked)
        found.append(float(ranked[place - 1 : place + 1].mean()) if inside else (_ALL if place else _NONE))
    return found


def hand_over(answers: Answers, threshold: float, rule: HandOverRule) -> Point:
    """Return what a threshold brings on some texts."""
    handed_over = confidence(answers.student) < threshold
    whole = answers.student.copy()
    whole[handed_over] = decide(answers.student[handed_over], answers.teacher[handed_over], rule)
    accuracy, macro_f1 = score_labels(whole, answers.labels)
    return Point(threshold=threshold, share=float(handed_over.mean()), accuracy=accuracy, macro_f1=macro_f1)


def score_labels(found: Doubles, labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return accuracy and macro-F1 of log-probabilities (B, C)."""
    # As `evaluation.metrics.score`, whose way through an Arrow file costs too much for hundreds of points.
    predicted = found.argmax(axis=1)
    macro_f1 = f1_score(labels, predicted, average="macro", zero_division=0.0)
    return float((predicted == labels).mean()), float(macro_f1)


def curve(answers: Answers, rule: HandOverRule) -> list[Point]:
    """Return what every share of the texts handed over brings, from none to all."""
    return [hand_over(answers, threshold, rule) for threshold in thresholds(confidence(answers.student))]


def choose(points: list[Point], *, teacher_accuracy: float) -> dict[str, float | None]:
    """Choose thresholds by a curve on validation texts.

    Args:
        points: The curve, from none handed over to all.
        teacher_accuracy: What the teacher alone reaches there.

    Returns:
        `reaches_teacher`: that of the smallest share with the teacher's accuracy, None if no share has it; `best`:
        that of the smallest share with the best accuracy.
    """
    reached = [point.threshold for point in points if point.accuracy >= teacher_accuracy]
    best = max(points, key=lambda point: point.accuracy)
    return {"reaches_teacher": reached[0] if reached else None, "best": best.threshold}


def as_columns(points: list[Point]) -> dict[str, list[float]]:
    """Return a curve as lists, one for each attribute."""
    return {field.name: [getattr(point, field.name) for point in points] for field in fields(Point)}
