"""A student that hands over to its teacher the texts it is least sure of.

How sure it is of a text is the probability of the label it would give, calibrated if the student has a temperature.
The margin to the second label was tried too: for two labels it gives the same order, for more no better one.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.classifier import NgramClassifier, strings
from hf_sparse.runtime.head import Doubles

HandOverRule = Literal["teacher", "average"]

HAND_OVER_RULES: Final[tuple[HandOverRule, ...]] = ("teacher", "average")


@dataclass(frozen=True, kw_only=True)
class CascadeResult:
    """The answers to B texts.

    Attributes:
        labels: The label of each.
        probabilities: (B, C) of whoever decided.
        handed_over: (B,) whether the teacher saw it.
    """

    labels: list[str]
    probabilities: Doubles
    handed_over: npt.NDArray[np.bool_]


class Cascade:
    """Classify texts by a student and, where its confidence is below a threshold, by a teacher.

    Args:
        student: Of one label a text.
        teacher: Returns logits (N, C) for a list of N texts, its columns in the order of the student's labels; for a
            student of sentence pairs it gets the list of their partners as well.
        threshold: A text is handed over if the student's confidence is below it; 0 hands over none, above 1 all.
        rule: For what is handed over: the `teacher` decides, or the `average` of both in log-probabilities.
        teacher_temperature: By which the teacher's logits are divided; it matters to the average.

    Raises:
        ValueError: The student does not give one label a text, the threshold is no number, or the rule is unknown.
    """

    def __init__(
        self,
        student: NgramClassifier,
        teacher: Callable[..., npt.NDArray[Any]],
        threshold: float,
        *,
        rule: HandOverRule = "teacher",
        teacher_temperature: float = 1.0,
    ) -> None:
        if student.problem_type != "single_label_classification":
            raise ValueError(f"a cascade needs one label a text, but the student is one of {student.problem_type}")
        if rule not in HAND_OVER_RULES:
            raise ValueError(f"rule is {rule!r}, but must be one of {', '.join(HAND_OVER_RULES)}")
        if math.isnan(threshold):
            raise ValueError("threshold is nan, but must be a number: 0 hands over no text, above 1 all")
        self.student, self.teacher, self.threshold = student, teacher, threshold
        self.rule, self.teacher_temperature = rule, teacher_temperature

    def predict(self, texts: Iterable[str], text_pairs: Iterable[str] | None = None) -> CascadeResult:
        """Classify texts; the teacher is called once with all that are handed over, or not at all.

        Args:
            texts: B texts.
            text_pairs: Their partners, for a student of sentence pairs.

        Raises:
            TypeError: `texts` is one string, or one of them is not a string.
            ValueError: The teacher gives other than C finite logits a text.
        """
        sides = [list(strings(side)) for side in (texts, text_pairs) if side is not None]
        found = log_probabilities(self.student.predict_logits(*sides), self.student.calibration_temperature or 1.0)
        handed_over = confidence(found) < self.threshold
        if handed_over.any():
            places = np.flatnonzero(handed_over)
            logits = np.asarray(self.teacher(*([side[place] for place in places] for side in sides)))
            if logits.shape != (len(places), found.shape[1]):
                raise ValueError(
                    f"the teacher gave logits of shape {logits.shape} for {len(places)} texts and "
                    f"{found.shape[1]} labels; it must have the labels of the student, in the same order"
                )
            finite = np.isfinite(logits).all(axis=1)
            if not finite.all():
                wrong = places[~finite][0]
                raise ValueError(f"the teacher's logits of text {wrong}, {sides[0][wrong]!r:.50}, are not finite")
            found[places] = decide(found[places], log_probabilities(logits, self.teacher_temperature), self.rule)
        names = [self.student.labels[index] for index in found.argmax(axis=1)]
        return CascadeResult(labels=names, probabilities=np.exp(found), handed_over=handed_over)


def log_probabilities(logits: npt.NDArray[Any], temperature: float = 1.0) -> Doubles:
    """Return the logarithm of the softmax of logits (B, C) divided by a temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    normalised: Doubles = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return normalised


def confidence(found: Doubles) -> Doubles:
    """Return the probability (B,) of the most probable label, given log-probabilities (B, C)."""
    largest: Doubles = np.exp(found.max(axis=1))
    return largest


def decide(student: Doubles, teacher: Doubles, rule: HandOverRule) -> Doubles:
    """Return the log-probabilities (B, C) of texts that were handed over, given those of student and teacher."""
    return teacher if rule == "teacher" else log_probabilities((student + teacher) / 2)
