"""What is said of a student, from its config and report."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_sparse.hub.info import format_info, info

CONFIG = {
    "model_type": "sparse_ngram",
    "format_version": 1,
    "vocab_size": 11,
    "embedding_size": 4,
    "block_rows": 16,
    "hidden_sizes": [2],
    "pooling": "mean",
    "activation": "relu",
    "sentence_pairs": False,
}


def described(folder: Path, problem_type: str, **report: Any) -> dict[str, Any]:
    """Return what is said of a student with such scores."""
    common = {"retention": 0.9, "agreement": 0.8}
    (folder / "config.json").write_text(json.dumps(CONFIG | {"problem_type": problem_type}), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(common | report), encoding="utf-8")
    return info(str(folder))


def test_scores_of_numbers(tmp_path: Path) -> None:
    teacher = {"base_model": "org/teacher", "pearson": 0.75, "mean_squared_error": 1.5}
    found = described(tmp_path, "regression", teacher=teacher, student={"pearson": 0.7, "mean_squared_error": 2.5})
    lines = dict(line.split("  ", 1) for line in format_info(found).splitlines())
    shown = {name: float(value) for name, value in lines.items() if name.endswith(("pearson", "squared error"))}
    assert shown == {
        "teacher pearson": 0.75,
        "teacher mean squared error": 1.5,
        "pearson": 0.7,
        "mean squared error": 2.5,
    }
    assert "accuracy" not in format_info(found)


@pytest.mark.parametrize("has_thresholds", [True, False])
def test_scores_by_thresholds(tmp_path: Path, *, has_thresholds: bool) -> None:
    teacher = {"base_model": "org/teacher", "accuracy": 0.7, "macro_f1": 0.6}
    scores: dict[str, Any] = {"student": {"accuracy": 0.5, "macro_f1": 0.4}}
    if has_thresholds:
        scores["student_with_thresholds"] = {"accuracy": 0.65, "macro_f1": 0.55}
    found = described(tmp_path, "multi_label_classification", teacher=teacher, **scores)
    assert (found["accuracy"], found["teacher_macro_f1"]) == (0.65 if has_thresholds else 0.5, 0.6)
    assert ("retention and agreement by 0.5" in format_info(found)) == has_thresholds
