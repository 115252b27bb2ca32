"""The table of n-gram embeddings, in row blocks, and how the rows of a text become one vector.

Everything here works on flat batches: `ids (N,)`, the n-grams of all texts one after the other, and `lengths (B,)`.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_sparse_ngram import SparseNgramConfig
from .rows_sparse_ngram import has_sum_kernel, is_packed, new_block, sum_packed_rows, unpack_rows

# Rows that attentive pooling scores at once when nothing needs a gradient: 64 MB at 256 columns.
ATTENTION_CHUNK = 65_536
# Rows whose maxima are taken at once: 4 MB at 256 columns.
MAXIMUM_CHUNK = 4096


class NgramTable(nn.Module):
    """Hold V rows of D columns as several parameters, each a block of consecutive rows.

    Row 0 is padding: it is zero, takes no part in pooling and never gets a gradient. Rows stored as integers get no
    gradient either; whatever is made of them is float32.
    """

    def __init__(self, config: SparseNgramConfig) -> None:
        super().__init__()
        self.num_rows = config.vocab_size
        self.block_rows = config.block_rows
        self.width = config.embedding_size
        self.blocks = nn.ParameterList(new_block(rows, self.width, config.table_dtype) for rows in config.block_sizes)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the rows' values."""
        return torch.float32 if is_packed(self.blocks[0]) else self.blocks[0].dtype

    @property
    def num_columns(self) -> int:
        """Columns of the rows that are here; a process that trains with others has some of them."""
        return self.width if is_packed(self.blocks[0]) else self.blocks[0].shape[1]

    def forward(self, ids: Tensor, lengths: Tensor, mode: Literal["mean", "sum", "max"] = "mean") -> Tensor:
        """Pool the rows of each text.

        Args:
            ids: N row numbers, int32 or int64, grouped by text.
            lengths: N-grams of each of B texts, int64; their sum is N.
            mode: How a text's rows become one vector. A text without n-grams gives zeros.

        Returns:
            Vectors (B, D) in the table's type.
        """
        packed = is_packed(self.blocks[0])
        plain = ids.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if mode == "max" and plain:
            return self._scattered_maximum(*without_padding(ids, lengths))
        if packed and (mode == "max" or not has_sum_kernel(ids)):
            return self._pool_unpacked(ids, lengths, mode)
        if len(self.blocks) == 1 and not packed:
            # Only kernels elsewhere skip row 0 for nothing; on the CPU padding_idx takes torch off its fast path.
            padding = None if ids.device.type == "cpu" and not torch.compiler.is_compiling() else 0
            ids, lengths = (ids, lengths) if padding == 0 else without_padding(ids, lengths)
            offsets = _offsets(lengths, ids.dtype)
            return F.embedding_bag(
                ids, self.blocks[0], offsets, mode=mode, include_last_offset=True, padding_idx=padding
            )
        ids, lengths = without_padding(ids, lengths)
        if mode == "max":
            return self._maximum(ids, lengths)
        total = self.weighted_sum(ids, lengths)
        return total / lengths.clamp(min=1).unsqueeze(1).to(total.dtype) if mode == "mean" else total

    def weighted_sum(self, ids: Tensor, lengths: Tensor, weights: Tensor | None = None) -> Tensor:
        """Add up the rows of each text, each times its weight.

        Args:
            ids: N row numbers without padding.
            lengths: N-grams of each of B texts.
            weights: One factor (N,) an n-gram; `None` means 1.

        Returns:
            Sums (B, D) in the table's type.
        """
        offsets = _offsets(lengths, ids.dtype)
        total: Tensor | None = None
        for block, inside, block_ids, block_offsets in self._split(ids, offsets):
            factors = None if weights is None else (weights if inside is None else weights[inside]).to(self.dtype)
            part = self._sum_rows(block_ids, block, block_offsets, factors)
            # Blocks of half-precision rows are added in float32: each part is already rounded once.
            part = part.to(torch.promote_types(part.dtype, torch.float32))
            total = part if total is None else total + part
        assert total is not None
        return total.to(self.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        """Gather single rows: ids (N,) to (N, D)."""
        if len(self.blocks) == 1:
            return self._gather(ids, self.blocks[0])
        rows = torch.zeros(ids.shape[0], self.num_columns, dtype=self.dtype, device=ids.device)
        for block, inside, block_ids, _ in self._split(ids, _offsets(ids.new_tensor([ids.shape[0]]), ids.dtype)):
            assert inside is not None
            rows = rows.index_put((inside.nonzero().squeeze(1),), self._gather(block_ids, block))
        return rows

    def _gather(self, ids: Tensor, block: Tensor) -> Tensor:
        rows = F.embedding(ids, block)
        return unpack_rows(rows, self.width) if is_packed(block) else rows

    def _sum_rows(self, ids: Tensor, block: Tensor, offsets: Tensor, factors: Tensor | None) -> Tensor:
        """Add up rows of one block; `ids` count from its start."""
        if is_packed(block):
            if factors is None and has_sum_kernel(ids):
                return sum_packed_rows(ids, block, offsets, self.width)
            block, ids = self._gather(ids, block), torch.arange(ids.shape[0], dtype=ids.dtype, device=ids.device)
        return F.embedding_bag(ids, block, offsets, mode="sum", include_last_offset=True, per_sample_weights=factors)

    def _pool_unpacked(self, ids: Tensor, lengths: Tensor, mode: str) -> Tensor:
        """Pool packed rows after unpacking all of them, where no kernel can do both at once."""
        rows = self.rows(F.pad(ids, (1, 0)))  # row 0 first: padding among the ids is led to it, and passed over
        places = torch.arange(1, ids.shape[0] + 1, dtype=ids.dtype, device=ids.device).masked_fill(ids == 0, 0)
        offsets = _offsets(lengths, ids.dtype)
        return F.embedding_bag(places, rows, offsets, mode=mode, include_last_offset=True, padding_idx=0)

    def _split(self, ids: Tensor, offsets: Tensor) -> list[tuple[Tensor, Tensor | None, Tensor, Tensor]]:
        """List for each block: its rows, the mask (N,) of the ids in it, these ids counted from its start, offsets."""
        if len(self.blocks) == 1:
            return [(self.blocks[0], None, ids, offsets)]
        parts: list[tuple[Tensor, Tensor | None, Tensor, Tensor]] = []
        for index, block in enumerate(self.blocks):
            start = index * self.block_rows
            inside = (ids >= start) & (ids < start + block.shape[0])
            block_offsets = F.pad(inside.cumsum(0), (1, 0))[offsets].to(ids.dtype)
            parts.append((block, inside, ids[inside] - start, block_offsets))
        return parts

    def _maximum(self, ids: Tensor, lengths: Tensor) -> Tensor:
        best: Tensor = self.blocks[0].new_full((lengths.shape[0], self.blocks[0].shape[1]), -torch.inf)
        for block, _, block_ids, block_offsets in self._split(ids, _offsets(lengths, ids.dtype)):
            part = F.embedding_bag(block_ids, block, block_offsets, mode="max", include_last_offset=True)
            has_ids = (block_offsets.diff() > 0).unsqueeze(1)
            best = torch.maximum(best, part.masked_fill(~has_ids, -torch.inf))
        return best.masked_fill((lengths == 0).unsqueeze(1), 0.0)

    def _scattered_maximum(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Take maxima on the CPU where nothing needs a gradient: three to ten times as fast as an embedding_bag."""
        texts = torch.arange(lengths.shape[0]).repeat_interleave(lengths)
        best = torch.full((lengths.shape[0], self.num_columns), -torch.inf, dtype=self.dtype)
        for start in range(0, ids.shape[0], MAXIMUM_CHUNK):
            rows = self.rows(ids[start : start + MAXIMUM_CHUNK])
            places = texts[start : start + MAXIMUM_CHUNK, None].expand_as(rows)
            best.scatter_reduce_(0, places, rows, "amax")
        return best.masked_fill((lengths == 0).unsqueeze(1), 0.0)


class NgramAttention(nn.Module):
    """Weigh a text's rows by `softmax(v . tanh(W_g e_i + W_h h))`, h their mean (Ye et al. 2022, section 2.2)."""

    def __init__(self, config: SparseNgramConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.row = nn.Linear(width, width, bias=False)
        self.mean = nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, table: NgramTable, ids: Tensor, lengths: Tensor) -> Tensor:
        """Pool the rows of each text by attention.

        Args:
            table: Where the rows are.
            ids: N row numbers, grouped by text.
            lengths: N-grams of each of B texts.

        Returns:
            Vectors (B, D) in the table's type; zeros for a text without n-grams.
        """
        ids, lengths = without_padding(ids, lengths)
        num_ids, num_texts = ids.shape[0], lengths.shape[0]
        texts = torch.arange(num_texts, device=ids.device)
        text_of_id = texts.repeat_interleave(lengths, output_size=num_ids)
        means = self.mean(table(ids, lengths).to(self.mean.weight.dtype))
        # Only the scores are made from (N, D) rows; the weighted sum below gathers and adds without keeping them.
        step = max(num_ids, 1) if torch.is_grad_enabled() else ATTENTION_CHUNK
        scores = [
            self._score(table.rows(ids[start : start + step]), means, text_of_id[start : start + step])
            for start in range(0, max(num_ids, 1), step)
        ]
        weights = _softmax_by_text(torch.cat(scores).float(), text_of_id, num_texts)
        return table.weighted_sum(ids, lengths, weights)

    def _score(self, rows: Tensor, means: Tensor, text_of_id: Tensor) -> Tensor:
        mixed = torch.tanh(self.row(rows.to(self.row.weight.dtype)) + means[text_of_id])
        scores: Tensor = self.score(mixed).squeeze(1)
        return scores


def keep_ids(ids: Tensor, lengths: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Leave ids out of a flat batch.

    Args:
        ids: N row numbers, grouped by text.
        lengths: N-grams of each of B texts.
        keep: Mask (N,), true for what stays.

    Returns:
        The ids that stay, and how many of each text do.
    """
    kept_before = F.pad(keep.cumsum(0), (1, 0))
    return ids[keep], kept_before[_offsets(lengths, torch.int64)].diff()


def without_padding(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Leave row 0 out of a flat batch; hardly a cost where there is none."""
    keep = ids != 0
    return (ids, lengths) if bool(keep.all()) else keep_ids(ids, lengths, keep)


def _offsets(lengths: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn lengths (B,) into offsets (B + 1,), in the type of the ids: embedding_bag wants one type for both."""
    return F.pad(lengths.cumsum(0), (1, 0)).to(dtype)


def _softmax_by_text(scores: Tensor, text_of_id: Tensor, num_texts: int) -> Tensor:
    highest = scores.new_full((num_texts,), -torch.inf).scatter_reduce(0, text_of_id, scores.detach(), "amax")
    powers = (scores - highest[text_of_id]).exp()
    return powers / scores.new_zeros(num_texts).index_add(0, text_of_id, powers)[text_of_id]
