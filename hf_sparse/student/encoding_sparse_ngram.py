"""From flat batches of n-gram ids to what a tokenizer returns: cut to a length, shared by two texts, padded."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .extraction_sparse_ngram import NgramBatch

IntArray = npt.NDArray[np.integer[Any]]
Lengths = npt.NDArray[np.int64]


def cut(batch: NgramBatch, kept: Lengths, *, side: str = "right") -> NgramBatch:
    """Shorten each text to at most a number of ids.

    Args:
        batch: B texts.
        kept: How many ids each text keeps (B,), from its start.
        side: Where ids are cut off; `left` keeps the end of a text instead.

    Returns:
        The shortened texts.
    """
    if bool((batch.lengths <= kept).all()):
        return batch
    kept = np.minimum(batch.lengths, kept)
    skipped = batch.lengths - kept if side == "left" else np.zeros_like(kept)
    starts = np.cumsum(batch.lengths) - batch.lengths
    position = np.arange(batch.ids.size) - np.repeat(starts, batch.lengths)
    inside = (position >= np.repeat(skipped, batch.lengths)) & (position < np.repeat(skipped + kept, batch.lengths))
    return NgramBatch(ids=batch.ids[inside], lengths=kept)


def share_length(lengths: Lengths, max_length: int, truncation: str) -> Lengths:
    """Decide how many ids each text of a pair keeps, so that the pair has at most `max_length`.

    Args:
        lengths: Ids of the texts (2B,), the sides of each pair one after the other.
        max_length: Most ids of a pair.
        truncation: `longest_first` shortens the longer text, then both alike (the first keeps the odd one);
            `only_first` and `only_second` never shorten the other text, even when it alone is too long.

    Returns:
        Ids to keep (2B,).
    """
    first, second = lengths[0::2], lengths[1::2]
    kept = np.empty_like(lengths)
    if truncation == "only_first":
        kept[0::2], kept[1::2] = np.clip(max_length - second, 0, first), second
    elif truncation == "only_second":
        kept[0::2], kept[1::2] = first, np.clip(max_length - first, 0, second)
    else:
        kept[0::2] = np.minimum(first, np.maximum(max_length - second, (max_length + 1) // 2))
        kept[1::2] = np.minimum(second, max_length - kept[0::2])
    return kept


def fill_rows(values: IntArray, lengths: IntArray, width: int, *, side: str, fill: int) -> npt.NDArray[np.int64]:
    """Lay flat values (N,) of B texts out in rows (B, width), padded with `fill` on one side."""
    column = np.arange(width)
    inside = column < lengths[:, None] if side == "right" else column >= width - lengths[:, None]
    rows = np.full((lengths.size, width), fill, dtype=np.int64)
    rows[inside] = values
    return rows


def split_rows(values: IntArray, lengths: IntArray, width: int, *, side: str, fill: int) -> list[list[int]]:
    """Split flat values (N,) into B lists, each padded to `width` where it is shorter; longer ones stay."""
    ends = np.cumsum(lengths).tolist()
    flat: list[int] = values.tolist()
    rows = [flat[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]
    if side == "right":
        return [row + [fill] * (width - len(row)) for row in rows]
    return [[fill] * (width - len(row)) + row for row in rows]
