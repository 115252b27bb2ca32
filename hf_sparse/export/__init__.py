"""Students in other forms: ONNX."""

from hf_sparse.export.classifier import OnnxClassifier
from hf_sparse.export.convert import export

__all__ = ["OnnxClassifier", "export"]
