"""The model card, rendered from a run's report alone."""

from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import ModelCardData

_TEMPLATE = Path(__file__).parent / "card.md.jinja"
_METRICS = {
    "single_label_classification": ["accuracy", "macro_f1"],
    "multi_label_classification": ["accuracy", "macro_f1", "micro_f1"],
    "regression": ["mean_squared_error", "pearson"],
}

_HUB_METRICS = {
    "single_label_classification": ["accuracy", "f1"],
    "multi_label_classification": ["accuracy", "f1"],
    "regression": ["mse", "pearsonr"],
}


def render_card(report: dict[str, Any]) -> str:
    """Return the README.md of a student, metadata included.

    Args:
        report: What `report.json` holds.
    """
    teacher = report["teacher"]
    base_model = teacher["base_model"]
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=base_model,
        tags=["hf-sparse", "sparse-distillation", "n-grams", "deep-averaging-network"],
        metrics=_HUB_METRICS[report["problem_type"]] if _scores(report) else None,
    )
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    columns, rows = _results(report)
    body = template.render(
        report=report, columns=columns, rows=rows, teacher_name=base_model or Path(teacher["model"]).name
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"


def _scores(report: dict[str, Any]) -> list[str]:
    """Return the names of the scores in the table; there are none where the texts had no labels."""
    return [name for name in _METRICS[report["problem_type"]] if name in report["student"]]


def _results(report: dict[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the column names and, for teacher and student, the cells of the table of results."""
    names = _scores(report)
    rows = {who: [f"{report[who][name]:.4f}" for name in names] for who in ("teacher", "student")}
    columns = [name.replace("_", " ") for name in names]
    if "texts_per_second" in report:
        columns.append("texts per second")
        for who, cells in rows.items():
            cells.append(f"{report['texts_per_second'][who]:,.0f}")
    return columns, rows
