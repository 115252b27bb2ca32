"""The cascade against a sort written out in loops, and the command on a tiny student and a finished run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from hf_sparse import cli
from hf_sparse.evaluation.cascade import cascade, format_cascade
from hf_sparse.evaluation.hand_over import SHARES, Answers, choose, curve, hand_over
from hf_sparse.runtime import NgramClassifier
from hf_sparse.runtime.cascade import Cascade, decide, log_probabilities
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification, SparseNgramTokenizer
from hf_sparse.vocabulary import count_ngrams
from tests.tiny_task import NAMES, make_rows, make_teacher, write_rows

ROWS = {"data": make_rows(60, seed=4), "validation": make_rows(40, seed=5)}


def answers_of(seed: int, count: int = 23, digits: int = 6) -> Answers:
    """What a good student and a better teacher say; few digits make texts of equal confidence."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    student, teacher = (random.normal(size=(count, 3)) + better * np.eye(3)[labels] for better in (1.0, 2.0))
    return Answers(student=log_probabilities(student.round(digits)), teacher=log_probabilities(teacher), labels=labels)


@given(seed=st.integers(0, 10_000), rule=st.sampled_from(["teacher", "average"]))
@settings(deadline=None, max_examples=30)
def test_curve_is_that_of_handing_over_one_text_after_the_other(seed: int, rule: Any) -> None:
    answers = answers_of(seed)
    order = sorted(range(23), key=lambda text: answers.student[text].max())
    points = curve(answers, rule)
    assert len(points) == 101
    for share, point in zip(SHARES, points, strict=True):
        predicted = []
        for text in range(23):
            own, other = answers.student[text], answers.teacher[text]
            if text in order[: round(share * 23)]:
                own = other if rule == "teacher" else own + other
            predicted.append(int(own.argmax()))
        assert point.share == pytest.approx(round(share * 23) / 23)
        assert point.accuracy == pytest.approx(np.mean(np.array(predicted) == answers.labels))
        assert point.macro_f1 == pytest.approx(
            f1_score(answers.labels, predicted, average="macro", labels=np.union1d(answers.labels, predicted))
        )


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_chosen_thresholds_are_the_best_of_the_curve(seed: int) -> None:
    answers = answers_of(seed, digits=1)
    points = curve(answers, "teacher")
    target = points[-1].accuracy
    chosen = choose(points, teacher_accuracy=target)
    best = hand_over(answers, chosen["best"] or 0.0, "teacher")
    assert best.accuracy == max(point.accuracy for point in points)
    assert best.share == min(point.share for point in points if point.accuracy == best.accuracy)
    assert chosen["reaches_teacher"] is not None
    reaching = hand_over(answers, chosen["reaches_teacher"], "teacher")
    assert reaching.share == min(point.share for point in points if point.accuracy >= target)
    assert choose(points[:1], teacher_accuracy=1.1)["reaches_teacher"] is None


