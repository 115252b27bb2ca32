"""From a trained student to a small one: prune, retrain, fold, quantise."""

from hf_sparse.compression.compress import compress, format_report
from hf_sparse.compression.fold import fold
from hf_sparse.compression.quantise import quantise

__all__ = ["compress", "fold", "format_report", "quantise"]
