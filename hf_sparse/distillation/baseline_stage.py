"""The baselines of a run: trained on its D_train, chosen on its validation texts, scored once on its test texts."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_sparse.distillation import student_stages
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.recipe import BaselineName, Recipe
from hf_sparse.distillation.texts import shards
from hf_sparse.evaluation.baselines import TrainingTexts, missing_packages, plain_text, trained
from hf_sparse.evaluation.metrics import PRIMARY_METRIC, score
from hf_sparse.files import write_json


def require_packages(recipe: Recipe) -> None:
    """Check that the packages of the recipe's baselines are installed.

    Raises:
        ImportError: If one is missing.
    """
    missing = missing_packages(recipe.baselines.names)
    if missing:
        raise ImportError(
            f"baselines.names asks for {', '.join(missing)}, which is not installed; "
            "install it with: pip install 'hf-sparse[peers]', or take it out of the list"
        )


def write_baselines(plan: RunPlan, folder: Path, *, progress: bool) -> None:
    """Train what `baselines.names` asks for and write `<name>.json` each; what is there already stays."""
    names = [name for name in plan.recipe.baselines.names if not (folder / f"{name}.json").exists()]
    if not names:
        return
    texts = {text_set: _read(plan, text_set) for text_set in ("train", "validation", "test")}
    for name in tqdm(names, desc="baselines", disable=not progress):
        started = time.monotonic()
        result = _choose(plan, name, texts)
        write_json(folder / f"{name}.json", result | {"seconds": round(time.monotonic() - started, 1)})


def read_baselines(plan: RunPlan) -> dict[str, Any]:
    """Return what is known of each baseline, in the order of the recipe."""
    folder = plan.baselines_stage.folder
    return {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in plan.recipe.baselines.names
    }


def _read(plan: RunPlan, text_set: str) -> tuple[list[str], Any]:
    folder = plan.stage_folder("texts")
    if not shards(folder, text_set):
        return [], None
    student_stages.require_labels(folder, text_set)
    (texts, pairs), labels = student_stages.read_labelled(folder, text_set, plan.space)
    plain = map(plain_text, texts) if pairs is None else map(plain_text, texts, pairs)
    return list(plain), labels.numpy()


def _choose(plan: RunPlan, name: BaselineName, texts: dict[str, tuple[list[str], Any]]) -> dict[str, Any]:
    """Return the setting that is best on validation data, with its scores."""
    training = TrainingTexts(
        texts=texts["train"][0],
        labels=texts["train"][1],
        num_labels=plan.space.num_labels,
        encoder=plan.recipe.baselines.encoder or plan.recipe.teacher.model,
    )
    best: dict[str, Any] = {}
    best_test = None
    metric = PRIMARY_METRIC[plan.space.problem_type]
    for setting, classify in trained(name, training):
        validation = _score(plan, classify(texts["validation"][0]), texts["validation"][1])
        if not best or validation[metric] > best["validation"][metric]:
            best = {"setting": setting, "validation": validation}
            # Kept as predictions, unscored: only the chosen setting's are looked at.
            best_test = classify(texts["test"][0]) if texts["test"][0] else None
    if best_test is not None:
        best["test"] = _score(plan, best_test, texts["test"][1])
    return best


def _score(plan: RunPlan, scores: "np.ndarray[Any, Any]", labels: Any) -> dict[str, float]:
    return score(scores, labels, problem_type=plan.space.problem_type)
