"""Storing the rows of a student's table in fewer bits."""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from hf_sparse.compression.fold import empty_like, frozen
from hf_sparse.student.configuration_sparse_ngram import TABLE_DTYPES, SparseNgramConfig
from hf_sparse.student.modeling_sparse_ngram import SparseNgramForSequenceClassification

_PACKED = ("int8", "int4")


@torch.no_grad()
def quantise(model: SparseNgramForSequenceClassification, table_dtype: str) -> SparseNgramForSequenceClassification:
    """Return the student with its rows stored in another type; dense layers stay float32.

    Args:
        model: A student with float rows; it is left as it was, and shares its dense layers with the result.
        table_dtype: `float32`, `float16`, `bfloat16`, or `int8` and `int4`, with a scale and an offset for each row,
            which are its range in 255 or 15 steps, as FBGEMM packs rows.

    Raises:
        ValueError: The type is unknown, rows are quantised already, or an odd number of columns is to become int4.
    """
    config = cast(SparseNgramConfig, model.config)
    if table_dtype not in TABLE_DTYPES:
        raise ValueError(f"table_dtype must be one of {', '.join(TABLE_DTYPES)}, got {table_dtype!r}")
    if config.table_dtype in _PACKED:
        raise ValueError(f"the rows are {config.table_dtype} already: quantise the student with float rows instead")
    if table_dtype == "int4" and config.embedding_size % 2:
        raise ValueError(f"int4 rows need an even number of columns, got {config.embedding_size}: use int8")
    settings = copy.deepcopy(config)
    settings.table_dtype = table_dtype
    result = empty_like(settings)
    sources = model.model.table.blocks
    dense = {name: value for name, value in model.state_dict().items() if ".table.blocks." not in name}
    result.load_state_dict(dense, strict=False, assign=True)
    for index, source in enumerate(sources):
        rows = _pack(source, table_dtype)
        if index == 0 and table_dtype in _PACKED:
            rows[0] = 0  # a row of zeros would get an offset of rounding error
        result.model.table.blocks[index] = nn.Parameter(rows, requires_grad=rows.is_floating_point())
    return frozen(result)


def _pack(rows: Tensor, table_dtype: str) -> Tensor:
    if table_dtype == "int8":
        packed: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(rows.float())
    elif table_dtype == "int4":
        packed = torch.ops.quantized.embedding_bag_4bit_prepack(rows.float())
    else:
        packed = rows.to(getattr(torch, table_dtype), copy=True)
    return packed
