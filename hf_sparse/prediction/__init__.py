"""Classifying files: `hf-sparse predict STUDENT INPUT OUTPUT`."""

from hf_sparse.prediction.predict import predict

__all__ = ["predict"]
