"""What a student's config says of the files beside it: which classes load them, and which weights they hold."""

from typing import Any

import torch
from torch import nn

from .fingerprint_sparse_ngram import EDGE_ROWS, check_fingerprint, weights_fingerprint

Entry = type[Any]


def set_classes(config: Any, *, encoder: Entry, classifier: Entry, pipeline: Entry) -> None:
    """Name the classes that load a student, for all auto classes and with the custom pipeline.

    transformers only records the class being saved, so the other entries are set here; a model that came from the
    Hub has them with the prefix of its old repository.

    Args:
        config: A `SparseNgramConfig`.
        encoder: Class of the model without a classifier.
        classifier: Class of the model with one.
        pipeline: Class of its pipeline.
    """
    config.auto_map = {
        "AutoConfig": _entry(config.__class__),
        "AutoModel": _entry(encoder),
        "AutoModelForSequenceClassification": _entry(classifier),
    }
    config.custom_pipelines = {
        "text-classification": {
            "impl": _entry(pipeline),
            "pt": ["AutoModelForSequenceClassification"],
            "type": "text",
        }
    }


def model_fingerprint(model: Any) -> str | None:
    """Return the fingerprint of a base model in memory; `None` where its tensors are not all here.

    Args:
        model: A `SparseNgramModel`.
    """
    blocks = list(model.table.blocks)
    dense = {name: value for name, value in model.named_parameters() if not name.startswith("table.")}
    if any(type(value) not in (torch.Tensor, nn.Parameter) or value.is_meta for value in (*blocks, *dense.values())):
        return None  # split over processes, or offloaded
    edges = (torch.cat([block[:EDGE_ROWS], block[-EDGE_ROWS:]]).detach().cpu() for block in blocks)
    sizes = [block.shape[0] for block in blocks]
    raw = (rows.view(torch.uint8).numpy() for rows in edges)
    floats = {name: value.detach().float().cpu().numpy() for name, value in dense.items()}
    return weights_fingerprint(zip(sizes, raw, strict=True), floats)


def check_weights(model: Any) -> None:
    """Compare loaded weights with the fingerprint in their config, where rows have the type they were saved with.

    Args:
        model: A `SparseNgramModel` or a model that has one.

    Raises:
        ValueError: If they belong to another student.
    """
    config = model.config
    is_cast = config.table_dtype not in ("int8", "int4", str(model.dtype).removeprefix("torch."))
    if config.weights_fingerprint is None or is_cast:
        return
    found = model_fingerprint(model.base_model)
    if found is not None:
        check_fingerprint(found, config.weights_fingerprint, where=model.name_or_path or "this model")


def _entry(custom_class: Entry) -> str:
    """Name a class as `auto_map` does: by its file and itself, without packages."""
    return f"{custom_class.__module__.rsplit('.', 1)[-1]}.{custom_class.__name__}"
