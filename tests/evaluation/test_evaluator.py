"""`evaluate.evaluator` takes a student's pipeline."""

from pathlib import Path

import datasets
import pytest
from transformers import pipeline

from hf_sparse.evaluation.evaluator import SingleLabelScores, text_classification_evaluator
from hf_sparse.runtime import NgramClassifier
from tests.conftest import LABELS

TEXTS = ["a good film", "bad", "not a good film at all !", "the film was good", "bad , bad film"] * 4


@pytest.mark.parametrize("strategy", ["simple", "bootstrap"])
def test_scores_and_speed(student_folder: Path, strategy: str) -> None:
    gold = [index % len(LABELS) for index in range(len(TEXTS))]
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": gold})
    pipe = pipeline("text-classification", model=str(student_folder), trust_remote_code=True, device="cpu")
    found = text_classification_evaluator().compute(
        model_or_pipeline=pipe,
        data=data,
        metric=SingleLabelScores(),
        label_mapping={label: index for index, label in enumerate(LABELS)},
        strategy=strategy,
        n_resamples=10,
    )
    answers = NgramClassifier.from_pretrained(student_folder).predict(TEXTS)
    right = sum(answer == LABELS[label] for answer, label in zip(answers, gold, strict=True)) / len(TEXTS)
    accuracy = found["accuracy"]
    assert (accuracy if strategy == "simple" else accuracy["score"]) == pytest.approx(right)
    assert found["samples_per_second"] > 0
    assert found["latency_in_seconds"] == pytest.approx(1 / found["samples_per_second"])
