"""Attention between the two texts of a pair: what a word that only one of them has stands for in the other.

Each word of the bags "only in the first" and "only in the second" (`pairs_sparse_ngram.py`) attends to the words of
the other bag; it is compared with what it found there, and the comparisons of a side are pooled by their maximum:
attend, compare and aggregate as in Parikh et al. (EMNLP 2016, "A Decomposable Attention Model"). Words that both
texts have are aligned with themselves and say nothing here. The last `alignment_size` columns of a row are what is
compared; in the pooled vectors of these two bags, the comparisons take their place.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .configuration_sparse_ngram import SparseNgramConfig

# By which products of rows are multiplied before the softmax. Rows begin small, so that at first every word finds
# about the mean of the others; larger products let it choose sooner. Not tuned.
SHARPNESS = 3.0


class Bags(NamedTuple):
    """What a table pools of a flat batch.

    Attributes:
        ids: Row numbers (N,), grouped by text or bag; with words, (N + M,): those M that are aligned come last.
        lengths: N-grams of each text (B,), or bag, (2B,) or (3B,); with words, 1 for each of them follows.
        words: How many words (2B,) of each side are aligned; `None` if none are.
    """

    ids: Tensor
    lengths: Tensor
    words: Tensor | None = None


def with_words(ids: Tensor, lengths: Tensor, is_word: Tensor) -> Bags:
    """Add the words that only one side of a pair has as bags of their own, so that pooling gives their rows.

    Args:
        ids: Row numbers (N,), grouped by bag.
        lengths: N-grams of each bag (3B,).
        is_word: 1 for the rows (V,) of single words.
    """
    bags = torch.arange(lengths.shape[0], device=ids.device)
    bag = bags.repeat_interleave(lengths, output_size=ids.shape[0])
    alone = (bag % 3 != 2) & (is_word.index_select(0, ids) != 0)
    words = torch.bincount(bag[alone], minlength=lengths.shape[0]).view(-1, 3)[:, :2].reshape(-1)
    found = ids[alone]
    return Bags(torch.cat([ids, found]), torch.cat([lengths, lengths.new_ones(found.shape[0])]), words)


class WordAlignment(nn.Module):
    """Compare the words that only one text of a pair has with those that only the other has."""

    is_word: Tensor

    def __init__(self, config: SparseNgramConfig) -> None:
        super().__init__()
        width = config.alignment_size
        self.compare = nn.Linear(4 * width, width)
        # Which rows are those of single words; whoever makes a student says so, `SparseNgramModel.mark_words`.
        self.register_buffer("is_word", torch.zeros(config.vocab_size, dtype=torch.uint8))

    def forward(self, rows: Tensor, words: Tensor) -> Tensor:
        """Align words.

        Args:
            rows: The last A columns of the rows of words (M, A), grouped by side.
            words: How many each side has (2B,), the sides interleaved.

        Returns:
            Comparisons (2B, A) in float32; zeros for a side without words.
        """
        rows = rows.to(self.compare.weight.dtype)
        num_sides, width = words.shape[0], rows.shape[1]
        most = max(int(words.max()), 1) if num_sides else 1
        sides = torch.arange(num_sides, device=rows.device)
        side = sides.repeat_interleave(words, output_size=rows.shape[0])
        place = torch.arange(rows.shape[0], device=rows.device) - (words.cumsum(0) - words)[side]
        own = rows.new_zeros(num_sides * most, width).index_copy(0, side * most + place, rows)
        own = own.view(num_sides, most, width)
        is_there = torch.arange(most, device=rows.device) < words.unsqueeze(1)
        other, is_other = _swapped(own), _swapped(is_there)
        scores = SHARPNESS * (own @ other.transpose(1, 2)).float()
        # A side without words is all padding, which is zero: whatever the weights, what is found there is zero.
        scores = scores.masked_fill(~is_other.unsqueeze(1), torch.finfo(torch.float32).min)
        found = scores.softmax(2).to(other.dtype) @ other
        compared = self.compare(torch.cat([own, found, own * found, (own - found).abs()], dim=2)).relu()
        best: Tensor = compared.masked_fill(~is_there.unsqueeze(2), 0.0).amax(1)
        return best


def _swapped(sides: Tensor) -> Tensor:
    """Swap the sides (2B, ...) of each pair."""
    return sides.view(-1, 2, *sides.shape[1:]).flip(1).view(sides.shape)
