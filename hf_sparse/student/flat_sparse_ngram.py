"""Flat batches: row numbers (N,) grouped by text, and the n-grams (B,) of each text; (2B,) for pairs, interleaved."""

import torch
from torch import Tensor


def flatten(
    ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None, *, pairs: bool
) -> tuple[Tensor, Tensor]:
    """Make a padded batch flat.

    Args:
        ids: Row numbers (B, L).
        attention_mask: 1 for n-grams, 0 for padding (B, L); without it, row 0 is padding.
        token_type_ids: 0 for the first text of a pair, 1 for the second (B, L).
        pairs: Whether the texts are pairs.

    Returns:
        Row numbers (N,), and lengths (B,) or (2B,).
    """
    mask = ids != 0 if attention_mask is None else attention_mask.bool()
    if not pairs:
        return ids[mask], mask.sum(1)
    second = torch.zeros_like(mask) if token_type_ids is None else token_type_ids.bool()
    sides = torch.stack([mask & ~second, mask & second], dim=1)  # (B, 2, L)
    return ids.unsqueeze(1).expand(sides.shape)[sides], sides.sum(2).flatten()


def check(ids: Tensor, lengths: Tensor, *, num_rows: int, pairs: bool) -> None:
    """Check that a flat batch fits a table.

    Raises:
        ValueError: If a row number or a length is out of range (checked on the CPU only), or a pair is not whole.
    """
    if pairs and lengths.shape[0] % 2:
        raise ValueError(
            f"lengths has {lengths.shape[0]} entries, but a model of sentence pairs needs two for each pair: "
            "first text, second text (0 for an absent one)"
        )
    if ids.device.type != "cpu" or torch.compiler.is_compiling():
        return  # elsewhere a look at the values stalls the device, whose own kernels check ids
    if int(lengths.sum()) != ids.shape[0] or (lengths < 0).any():
        raise ValueError(f"lengths add up to {int(lengths.sum())}, but there are {ids.shape[0]} input_ids")
    low, high = (int(value) for value in ids.aminmax()) if ids.shape[0] else (0, 0)
    if low < 0 or high >= num_rows:
        raise ValueError(
            f"input_ids reach from {low} to {high}, but the table has rows 0 to {num_rows - 1}; "
            "use the tokenizer that was saved with this model"
        )
