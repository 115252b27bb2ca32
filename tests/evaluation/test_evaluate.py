"""Scores of a student on labelled texts against those that scikit-learn gives for the answers of the runtime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, f1_score
from transformers import pipeline

from hf_sparse import cli
from hf_sparse.evaluation.calibration import expected_calibration_error, to_probabilities
from hf_sparse.evaluation.evaluate import evaluate, format_evaluation
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import (
    SparseNgramConfig,
    SparseNgramForSequenceClassification,
    SparseNgramTextClassificationPipeline,
    SparseNgramTokenizer,
)
from hf_sparse.vocabulary import count_ngrams
from tests.conftest import LABELS, WORDS, ModelFactory
from tests.tiny_task import NAMES, make_rows, make_teacher, write_rows

RANDOM = np.random.default_rng(0)
TEXTS = [" ".join(RANDOM.choice(WORDS, RANDOM.integers(1, 9))) for _ in range(90)]


def save(folder: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, **settings: Any) -> Path:
    """Write a student without hidden layers, which gives each of its labels to some of TEXTS."""
    model = make_model(hidden_sizes=[], **settings)
    SparseNgramTextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu").save_pretrained(folder)
    return folder


def write(path: Path, **columns: Any) -> str:
    """Write texts with other columns as Parquet."""
    pq.write_table(pa.table({"text": TEXTS, **columns}), path)
    return str(path)


def test_one_label_a_text(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    student = save(tmp_path / "student", make_model, tokenizer, calibration_temperature=1.7)
    gold = RANDOM.integers(0, 2, len(TEXTS))  # no text has the last label
    data = write(tmp_path / "data.parquet", gold=[LABELS[label] for label in gold])
    outputs = {"output": str(tmp_path / "report.json"), "plot": str(tmp_path / "confusion.png")}
    report = evaluate(str(student), data=data, label_column="gold", **outputs)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")

    classifier = NgramClassifier.from_pretrained(student)
    found = [LABELS.index(label) for label in classifier.predict(TEXTS)]
    assert set(found) == {0, 1, 2}
    assert report["student"]["accuracy"] == pytest.approx(accuracy_score(gold, found))
    assert report["student"]["macro_f1"] == pytest.approx(f1_score(gold, found, average="macro"))
    expected = classification_report(
        gold, found, labels=range(3), target_names=LABELS, output_dict=True, zero_division=0.0
    )
    for name in LABELS:
        for kind, value in report["per_label"][name].items():
            assert value == pytest.approx(expected[name]["f1-score" if kind == "f1" else kind])
    matrix = confusion_matrix(gold, found).tolist()
    assert report["confusion"] == matrix
    assert sum(map(sum, matrix)) == len(TEXTS)
    logits = classifier.predict_logits(TEXTS)
    for name, temperature in (("ece", 1.0), ("ece_calibrated", 1.7)):
        probabilities = to_probabilities(logits, temperature=temperature, is_multi_label=False)
        error = expected_calibration_error(probabilities, gold)
        assert report["calibration"][name] == pytest.approx(error, abs=1e-5)
    assert report["texts_per_second"]["student"] > 0
    assert "calibrated 0." in format_evaluation(report)


def test_several_labels_a_text(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    options = {"problem_type": "multi_label_classification", "label_thresholds": [0.3, 0.5, 1.0]}
    student = save(tmp_path / "student", make_model, tokenizer, **options)
    hot = RANDOM.random((len(TEXTS), 3)) < 0.4
    labels = [[LABELS[index] for index in np.flatnonzero(row)] for row in hot]
    data = write(tmp_path / "data.parquet", label=labels)
    report = evaluate(str(student), data=data)
    answers = NgramClassifier.from_pretrained(student).predict(TEXTS)
    found = np.array([[name in labels for name in LABELS] for labels in answers])
    assert found[:, 0].any()
    assert not found[:, 2].any()  # its threshold is 1
    assert report["student"]["subset_accuracy"] == pytest.approx(accuracy_score(hot, found))
    assert report["student"]["macro_f1"] == pytest.approx(f1_score(hot, found, average="macro", zero_division=0.0))
    for index, name in enumerate(LABELS):
        assert report["confusion"][index] == confusion_matrix(hot[:, index], found[:, index]).tolist()
        assert report["per_label"][name]["support"] == hot[:, index].sum()
    assert report["calibration"]["ece_calibrated"] is None
    assert "not calibrated" in format_evaluation(report)
    with pytest.raises(ValueError, match="plot draws students of one label a text"):
        evaluate(str(student), data=data, plot=str(tmp_path / "plot.png"))


def test_regression_of_pairs(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    options = {"problem_type": "regression", "num_labels": 1, "sentence_pairs": True}
    student = save(tmp_path / "student", make_model, tokenizer, **options)
    numbers = RANDOM.normal(size=len(TEXTS))
    data = write(tmp_path / "data.parquet", other=TEXTS[::-1], label=numbers)
    report = evaluate(str(student), data=data, text_pair_column="other")
    found = NgramClassifier.from_pretrained(student).predict_proba(TEXTS, TEXTS[::-1])[:, 0]
    assert report["student"]["pearson"] == pytest.approx(np.corrcoef(found, numbers)[0, 1], abs=1e-5)
    assert report["student"]["mean_squared_error"] == pytest.approx(np.square(found - numbers).mean(), rel=1e-4)
    assert not {"per_label", "confusion", "calibration"} & set(report)
    assert "pearson" in format_evaluation(report)
    with pytest.raises(ValueError, match="name text_pair_column"):
        evaluate(str(student), data=data)


def test_a_student_that_the_runtime_does_not_serve(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path
) -> None:
    student = save(tmp_path / "student", make_model, tokenizer, pooling="attentive")
    report = evaluate(str(student), data=write(tmp_path / "data.parquet", label=[0] * len(TEXTS)), limit=20)
    assert report["num_texts"] == 20
    assert report["texts_per_second"] == {"student": None}
    classify = pipeline("text-classification", model=str(student), trust_remote_code=True)
    share = np.mean([item["label"] == LABELS[0] for item in classify(TEXTS[:20])])
    assert report["student"]["accuracy"] == pytest.approx(share)
    assert format_evaluation(report).splitlines()[1].endswith(" -")


def test_thresholds_are_the_student_s_alone(tmp_path: Path) -> None:
    """What is kept of a teacher of several labels is compared without them: it has none."""
    rows = make_rows(60, seed=4)
    data = write_rows(tmp_path / "data.jsonl", rows)
    vocabulary = count_ngrams([row["text"] for row in rows], num_ngrams=100, progress=False)
    reports = []
    teacher = make_teacher(tmp_path / "teacher", problem_type="multi_label_classification")
    for thresholds in (None, [0.9, 0.1, 0.1]):
        config = SparseNgramConfig(
            vocab_size=vocabulary.num_rows,
            vocabulary_sha256=vocabulary.sha256,
            embedding_size=8,
            initializer_range=1.0,
            problem_type="multi_label_classification",
            label_thresholds=thresholds,
            id2label=dict(enumerate(NAMES)),
        )
        torch.manual_seed(0)
        SparseNgramForSequenceClassification(config).save_pretrained(tmp_path / "student")
        SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(tmp_path / "student")
        settings: dict[str, Any] = {"label_column": "labels", "teacher": str(teacher), "max_length": 32}
        reports.append(evaluate(str(tmp_path / "student"), data=str(data), **settings))
    assert reports[0]["student"] != reports[1]["student"]
    for name in ("teacher", "retention", "agreement"):
        assert reports[0][name] == reports[1][name]


def test_beside_the_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its labels are those of the student in another order."""
    rows = make_rows(60, seed=4)
    data = write_rows(tmp_path / "data.jsonl", rows)
    vocabulary = count_ngrams([row["text"] for row in rows], num_ngrams=100, progress=False)
    config = SparseNgramConfig(
        vocab_size=vocabulary.num_rows,
        vocabulary_sha256=vocabulary.sha256,
        embedding_size=8,
        initializer_range=1.0,
        id2label=dict(enumerate(NAMES)),
        label2id={name: index for index, name in enumerate(NAMES)},
    )
    SparseNgramForSequenceClassification(config).save_pretrained(tmp_path / "student")
    SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(tmp_path / "student")
    teacher = str(make_teacher(tmp_path / "teacher", labels=NAMES[::-1]))
    arguments = [str(tmp_path / "student"), "--data", str(data), "--teacher", teacher, "--max_length", "32"]
    cli.main(["evaluate", *arguments, "--format", "json"])
    report = json.loads(capsys.readouterr().out)
    texts, gold = [row["text"] for row in rows], [row["label"] for row in rows]
    classify = pipeline("text-classification", model=teacher)
    theirs = [item["label"] for item in classify(texts, truncation=True, max_length=32)]
    own = NgramClassifier.from_pretrained(tmp_path / "student").predict(texts)
    # A teacher in bfloat16, on some machines, answers a text or two otherwise.
    assert report["teacher"]["accuracy"] == pytest.approx(accuracy_score(gold, theirs), abs=0.04)
    assert report["agreement"] == pytest.approx(accuracy_score(own, theirs), abs=0.04)
    assert report["retention"] == pytest.approx(report["student"]["accuracy"] / report["teacher"]["accuracy"])
    assert report["texts_per_second"]["teacher"] > 0
    cli.main(["evaluate", *arguments])
    assert "retention" in capsys.readouterr().out
    make_teacher(tmp_path / "other", labels=("sport", "trade", "food"))
    with pytest.raises(ValueError, match="has the labels sport, trade, food, but the student has"):
        evaluate(str(tmp_path / "student"), data=str(data), teacher=str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_column": "gold"}, "no column 'gold'"),
        ({"text_column": "body"}, "no column 'body'"),
        ({"text_pair_column": "text"}, "leave text_pair_column out"),
    ],
)
def test_columns_that_do_not_fit(changes: dict[str, str], message: str, student_folder: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data.parquet", label=["positive"] * len(TEXTS))
    with pytest.raises(ValueError, match=message):
        evaluate(str(student_folder), data=data, **changes)
    with pytest.raises(FileNotFoundError, match=r"there is no folder \./nowhere"):
        evaluate("./nowhere", data=data)
    with pytest.raises(ValueError, match="has the label 'positive '"):
        evaluate(str(student_folder), data=write(tmp_path / "data.parquet", label=["positive "] * len(TEXTS)))
