"""Losses against torch's own definitions."""

import math

import pytest
import torch
from torch.nn import functional as F

from hf_sparse.distillation.losses import distillation_loss, gold_loss, has_label, mixed_loss

SINGLE = "single_label_classification"
MULTI = "multi_label_classification"


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=generator), 3 * torch.randn(6, 4, generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_single_label_distillation_has_the_temperature_on_both_sides(
    logits: tuple[torch.Tensor, torch.Tensor], temperature: float
) -> None:
    student, teacher = logits
    found = distillation_loss(student, teacher, problem_type=SINGLE, temperature=temperature)
    log_student, target = (student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1)
    expected = F.kl_div(log_student, target, reduction="none").sum(-1) * temperature**2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_multi_label_distillation_is_a_divergence_of_each_label(
    logits: tuple[torch.Tensor, torch.Tensor], temperature: float
) -> None:
    student, teacher = logits
    found = distillation_loss(student, teacher, problem_type=MULTI, temperature=temperature)
    p, q = (teacher / temperature).sigmoid(), (student / temperature).sigmoid()
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(found, divergence.mean(-1) * temperature**2, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, "regression"])
def test_distillation_loss_is_zero_for_the_teacher_itself(
    logits: tuple[torch.Tensor, torch.Tensor], problem_type: str
) -> None:
    found = distillation_loss(logits[1], logits[1], problem_type=problem_type, temperature=2.0)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.zeros(6), atol=1e-6, rtol=0)


def test_gold_losses(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, _ = logits
    ids = torch.tensor([0, 1, 2, 3, 0, 1])
    torch.testing.assert_close(
        gold_loss(student, ids, problem_type=SINGLE), F.cross_entropy(student, ids, reduction="none")
    )
    hot = F.one_hot(ids, 4).float()
    expected = F.binary_cross_entropy_with_logits(student, hot, reduction="none").mean(-1)
    torch.testing.assert_close(gold_loss(student, hot, problem_type=MULTI), expected)
    numbers = torch.arange(6.0)
    expected = (student[:, 0] - numbers).square()
    torch.testing.assert_close(gold_loss(student[:, :1], numbers, problem_type="regression"), expected)


def test_missing_labels_are_seen() -> None:
    assert has_label(torch.tensor([3, -100, 0])).tolist() == [True, False, True]
    assert has_label(torch.tensor([0.5, math.nan])).tolist() == [True, False]
    assert has_label(torch.tensor([[0.0, 1.0], [math.nan, math.nan]])).tolist() == [True, False]


def test_mixed_loss_weighs_gold_labels_only_where_there_are_some(
    logits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    student, teacher = logits
    labels = torch.tensor([0, -100, 2, -100, -100, 1])
    found = mixed_loss(student, teacher, labels, problem_type=SINGLE, temperature=2.0, gold_weight=0.3)
    total = 0.0
    for row, label in enumerate(labels.tolist()):
        one = slice(row, row + 1)
        soft = distillation_loss(student[one], teacher[one], problem_type=SINGLE, temperature=2.0).item()
        hard = 0.0 if label < 0 else F.cross_entropy(student[one], labels[one]).item()
        total += soft if label < 0 else 0.3 * hard + 0.7 * soft
    assert found.item() == pytest.approx(total / 6, rel=1e-5)


def test_mixed_loss_needs_something_to_compare_with(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="neither"):
        mixed_loss(logits[0], None, None, problem_type=SINGLE, temperature=1.0, gold_weight=1.0)
