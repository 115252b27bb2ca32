"""The metadata of a model card, in the terms of the Hub, from a run's report alone."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

import yaml
from huggingface_hub import EvalResult, ModelCardData

# Our names of scores: those of the Hub's metrics, and how they are read.
_METRICS: Final = {
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "F1 (macro)"),
    "micro_f1": ("f1", "F1 (micro)"),
    "mean_squared_error": ("mse", "Mean squared error"),
    "pearson": ("pearsonr", "Pearson correlation"),
}
_TAGS: Final = ("hf-sparse", "sparse-distillation", "n-grams", "deep-averaging-network")


def card_metadata(report: Mapping[str, Any], *, is_compressed: bool = False) -> ModelCardData:
    """Return the metadata of a student.

    Args:
        report: What `report.json` holds; older ones without `hub` have less to say, and those of students that no run
            has made have no `student`.
        is_compressed: Whether this is a compressed form of that student, whose scores and speed are others.
    """
    facts = report.get("hub", {})
    results = _results(report) if "student" in report and not is_compressed else []
    base_model = report["teacher"]["base_model"] if report["teacher"] else None
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=base_model,
        # Of the four kinds that the Hub knows, a model that was trained to answer as another does is this one.
        base_model_relation="finetune" if base_model else None,
        license=facts.get("license"),
        language=facts.get("language") or None,
        datasets=facts.get("datasets") or None,
        tags=list(_TAGS),
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        widget=_widget(facts) or None,
        # Without results the Hub wants no model-index at all.
        model_name=_model_name(report) if results else None,
        eval_results=results or None,
    )


def eval_results(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the files `.eval_results/<data set>.yaml`: the first score on the test set of a data set on the Hub.

    Args:
        report: What `report.json` holds.

    Returns:
        Content by path; empty where the test set is not one of the Hub's, or has no labels.
    """
    if "student" not in report:
        return {}
    dataset = _hub_dataset(report)
    answers = answered(report)
    scores = [name for name in _METRICS if name in answers]
    if report["text_set"] != "test" or dataset is None or not scores:
        return {}
    test = report["recipe"]["data"]["test"]
    entry = {
        "dataset": {"id": dataset, "task_id": test.get("name") or "default"},
        "value": round(100 * answers[scores[0]], 2),
        "notes": f"{_METRICS[scores[0]][1]} in percent, {report['num_texts']['test']} texts, measured by hf-sparse",
    }
    path = f".eval_results/{dataset.replace('/', '--')}.yaml"
    return {path: yaml.safe_dump([entry], sort_keys=False)}


def answered(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the scores of what the student answers: of several labels a text by its thresholds."""
    found: Mapping[str, Any] = report.get("student_with_thresholds") or report["student"]
    return found


def _model_name(report: Mapping[str, Any]) -> str:
    model_id = report.get("hub", {}).get("model_id")
    if model_id:
        return str(model_id).rpartition("/")[2]
    teacher = PurePath(report["teacher"]["base_model"] or report["teacher"]["model"]).name
    return f"sparse-{teacher}"


def _hub_dataset(report: Mapping[str, Any]) -> str | None:
    """Return the Hub's name of the data set measured on: the test set's, or the recipe's word for local files."""
    names = report.get("hub", {}).get("datasets") or []
    test = report["recipe"].get("data", {}).get("test") or {}
    if test.get("path") in names:
        return str(test["path"])
    # Among all names are those of corpora.
    return next(iter(report["recipe"].get("hub", {}).get("datasets") or []), None)


def _results(report: Mapping[str, Any]) -> list[EvalResult]:
    data = report["recipe"].get("data", {})
    test = data.get(report["text_set"]) or data.get("train") or {}
    dataset = _hub_dataset(report) or PurePath(str(test.get("path", "texts"))).parent.name or "texts"
    common: dict[str, Any] = {
        "task_type": "text-classification",
        "task_name": "Text Classification",
        "dataset_type": re.sub(r"[^\w./-]", "-", dataset),
        "dataset_name": dataset.rpartition("/")[2],
        "dataset_config": test.get("name"),
        "dataset_split": test.get("split") or report["text_set"],
    }
    answers = answered(report)
    results = [
        EvalResult(**common, metric_type=kind, metric_name=title, metric_value=round(answers[name], 4))
        for name, (kind, title) in _METRICS.items()
        if name in answers
    ]
    return results + _speeds(report, common)


def _speeds(report: Mapping[str, Any], common: Mapping[str, Any]) -> list[EvalResult]:
    """Return what `evaluate.evaluator` calls the speed of a pipeline."""
    if "texts_per_second" not in report:
        return []
    rate, conditions = report["texts_per_second"]["student"], report["speed_conditions"]
    where = f"{conditions['student']}, {conditions['threads']} threads, {conditions['device']}"
    return [
        EvalResult(
            **common,
            metric_type="samples_per_second",
            metric_name=f"Texts a second ({where})",
            metric_value=round(rate, 1),
        ),
        EvalResult(
            **common,
            metric_type="latency_in_seconds",
            metric_name=f"Seconds a text ({where})",
            metric_value=float(f"{1 / rate:.3g}"),
        ),
    ]


def _widget(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the examples that the page of a model offers; it has no form for pairs."""
    return [dict(example) for example in facts.get("examples", []) if "text_pair" not in example]
