"""Distil transformer text classifiers into n-gram students that answer in microseconds.

The names below are imported when they are first used, so that `import hf_sparse` costs nothing and the parts that
need neither torch nor transformers stay free of them. Importing `hf_sparse.student` (or any `SparseNgram...` name)
registers the student with the Auto classes of transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_sparse.estimator import SparseNgramClassifier
    from hf_sparse.student import (
        SparseNgramConfig,
        SparseNgramForSequenceClassification,
        SparseNgramModel,
        SparseNgramTextClassificationPipeline,
        SparseNgramTokenizer,
    )

__version__ = "0.1.0"

__all__ = [
    "SparseNgramClassifier",
    "SparseNgramConfig",
    "SparseNgramForSequenceClassification",
    "SparseNgramModel",
    "SparseNgramTextClassificationPipeline",
    "SparseNgramTokenizer",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name in __all__:
        module = "hf_sparse.estimator" if name == "SparseNgramClassifier" else "hf_sparse.student"
        return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
