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


def render_card(report: dict[str, Any]) -> str:
    """Return the README.md of a student, metadata included.

    Args:
        report: What `report.json` holds.
    """
    teacher = report["teacher"]["model"]
    is_hub_id = teacher.count("/") == 1 and not teacher.startswith((".", "/", "~"))
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=teacher if is_hub_id else None,
        tags=["hf-sparse", "sparse-distillation", "n-grams", "deep-averaging-network"],
        metrics=["accuracy", "f1"] if report["problem_type"] != "regression" else ["mse", "pearsonr"],
    )
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    names = [name for name in _METRICS[report["problem_type"]] if name in report["student"]]
    teacher_name = teacher if is_hub_id else Path(teacher).name
    body = template.render(report=report, metric_names=names, teacher_name=teacher_name)
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"
