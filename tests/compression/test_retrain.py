"""Retraining of a pruned student against the student before pruning."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_sparse.compression import compress
from hf_sparse.compression.measure import predict_logits
from hf_sparse.compression.prune import prune_student
from hf_sparse.compression.retrain import Whole, retrain
from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification, SparseNgramTokenizer
from hf_sparse.vocabulary import count_ngrams

WORDS = ["film", "good", "bad", "a", "the", "and", "was", "it", "long", "evening"]
KEPT = 5


def make_texts(num_texts: int, *, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size=random.integers(1, 12))) for _ in range(num_texts)]


@pytest.fixture(scope="module")
def whole() -> Whole:
    """A student with random weights whose every n-gram counts."""
    vocabulary = count_ngrams(make_texts(400, seed=0), num_ngrams=200, progress=False)
    torch.manual_seed(0)
    config = SparseNgramConfig(
        vocab_size=vocabulary.num_rows,
        embedding_size=16,
        hidden_sizes=[8],
        num_labels=3,
        initializer_range=1.0,
        vocabulary_sha256=vocabulary.sha256,
    )
    return Whole(SparseNgramForSequenceClassification(config).eval(), SparseNgramTokenizer(vocabulary=vocabulary))


@pytest.fixture
def pruned(whole: Whole) -> Whole:
    student, vocabulary = prune_student(whole.student, whole.tokenizer.vocabulary, keep=KEPT, by="norm")
    return Whole(student, SparseNgramTokenizer(vocabulary=vocabulary))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"words": text}) + "\n" for text in make_texts(3000, seed=1)))
    return path


def run(pruned: Whole, whole: Whole, data: Path, **options: Any) -> SparseNgramForSequenceClassification:
    options = {
        "epochs": 3,
        "folder": data.parent / "work",
        "texts": TextSet(path=str(data), text_column="words"),
    } | options
    return retrain(pruned.student, pruned.tokenizer, teacher=whole, **options)


def divergence(student: SparseNgramForSequenceClassification, tokenizer: SparseNgramTokenizer, whole: Whole) -> float:
    """Kullback-Leibler divergence from the whole student, on texts that nobody has seen."""
    texts = make_texts(500, seed=2)
    found = torch.from_numpy(predict_logits(student, tokenizer, texts)).log_softmax(dim=1)
    wanted = torch.from_numpy(predict_logits(whole.student, whole.tokenizer, texts)).log_softmax(dim=1)
    return float((wanted.exp() * (wanted - found)).sum(dim=1).mean())


def test_retraining_comes_closer(pruned: Whole, whole: Whole, data: Path) -> None:
    before = {name: tensor.clone() for name, tensor in pruned.student.state_dict().items()}
    teacher = {name: tensor.clone() for name, tensor in whole.student.state_dict().items()}
    found = run(pruned, whole, data)
    assert divergence(found, pruned.tokenizer, whole) < 0.8 * divergence(pruned.student, pruned.tokenizer, whole)
    assert not found.training
    assert all(parameter.requires_grad for parameter in found.parameters())
    assert not found.model.table.blocks[0][0].any()
    for old, student in ((before, pruned.student), (teacher, whole.student)):
        for name, tensor in student.state_dict().items():
            assert torch.equal(tensor, old[name])
    again = run(pruned, whole, data, folder=data.parent / "again")
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name])


def test_what_is_not_closer_is_not_kept(pruned: Whole, whole: Whole, data: Path) -> None:
    """A learning rate that destroys the student leaves the pruned one; so does a student that is perfect already."""
    assert run(pruned, whole, data, lr=1e3) is pruned.student
    assert run(whole, whole, data) is whole.student


def test_compress_retrains(whole: Whole, data: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "student", tmp_path / "small"
    whole.student.save_pretrained(folder)
    whole.tokenizer.save_pretrained(folder)
    report = compress(
        str(folder), str(output), keep_ngrams=KEPT, retrain_data=str(data), retrain_epochs=3, data=str(data),
        text_column="words", label_column=None,
    )  # fmt: skip
    steps = {step["name"]: step for step in report["steps"]}
    assert list(steps) == ["student", "prune", "retrain", "fold", "int8"]
    assert steps["retrain"]["agreement"] > steps["prune"]["agreement"]
    assert steps["retrain"]["num_bytes"] == steps["prune"]["num_bytes"]
    assert report["settings"]["retrain_data"] == str(data)
    found = NgramClassifier.from_pretrained(output).predict(make_texts(500, seed=2))
    wanted = predict_logits(whole.student, whole.tokenizer, make_texts(500, seed=2)).argmax(axis=1)
    assert np.mean([int(label.removeprefix("LABEL_")) for label in found] == wanted) > steps["prune"]["agreement"]
    assert not list(tmp_path.glob("*.partial"))


def test_mistakes(pruned: Whole, whole: Whole, data: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "student", tmp_path / "small"
    whole.student.save_pretrained(folder)
    whole.tokenizer.save_pretrained(folder)
    few = tmp_path / "few.jsonl"
    few.write_text('{"text": "a film"}\n' * 19)
    for options, message in (
        ({"retrain_data": str(few)}, "only a pruned student is retrained"),
        ({"retrain_data": str(few), "keep_ngrams": 9}, "holds 19 texts: too few"),
        (
            {"retrain_data": str(few), "keep_ngrams": 9, "retrain_epochs": 0},
            "retrain_epochs must be at least 1, got 0",
        ),
        ({"retrain_data": str(data), "keep_ngrams": 9}, "'text'"),
        ({"retrain_data": "no.parquet", "keep_ngrams": 9}, r"no\.parquet"),
    ):
        with pytest.raises(ValueError, match=message):
            compress(str(folder), str(output), **options)
        assert not output.exists()
        assert not list(tmp_path.glob("*.partial"))
