"""The report of a run and the saved student: everything published about a student comes from `report.json`."""

import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

from hf_sparse.distillation import student_stages
from hf_sparse.distillation.baseline_stage import read_baselines
from hf_sparse.distillation.ensemble import read_ensemble
from hf_sparse.distillation.labelling import read_logits
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.student_calibration import calibrate_run, set_calibration
from hf_sparse.distillation.student_facts import describe_student
from hf_sparse.distillation.texts import TEXT_SETS, num_texts, read_texts, shards
from hf_sparse.evaluation.metrics import agreement, retention, score
from hf_sparse.evaluation.speed import measure_throughput
from hf_sparse.files import replace_folder, write_atomic, write_json
from hf_sparse.hub.card import write_card
from hf_sparse.runtime.head import above_thresholds
from hf_sparse.student import SparseNgramForSequenceClassification, SparseNgramTextClassificationPipeline

_PACKAGES = ("hf-sparse", "torch", "transformers", "numpy", "numba", "datasets", "accelerate")
_SPEED_TEXTS = 256


def make_report(plan: RunPlan) -> dict[str, Any]:
    """Measure teacher and students on the test set (on validation data if there is none).

    Returns:
        What `report.json` holds: `teacher`, `student`, `retention`, `agreement`, `calibration`, `texts_per_second`,
        `speedup`, `num_parameters`, the scores of every stage, the texts, the environment and the recipe; for several
        labels a text `student_with_thresholds` (all other scores are by probabilities of 0.5).
    """
    texts_folder = plan.stage_folder("texts")
    text_set = "test" if shards(texts_folder, "test") else "validation"
    problem_type = plan.space.problem_type
    teacher_logits = read_logits(plan.stage_folder("label"), text_set)
    references = _references(plan, text_set)
    teacher = None if references is None else score(teacher_logits, references, problem_type=problem_type)
    chosen = student_stages.choose_student(plan)
    stages, answers = {}, {}
    for name in ("distil", "fine_tune", "from_scratch"):
        if plan.is_current(name):
            answers[name] = student_stages.student_logits(plan, name, text_set)
            stages[name] = _compare(answers[name], teacher_logits, references, teacher, problem_type=problem_type)
            validation = plan.stage_folder(name) / "validation.json"
            stages[name]["validation"] = json.loads(validation.read_text(encoding="utf-8"))
    student = stages[chosen]
    model = student_stages.load_student(plan, chosen)
    report: dict[str, Any] = {
        "text_set": text_set,
        "problem_type": problem_type,
        "labels": list(plan.space.names),
        "label_values": None if problem_type == "regression" else plan.space.meanings(),
        "num_texts": {name: num_texts(texts_folder, name) for name in TEXT_SETS},
        "teacher": {
            "model": plan.recipe.teacher.model,
            "base_model": _base_model(plan),
            "fine_tuned": plan.needs_fine_tuning,
            **(teacher or {}),
        },
        "student": {"stage": chosen, **student["metrics"]},
        **_ensemble(plan, text_set, references),
        "retention": student["retention"],
        "agreement": student["agreement"],
        "calibration": calibrate_run(plan, chosen),
        "num_parameters": model.num_parameters(),
        "num_ngrams": model.config.vocab_size - 1,
        "pooling": model.config.pooling,
        "stages": stages,
        **({"baselines": read_baselines(plan)} if plan.recipe.baselines.names else {}),
        "environment": _environment(),
        "recipe": dataclasses.asdict(plan.recipe),
    }
    report |= _with_thresholds(answers[chosen], references, report["calibration"], problem_type=problem_type)
    if plan.recipe.evaluate.speed_seconds > 0:
        report |= _measure_speed(plan, model, text_set)
    return report


def format_summary(report: dict[str, Any]) -> str:
    """Return the short table of a report."""
    names = [name for name in ("accuracy", "macro_f1", "mean_squared_error", "pearson") if name in report["student"]]
    speeds = report.get("texts_per_second")
    header = ["", *(name.replace("_", " ") for name in names), *(["texts/s"] if speeds else [])]
    rows = [header]
    for who in ("teacher", "student"):
        row = [who, *(f"{report[who][name]:.4f}" for name in names)]
        rows.append([*row, f"{speeds[who]:,.0f}"] if speeds else row)
    if "student_with_thresholds" in report:
        scores = report["student_with_thresholds"]
        rows.append(["student, thresholds", *(f"{scores[name]:.4f}" for name in names), *([""] if speeds else [])])
    for who, found in report.get("baselines", {}).items():
        scores = found.get("test", found["validation"])
        rows.append([who, *(f"{scores[name]:.4f}" for name in names), *([""] if speeds else [])])
    if len(header) == 1:  # without gold labels and speeds there is nothing to tabulate
        rows = []
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    facts = [f"agreement {report['agreement']:.4f}", f"{report['num_parameters']:,} parameters"]
    if report["retention"] is not None:
        facts.insert(0, f"retention {report['retention']:.4f}")
    if speeds:
        facts.append(f"{report['speedup']:,.0f} times faster")
    return "\n".join([*lines, ", ".join(facts)])


def publish_report(source: Path, target: Path) -> None:
    """Copy the report to the folder of the plan."""
    write_atomic(target, source.read_text(encoding="utf-8"))


