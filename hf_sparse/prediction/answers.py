"""What a student says about texts, as columns: `label` and `score`, and a probability for each label on demand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime import NgramClassifier
from hf_sparse.runtime.head import logit, probabilities
from hf_sparse.runtime.jit import Floats

# One name a text, several, one number (B,), or several.
Values: TypeAlias = list[str] | list[list[str]] | Floats | list[Floats]
Answers: TypeAlias = Mapping[str, Values]


@dataclass(frozen=True, kw_only=True)
class AnswerForm:
    """How to answer.

    Attributes:
        top_k: So many labels and scores in lists, the most probable first; 0: all; None: the label of a text, for a
            student of several labels a text the list of those above their threshold.
        probabilities: Whether to add a column `probability_<label>` for each label.
        calibrated: Whether logits are divided by the student's temperature; that changes no label.
        prefix: Put before the name of each column.
    """

    top_k: int | None = None
    probabilities: bool = False
    calibrated: bool = False
    prefix: str = ""

    def check(self, classifier: NgramClassifier, *, is_pairs: bool) -> None:
        """Check that a student can answer so.

        Raises:
            ValueError: It cannot; the message says why.
        """
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"top_k is a number of labels, or 0 for all of them, got {self.top_k}")
        if classifier.problem_type == "regression" and (self.top_k is not None or self.probabilities):
            raise ValueError("this student is one of regression: its only answer is a score, without labels")
        if is_pairs != classifier.sentence_pairs:
            wants = "pairs: name their text_pair_column" if classifier.sentence_pairs else "single texts, no pairs"
            raise ValueError(f"this student takes {wants}")
        # Says what is wrong where there is no temperature.
        classifier.predict_proba([], [] if is_pairs else None, calibrated=self.calibrated)


def answer(
    classifier: NgramClassifier, texts: Sequence[str], text_pairs: Sequence[str] | None, form: AnswerForm
) -> Answers:
    """Return the answers to B texts, or pairs, as columns by name."""
    logits = classifier.predict_logits(texts, text_pairs)
    scaled = logits
    if form.calibrated:
        assert classifier.calibration_temperature is not None, "checked"
        scaled = logits / np.float32(classifier.calibration_temperature)
    scores = probabilities(scaled, classifier.problem_type)
    found: dict[str, Values] = {}
    if classifier.problem_type == "regression":
        found["score"] = scores[:, 0] if scores.shape[1] == 1 else list(scores)
    elif form.top_k is None and classifier.problem_type != "multi_label_classification":
        best = logits.argmax(axis=1)
        found["label"] = [classifier.labels[index] for index in best.tolist()]
        found["score"] = scores[np.arange(len(best)), best]
    else:
        chosen = _chosen(classifier, logits, form.top_k)
        found["label"] = [[classifier.labels[index] for index in row.tolist()] for row in chosen]
        found["score"] = [row[places] for row, places in zip(scores, chosen, strict=True)]
    if form.probabilities:
        found |= {f"probability_{name}": scores[:, index] for index, name in enumerate(classifier.labels)}
    return {form.prefix + name: values for name, values in found.items()}


def _chosen(classifier: NgramClassifier, logits: Floats, top_k: int | None) -> list[npt.NDArray[np.intp]]:
    """Return for each text the ids of the labels to name."""
    if top_k is None:
        return [np.flatnonzero(row) for row in logits > logit(classifier.label_thresholds)]
    return list(np.argsort(-logits, axis=1, kind="stable")[:, : top_k or None])
