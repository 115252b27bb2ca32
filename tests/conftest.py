"""Tiny vocabularies, models and folders that many tests share; nothing here takes a second."""

import os
import shutil
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

# Before anything imports transformers: no network, and code loaded from student folders goes to a place of its own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="hf-sparse-modules-")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from hf_sparse.student import (
    SparseNgramConfig,
    SparseNgramForSequenceClassification,
    SparseNgramTextClassificationPipeline,
    SparseNgramTokenizer,
)
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary

WORDS = ("the", "film", "was", "a", "good", "bad", "and", "!")
LABELS = ("negative", "neutral", "positive")

# What students of sentence pairs compare.
PAIR_SHAPES: dict[str, dict[str, Any]] = {
    "sides": {"sentence_pairs": True, "pair_bags": "sides"},
    "overlap": {"sentence_pairs": True, "pair_bags": "overlap"},
    "aligned": {"sentence_pairs": True, "pair_bags": "overlap", "alignment_size": 3},
}

ModelFactory = Callable[..., SparseNgramForSequenceClassification]


def pytest_unconfigure() -> None:
    """Remove the code that tests have loaded from student folders."""
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def vocabulary() -> NgramVocabulary:
    """All 1- and 2-grams of eight words and half of their 3-grams: 328 n-grams."""
    ngrams = [ngram for n in (1, 2, 3) for ngram in product(WORDS, repeat=n)]
    kept = [ngram for index, ngram in enumerate(ngrams) if len(ngram) < 3 or index % 2]
    return NgramVocabulary.from_counts({ngram: 1000 - index for index, ngram in enumerate(kept)})


@pytest.fixture(scope="session")
def tokenizer(vocabulary: NgramVocabulary) -> SparseNgramTokenizer:
    """The tokenizer of `vocabulary`."""
    return SparseNgramTokenizer(vocabulary=vocabulary)


@pytest.fixture(scope="session")
def make_model(vocabulary: NgramVocabulary) -> ModelFactory:
    """Make models of `vocabulary` with weights large enough to tell results apart; arguments go to the config."""

    def make(**settings: Any) -> SparseNgramForSequenceClassification:
        names = dict(enumerate(LABELS)) if "num_labels" not in settings else None
        defaults: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [6], "initializer_range": 1.0}
        defaults |= {"vocab_size": vocabulary.num_rows, "vocabulary_sha256": vocabulary.sha256}
        if names is not None:
            defaults |= {"id2label": names, "label2id": {label: index for index, label in names.items()}}
        torch.manual_seed(0)
        model = SparseNgramForSequenceClassification(SparseNgramConfig(**(defaults | settings))).eval()
        model.model.mark_words(torch.from_numpy(vocabulary.is_word))
        return model

    return make


@pytest.fixture(scope="session")
def student_folder(
    tmp_path_factory: pytest.TempPathFactory, make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> Path:
    """A student of three classes as `save_pretrained` of its pipeline leaves it."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-student"
    pipe = SparseNgramTextClassificationPipeline(model=make_model(), tokenizer=tokenizer, device="cpu")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(params=["cpu", "cuda", "mps"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every kind of device; a test is skipped for those that this machine lacks."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[request.param]:
        pytest.skip(f"no {request.param} device on this machine")
    return torch.device(request.param)
