"""`evaluate.evaluator` for students: the library looks for a class that transformers 5 no longer has."""

import evaluate
import transformers

# The metric to give it: `evaluate.load("accuracy")` needs the Hub.
from hf_sparse.evaluation.metrics import SingleLabelScores

__all__ = ["SingleLabelScores", "text_classification_evaluator"]


def text_classification_evaluator() -> evaluate.TextClassificationEvaluator:
    """Return `evaluate.evaluator("text-classification")`, as it works with transformers 5.

    Its `compute(model_or_pipeline=pipeline(...), data=..., metric=SingleLabelScores(), label_mapping=...)` gives the
    scores, and `samples_per_second` and `latency_in_seconds`. The pipeline is made by the caller, with
    `trust_remote_code=True` if need be.
    """
    if not hasattr(transformers, "TFPreTrainedModel"):
        # evaluate 0.4.6 asks whether a model is one of TensorFlow's; none is.
        setattr(transformers, "TFPreTrainedModel", type("TFPreTrainedModel", (), {}))  # noqa: B010 (unknown to mypy)
    return evaluate.evaluator("text-classification")
