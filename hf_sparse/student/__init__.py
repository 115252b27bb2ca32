"""The student as Hugging Face classes, registered with the Auto classes of transformers.

The files beside this one travel with every saved model, so that a machine without hf-sparse can load it; this one does
not.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from hf_sparse.student.configuration_sparse_ngram import SparseNgramConfig
from hf_sparse.student.modeling_sparse_ngram import SparseNgramForSequenceClassification, SparseNgramModel
from hf_sparse.student.pipeline_sparse_ngram import SparseNgramTextClassificationPipeline
from hf_sparse.student.tokenization_sparse_ngram import SparseNgramTokenizer

__all__ = [
    "SparseNgramConfig",
    "SparseNgramForSequenceClassification",
    "SparseNgramModel",
    "SparseNgramTextClassificationPipeline",
    "SparseNgramTokenizer",
]

AutoConfig.register("sparse_ngram", SparseNgramConfig)
AutoModel.register(SparseNgramConfig, SparseNgramModel)
AutoModelForSequenceClassification.register(SparseNgramConfig, SparseNgramForSequenceClassification)
AutoTokenizer.register(SparseNgramConfig, tokenizer_class=SparseNgramTokenizer)
SparseNgramConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
SparseNgramModel.register_for_auto_class("AutoModel")  # type: ignore[no-untyped-call]
SparseNgramForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")  # type: ignore[no-untyped-call]
SparseNgramTokenizer.register_for_auto_class("AutoTokenizer")  # type: ignore[no-untyped-call]
