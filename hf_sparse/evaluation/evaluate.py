"""The command `hf-sparse evaluate`: how good a student is on labelled texts, and beside its teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix, precision_recall_fscore_support

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.evaluation.calibration import Calibration, measure_calibration
from hf_sparse.evaluation.labelled_texts import LabelledTexts, Student
from hf_sparse.evaluation.metrics import agreement, predictions_of, retention, score
from hf_sparse.evaluation.speed import runtime_speed
from hf_sparse.evaluation.teacher import Teacher
from hf_sparse.extras import require_extra
from hf_sparse.files import write_json
from hf_sparse.runtime.folder import student_folder
from hf_sparse.runtime.head import above_thresholds

Array = npt.NDArray[Any]


def evaluate(
    student: str,
    *,
    data: str,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
    limit: int | None = None,
    teacher: str | None = None,
    max_length: int = 256,
    revision: str | None = None,
    num_threads: int = 1,
    output: str | None = None,
    plot: str | None = None,
) -> dict[str, Any]:
    """Score a student, and its teacher if one is named, on labelled texts.

    Args:
        student: Folder of a student, or its repository on the Hub.
        data: Parquet, CSV, TSV or JSON Lines of labelled texts.
        text_column: Column of the texts.
        text_pair_column: Column of their partners, for a student of sentence pairs.
        label_column: Column of the labels: ids or names, lists of those for a student of several labels a text,
            numbers for one of regression.
        limit: How many rows to read.
        teacher: Folder or Hub id of the teacher.
        max_length: Tokens that the teacher reads of a text.
        revision: Branch, tag or commit of the student's repository.
        num_threads: Over how many threads texts are spread when the speed is measured.
        output: File for the result as JSON.
        plot: File for a picture of the confusion matrix, of a student of one label a text.

    Returns:
        Metrics of `student`; for classifiers `per_label` and `confusion` (rows are gold labels, columns answers; for
        several labels a text a matrix a label) and `calibration`; `texts_per_second`, those of the student by the
        runtime, None where it does not serve it. With a teacher its metrics as `teacher`, `retention` and `agreement`,
        of several labels a text those without the student's thresholds.

    Raises:
        FileNotFoundError: The student is not there.
        ValueError: Texts, labels or teacher do not fit the student.
    """
    loaded = Student(student_folder(student, revision=revision))
    if plot is not None:
        require_extra("bench")
        if loaded.problem_type != "single_label_classification":
            raise ValueError(f"plot draws students of one label a text, but {student} is one of {loaded.problem_type}")
    columns = {"text_pair_column": text_pair_column, "label_column": label_column, "limit": limit}
    texts = loaded.read(TextSet(path=data, text_column=text_column, **columns))  # type: ignore[arg-type]
    asked = None if teacher is None else Teacher(teacher, loaded.names, max_length=max_length)
    logits = loaded.logits(texts.texts, texts.text_pairs)
    report = _measure_student(loaded, texts, logits)
    report["texts_per_second"] = {"student": runtime_speed(loaded, texts, num_threads=num_threads)}
    if asked is not None:
        other = asked.logits(texts)
        report["texts_per_second"]["teacher"] = len(texts.texts) / asked.seconds
        report["teacher"] = {"model": teacher, **score(other, texts.labels, problem_type=loaded.problem_type)}
        # The teacher has no thresholds of its own: what both say from a probability of 0.5 on is compared.
        plain = score(logits, texts.labels, problem_type=loaded.problem_type)
        report["retention"] = retention(plain, report["teacher"], problem_type=loaded.problem_type)
        report["agreement"] = agreement(logits, other, problem_type=loaded.problem_type)
    if output is not None:
        write_json(Path(output), report)
    if plot is not None:
        from hf_sparse.evaluation.plots import plot_confusion

        plot_confusion(report["confusion"], loaded.names, Path(plot))
    return report


def _measure_student(student: Student, texts: LabelledTexts, logits: Array) -> dict[str, Any]:
    problem_type, decided = student.problem_type, above_thresholds(logits, student.model.config.to_dict())
    report: dict[str, Any] = {
        "problem_type": problem_type,
        "labels": student.names,
        "num_texts": len(texts.texts),
        "student": score(decided, texts.labels, problem_type=problem_type),
    }
    if problem_type != "regression":
        found = predictions_of(decided, problem_type=problem_type)
        report["per_label"] = _per_label(found, texts.labels, student.names)
        report["confusion"] = _confusion(found, texts.labels, len(student.names))
        report["calibration"] = _calibration(student, logits, texts.labels)
    return report


def _per_label(found: Array, labels: Array, names: Sequence[str]) -> dict[str, dict[str, float | int]]:
    measured = precision_recall_fscore_support(labels, found, labels=range(len(names)), zero_division=0.0)
    kinds = ("precision", "recall", "f1", "support")
    return {
        name: dict(zip(kinds, (*map(float, values[:3]), int(values[3])), strict=True))
        for name, values in zip(names, np.stack(measured, axis=1).tolist(), strict=True)
    }


def _confusion(found: Array, labels: Array, num_labels: int) -> Any:
    if found.ndim == 2:
        return multilabel_confusion_matrix(labels, found).tolist()
    return confusion_matrix(labels, found, labels=range(num_labels)).tolist()


def _calibration(student: Student, logits: Array, labels: Array) -> dict[str, float | None]:
    """Return calibration error and log-likelihood as they are and, if the student has one, by its temperature."""
    temperature = student.model.config.calibration_temperature
    found = measure_calibration(logits, labels, Calibration(temperature=temperature or 1.0, thresholds=None))
    known = {name: found[f"{name}_after"] if temperature is not None else None for name in ("ece", "nll")}
    return {
        "temperature": temperature,
        "ece": found["ece_before"],
        "ece_calibrated": known["ece"],
        "nll": found["nll_before"],
        "nll_calibrated": known["nll"],
    }


def format_evaluation(report: dict[str, Any]) -> str:
    """Return the report as a table for people."""
    names = list(report["student"])
    lines = [f"{'':<12}" + "".join(f"{name.replace('_', ' '):>20}" for name in names) + f"{'texts/s':>12}"]
    for who in ("student", "teacher"):
        if who in report:
            scores = "".join(f"{report[who][name]:>20.4f}" for name in names)
            speed = report["texts_per_second"][who]
            lines.append(f"{who:<12}{scores}{'-' if speed is None else format(speed, ',.0f'):>12}")
    if "agreement" in report:
        kept = report["retention"]
        lines.append(f"agreement {report['agreement']:.4f}" + ("" if kept is None else f", retention {kept:.4f}"))
    if "per_label" in report:
        lines += ["", *_format_labels(report["per_label"])]
        found = report["calibration"]
        calibrated = "not calibrated" if found["temperature"] is None else f"calibrated {found['ece_calibrated']:.4f}"
        lines += ["", f"calibration error {found['ece']:.4f}, {calibrated}; {report['num_texts']:,} texts"]
    return "\n".join(lines)


def _format_labels(per_label: dict[str, dict[str, float | int]]) -> list[str]:
    width = max(12, *(len(name) + 2 for name in per_label))
    lines = [f"{'':<{width}}{'precision':>10}{'recall':>10}{'f1':>10}{'support':>10}"]
    for name, found in per_label.items():
        shares = "".join(f"{found[kind]:>10.4f}" for kind in ("precision", "recall", "f1"))
        lines.append(f"{name:<{width}}{shares}{found['support']:>10,}")
    return lines
