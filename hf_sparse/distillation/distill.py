"""The whole way from a recipe to a student, as `recipes/distill.py` and `hf-sparse distill` run it."""

import dataclasses
import logging
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from transformers.utils.logging import disable_progress_bar

from hf_sparse.distillation.recipe import Recipe
from hf_sparse.distillation.run import DistillationRun
from hf_sparse.distillation.trackers import require_trackers
from hf_sparse.files import only_process


def distill(recipe: Recipe) -> None:
    """Run the stages of a recipe, one after the other; print the short table of its report.

    In each of the processes that `accelerate launch` has started, or in this one alone.

    Args:
        recipe: What to do; stages that are there already are reused.

    Raises:
        ValueError: The recipe does not fit its texts or its teacher, or another process is at work in its output_dir;
            the message says what to change.
        OSError: A file cannot be read or written, or the Hub does not answer.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    disable_progress_bar()
    # Other processes wait for the first one while it counts, fine-tunes or evaluates.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
    require_trackers(recipe.trackers)
    accelerator = Accelerator(
        log_with=recipe.trackers or None, project_dir=recipe.output_dir, kwargs_handlers=[patience]
    )
    with only_process(Path(recipe.output_dir)) if accelerator.is_main_process else nullcontext():
        _distill(recipe, accelerator)


def _distill(recipe: Recipe, accelerator: Accelerator) -> None:
    accelerator.init_trackers("hf-sparse", config={"output_dir": recipe.output_dir, "teacher": recipe.teacher.model})
    if accelerator.device.type == "cpu" and accelerator.num_processes == 1 and torch.get_num_threads() == 1:
        logging.warning("one thread only; for more, accelerate launch has --num_cpu_threads_per_process")
    run = DistillationRun(recipe, accelerator=accelerator)
    run.texts()
    run.vocabulary()
    run.teacher()
    run.label()
    run.ensemble()
    run.distil()
    run.fine_tune()
    run.from_scratch()
    run.baselines()
    run.evaluate()
    run.save()
    run.push()
    accelerator.end_training()
    summary = run.summary()
    if summary is not None and accelerator.is_main_process:
        print(summary)


def label(recipe: Recipe) -> None:
    """Run a recipe as far as the teacher's answers, `label/*.parquet`; see `distill`.

    Args:
        recipe: What to do; its `stages` are left aside.
    """
    distill(dataclasses.replace(recipe, stages=["texts", "teacher", "label"]))