def save_student(plan: RunPlan) -> Path:
    """Write the chosen student, its tokenizer, code, card, report and recipe to `student/`; return that folder."""
    target, marker = plan.folder / "student", plan.folder / ".student.json"
    key = {"key": plan.evaluated_key(), "hub": dataclasses.asdict(plan.recipe.hub)}
    if target.exists() and marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == key:
        publish_report(target / "report.json", plan.folder / "report.json")
        return target
    partial = plan.folder / "student.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    report = json.loads((plan.stage_folder("evaluate") / "report.json").read_text(encoding="utf-8"))
    model = student_stages.load_student(plan, report["student"]["stage"])
    set_calibration(model.config, report)
    model.save_pretrained(partial, max_shard_size=plan.recipe.hub.max_shard_size)
    student_stages.load_tokenizer(plan).save_pretrained(partial)
    report["recipe"] = dataclasses.asdict(plan.recipe)  # whose part about the Hub may be newer than the scores
    report["hub"] = describe_student(partial, plan.recipe, *_held_out_texts(plan))
    write_json(partial / "report.json", report)
    write_atomic(partial / "recipe.yaml", yaml.safe_dump(report["recipe"], sort_keys=False, allow_unicode=True))
    write_card(partial)
    # Without the marker no kill can leave one recipe's student under another's key.
    marker.unlink(missing_ok=True)
    replace_folder(partial, target)
    write_json(marker, key)
    publish_report(target / "report.json", plan.folder / "report.json")
    return target


def _held_out_texts(plan: RunPlan) -> tuple[list[str], list[str] | None]:
    """Return validation texts, or the report's if there are none, and their partners."""
    folder = plan.stage_folder("texts")
    flat = list(read_texts(folder, "validation" if num_texts(folder, "validation") else "test"))
    return (flat[::2], flat[1::2]) if student_stages.has_pairs(plan) else (flat, None)


def _ensemble(plan: RunPlan, text_set: str, references: Any) -> dict[str, Any]:
    """Return the scores of teacher and n-gram expert together, if the student was distilled from both."""
    if not plan.recipe.teacher.ngram_expert:
        return {}
    folder = plan.targets_stage.folder
    found = read_ensemble(folder)
    if references is not None:
        found |= score(read_logits(folder, text_set), references, problem_type=plan.space.problem_type)
    return {"ensemble": found}


def _with_thresholds(
    logits: Any, references: Any, calibration: dict[str, Any] | None, *, problem_type: Any
) -> dict[str, Any]:
    """Return the scores of what a student of several labels a text answers, by the thresholds that were fitted."""
    thresholds = (calibration or {}).get("label_thresholds")
    if thresholds is None or references is None:
        return {}
    decided = above_thresholds(logits, {"problem_type": problem_type, "label_thresholds": thresholds})
    return {"student_with_thresholds": score(decided, references, problem_type=problem_type)}


def _compare(
    logits: Any, teacher_logits: Any, references: Any, teacher: dict[str, float] | None, *, problem_type: Any
) -> dict[str, Any]:
    metrics = {} if references is None else score(logits, references, problem_type=problem_type)
    kept = None if teacher is None else retention(metrics, teacher, problem_type=problem_type)
    agreed = agreement(logits, teacher_logits, problem_type=problem_type)
    return {"metrics": metrics, "retention": kept, "agreement": agreed}


def _base_model(plan: RunPlan) -> str | None:
    recipe = plan.recipe.teacher
    return recipe.base_model or (None if Path(recipe.model).exists() else recipe.model)


def _references(plan: RunPlan, text_set: str) -> Any:
    files = shards(plan.stage_folder("texts"), text_set)
    if "label" not in pq.read_schema(files[0]).names:
        return None
    _, labels = student_stages.read_labelled(plan.stage_folder("texts"), text_set, plan.space)
    return labels.numpy()


def _measure_speed(plan: RunPlan, model: SparseNgramForSequenceClassification, text_set: str) -> dict[str, Any]:
    encoder = plan.teacher_encoder(labelling=True)
    pairs = student_stages.has_pairs(plan)
    flat = list(read_texts(plan.stage_folder("texts"), text_set))
    items: list[Any] = list(zip(flat[::2], flat[1::2], strict=True)) if pairs else list(flat)
    chosen = np.random.default_rng(plan.recipe.seed).permutation(len(items))[:_SPEED_TEXTS]
    sample = [items[index] for index in chosen]
    pipe = SparseNgramTextClassificationPipeline(
        model=model.train(False), tokenizer=student_stages.load_tokenizer(plan), device=plan.device
    )

    def classify_by_teacher(texts: Sequence[Any]) -> object:
        first = [text[0] for text in texts] if pairs else list(texts)
        second = [text[1] for text in texts] if pairs else None
        return encoder.logits(first, second)

    def classify_by_student(texts: Sequence[Any]) -> object:
        inputs = [{"text": a, "text_pair": b} for a, b in texts] if pairs else list(texts)
        return pipe(inputs, batch_size=plan.recipe.evaluate.batch_size)

    contestants = {"teacher": classify_by_teacher, "student": classify_by_student}
    found = measure_throughput(contestants, sample, seconds=plan.recipe.evaluate.speed_seconds)
    return {
        "texts_per_second": {name: rate.median for name, rate in found.items()},
        "texts_per_second_range": {name: [rate.slowest, rate.fastest] for name, rate in found.items()},
        "speedup": found["student"].median / found["teacher"].median,
        "speed_conditions": {
            "texts": len(sample),
            "mean_words": float(np.mean([len(str(item).split()) for item in sample])),
            "threads": torch.get_num_threads(),
            "device": str(plan.device),
            "teacher": f"{encoder.model.dtype}, length-sorted batches of {encoder.tokens_per_batch} tokens, "
            f"first {encoder.max_length} tokens",
            "student": f"{model.dtype}, pipeline, batches of {plan.recipe.evaluate.batch_size}, whole texts",
        },
    }


def _environment() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        versions[package] = version(package)
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
    }
