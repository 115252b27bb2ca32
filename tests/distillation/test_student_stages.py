"""The stages that train students, run in this process on a tiny task."""

from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from hf_sparse.distillation import student_stages
from hf_sparse.distillation.run import DistillationRun
from hf_sparse.distillation.shares import read_recipe
from hf_sparse.distillation.student_step import StudentStep
from tests.recipes.conftest import recipe, write_recipe
from tests.tiny_task import write_task


def test_training_that_goes_on_does_not_count_for_naive_bayes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = read_recipe(str(write_recipe(recipe(write_task(tmp_path), tmp_path / "run"), tmp_path)))
    run = DistillationRun(content, accelerator=Accelerator(cpu=True))
    for stage in (run.texts, run.vocabulary, run.teacher, run.label):
        stage()
    counted: list[Any] = []
    count_ratios = student_stages.count_ratios

    def count(*args: Any, **options: Any) -> Any:
        counted.append(args)
        return count_ratios(*args, **options)

    monkeypatch.setattr(student_stages, "count_ratios", count)
    take = StudentStep.take
    steps = 0

    def take_or_stop(*args: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps in (1, 4):
            raise KeyboardInterrupt
        return take(*args, **options)

    monkeypatch.setattr(StudentStep, "take", take_or_stop)
    for times in (1, 2):  # without a checkpoint, and then until there is one
        with pytest.raises(KeyboardInterrupt):
            run.distil()
        assert len(counted) == times
    run.distil()
    assert run.distil_stage.is_done()
    assert len(counted) == 2


def test_precision_whose_gradients_vanish_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read_recipe(str(write_recipe(recipe(tmp_path, tmp_path / "run"), tmp_path)))
    # Accelerate itself refuses it where there is no GPU.
    monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")
    with pytest.raises(ValueError, match=r"mixed_precision is fp16.*use bf16"):
        DistillationRun(content, accelerator=Accelerator(cpu=True))
