"""What each step of a compression costs: size, accuracy and agreement with the student it began with."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hf_sparse.distillation.label_space import LabelSpace
from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.sources import read_rows
from hf_sparse.student.modeling_sparse_ngram import SparseNgramForSequenceClassification
from hf_sparse.student.tokenization_sparse_ngram import SparseNgramTokenizer
from hf_sparse.student.vocabulary_format_sparse_ngram import serialise
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary

_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class EvaluationTexts:
    """B texts to measure on, and the label ids (B,) of those that have labels."""

    texts: list[str]
    labels: npt.NDArray[np.int64] | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """A student after a step: bytes on disk, and scores where there is data (agreement with the first student)."""

    name: str
    num_ngrams: int
    num_columns: int
    table_dtype: str
    num_bytes: int
    accuracy: float | None = None
    agreement: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the step for a JSON file."""
        return asdict(self)


def read_evaluation_texts(
    path: str, space: LabelSpace, *, text_column: str, label_column: str | None, limit: int | None
) -> EvaluationTexts:
    """Read texts and labels from files.

    Args:
        path: A Parquet, CSV or JSON Lines file, a folder or a pattern.
        space: What the labels stand for.
        text_column: Column of the texts.
        label_column: Column of the labels; None when there are none.
        limit: How many rows to read; None means all.

    Raises:
        ValueError: A label is not one of the student's.
    """
    source = TextSet(path=path, text_column=text_column, label_column=label_column, limit=limit)
    texts: list[str] = []
    ids: list[int] = []
    for table in read_rows(source):
        texts += table["text"].to_pylist()
        if label_column is not None:
            ids += space.encode(table["label"].combine_chunks(), where=path).to_pylist()
    if not texts:
        raise ValueError(f"{path!r} holds no texts to measure on")
    return EvaluationTexts(texts=texts, labels=None if label_column is None else np.array(ids, dtype=np.int64))


@torch.inference_mode()
def predict_logits(
    model: SparseNgramForSequenceClassification, tokenizer: SparseNgramTokenizer, texts: list[str]
) -> npt.NDArray[np.float32]:
    """Return the logits (B, C) of texts."""
    parts = []
    for first in range(0, len(texts), _BATCH):
        batch = tokenizer.extract(texts[first : first + _BATCH])
        logits = model.classify(model.pool(torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths)))
        parts.append(logits.float().numpy())
    return np.concatenate(parts)


def predict_ids(
    model: SparseNgramForSequenceClassification, tokenizer: SparseNgramTokenizer, texts: list[str]
) -> npt.NDArray[np.int64]:
    """Return the label id (B,) of each text."""
    ids: npt.NDArray[np.int64] = predict_logits(model, tokenizer, texts).argmax(axis=1)
    return ids


def student_bytes(model: SparseNgramForSequenceClassification, vocabulary: NgramVocabulary) -> int:
    """Return what serving needs on disk, weights and vocabulary (without the header of the weights, about 1 kB)."""
    weights: int = sum(tensor.nbytes for tensor in model.state_dict().values())
    return weights + sum(memoryview(part).nbytes for part in serialise(vocabulary))


def format_steps(steps: list[Step]) -> str:
    """Return the steps as a table."""
    lines = [f"{'step':<12}{'n-grams':>10}{'columns':>9}  {'rows':<9}{'MB':>8}{'accuracy':>10}{'agreement':>11}"]
    for step in steps:
        accuracy, agreement = ("" if score is None else f"{score:.4f}" for score in (step.accuracy, step.agreement))
        lines.append(
            f"{step.name:<12}{step.num_ngrams:>10,}{step.num_columns:>9}  {step.table_dtype:<9}"
            f"{step.num_bytes / 1e6:>8.1f}{accuracy:>10}{agreement:>11}"
        )
    return "\n".join(lines)
