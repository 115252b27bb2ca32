"""Distil a transformer text classifier into a sparse n-gram student.

    accelerate launch --quiet recipes/distill.py --config recipes/quickstart/distill.yaml
    python recipes/distill.py --config recipe.yaml --distil.epochs 6 --stages '[distil, evaluate, save]'
    python recipes/distill.py --config recipe.yaml --print_config

Every key of the recipe can be overridden on the command line; `hf_sparse/distillation/recipe.py` documents them.
An interrupted run goes on where it stopped when the same command is given again.
"""

import logging
import sys
from datetime import timedelta

import hf_sparse.distillation  # noqa: F401 (first, because it says which extra to install if a package is missing)

# isort: split
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from jsonargparse import ArgumentError, auto_cli
from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar

from hf_sparse.distillation.recipe import Recipe
from hf_sparse.distillation.run import DistillationRun
from hf_sparse.distillation.trackers import require_trackers


def main() -> None:
    """Run the stages of a recipe, one after the other."""
    recipe: Recipe = auto_cli(Recipe, as_positional=False, exit_on_error=False)
    disable_progress_bar()
    # Other processes wait for the first one while it counts, fine-tunes or evaluates.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
    require_trackers(recipe.trackers)
    accelerator = Accelerator(
        log_with=recipe.trackers or None, project_dir=recipe.output_dir, kwargs_handlers=[patience]
    )
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


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main()
    except (ArgumentError, ValueError, OSError, ImportError, SafetensorError) as error:
        logging.getLogger().debug("traceback", exc_info=True)
        sys.exit(f"error: {' '.join(str(error).split())}")
