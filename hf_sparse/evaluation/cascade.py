"""The command `hf-sparse cascade`: how good a student is that may ask its teacher, and how sure it must be not to.

Thresholds are chosen on validation texts (those of `data.calibration` where a run has them) and applied to others as
they are. Two rules are compared: the teacher decides what is handed over, or both do, by the average of their
log-probabilities, each divided by its temperature.
"""

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.texts import calibration_set
from hf_sparse.evaluation.calibration import fit_temperature
from hf_sparse.evaluation.hand_over import Answers, as_columns, choose, curve, hand_over, score_labels, thresholds
from hf_sparse.evaluation.labelled_texts import LabelledTexts, Student, run_problem
from hf_sparse.evaluation.plots import plot_cascade
from hf_sparse.evaluation.speed import runtime_speed
from hf_sparse.evaluation.teacher import Teacher
from hf_sparse.extras import require_extra
from hf_sparse.files import write_json
from hf_sparse.runtime.cascade import HAND_OVER_RULES, confidence, decide, log_probabilities

logger = logging.getLogger(__name__)

_TITLES = {
    "teacher": "teacher decides",
    "average": "both decide",
    "reaches_teacher": "as good as the teacher",
    "best": "best",
    "given_share": "the share asked for",
}


@dataclass(kw_only=True)
class _Material:
    """A student, texts with the teacher's logits, and seconds a text of student and teacher where they are known."""

    student: Student
    test: LabelledTexts
    validation: LabelledTexts | None
    seconds: dict[str, float] | None = None


def cascade(
    student: str,
    *,
    teacher: str | None = None,
    teacher_logits: str | None = None,
    data: str | None = None,
    validation: str | None = None,
    validation_logits: str | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label_column: str = "label",
    share: float | None = None,
    limit: int | None = None,
    max_length: int = 256,
    output: str | None = None,
) -> dict[str, Any]:
    """Measure a student that hands the texts it is least sure of over to its teacher.

    Args:
        student: Folder of a finished run, which has all that is needed; or of a student.
        teacher: Folder or Hub id of the teacher.
        teacher_logits: Parquet file of the teacher's logits of `data`, in row order, in place of a teacher.
        data: Parquet, CSV or JSON Lines of labelled texts to measure on.
        validation: The like, on which thresholds are chosen; neither student nor teacher may have trained on them.
        validation_logits: The teacher's logits of `validation`.
        text_column: Column of the texts.
        text_pair_column: Column of their partners, for a student of sentence pairs.
        label_column: Column of the labels, ids or names.
        share: Hand over this share of the texts, such as 0.2; without it what is best on the validation texts.
        limit: How many rows of each file to read.
        max_length: Tokens that the teacher reads of a text.
        output: Folder for cascade.json and cascade.png; without it that of the run, or the current one.

    Returns:
        What `cascade.json` holds; see `measure`.

    Raises:
        FileNotFoundError: The student's folder is not there.
        ValueError: The student gives several labels a text, or something is missing or does not fit.
    """
    require_extra("bench")
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"share is {share}, but must be between 0 (none handed over) and 1 (all)")
    folder = Path(student)
    is_run = (folder / "student").is_dir()
    paths = {"test": (data, teacher_logits), "validation": (validation, validation_logits)}
    if is_run:
        if teacher is not None or any(path is not None for pair in paths.values() for path in pair):
            raise ValueError(f"{folder} is a run, with its own texts and logits; for others name {folder / 'student'}")
        if limit is not None:
            raise ValueError(f"limit is of files, but {folder} is a run, of which all texts are read; leave limit out")
        material = _of_run(folder)
    else:
        _check_options(folder, paths, teacher)
        if share is not None and validation is None:
            raise ValueError(f"share {share} says how many of the validation texts to hand over: name validation")
        columns = {"text_pair_column": text_pair_column, "label_column": label_column, "limit": limit}
        sources = {
            name: TextSet(path=path, logits_path=logits, text_column=text_column, **columns)  # type: ignore[arg-type]
            for name, (path, logits) in paths.items()
            if path is not None
        }
        material = _of_files(_load(folder), sources, teacher=teacher, max_length=max_length)
    report = measure(material, share)
    target = Path(output) if output is not None else folder if is_run else Path()
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "cascade.json", report)
    plot_cascade(report, target / "cascade.png")
    return report


def measure(material: _Material, share: float | None = None) -> dict[str, Any]:
    """Choose thresholds on validation texts and apply them to the others.

    Args:
        material: Student and texts.
        share: Of the validation texts that are to be handed over, None for what is best there.

    Returns:
        The temperatures (`student_temperature`, `teacher_temperature`), accuracy and macro-F1 of `student`, `teacher`
        and their `average` alone, on all texts; `curves` for each rule: what each share of the texts handed over
        brings; `points`: for each rule what the threshold chosen on `num_validation_texts` brings, and `chosen`, that
        one of them which was best on the validation texts, or there the better one of those that hand over the share
        asked for. Where times are known, `seconds_per_text` too.
    """
    student, validation = material.student, material.validation
    own = student.model.config.calibration_temperature
    if own is None:
        logger.warning("the student has no temperature: `hf-sparse calibrate` first makes it a better judge of itself")
    other = 1.0
    if validation is not None:
        assert validation.teacher_logits is not None
        other = fit_temperature(validation.teacher_logits, validation.labels)
    answers = _answers(student, material.test, own or 1.0, other)
    report: dict[str, Any] = {
        "student_temperature": own,
        "teacher_temperature": other,
        "num_texts": len(answers.labels),
        "num_validation_texts": 0 if validation is None else len(validation.labels),
        "seconds_per_text": material.seconds,
    }
    alone = {"student": answers.student, "teacher": answers.teacher}
    alone["average"] = decide(answers.student, answers.teacher, "average")
    for name, found in alone.items():
        report[name] = _scores(found, answers.labels)
    report["curves"] = {rule: as_columns(curve(answers, rule)) for rule in HAND_OVER_RULES}
    points = [] if validation is None else _points(_answers(student, validation, own or 1.0, other), answers, share)
    if material.seconds is not None:
        for point in points:
            point["seconds_per_text"] = material.seconds["student"] + point["share"] * material.seconds["teacher"]
    # The first of equal ones: the teacher's decision before the average, fewer texts before more.
    eligible = [point for point in points if share is None or point["choice"] == "given_share"]
    chosen = max(eligible, key=lambda point: point["validation"]["accuracy"], default=None)
    return report | {"points": points, "chosen": chosen}


