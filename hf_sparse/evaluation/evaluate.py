"""The command `hf-sparse evaluate`: how good a student is on labelled texts, for each label, beside its teacher."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.evaluation.asked_teacher import Teacher
from hf_sparse.evaluation.calibration import expected_calibration_error, to_probabilities
from hf_sparse.evaluation.labelled_texts import LabelledTexts, Student
from hf_sparse.evaluation.metrics import agreement, predictions_of, retention, score
from hf_sparse.extras import require_extra
from hf_sparse.files import write_json


def evaluate(
    student: str,
    *,
    data: str,
    teacher: str | None = None,
    revision: str | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
    limit: int | None = None,
    max_length: int = 256,
    output: str | None = None,
    plot: str | None = None,
) -> dict[str, Any]:
    """Score a student on labelled texts, and its teacher on the same.

    Args:
        student: Folder of the student, or its repository on the Hub.
        data: Parquet, CSV or JSON Lines of labelled texts.
        teacher: Folder or Hub id of the teacher; without it the student is scored alone.
        revision: Branch, tag or commit of the student's repository.
        text_column: Column of the texts.
        text_pair_column: Column of their partners, for a student of sentence pairs.
        label_column: Column of the labels: ids or names, lists of those for a multi-label student.
        limit: How many rows to read.
        max_length: Tokens that the teacher reads of a text.
        output: JSON file to write the result to as well.
        plot: Picture of which label is taken for which, for a student of one label a text.

    Returns:
        `num_texts`, `student` (the scores, calibration errors and texts a second), `labels` (precision, recall, F1 and
        number of texts of each), `confusion` (a row for each gold label, for students of one label a text), and with
        a teacher its scores, `retention` and `agreement`.

    Raises:
        FileNotFoundError: The student's folder is not there.
        ValueError: Texts, labels or teacher do not fit the student.
    """
    if plot is not None:
        require_extra("bench")
    loaded = Student(Path(student) if Path(student).is_dir() else Path(snapshot_download(student, revision=revision)))
    source = TextSet(
        path=data,
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        limit=limit,
    )
    texts = loaded.read(source)
    if teacher is not None:
        asked = Teacher(teacher, loaded.names, max_length=max_length)
        texts = replace(texts, teacher_logits=asked.logits(texts))
    report = measure(loaded, texts)
    if output is not None:
        write_json(Path(output), report)
    if plot is not None:
        _plot(report, loaded.names, Path(plot))
    return report


def measure(student: Student, texts: LabelledTexts) -> dict[str, Any]:
    """Return what `evaluate` does."""
    problem_type, labels = student.problem_type, texts.labels
    started = time.perf_counter()
    logits = student.logits(texts.texts, texts.text_pairs)
    seconds = time.perf_counter() - started
    scores: dict[str, Any] = score(logits, labels, problem_type=problem_type)
    several = problem_type == "multi_label_classification"
    temperature = student.model.config.calibration_temperature
    for name, divisor in (("ece", 1.0), ("ece_calibrated", temperature)):
        if divisor is not None:
            probabilities = to_probabilities(logits, temperature=divisor, is_multi_label=several)
            scores[name] = expected_calibration_error(probabilities, labels)
    found = predictions_of(logits, problem_type=problem_type)
    report: dict[str, Any] = {
        "num_texts": len(texts.texts),
        "student": scores | {"texts_per_second": len(texts.texts) / seconds},
        "labels": _by_label(found, labels, student.names),
    }
    if not several:
        report["confusion"] = confusion_matrix(labels, found, labels=range(len(student.names))).tolist()
    if texts.teacher_logits is not None:
        own = score(texts.teacher_logits, labels, problem_type=problem_type)
        report["teacher"] = own
        report["retention"] = retention(scores, own, problem_type=problem_type)
        report["agreement"] = agreement(logits, texts.teacher_logits, problem_type=problem_type)
    return report


def format_evaluation(report: dict[str, Any]) -> str:
    """Return the scores as tables for people."""
    names = [name for name in report["student"] if name != "texts_per_second"]
    lines = [f"{report['num_texts']:,} texts, {report['student']['texts_per_second']:,.0f} texts a second"]
    who = [name for name in ("student", "teacher") if name in report]
    lines.append(f"{'':<18}" + "".join(f"{name:>10}" for name in who))
    for name in names:
        cells = [f"{report[one][name]:>10.4f}" if name in report[one] else f"{'':>10}" for one in who]
        lines.append(f"{name.replace('_', ' '):<18}" + "".join(cells))
    if "teacher" in report:
        kept = "" if report["retention"] is None else f"retention {report['retention']:.4f}, "
        lines.append(f"{kept}agreement {report['agreement']:.4f}")
    width = max(5, *map(len, report["labels"]))
    lines += ["", f"{'label':<{width}}{'precision':>11}{'recall':>8}{'f1':>8}{'texts':>9}"]
    for label, row in report["labels"].items():
        figures = f"{row['precision']:>11.4f}{row['recall']:>8.4f}{row['f1']:>8.4f}{row['num_texts']:>9,}"
        lines.append(f"{label:<{width}}{figures}")
    return "\n".join(lines)


def _by_label(found: Any, labels: Any, names: Sequence[str]) -> dict[str, dict[str, float]]:
    columns = precision_recall_fscore_support(labels, found, labels=range(len(names)), zero_division=0.0)
    return {
        name: {"precision": float(row[0]), "recall": float(row[1]), "f1": float(row[2]), "num_texts": int(row[3])}
        for name, row in zip(names, zip(*columns, strict=True), strict=True)
    }


def _plot(report: dict[str, Any], names: Sequence[str], path: Path) -> None:
    from hf_sparse.evaluation.plots import plot_confusion

    if "confusion" not in report:
        raise ValueError("a student of several labels a text takes none for another; leave out plot")
    plot_confusion(np.array(report["confusion"]), names, path)
