"""From text to label without torch: the compiled kernels, and the classifier that is built on them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_sparse.runtime.classifier import NgramClassifier

__all__ = ["NgramClassifier"]


def __getattr__(name: str) -> Any:
    # On first use: a student that only wants the kernel does not load the rest.
    if name in __all__:
        return getattr(import_module("hf_sparse.runtime.classifier"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
