"""The dense end of a student in NumPy: from pooled rows to logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.jit import Floats
from hf_sparse.runtime.pairs import pair_features
from hf_sparse.runtime.weights import as_float32

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a student does after pooling; see `hf_sparse/student/modeling_sparse_ngram.py`.

    `layers` are the hidden layers, weight (H, D) and bias (H,), `classifier` the last one (None when it is folded into
    the table); `pooled_bias` (D,) belongs to a layer that is folded into the table.
    """

    pooled_bias: Floats | None
    pooled_is_hidden: bool
    layers: list[tuple[Floats, Floats]]
    classifier: tuple[Floats, Floats] | None
    activation: str
    sentence_pairs: bool
    pair_bags: str

    @classmethod
    def from_weights(cls, config: Mapping[str, Any], weights: Mapping[str, npt.NDArray[Any]]) -> "Head":
        """Take the dense layers of a student with a classifier from its weights.

        Raises:
            ValueError: A layer that the config speaks of is not among the weights.
        """
        folded = config.get("folded")
        try:
            names = [f"model.hidden_layers.{index}" for index in range(len(config["hidden_sizes"]))]
            return cls(
                pooled_bias=as_float32(weights["model.pooled_bias"]) if folded else None,
                pooled_is_hidden=folded == "hidden",
                layers=[_layer(weights, name) for name in names],
                classifier=None if folded == "classifier" else _layer(weights, "classifier"),
                activation=config["activation"],
                sentence_pairs=config["sentence_pairs"],
                pair_bags=config.get("pair_bags", "sides"),
            )
        except KeyError as error:
            raise ValueError(
                f"the weights have no {error.args[0]}: save the student as SparseNgramForSequenceClassification"
            ) from error

    @property
    def num_labels(self) -> int:
        """Number of logits."""
        last = self.pooled_bias if self.classifier is None else self.classifier[1]
        assert last is not None, "a classifier is there or folded"
        return last.size

    def logits(self, pooled: Floats) -> Floats:
        """Return the logits (B, C) of pooled texts (B, D), or of the pooled bags of pairs (2B, D) or (3B, D)."""
        vectors = pooled
        if self.pooled_bias is not None:
            vectors = vectors + self.pooled_bias
            vectors = self._activate(vectors) if self.pooled_is_hidden else vectors
        if self.sentence_pairs:
            vectors = pair_features(vectors, self.pair_bags)
        for weight, bias in self.layers:
            vectors = self._activate(vectors @ weight.T + bias)
        return vectors if self.classifier is None else vectors @ self.classifier[0].T + self.classifier[1]

    def _activate(self, vectors: Floats) -> Floats:
        return np.maximum(vectors, 0) if self.activation == "relu" else np.tanh(vectors)


def probabilities(logits: Floats, problem_type: str) -> Floats:
    """Return the softmax, for `multi_label_classification` the sigmoid of logits (B, C); regression as it is."""
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification":
        # As one over one plus, it would overflow for large negative logits.
        scaled = np.tanh(logits * np.float32(0.5))
        halved: Floats = (scaled + 1) * np.float32(0.5)
        return halved
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalised: Floats = powers / powers.sum(axis=1, keepdims=True)
    return normalised


def label_thresholds(config: Mapping[str, Any], num_labels: int) -> Doubles:
    """Return the probability (C,) above which a text has a label: that of the config, or 0.5.

    Raises:
        ValueError: There is not one in [0, 1] for each label.
    """
    found = config.get("label_thresholds")
    thresholds = np.full(num_labels, 0.5) if found is None else np.array(found, dtype=np.float64)
    if thresholds.shape != (num_labels,) or not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError(
            f"label_thresholds is {found}, but must hold a number from 0 to 1 for each of the {num_labels} labels"
        )
    return thresholds


def above_thresholds(logits: npt.NDArray[Any], config: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Return logits (B, C) less those of the thresholds, of a student of several labels a text; else as they are."""
    if config.get("problem_type") != "multi_label_classification":
        return logits
    shifted: npt.NDArray[Any] = logits - logit(label_thresholds(config, logits.shape[-1]))
    return shifted


def logit(shares: Doubles) -> Doubles:
    """Return the logits of probabilities, infinite for those of 0 and 1."""
    with np.errstate(divide="ignore"):
        found: Doubles = np.log(shares) - np.log1p(-shares)
    return found


def _layer(weights: Mapping[str, npt.NDArray[Any]], name: str) -> tuple[Floats, Floats]:
    return as_float32(weights[f"{name}.weight"]), as_float32(weights[f"{name}.bias"])
