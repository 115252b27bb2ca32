r"""Count or label on a cluster: shares of a stage as tasks of datatrove's executors, on this machine, Slurm or Ray.

    python recipes/distill.py --config recipe.yaml --stages '[texts, teacher]'
    python recipes/cluster.py recipe.yaml --stage vocabulary --tasks 64 --executor slurm \
        --options '{time: "4:00:00", partition: cpu, cpus_per_task: 8, mem_per_cpu_gb: 4}'
    python recipes/cluster.py recipe.yaml --stage label --tasks 64 --executor slurm \
        --options '{time: "8:00:00", partition: gpu, gpus_per_task: 1}'
    accelerate launch recipes/distill.py --config recipe.yaml

The folder of the run must be on a disk that all nodes share. A command that is given again skips what is finished, and
the last one publishes what the tasks have made. `--options` are those of the executor's class in datatrove.
"""

import logging
import sys
from importlib import import_module
from typing import Any, Final, Literal

from jsonargparse import ArgumentError, auto_cli

from hf_sparse.distillation.shares import LOGS, Share, StageInShares, new_plan, read_recipe, stage_of, steps_of
from hf_sparse.extras import require_extra

_EXECUTORS: Final = {
    "local": "LocalPipelineExecutor",
    "slurm": "SlurmPipelineExecutor",
    "ray": "RayPipelineExecutor",
}


def run_on_cluster(
    recipe: str,
    stage: StageInShares,
    *,
    tasks: int = 8,
    workers: int = -1,
    executor: Literal["local", "slurm", "ray"] = "local",
    mixed_precision: str = "no",
    options: dict[str, Any] | None = None,
) -> None:
    """Hand the shares of a stage to an executor.

    Args:
        recipe: The YAML file of the recipe.
        stage: The stage: vocabulary or label.
        tasks: Into how many shares it is cut.
        workers: How many of them run at a time; -1 is all.
        executor: What runs them.
        mixed_precision: Precision with which `accelerate launch` will train.
        options: Further options of the executor's class.
    """
    require_extra("cluster")
    new_executor = getattr(import_module("datatrove.executor"), _EXECUTORS[executor])
    content = read_recipe(recipe)
    plan = new_plan(content, mixed_precision=mixed_precision)
    work = stage_of(plan, stage)
    if work.is_done():
        logging.info("%s: %s (there already)", stage, work.folder)
        return
    partial = work.open_partial()
    before: Any = None
    for step in steps_of(stage, content.vocabulary.max_n):
        shares = 1 if step.startswith("merge") else tasks
        before = new_executor(
            pipeline=[Share(recipe=content, step=step, mixed_precision=mixed_precision)],
            tasks=shares,
            workers=min(shares, workers),
            # Another number of tasks is another set of shares.
            logging_dir=str(partial / LOGS / f"{step}-of-{shares}"),
            depends=before,
            **({"job_name": f"hf-sparse-{step}"} if executor == "slurm" else {}),
            **(options or {}),
        )
    before.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        auto_cli(run_on_cluster, exit_on_error=False)
    except (ArgumentError, ImportError, ValueError, OSError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
