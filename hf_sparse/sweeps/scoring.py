"""What a sweep keeps of a student: how right it is, how like its teacher, and how honest its probabilities are."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_sparse.distillation import student_stages
from hf_sparse.distillation.labelling import read_logits
from hf_sparse.distillation.losses import distillation_loss
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.recipe_data import ProblemType
from hf_sparse.evaluation.calibration import cross_fitted_error
from hf_sparse.evaluation.metrics import agreement, score

_STAGES: Final = ("distil", "fine_tune")

Array = npt.NDArray[Any]
Scores = dict[str, float | None]


class Scorer:
    """The validation texts of a run, and what its teacher says of them.

    Args:
        plan: A run with texts and labels.
    """

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._teacher = read_logits(plan.label_stage.folder, "validation")
        _, labels = student_stages.read_labelled(plan.texts_stage.folder, "validation", plan.space)
        self._labels = labels.numpy()

    def teacher(self) -> Scores:
        """Return the teacher's metrics and its `ece`; see `score_logits`."""
        return score_logits(self._teacher, self._labels, problem_type=self._plan.space.problem_type)

    def students(self) -> dict[str, Scores]:
        """Return what `score_logits` finds for the student of each stage that was trained."""
        return {
            name: score_logits(
                student_stages.student_logits(self._plan, name, "validation"),
                self._labels,
                teacher=self._teacher,
                problem_type=self._plan.space.problem_type,
            )
            for name in _STAGES
            if self._plan.is_current(name)
        }


def score_logits(logits: Array, labels: Array, *, teacher: Array | None = None, problem_type: ProblemType) -> Scores:
    """Score a classifier on labelled texts.

    Args:
        logits: (B, C).
        labels: Ids (B,), multi-hot rows (B, C) or numbers.
        teacher: The teacher's logits (B, C).
        problem_type: Of the task.

    Returns:
        The metrics of `evaluation.metrics.score`; unless it is a regression `ece`, the calibration error with
        temperatures fitted on every other text; with a teacher `agreement` with its labels and `divergence` from its
        probabilities, the loss of distillation at temperature 1.
    """
    found: Scores = dict(score(logits, labels, problem_type=problem_type))
    if teacher is not None:
        both = (torch.from_numpy(np.asarray(each, dtype=np.float64)) for each in (logits, teacher))
        loss = distillation_loss(*both, problem_type=problem_type, temperature=1.0)
        found["agreement"] = agreement(logits, teacher, problem_type=problem_type)
        found["divergence"] = float(loss.mean())
    if problem_type != "regression":
        found["ece"] = cross_fitted_error(logits, labels)
    return found
