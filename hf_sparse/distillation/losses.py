"""Losses of distillation and of gold labels, per text, for the three problem types."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_sparse.distillation.recipe_data import ProblemType

IGNORED_LABEL = -100


def distillation_loss(
    student: Tensor,  # (B, C) logits
    teacher: Tensor,  # (B, C) logits
    *,
    problem_type: ProblemType,
    temperature: float,
) -> Tensor:  # (B,)
    """Return the loss of each text against the teacher.

    Single-label: `KL(softmax(t/T) || softmax(s/T)) * T^2` (Hinton et al. 2015; Ye et al. 2022, section 2.3, whose
    code leaves the temperature unused); multi-label: the same with a Bernoulli distribution for each label, its mean
    over labels; regression: the squared difference.
    """
    if problem_type == "regression":
        return (student - teacher).square().mean(dim=-1)
    student, teacher = student / temperature, teacher / temperature
    if problem_type == "multi_label_classification":
        target = teacher.sigmoid()
        cross_entropy = F.binary_cross_entropy_with_logits(student, target, reduction="none")
        entropy = F.binary_cross_entropy_with_logits(teacher, target, reduction="none")
        divergence = (cross_entropy - entropy).mean(dim=-1)
    else:
        log_student, log_teacher = student.log_softmax(dim=-1), teacher.log_softmax(dim=-1)
        divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)
    return divergence * temperature**2


def gold_loss(
    student: Tensor,  # (B, C) logits
    labels: Tensor,  # (B,) int64, or (B, C) or (B,) float
    *,
    problem_type: ProblemType,
) -> Tensor:  # (B,)
    """Return the loss of each text against its label; where there is none (see `has_label`) it is meaningless."""
    if problem_type == "regression":
        return (student[:, 0] - labels.nan_to_num()).square()
    if problem_type == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(student, labels.nan_to_num(), reduction="none").mean(dim=-1)
    return F.cross_entropy(student, labels, reduction="none", ignore_index=IGNORED_LABEL)


def has_label(labels: Tensor) -> Tensor:  # (B,) bool
    """Tell which texts have a label: an id other than -100, or numbers that are not NaN."""
    if labels.dtype == torch.int64:
        return labels != IGNORED_LABEL
    missing = labels.isnan()
    return ~(missing.any(dim=-1) if labels.dim() > 1 else missing)


def mixed_loss(
    student: Tensor,  # (B, C) logits
    teacher: Tensor | None,  # (B, C) logits
    labels: Tensor | None,  # see gold_loss
    *,
    problem_type: ProblemType,
    temperature: float,
    gold_weight: float,
) -> Tensor:  # ()
    """Return the mean over texts of the two losses, the gold one weighted by `gold_weight` where there is a label."""
    if labels is None or gold_weight == 0:
        if teacher is None:
            raise ValueError("a loss needs the teacher's logits or gold labels; these texts have neither")
        return distillation_loss(student, teacher, problem_type=problem_type, temperature=temperature).mean()
    weight = gold_weight * has_label(labels).to(student.dtype)
    gold = gold_loss(student, labels, problem_type=problem_type)
    if teacher is None:
        return (weight * gold).mean()
    soft = distillation_loss(student, teacher, problem_type=problem_type, temperature=temperature)
    return (weight * gold + (1 - weight) * soft).mean()