def test_first_and_last_threshold_hand_over_nothing_and_all() -> None:
    certain = Answers(
        student=np.log(np.array([[1.0, 1e-300], [1e-300, 1.0]])),
        teacher=np.log(np.array([[0.4, 0.6], [0.6, 0.4]])),
        labels=np.array([0, 1]),
    )
    points = curve(certain, "teacher")
    assert [points[0].share, points[-1].share] == [0.0, 1.0]
    assert [points[0].accuracy, points[-1].accuracy] == [1.0, 0.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, a teacher with the labels in another order, texts and that teacher's logits."""
    folder = tmp_path_factory.mktemp("cascade")
    vocabulary = count_ngrams([row["text"] for row in make_rows(60, seed=1)], num_ngrams=100, progress=False)
    config = SparseNgramConfig(
        vocab_size=vocabulary.num_rows,
        vocabulary_sha256=vocabulary.sha256,
        embedding_size=8,
        initializer_range=1.0,
        id2label=dict(enumerate(NAMES)),
        label2id={name: index for index, name in enumerate(NAMES)},
        problem_type="single_label_classification",
        calibration_temperature=1.7,
    )
    SparseNgramForSequenceClassification(config).save_pretrained(folder / "student")
    SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(folder / "student")
    make_teacher(folder / "teacher", labels=NAMES[::-1])
    random = np.random.default_rng(0)
    for name, rows in ROWS.items():
        write_rows(folder / f"{name}.jsonl", rows)
        gold = np.eye(3)[[NAMES.index(row["label"]) for row in rows]]
        logits = (random.normal(size=gold.shape) + 2 * gold).astype(np.float32)
        pq.write_table(pa.table({"logits": list(logits)}), folder / f"{name}.parquet")
    return folder


def from_logits(folder: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Run the command on files of logits."""
    files = {"data": "data.jsonl", "validation": "validation.jsonl"}
    files |= {"teacher_logits": "data.parquet", "validation_logits": "validation.parquet"}
    paths = {option: str(folder / name) for option, name in files.items()}
    return cascade(str(folder / "student"), output=str(output), **paths, **options)


def test_points_are_what_the_cascade_of_the_runtime_answers(folder: Path, tmp_path: Path) -> None:
    report = from_logits(folder, tmp_path)
    assert json.loads((tmp_path / "cascade.json").read_text(encoding="utf-8")) == report
    assert (tmp_path / "cascade.png").read_bytes().startswith(b"\x89PNG")
    assert report["student_temperature"] == 1.7
    assert (report["num_texts"], report["num_validation_texts"]) == (60, 40)
    texts = [row["text"] for row in ROWS["data"]]
    logits = np.array(pq.read_table(folder / "data.parquet")["logits"].to_pylist())
    student = NgramClassifier.from_pretrained(folder / "student")
    asked: list[str] = []

    def teacher(some: list[str]) -> np.ndarray:
        asked.extend(some)
        return logits[[texts.index(text) for text in some]]

    gold = [row["label"] for row in ROWS["data"]]
    assert {(point["rule"], point["choice"]) for point in report["points"]} >= {
        ("teacher", "best"),
        ("average", "best"),
    }
    for point in report["points"]:
        asked.clear()
        found = Cascade(
            student,
            teacher,
            point["threshold"],
            rule=point["rule"],
            teacher_temperature=report["teacher_temperature"],
        ).predict(iter(texts))
        assert asked == [text for text, is_handed in zip(texts, found.handed_over, strict=True) if is_handed]
        assert point["share"] == pytest.approx(found.handed_over.mean())
        assert point["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(found.labels, gold, strict=True)]))
        np.testing.assert_allclose(found.probabilities.sum(1), 1)
    assert report["chosen"] in report["points"]
    assert report["chosen"]["validation"]["accuracy"] == max(p["validation"]["accuracy"] for p in report["points"])
    assert f"{report['chosen']['accuracy']:.4f}" in format_cascade(report)


@pytest.mark.parametrize(("share", "handed_over"), [(0, 0), (0.25, 10), (0.5, 20), (1, 40)])
def test_a_given_share_is_that_of_the_validation_texts(
    folder: Path, tmp_path: Path, share: float, handed_over: int
) -> None:
    """Whatever would be best; the rule of the two that is better on the validation texts is chosen."""
    report = from_logits(folder, tmp_path, share=share)
    given = [point for point in report["points"] if point["choice"] == "given_share"]
    assert [point["rule"] for point in given] == ["teacher", "average"]
    assert all(point["validation"]["share"] == handed_over / 40 for point in given)
    student = NgramClassifier.from_pretrained(folder / "student")
    probabilities = student.predict_proba([row["text"] for row in ROWS["validation"]], calibrated=True).max(1)
    assert (probabilities < given[0]["threshold"]).sum() == handed_over
    assert report["chosen"] in given
    assert report["chosen"]["validation"]["accuracy"] == max(point["validation"]["accuracy"] for point in given)
    assert "the share asked for *" in format_cascade(report)


def test_the_average_is_the_normalised_product() -> None:
    answers = answers_of(0)
    product = np.sqrt(np.exp(answers.student) * np.exp(answers.teacher))
    expected = product / product.sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(decide(answers.student, answers.teacher, "average")), expected)
    assert decide(answers.student, answers.teacher, "teacher") is answers.teacher


def test_the_cascade_checks_its_parts(folder: Path) -> None:
    student = NgramClassifier.from_pretrained(folder / "student")
    with pytest.raises(ValueError, match="rule is 'vote'"):
        Cascade(student, np.zeros, 0.5, rule="vote")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"logits of shape \(2, 2\) for 2 texts and 3 labels"):
        Cascade(student, lambda texts: np.zeros((len(texts), 2)), 2.0).predict(["a", "b"])
    assert Cascade(student, np.zeros, 0.0).predict([]).labels == []
    with pytest.raises(TypeError, match="texts must be many strings, got one"):
        Cascade(student, np.zeros, 0.0).predict("a text")
    with pytest.raises(ValueError, match="threshold is nan"):
        Cascade(student, np.zeros, float("nan"))
    with pytest.raises(ValueError, match="logits of text 1, 'b', are not finite"):
        Cascade(student, lambda texts: np.array([[0.0, 1, 2], [np.nan, 1, 2]]), 2.0).predict(["a", "b"])
    column = pa.chunked_array([["a"], ["b"]])
    assert Cascade(student, np.zeros, 0.0).predict(column).labels == student.predict(["a", "b"])
    student.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match="needs one label a text"):
        Cascade(student, np.zeros, 0.5)


def test_command_asks_a_teacher(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its labels are those of the student in another order."""
    arguments = [str(folder / "student"), "--teacher", str(folder / "teacher"), "--data", str(folder / "data.jsonl")]
    cli.main(["cascade", *arguments, "--output", str(tmp_path), "--max_length", "32"])
    assert "no threshold is chosen" in capsys.readouterr().out
    arguments += ["--validation", str(folder / "validation.jsonl")]
    cli.main(["cascade", *arguments, "--output", str(tmp_path), "--max_length", "32"])
    assert "ms a text" in capsys.readouterr().out
    report = json.loads((tmp_path / "cascade.json").read_text(encoding="utf-8"))
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder / "teacher"))
    found = [item["label"] for item in classify([row["text"] for row in ROWS["data"]], truncation=True, max_length=32)]
    accuracy = np.mean([label == row["label"] for label, row in zip(found, ROWS["data"], strict=True)])
    assert report["teacher"]["accuracy"] == pytest.approx(accuracy, abs=0.04)  # bfloat16 on some machines
    assert report["seconds_per_text"]["teacher"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "is no run: name data, and teacher or teacher_logits"),
        ({"data": "data.jsonl"}, "name data, and teacher or teacher_logits"),
        ({"data": "data.jsonl", "teacher": "teacher", "teacher_logits": "data.parquet"}, "teacher or teacher_logits"),
        (
            {"data": "data.jsonl", "teacher_logits": "data.parquet", "validation": "validation.jsonl"},
            "name validation_logits",
        ),
        ({"data": "data.jsonl", "teacher_logits": "validation.parquet"}, "rows of logits"),
        ({"share": 20}, "share is 20, but must be between 0 .* and 1"),
        ({"share": 0.2, "data": "data.jsonl", "teacher": "teacher"}, "share 0.2 says how many .* name validation"),
    ],
)
def test_options_that_do_not_go_together(folder: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    paths = {name: str(folder / value) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        cascade(str(folder / "student"), output=str(tmp_path), **paths)
    assert not list(tmp_path.iterdir())


def test_a_teacher_with_other_labels(folder: Path, tmp_path: Path) -> None:
    make_teacher(tmp_path / "teacher", labels=("sport", "trade", "food"))
    with pytest.raises(ValueError, match="has the labels sport, trade, food, but the student has sport, trade, music"):
        cascade(str(folder / "student"), teacher=str(tmp_path / "teacher"), data=str(folder / "data.jsonl"))


def test_a_folder_that_is_no_finished_run(folder: Path) -> None:
    with pytest.raises(ValueError, match="is not the folder of a finished run: it has no saved student"):
        cascade(str(folder))
    with pytest.raises(ValueError, match="is a run, with its own texts"):
        cascade(str(folder), teacher="some/teacher")
    with pytest.raises(ValueError, match="limit is of files"):
        cascade(str(folder), limit=10)
