"""Folding the first dense layer of a student into its table.

For mean and sum pooling of a single text `W pool(E) = pool(E W^T)` exactly: rows that have gone through the layer
once, ahead of time, need not go through it again for every text, and are as narrow as the layer's output.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from hf_sparse.student.configuration_sparse_ngram import SparseNgramConfig
from hf_sparse.student.modeling_sparse_ngram import SparseNgramForSequenceClassification

# Rows that go through the layer at once: 128 MB at 512 columns.
_CHUNK_ROWS = 1 << 16


@torch.no_grad()
def fold(model: SparseNgramForSequenceClassification) -> SparseNgramForSequenceClassification:
    """Return the student with its first dense layer folded into the table; the logits stay the same to rounding.

    The layer is the first hidden one or, in a student without hidden layers, the classifier. Without a layer to fold
    (it is folded already) the student comes back as it is.

    Args:
        model: A student with float rows; it is left as it was.

    Raises:
        ValueError: Its pooling is not linear, it compares pairs of texts, its rows are quantised, or it has no hidden
            layer and more labels than columns, so that folding would make it larger.
    """
    config = cast(SparseNgramConfig, model.config)
    if config.folded:
        return model
    _check(config)
    is_hidden = bool(config.hidden_sizes)
    layer = model.model.hidden_layers[0] if is_hidden else model.classifier
    assert isinstance(layer, nn.Linear), "an unfolded student has a classifier"
    settings = copy.deepcopy(config)
    settings.embedding_size = layer.out_features
    settings.hidden_sizes = list(config.hidden_sizes[1:])
    settings.folded = "hidden" if is_hidden else "classifier"
    settings.table_dtype = "float32"
    folded = empty_like(settings)
    for index, rows in enumerate(model.model.table.blocks):
        folded.model.table.blocks[index] = nn.Parameter(_through(layer.weight, rows))
    folded.model.pooled_bias = nn.Parameter(layer.bias.detach().clone().float())
    for index, old in enumerate(list(model.model.hidden_layers)[1:]):
        folded.model.hidden_layers[index].load_state_dict(old.state_dict(), assign=True)
    if is_hidden and folded.classifier is not None and model.classifier is not None:
        folded.classifier.load_state_dict(model.classifier.state_dict(), assign=True)
    return frozen(folded)


def frozen(model: SparseNgramForSequenceClassification) -> SparseNgramForSequenceClassification:
    """Return the student in evaluation mode: without dropout."""
    model.train(False)
    return model


def empty_like(config: SparseNgramConfig) -> SparseNgramForSequenceClassification:
    """Return a student of a configuration whose weights take no memory yet."""
    with torch.device("meta"):
        return SparseNgramForSequenceClassification(config)


def _through(weight: Tensor, rows: Tensor) -> Tensor:
    result = torch.empty(rows.shape[0], weight.shape[0])
    for first in range(0, rows.shape[0], _CHUNK_ROWS):
        last = first + _CHUNK_ROWS
        torch.matmul(rows[first:last].float(), weight.float().T, out=result[first:last])
    return result


def obstacle(config: PreTrainedConfig) -> str | None:
    """Return why no layer of a student folds into its table, or why it would make that larger; None where one does."""
    if config.pooling not in ("mean", "sum"):
        return f"{config.pooling} pooling is not linear"
    if config.sentence_pairs:
        return "a student of sentence pairs compares its texts before the first dense layer"
    num_labels = len(config.id2label or {})
    if not config.hidden_sizes and num_labels > config.embedding_size:
        return f"the classifier has {num_labels} labels for {config.embedding_size} columns"
    return None


def _check(config: SparseNgramConfig) -> None:
    found = obstacle(config)
    if found is not None:
        raise ValueError(f"{found}, so no layer folds into the table; leave the student as it is")
    if config.table_dtype in ("int8", "int4"):
        raise ValueError(f"the rows are {config.table_dtype} already: fold before quantising")
