"""Distil a transformer text classifier into a sparse n-gram student.

    accelerate launch --quiet recipes/distill.py --config recipes/quickstart/distill.yaml
    python recipes/distill.py --config recipe.yaml --distil.epochs 6 --stages '[distil, evaluate, save]'
    python recipes/distill.py --config recipe.yaml --print_config

Every key of the recipe can be overridden on the command line; `hf_sparse/distillation/recipe.py` documents them.
An interrupted run goes on where it stopped when the same command is given again.
"""

import logging
import sys

import hf_sparse.distillation  # noqa: F401 (first, because it says which extra to install if a package is missing)

# isort: split
from jsonargparse import ArgumentError, auto_cli
from safetensors import SafetensorError

from hf_sparse.distillation.distill import distill
from hf_sparse.distillation.recipe import Recipe


def main() -> None:
    """Run the recipe that the command line names."""
    distill(auto_cli(Recipe, as_positional=False, exit_on_error=False))


if __name__ == "__main__":
    try:
        main()
    except (ArgumentError, ValueError, OSError, ImportError, SafetensorError) as error:
        logging.getLogger().debug("traceback", exc_info=True)
        sys.exit(f"error: {' '.join(str(error).split())}")
