"""Contestants whose libraries every developer has; the others run in the benchmark itself."""

import json
from pathlib import Path

import pytest

from hf_sparse.benchmark.peers.baseline import CachedKernel
from hf_sparse.benchmark.peers.counts import CountDan, TfidfRegression
from hf_sparse.benchmark.peers.encoders import Architecture, Teacher
from hf_sparse.benchmark.peers.student import Extraction, ModelCall, Pipeline
from hf_sparse.student import SparseNgramTokenizer
from tests.conftest import LABELS, ModelFactory
from tests.tiny_task import NAMES, make_rows, make_teacher


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = make_rows(200, seed=1)
    path = tmp_path_factory.mktemp("train") / "train.json"
    data = {"texts": [row["text"] for row in rows], "labels": [row["label"] for row in rows]}
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def student(
    tmp_path_factory: pytest.TempPathFactory, make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> Path:
    folder = tmp_path_factory.mktemp("student")
    make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_tfidf(train: Path, tmp_path: Path) -> None:
    peer = TfidfRegression(threads=1, train=str(train))
    peer.prepare(tmp_path)
    peer.load(tmp_path)
    rows = make_rows(50, seed=2)
    answers = peer.predict([row["text"] for row in rows])
    assert sum(answer == row["label"] for answer, row in zip(answers, rows, strict=True)) > 40


def test_count_dan(train: Path, tmp_path: Path) -> None:
    peer = CountDan(threads=1, train=str(train), names=list(NAMES), num_ngrams=50, width=4)
    peer.prepare(tmp_path)
    peer.load(tmp_path)
    texts = [row["text"] for row in make_rows(300, seed=2)]
    together = peer.predict([*texts, ""])
    # Padding changes nothing.
    assert together[:20] == [peer.predict([text])[0] for text in texts[:20]]
    assert set(together) <= set(NAMES)
    assert len(together) == 301


def test_teacher(tmp_path: Path) -> None:
    make_teacher(tmp_path)
    settings = {"threads": 1, "model": str(tmp_path), "names": list(NAMES), "dtype": "float32", "max_length": 64}
    peer = Teacher(**settings)
    peer.load(tmp_path)
    texts = [row["text"] for row in make_rows(70, seed=3)]
    # Sorting by length and batches of 32 leave every answer with its text.
    assert peer.predict(texts) == [peer.predict([text])[0] for text in texts]
    assert len(set(peer.predict(texts))) > 1
    with pytest.raises(RuntimeError, match="no GPU"):
        Teacher(**settings, device="cuda").load(tmp_path)


def test_architecture(tmp_path: Path) -> None:
    make_teacher(tmp_path)
    settings = {"threads": 1, "model": str(tmp_path), "names": list(NAMES), "dtype": "bfloat16", "max_length": 64}
    peer = Architecture(architecture="distilbert", **settings)
    peer.load(tmp_path)
    assert set(peer.predict(["a team", "the song was good"])) <= set(NAMES)


def test_student(student: Path) -> None:
    texts = ["the film was good!", "bad", "", "a good film and a bad film"]
    answers = []
    for kind in (ModelCall, Pipeline):
        peer = kind(threads=1, model=str(student))
        peer.prepare(student)
        answers.append(peer.predict(texts))
        assert [peer.predict([text])[0] for text in texts] == answers[-1]
    assert answers[0] == answers[1]
    assert set(answers[0]) <= set(LABELS)
    peer = Extraction(threads=1, model=str(student))
    peer.prepare(student)
    assert peer.predict(texts) == []


def test_baseline(tmp_path: Path) -> None:
    peer = CachedKernel(threads=1)
    peer.prepare(tmp_path)
    assert peer.predict(["a", "b"]) == ["", ""]
