"""The n-gram expert: a linear classifier of D_train's n-grams that joins the teacher, and both together as the target.

A transformer that reads the first few hundred tokens and a classifier that counts all n-grams make different
mistakes; their weighted sum is a better teacher than either. The expert is logistic regression on n-grams weighted by
naive-Bayes ratios (Wang and Manning, "Baselines and Bigrams", ACL 2012), one classifier for each label. What it says
of D_train itself comes from folds that were not trained on the text in question.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from hf_sparse.distillation import student_stages
from hf_sparse.distillation.batches import BatchMaker
from hf_sparse.distillation.labelling import read_logits, write_logits
from hf_sparse.distillation.naive_bayes import log_ratios, presence
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.stream import TextStream
from hf_sparse.distillation.texts import TEXT_SETS, shards
from hf_sparse.evaluation.metrics import score
from hf_sparse.files import write_json

logger = logging.getLogger(__name__)

_FOLDS: Final = 5
_READ_ROWS: Final = 8192
_MOST_ITERATIONS: Final = 50

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class NgramExpert:
    """One linear classifier for each label against all others.

    Attributes:
        weights: (V, C), the naive-Bayes ratios folded in.
        biases: (C,).
    """

    weights: Array
    biases: Array

    @classmethod
    def fit(cls, features: Any, labels: npt.NDArray[np.int64], *, num_labels: int, regularisation: float) -> Any:
        """Train on features (B, V), a sparse matrix of ones, and labels (B,).

        Args:
            features: Which n-grams a text has.
            labels: Of the texts.
            num_labels: C.
            regularisation: Inverse strength of the penalty on the weights.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        one_hot = np.eye(num_labels, dtype=np.float32)[labels]
        occurrences = np.asarray(features.sum(axis=0)).ravel()
        counts = np.asarray(features.T @ one_hot)
        ratios = log_ratios(counts, one_hot.sum(axis=0), num_texts=len(labels), occurrences=occurrences)
        weights, biases = np.zeros_like(ratios), np.full(num_labels, -10.0, np.float32)
        for label in range(num_labels) if num_labels > 2 else (1,):
            if not 0 < one_hot[:, label].sum() < len(labels):
                continue  # nothing to tell apart
            weighted = features.multiply(ratios[:, label]).tocsr()
            model = LogisticRegression(
                C=regularisation, solver="liblinear", dual=True, random_state=0, max_iter=_MOST_ITERATIONS
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(weighted, one_hot[:, label] > 0)
            weights[:, label] = ratios[:, label] * model.coef_[0]
            biases[label] = model.intercept_[0]
        if num_labels == 2:
            weights, biases = np.stack([-weights[:, 1], weights[:, 1]], axis=1), biases[1] * np.array([-1.0, 1.0])
        return cls(weights=weights.astype(np.float32), biases=biases.astype(np.float32))

    def logits(self, features: Any) -> Array:
        """Return the logits (B, C) of features (B, V)."""
        found: Array = np.asarray(features @ self.weights, np.float32) + self.biases
        return found


def mixing_weights(parts: list[Array], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the weight of each of several logits (B, C) whose sum has the least cross-entropy; none is below 0."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    stacked = np.stack(parts).astype(np.float64)

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        log_probabilities = log_softmax(np.tensordot(weights, stacked, 1), axis=1)
        wrong = np.exp(log_probabilities)
        wrong[np.arange(len(labels)), labels] -= 1.0
        gradient = (stacked * wrong).sum(axis=(1, 2)) / len(labels)
        return -float(log_probabilities[np.arange(len(labels)), labels].mean()), gradient

    start = np.full(len(parts), 1.0 / len(parts))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * len(parts))
    weights: npt.NDArray[np.float64] = found.x
    return weights


def write_ensemble(plan: RunPlan, folder: Path, *, progress: bool) -> None:
    """Train the expert, weigh it and the teacher on validation data, and write the logits of both for all texts.

    Args:
        plan: The run; its texts, vocabulary and teacher's logits are there.
        folder: Gets a shard of logits for each shard of texts, and `ensemble.json`: weights and validation scores.
        progress: Show a bar on stderr.
    """
    reader = _Reader(plan)
    labels = np.concatenate([part.labels for part in reader.parts("train")])
    features = _stack([part.features for part in reader.parts("train")])
    known = np.flatnonzero(labels >= 0)
    regularisation = plan.recipe.teacher.ngram_expert_c
    options: dict[str, Any] = {"num_labels": plan.space.num_labels, "regularisation": regularisation}
    held_out = np.zeros((len(labels), plan.space.num_labels), np.float32)
    folds = np.random.default_rng(plan.recipe.seed).permutation(len(labels)) % _FOLDS
    for fold in tqdm(range(_FOLDS), desc="n-gram expert", unit=" folds", disable=not progress):
        rows = known[folds[known] != fold]
        expert = NgramExpert.fit(features[rows], labels[rows], **options)
        held_out[folds == fold] = expert.logits(features[folds == fold])
    expert = NgramExpert.fit(features[known], labels[known], **options)

    def logits_of(text_set: str) -> Array:
        if text_set == "train":
            return held_out
        found = [expert.logits(part.features) for part in reader.parts(text_set)]
        return np.concatenate(found) if found else np.zeros((0, plan.space.num_labels), np.float32)

    _mix(plan, folder, {text_set: logits_of(text_set) for text_set in TEXT_SETS}, reader)


def read_ensemble(folder: Path) -> dict[str, Any]:
    """Return what `ensemble.json` holds."""
    found: dict[str, Any] = json.loads((folder / "ensemble.json").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True, kw_only=True)
class _Part:
    features: Any
    labels: npt.NDArray[np.int64]


class _Reader:
    """Reads text sets as features and labels (-1: none)."""

    def __init__(self, plan: RunPlan) -> None:
        self._texts = plan.stage_folder("texts")
        self._tokenizer = student_stages.load_tokenizer(plan)
        self._maker = BatchMaker(
            tokenizer=self._tokenizer, problem_type=plan.space.problem_type, num_labels=plan.space.num_labels
        )

    def parts(self, text_set: str) -> Iterator[_Part]:
        read = student_stages.training_shards(self._texts, None, (text_set,))
        stream = TextStream(read, batch_size=_READ_ROWS, seed=None)
        for texts in stream.batches(first=0, stop=stream.batches_per_epoch):
            batch = self._maker(texts)
            none = np.full(batch.num_in_batch, -1)
            labels = none if batch.labels is None else batch.labels.numpy()
            yield _Part(features=presence(batch, num_rows=self._tokenizer.vocab_size), labels=labels)

    def labels(self, text_set: str) -> npt.NDArray[np.int64]:
        return np.concatenate([part.labels for part in self.parts(text_set)])


def _stack(parts: list[Any]) -> Any:
    from scipy.sparse import vstack

    return vstack(parts).tocsr()


def _mix(plan: RunPlan, folder: Path, expert: dict[str, Array], reader: _Reader) -> None:
    labelled = plan.stage_folder("label")
    teacher = {text_set: read_logits(labelled, text_set) for text_set in TEXT_SETS}
    labels = reader.labels("validation")
    known = labels >= 0
    both = [teacher["validation"], expert["validation"]]
    weights = mixing_weights([part[known] for part in both], labels[known])
    for weight, name, setting in zip(weights, ("teacher", "n-gram expert"), ("epochs", "ngram_expert"), strict=True):
        if weight == 0:
            logger.warning(
                "on the %d validation texts the %s adds nothing to the other: its weight is 0, and the student is not "
                "distilled from it; see teacher.%s",
                known.sum(),
                name,
                setting,
            )
    mixed = {
        text_set: (weights[0] * teacher[text_set] + weights[1] * expert[text_set]).astype(np.float32)
        for text_set in TEXT_SETS
        if len(expert[text_set])
    }
    candidates = {"teacher": both[0], "ngram_expert": both[1], "ensemble": mixed["validation"]}
    scores = {
        name: score(logits[known], labels[known], problem_type=plan.space.problem_type)
        for name, logits in candidates.items()
    }
    for text_set, logits in mixed.items():
        first = 0
        for path in shards(plan.stage_folder("texts"), text_set):
            rows = pq.read_metadata(path).num_rows
            write_logits(logits[first : first + rows], folder / path.name, top_k=plan.top_k)
            first += rows
    write_json(
        folder / "ensemble.json",
        {"weights": {"teacher": float(weights[0]), "ngram_expert": float(weights[1])}, "validation": scores},
    )
