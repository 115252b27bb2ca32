"""How the rows of a table are stored: as floats, or packed, as small integers with a scale and an offset for each row.

A packed row of D columns is a run of bytes (the layout of FBGEMM, which torch has kernels for), little endian:

    int8   D bytes q, then scale and offset in float32                                          D + 8 bytes
    int4   D / 2 bytes, the even column in the low half of each, then scale and offset in float16   D / 2 + 4 bytes

The value of a column is `q * scale + offset`. Row 0, the padding, has all bytes zero and so is exactly zero.
"""

import torch
from torch import Tensor, nn


def new_block(num_rows: int, width: int, table_dtype: str) -> nn.Parameter:
    """Return a block of rows without values.

    Args:
        num_rows: Rows of the block.
        width: Columns D.
        table_dtype: How rows are stored. Floats are of torch's default type, which loading sets.

    Returns:
        Rows (num_rows, D), or (num_rows, bytes of a row) uint8, which take no gradient.
    """
    if table_dtype not in ("int8", "int4"):
        return nn.Parameter(torch.empty(num_rows, width))
    row_bytes = width + 8 if table_dtype == "int8" else width // 2 + 4
    return nn.Parameter(torch.empty(num_rows, row_bytes, dtype=torch.uint8), requires_grad=False)


def is_packed(block: Tensor) -> bool:
    """Tell whether rows are stored as integers."""
    return block.dtype == torch.uint8


def unpack_rows(rows: Tensor, width: int) -> Tensor:
    """Turn packed rows (N, bytes of a row) into float32 (N, D)."""
    num_bytes = width if rows.shape[1] == width + 8 else width // 2
    numbers = rows[:, :num_bytes]
    if num_bytes < width:
        numbers = torch.stack([numbers & 15, numbers >> 4], dim=2).flatten(1)
    tail_dtype = torch.float32 if num_bytes == width else torch.float16
    # A copy: within a row, the numbers need not lie where their type may be read.
    tail = rows[:, num_bytes:].clone(memory_format=torch.contiguous_format).view(tail_dtype).float()  # (N, 2)
    return numbers.float() * tail[:, :1] + tail[:, 1:]


def has_sum_kernel(ids: Tensor) -> bool:
    """Tell whether packed rows can be added up where they are: torch has kernels for this on the CPU only."""
    return ids.device.type == "cpu" and not torch.compiler.is_compiling()


def sum_packed_rows(ids: Tensor, block: Tensor, offsets: Tensor, width: int) -> Tensor:
    """Add up packed rows without unpacking them first.

    Args:
        ids: N row numbers in the block, int32 or int64, on the CPU.
        block: Packed rows (rows, bytes of a row).
        offsets: Where each of B texts begins in `ids`, and their end (B + 1,), in the type of `ids`.
        width: Columns D.

    Returns:
        Sums (B, D) in float32.
    """
    kernels = torch.ops.quantized
    is_int8 = block.shape[1] == width + 8
    add_up = kernels.embedding_bag_byte_rowwise_offsets if is_int8 else kernels.embedding_bag_4bit_rowwise_offsets
    total: Tensor = add_up(block, ids, offsets, include_last_offset=True)
    return total
