"""A student is calibrated by command; what the pipeline and the runtime make of its config."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from hf_sparse import cli
from hf_sparse.compression import compress
from hf_sparse.evaluation.calibrate import calibrate_student, format_calibration
from hf_sparse.evaluation.calibration import calibrate, fit_thresholds, to_probabilities
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import (
    SparseNgramConfig,
    SparseNgramForSequenceClassification,
    SparseNgramTextClassificationPipeline,
    SparseNgramTokenizer,
)
from tests.conftest import LABELS, WORDS, ModelFactory

RANDOM = np.random.default_rng(0)
TEXTS = [" ".join(RANDOM.choice(WORDS, RANDOM.integers(1, 9))) for _ in range(120)]


def write(path: Path, labels: list[Any], pairs: list[str] | None = None) -> Path:
    """Write texts with labels as JSON Lines."""
    rows: list[dict[str, Any]] = [{"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=False)]
    for row, pair in zip(rows, pairs or [], strict=False):
        row["other"] = pair
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def save(folder: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, **settings: Any) -> Path:
    """Write a student."""
    pipe = SparseNgramTextClassificationPipeline(model=make_model(**settings), tokenizer=tokenizer, device="cpu")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def student(student_folder: Path, tmp_path: Path) -> Path:
    """A copy of the student of three classes."""
    return Path(shutil.copytree(student_folder, tmp_path / "student"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Texts with a name or an id each."""
    labels = RANDOM.integers(0, 3, len(TEXTS)).tolist()
    return write(tmp_path / "data.jsonl", [LABELS[label] if label % 2 else str(label) for label in labels])


def test_writes_what_fits_best_into_the_config(student: Path, data: Path, tmp_path: Path) -> None:
    before = json.loads((student / "config.json").read_text(encoding="utf-8"))
    result = calibrate_student(str(student), data=str(data), plot=str(tmp_path / "plot.png"))
    after = json.loads((student / "config.json").read_text(encoding="utf-8"))
    assert after.pop("calibration_temperature") == result["temperature"]
    assert after.pop("label_thresholds") is None
    assert after == {
        key: value for key, value in before.items() if key not in ("calibration_temperature", "label_thresholds")
    }
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    labels = [LABELS.index(row["label"]) if row["label"] in LABELS else int(row["label"]) for row in rows]
    logits = NgramClassifier.from_pretrained(student).predict_logits(TEXTS)
    fitted = calibrate(logits, np.array(labels), problem_type="single_label_classification")
    assert result["temperature"] == pytest.approx(fitted.temperature, rel=1e-3)
    assert result["data"]["nll_after"] < result["data"]["nll_before"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert not list(student.glob(".*"))


def test_pipeline_and_runtime_divide_by_the_temperature_when_asked(student: Path, data: Path) -> None:
    temperature = calibrate_student(str(student), data=str(data))["temperature"]
    assert abs(temperature - 1) > 0.1
    classifier = NgramClassifier.from_pretrained(student)
    expected = to_probabilities(classifier.predict_logits(TEXTS), temperature=temperature, is_multi_label=False)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS, calibrated=True), expected, atol=1e-6)
    plain = to_probabilities(classifier.predict_logits(TEXTS), is_multi_label=False)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS), plain, atol=1e-6)

    classify = pipeline("text-classification", model=str(student), trust_remote_code=True)
    for values, options in ((expected, {"calibrated": True}), (plain, {}), (plain, {"calibrated": False})):
        for inputs in (TEXTS, [{"text": text} for text in TEXTS], (text for text in TEXTS)):
            found = classify(inputs, top_k=None, **options)
            scores = [[{item["label"]: item["score"] for item in row}[name] for name in LABELS] for row in found]
            np.testing.assert_allclose(scores, values, atol=1e-6)
    assert classify(TEXTS[0], calibrated=True)[0]["score"] == pytest.approx(expected[0].max(), abs=1e-6)
    # The way of the stock pipeline: text by text, with an option that the batches cannot take.
    found = classify([[[TEXTS[0], ""]]], calibrated=True, top_k=None)
    scores = {item["label"]: item["score"] for item in found[0]}
    np.testing.assert_allclose([scores[name] for name in LABELS], expected[0], atol=1e-5)
    always = pipeline("text-classification", model=str(student), trust_remote_code=True, calibrated=True)
    assert always(TEXTS[0])[0]["score"] == pytest.approx(expected[0].max(), abs=1e-6)


def test_asking_without_a_temperature_is_an_error(student: Path) -> None:
    with pytest.raises(ValueError, match="has no calibration_temperature; fit one with `hf-sparse calibrate`"):
        NgramClassifier.from_pretrained(student).predict_proba(TEXTS, calibrated=True)
    classify = pipeline("text-classification", model=str(student), trust_remote_code=True)
    with pytest.raises(ValueError, match="has no calibration_temperature; fit one with `hf-sparse calibrate`"):
        classify(TEXTS[0], calibrated=True)


