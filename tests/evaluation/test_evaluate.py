"""Scores of a student on files, against scikit-learn by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from hf_sparse import cli
from hf_sparse.evaluation.evaluate import evaluate, format_evaluation
from hf_sparse.runtime import NgramClassifier
from tests.conftest import LABELS
from tests.tiny_task import make_teacher, write_rows

TEXTS = ["good film", "bad film !", "the film was good", "", "not good", "a bad , bad film"] * 5


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"text": text, "label": LABELS[index % len(LABELS)]} for index, text in enumerate(TEXTS)]
    return write_rows(tmp_path / "texts.jsonl", rows)


def test_scores(student_folder: Path, data: Path, tmp_path: Path) -> None:
    report = evaluate(str(student_folder), data=str(data), output=str(tmp_path / "report.json"))
    gold = [LABELS[index % len(LABELS)] for index in range(len(TEXTS))]
    found = NgramClassifier.from_pretrained(student_folder).predict(TEXTS)
    assert report["num_texts"] == len(TEXTS)
    assert report["student"]["accuracy"] == pytest.approx(accuracy_score(gold, found))
    assert report["student"]["macro_f1"] == pytest.approx(f1_score(gold, found, average="macro", zero_division=0))
    for label, row in report["labels"].items():
        assert row["num_texts"] == gold.count(label)
        right = sum(one == other == label for one, other in zip(gold, found, strict=True))
        assert row["recall"] == pytest.approx(right / gold.count(label))
    assert np.trace(report["confusion"]) == round(report["student"]["accuracy"] * len(TEXTS))
    assert np.sum(report["confusion"]) == len(TEXTS)
    assert "ece_calibrated" not in report["student"]
    assert json.loads((tmp_path / "report.json").read_text()) == report
    shown = format_evaluation(report)
    assert all(label in shown for label in LABELS)


def test_beside_its_teacher(student_folder: Path, data: Path, tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", labels=LABELS[::-1])  # in another order
    report = evaluate(str(student_folder), data=str(data), teacher=str(teacher))
    assert report["retention"] == pytest.approx(report["student"]["accuracy"] / report["teacher"]["accuracy"])
    assert 0 <= report["agreement"] <= 1
    assert "agreement" in format_evaluation(report)
    with pytest.raises(ValueError, match="has the labels"):
        evaluate(str(student_folder), data=str(data), teacher=str(make_teacher(tmp_path / "other")))


def test_command(student_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["evaluate", str(student_folder), "--data", str(data), "--plot", str(tmp_path / "confusion.png")])
    assert "macro f1" in capsys.readouterr().out
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    cli.main(["evaluate", str(student_folder), "--data", str(data), "--format", "json", "--limit", "6"])
    assert json.loads(capsys.readouterr().out)["num_texts"] == 6