def format_cascade(report: dict[str, Any]) -> str:
    """Return a short table for people."""
    seconds = report["seconds_per_text"]
    header = f"{'':<44}{'handed over':>12}{'accuracy':>10}{'macro F1':>10}"
    lines = [header + (f"{'ms a text':>11}" if seconds else "")]

    def add(title: str, share: float, scores: dict[str, float], cost: float) -> None:
        line = f"{title:<44}{100 * share:>10.1f} %{scores['accuracy']:>10.4f}{scores['macro_f1']:>10.4f}"
        lines.append(line + (f"{1000 * cost:>11.3f}" if seconds else ""))

    own, other = (seconds["student"], seconds["teacher"]) if seconds else (0.0, 0.0)
    add("student", 0, report["student"], own)
    add("teacher", 1, report["teacher"], other)
    add("average of both", 1, report["average"], own + other)
    for point in report["points"]:
        mark = " *" if point == report["chosen"] else ""
        title = f"{_TITLES[point['rule']]}, {_TITLES[point['choice']]}{mark}"
        add(title, point["share"], point, point.get("seconds_per_text", 0.0))
    if report["points"]:
        lines.append(f"thresholds and * chosen on {report['num_validation_texts']:,} validation texts")
    else:
        lines.append("without validation texts no threshold is chosen; cascade.json has the curves")
    return "\n".join(lines)


def _points(validation: Answers, test: Answers, share: float | None) -> list[dict[str, Any]]:
    target, _ = score_labels(validation.teacher, validation.labels)
    # No label is needed for this one.
    given = {} if share is None else {"given_share": thresholds(confidence(validation.student), (share,))[0]}
    points = []
    for rule in HAND_OVER_RULES:
        for choice, threshold in (choose(curve(validation, rule), teacher_accuracy=target) | given).items():
            if threshold is not None:
                found = asdict(hand_over(test, threshold, rule))
                seen = asdict(hand_over(validation, threshold, rule))
                points.append({"rule": rule, "choice": choice} | found | {"validation": seen})
    return points


def _scores(found: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    accuracy, macro_f1 = score_labels(found, labels)
    return {"accuracy": accuracy, "macro_f1": macro_f1}


def _answers(student: Student, texts: LabelledTexts, own: float, other: float) -> Answers:
    assert texts.teacher_logits is not None, "read from a file or asked for"
    return Answers(
        student=log_probabilities(student.logits(texts.texts, texts.text_pairs), own),
        teacher=log_probabilities(texts.teacher_logits, other),
        labels=texts.labels,
    )


def _check_options(folder: Path, paths: dict[str, tuple[str | None, str | None]], teacher: str | None) -> None:
    data, logits = paths["test"]
    if data is None or (teacher is None) == (logits is None):
        raise ValueError(f"{folder} is no run: name data, and teacher or teacher_logits")
    given, given_logits = paths["validation"]
    if (given is not None and logits is not None) != (given_logits is not None):
        raise ValueError("name validation_logits for validation where teacher_logits stands for data, else not")


def _load(folder: Path) -> Student:
    student = Student(folder)
    if student.problem_type != "single_label_classification":
        raise ValueError(f"a cascade needs one label a text, but {folder} is a student of {student.problem_type}")
    return student


def _of_run(run: Path) -> _Material:
    problem = run_problem(run)
    if problem is not None:
        raise ValueError(f"{run} is not the folder of a finished run: {problem}")
    student = _load(run / "student")
    report = json.loads((run / "student" / "report.json").read_text(encoding="utf-8"))
    speeds = report.get("texts_per_second")
    return _Material(
        student=student,
        test=student.read_run(run, "test"),
        validation=student.read_run(run, calibration_set(run / "texts")),
        seconds=speeds and {name: 1 / speeds[name] for name in ("student", "teacher")},
    )


def _of_files(student: Student, sources: dict[str, TextSet], *, teacher: str | None, max_length: int) -> _Material:
    texts = {name: student.read(source) for name, source in sources.items()}
    seconds = None
    if teacher is not None:
        asked = Teacher(teacher, student.names, max_length=max_length)
        texts = {name: replace(found, teacher_logits=asked.logits(found)) for name, found in texts.items()}
        seen = sum(len(found.texts) for found in texts.values())
        seconds = {"student": _student_seconds(student, texts["test"]), "teacher": asked.seconds / seen}
    return _Material(student=student, test=texts["test"], validation=texts.get("validation"), seconds=seconds)


def _student_seconds(student: Student, texts: LabelledTexts) -> float:
    """Return the seconds a text of the runtime, or of torch for a student that the runtime does not serve."""
    rate = runtime_speed(student, texts)
    if rate is not None:
        return 1 / rate
    started = time.perf_counter()
    student.logits(texts.texts, texts.text_pairs)
    return (time.perf_counter() - started) / len(texts.texts)
