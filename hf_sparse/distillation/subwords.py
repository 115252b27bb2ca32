"""Rows of words that share what their spellings share: while a student is trained, and folded away when it is saved.

The row of a single word is the sum of its own values and those of the character n-grams that it is spelt with, divided
by the root of their number: words seen once or twice learn from their inflections, misspellings and compounds
(Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information", where the sum stays). As the words of a
vocabulary are known, the sum is too: the finished student has the plain rows, reads no character, and costs nothing
more to serve. Character n-grams that only one word has can share nothing, and have no values.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_sparse.distillation.row_optimizer import PooledGradient, RowGradient, rows_by_block
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary

SHORTEST: Final = 3
LONGEST: Final = 5


@dataclass(frozen=True, kw_only=True)
class Spellings:
    """The character n-grams ("parts") of the words that have a row.

    Attributes:
        rows: (R,) rows of the words that share at least one part with another, rising.
        ends: (R + 1,) where the parts of each begin, and the last ones end.
        parts: (P,) numbers of parts, those of a word together.
        num_parts: Number of distinct ones.
    """

    rows: Tensor
    ends: Tensor
    parts: Tensor
    num_parts: int

    @classmethod
    def of(cls, vocabulary: NgramVocabulary) -> "Spellings":
        """Spell the words of a vocabulary, with a mark at the beginning and the end of each."""
        single = np.flatnonzero((vocabulary.node_prefix < 0) & (vocabulary.node_row > 0))
        single = single[np.argsort(vocabulary.node_row[single])]
        words = vocabulary.word_list
        spelt = [_parts_of(words[word]) for word in vocabulary.node_word[single].tolist()]
        occurrences: dict[str, int] = {}
        for parts in spelt:
            for part in parts:
                occurrences[part] = occurrences.get(part, 0) + 1
        shared = (part for part, count in occurrences.items() if count > 1)
        numbers = {part: number for number, part in enumerate(shared)}
        found = [[numbers[part] for part in parts if part in numbers] for parts in spelt]
        lengths = np.array([len(parts) for parts in found], np.int64)
        kept = lengths > 0
        return cls(
            rows=torch.from_numpy(vocabulary.node_row[single][kept].astype(np.int64)),
            ends=torch.from_numpy(np.concatenate(([0], np.cumsum(lengths[kept])))),
            parts=torch.from_numpy(np.array([part for parts in found for part in parts], np.int64)),
            num_parts=len(numbers),
        )


def _parts_of(word: str) -> list[str]:
    """Return the distinct character n-grams of a word between marks that no word has."""
    marked = f"\x02{word}\x03"
    lengths = range(SHORTEST, LONGEST + 1)
    return list(dict.fromkeys(marked[i : i + n] for n in lengths for i in range(len(marked) - n + 1)))


class SubwordRows:
    """The values of all parts, which begin as zeros, and what they add to the rows of words.

    Args:
        spellings: Which word has which parts.
        num_rows: Rows of the student's table.
        width: Columns of it that this process has.
        device: Where the table is.
    """

    def __init__(self, spellings: Spellings, *, num_rows: int, width: int, device: torch.device) -> None:
        self.table = torch.nn.Parameter(torch.zeros(spellings.num_parts, width, device=device), requires_grad=False)
        self._rows, self._ends = spellings.rows.to(device), spellings.ends.to(device)
        self._parts = spellings.parts.to(device)
        self._scale = self._ends.diff().clamp(min=1).float().rsqrt()
        # The place of each row of the table among those of words, -1 for none.
        self._places = torch.full((num_rows,), -1, dtype=torch.int64, device=device)
        self._places[self._rows] = torch.arange(len(self._rows), device=device)

    @contextmanager
    def added(self, blocks: Sequence[Tensor], ids: Tensor | None = None) -> Iterator[None]:
        """Add the parts to the rows in `ids`, or to all; put back afterwards, to the bit, what was there.

        Args:
            blocks: Row blocks of the table, changed in place.
            ids: (N,) rows that are read.
        """
        places = torch.arange(len(self._rows), device=self._rows.device) if ids is None else self._places_in(ids)
        if not len(places):
            yield
            return
        saved = []
        with torch.no_grad():
            sums = self._sums(places)
            for block, inside, which in rows_by_block(self._rows[places], blocks):
                saved.append((block, inside, block[inside]))
                block.index_add_(0, inside, sums[which].to(block.dtype))
        try:
            yield
        finally:
            with torch.no_grad():
                for block, inside, values in saved:
                    block.index_copy_(0, inside, values)

    def gradients(self, gradients: Iterable[RowGradient]) -> PooledGradient:
        """Return the gradient of the parts' values, given that of the table's rows: a word is a bag of parts."""
        if isinstance(gradients, PooledGradient):
            gradients = self._of_words(gradients)
        none = RowGradient(rows=self._rows[:0], values=self.table[:0])
        found = [(self._places[each.rows.long()], each.values) for each in (none, *gradients)]
        places, values = torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])
        is_word = places >= 0
        places, values = places[is_word], values[is_word].float()
        parts, lengths = self._parts_at(places)
        return PooledGradient(ids=parts.int(), lengths=lengths, gradient=values * self._scale[places, None])

    def _of_words(self, pooled: PooledGradient) -> PooledGradient:
        """Leave only words among the n-grams of a batch."""
        words = (self._places.index_select(0, pooled.ids) >= 0).nonzero()[:, 0]
        # The words before the end of each text, and so in each text.
        ends = torch.searchsorted(words, torch.cumsum(pooled.lengths, 0))
        lengths = ends.diff(prepend=ends.new_zeros(1))
        gradient = pooled.gradient / pooled.lengths.clamp(min=1)[:, None] if pooled.mean else pooled.gradient
        ids = pooled.ids.index_select(0, words)
        return PooledGradient(ids=ids, lengths=lengths, gradient=gradient, winners=pooled.winners)

    def _places_in(self, ids: Tensor) -> Tensor:
        """Return the places (U,) of the words among some rows, rising."""
        is_there = torch.zeros(len(self._rows) + 1, dtype=torch.bool, device=ids.device)
        # What is no word goes to the last place, which is cut off.
        is_there[self._places.index_select(0, ids)] = True
        return is_there[:-1].nonzero()[:, 0]

    def _parts_at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parts of some words end to end, and how many each has."""
        starts, lengths = self._ends[places], self._ends[places + 1] - self._ends[places]
        first = torch.repeat_interleave(starts - _starts(lengths), lengths)
        return self._parts[first + torch.arange(len(first), device=first.device)], lengths

    def _sums(self, places: Tensor) -> Tensor:
        """Return what is added to the rows of some words (U, D)."""
        flat, lengths = self._parts_at(places)
        sums = F.embedding_bag(flat, self.table, _starts(lengths), mode="sum")
        return sums * self._scale[places, None]


def _starts(lengths: Tensor) -> Tensor:
    return torch.cumsum(lengths, 0) - lengths
