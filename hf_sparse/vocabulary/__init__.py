"""Counting the n-grams of a corpus and choosing those that get a row."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_sparse.vocabulary.counting import count_ngrams

__all__ = ["count_ngrams"]


def __getattr__(name: str) -> Any:
    """Import the counting, and with it numba, on first use (PEP 562)."""
    if name == "count_ngrams":
        from hf_sparse.vocabulary.counting import count_ngrams

        return count_ngrams
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