def test_thresholds_of_several_labels(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path
) -> None:
    student = save(tmp_path / "student", make_model, tokenizer, problem_type="multi_label_classification")
    hot = RANDOM.random((len(TEXTS), 3)) < 0.3
    data = write(tmp_path / "data.jsonl", [[LABELS[index] for index in np.flatnonzero(row)] for row in hot])
    before = NgramClassifier.from_pretrained(student)
    logits = before.predict_logits(TEXTS)
    assert before.predict(TEXTS) == [[LABELS[index] for index in np.flatnonzero(row > 0)] for row in logits]
    assert before.label_thresholds.tolist() == [0.5, 0.5, 0.5]

    result = calibrate_student(str(student), data=str(data))
    np.testing.assert_allclose(result["label_thresholds"], fit_thresholds(logits, hot), atol=1e-6)
    assert result["data"]["macro_f1_after"] > result["data"]["macro_f1_before"]
    after = NgramClassifier.from_pretrained(student)
    likely = to_probabilities(logits, is_multi_label=True) > np.array(result["label_thresholds"])
    assert after.predict(TEXTS) == [[LABELS[index] for index in np.flatnonzero(row)] for row in likely]
    expected = to_probabilities(logits, temperature=result["temperature"], is_multi_label=True)
    np.testing.assert_allclose(after.predict_proba(TEXTS, calibrated=True), expected, atol=1e-6)
    assert "macro F1" in format_calibration(result)


def test_thresholds_of_zero_and_one(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    settings = {"problem_type": "multi_label_classification", "label_thresholds": [0.0, 1.0, 0.5]}
    classifier = NgramClassifier.from_pretrained(save(tmp_path / "student", make_model, tokenizer, **settings))
    answers = classifier.predict(TEXTS)
    assert all(LABELS[0] in answer and LABELS[1] not in answer for answer in answers)


def test_pairs(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    student = save(tmp_path / "student", make_model, tokenizer, sentence_pairs=True)
    labels = RANDOM.integers(0, 3, len(TEXTS))
    data = write(tmp_path / "data.jsonl", labels.tolist(), TEXTS[::-1])
    with pytest.raises(ValueError, match="name text_pair_column"):
        calibrate_student(str(student), data=str(data))
    result = calibrate_student(str(student), data=str(data), text_pair_column="other")
    logits = NgramClassifier.from_pretrained(student).predict_logits(TEXTS, TEXTS[::-1])
    fitted = calibrate(logits, labels, problem_type="single_label_classification")
    assert result["temperature"] == pytest.approx(fitted.temperature, rel=1e-3)


def test_command(student: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["calibrate", str(student), "--data", str(data), "--test", str(data)])
    shown = capsys.readouterr().out
    assert shown.startswith("temperature ")
    assert "test: calibration error" in shown
    cli.main(["calibrate", str(student), "--data", str(data), "--format", "json"])
    assert json.loads(capsys.readouterr().out)["data"]["num_texts"] == len(TEXTS)
    for words, message in (
        (["nowhere", "--data", str(data)], "nowhere is not the folder of a student"),
        ([str(student), "--data", str(data), "--label_column", "gold"], "no column 'gold'"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(["calibrate", *words])
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def test_a_regression_has_nothing_to_calibrate(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path, data: Path
) -> None:
    student = save(tmp_path / "student", make_model, tokenizer, problem_type="regression", num_labels=1)
    with pytest.raises(ValueError, match="gives no probabilities"):
        calibrate_student(str(student), data=str(data))


def test_compressing_keeps_the_calibration(student: Path, data: Path, tmp_path: Path) -> None:
    temperature = calibrate_student(str(student), data=str(data))["temperature"]
    compress(str(student), str(tmp_path / "small"), table_dtype="int8", keep_ngrams=300)
    assert NgramClassifier.from_pretrained(tmp_path / "small").calibration_temperature == temperature


def test_a_config_of_before_has_no_calibration(student: Path) -> None:
    path = student / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("calibration_temperature", "label_thresholds"):
        config.pop(key, None)
    path.write_text(json.dumps(config), encoding="utf-8")
    loaded = SparseNgramConfig.from_pretrained(student)
    assert loaded.calibration_temperature is None
    assert loaded.label_thresholds is None
    assert NgramClassifier.from_pretrained(student).calibration_temperature is None
    assert SparseNgramForSequenceClassification.from_pretrained(student).config.calibration_temperature is None


def test_attentive_pooling_too(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    student = save(tmp_path / "student", make_model, tokenizer, pooling="attentive")
    data = write(tmp_path / "data.jsonl", RANDOM.integers(0, 3, len(TEXTS)).tolist())
    result = calibrate_student(str(student), data=str(data), limit=50)
    assert result["data"]["num_texts"] == 50
    model = SparseNgramForSequenceClassification.from_pretrained(student).eval()
    tokens = SparseNgramTokenizer.from_pretrained(student)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**tokens).logits.numpy()[:50]
    labels = [json.loads(line)["label"] for line in data.read_text(encoding="utf-8").splitlines()[:50]]
    fitted = calibrate(logits, np.array(labels), problem_type="single_label_classification")
    assert result["temperature"] == pytest.approx(fitted.temperature, rel=1e-3)
