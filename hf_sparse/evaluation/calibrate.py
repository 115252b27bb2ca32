"""Fit a student's temperature and thresholds on labelled texts, and write them into its config."""

import json
from pathlib import Path
from typing import Any

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.evaluation.calibration import (
    NUM_BINS,
    Calibration,
    calibrate,
    measure_calibration,
    reliability,
    to_probabilities,
)
from hf_sparse.evaluation.labelled_texts import LabelledTexts, Student
from hf_sparse.extras import require_extra
from hf_sparse.files import read_json, write_atomic, write_json
from hf_sparse.hub.card import write_card


def calibrate_student(
    student: str,
    *,
    data: str,
    test: str | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
    limit: int | None = None,
    plot: str | None = None,
) -> dict[str, Any]:
    """Fit a temperature, for a multi-label student thresholds too, and write them into its config, report and card.

    Args:
        student: Folder of the student.
        data: Parquet, CSV or JSON Lines of labelled texts to fit on; neither training nor test texts.
        test: Other labelled texts to measure the result on.
        text_column: Column of the texts.
        text_pair_column: Column of their partners, for a student of sentence pairs.
        label_column: Column of the labels: ids or names, lists of those for a multi-label student.
        limit: How many rows of each file to read.
        plot: File for a reliability diagram, of the test texts where there are some.

    Returns:
        `temperature`, `label_thresholds`, and for `data` and `test` what `measure_calibration` finds.

    Raises:
        FileNotFoundError: The student's folder is not there.
        ValueError: Texts or labels do not fit the student.
    """
    if plot is not None:
        require_extra("bench")
    loaded = Student(Path(student))
    if loaded.problem_type == "regression":
        raise ValueError(f"{student} holds a student of a regression: it gives no probabilities")
    found: dict[str, tuple[LabelledTexts, Any]] = {}
    for name, path in (("data", data), ("test", test)):
        if path is not None:
            columns = {"text_pair_column": text_pair_column, "label_column": label_column, "limit": limit}
            texts = loaded.read(TextSet(path=path, text_column=text_column, **columns))  # type: ignore[arg-type]
            found[name] = texts, loaded.logits(texts.texts, texts.text_pairs)
    texts, logits = found["data"]
    calibration = calibrate(logits, texts.labels, problem_type=loaded.problem_type)
    measured = {name: measure_calibration(item[1], item[0].labels, calibration) for name, item in found.items()}
    fitted = {"temperature": calibration.temperature, "label_thresholds": calibration.thresholds}
    write_calibration(loaded.folder, calibration)
    _tell(loaded.folder, fitted, measured, fitted_on=Path(data).name)
    if plot is not None:
        texts, logits = found["test" if "test" in found else "data"]
        _plot(logits, texts, calibration, Path(plot))
    return fitted | measured


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write a temperature and thresholds into the config.json of a student, which is whole at any moment."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["calibration_temperature"] = calibration.temperature
    config["label_thresholds"] = calibration.thresholds
    # The order that transformers writes.
    write_atomic(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _tell(folder: Path, fitted: dict[str, Any], measured: dict[str, Any], *, fitted_on: str) -> None:
    """Put a new calibration into the report and the card of a student that has them."""
    path = folder / "report.json"
    if not path.is_file():
        return
    report = read_json(path)
    names = {"data": "validation", "test": "test"}
    report["calibration"] = fitted | {"fitted_on": fitted_on, "bins": NUM_BINS}
    report["calibration"] |= {names[name]: values for name, values in measured.items()}
    # What it says by the thresholds of before is no longer so.
    report.pop("student_with_thresholds", None)
    write_json(path, report)
    write_card(folder)


def format_calibration(result: dict[str, Any]) -> str:
    """Return the result as a table for people."""
    measured = {name: result[name] for name in ("data", "test", "validation") if result.get(name)}
    kinds = {
        "ece": "calibration error",
        "ece_debiased": "less its bias on few texts",
        "nll": "log-likelihood, negative",
        "macro_f1": "macro F1",
    }
    lines = [f"temperature {result['temperature']:.4f}"]
    if result["label_thresholds"] is not None:
        lines.append("thresholds " + " ".join(f"{threshold:.3f}" for threshold in result["label_thresholds"]))
    lines.append(f"{'':<36}{'before':>8}{'after':>8}")
    for name, values in measured.items():
        for kind, title in kinds.items():
            if f"{kind}_before" in values:
                row = "".join(f"{values[f'{kind}_{when}']:>8.4f}" for when in ("before", "after"))
                lines.append(f"{name + ': ' + title:<36}{row}")
    return "\n".join(lines)


def _plot(logits: Any, texts: LabelledTexts, calibration: Calibration, path: Path) -> None:
    from hf_sparse.evaluation.plots import plot_reliability

    diagrams = {}
    for name, temperature in (("as it is", 1.0), ("calibrated", calibration.temperature)):
        probabilities = to_probabilities(logits, temperature=temperature, is_multi_label=texts.labels.ndim == 2)
        diagrams[name] = reliability(probabilities, texts.labels)
    plot_reliability(diagrams, path)
