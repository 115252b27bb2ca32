"""Naive Bayes over n-grams: how much more often an n-gram occurs in texts of a label than in all others.

The ratios weigh n-grams for a linear classifier (Wang and Manning, "Baselines and Bigrams", ACL 2012) and give the
rows of a new student a direction: rows that speak for the same label begin alike, so that what one text teaches about
an n-gram helps with n-grams that hardly occur.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hf_sparse.distillation.batches import StudentBatch
from hf_sparse.distillation.losses import IGNORED_LABEL
from hf_sparse.distillation.recipe_data import ProblemType

# Labels beyond the most frequent ones give no evidence: a ratio for each row and label must fit into memory.
_MOST_LABELS: Final = 64
_SMOOTHING: Final = 1.0
_ROWS_AT_ONCE: Final = 1 << 16

Array = npt.NDArray[np.float32]


def presence(batch: StudentBatch, *, num_rows: int) -> Any:
    """Return a sparse matrix (B, V) of ones where a text, or either side of a pair, has an n-gram."""
    from scipy.sparse import csr_matrix

    sides = len(batch.lengths) // batch.num_in_batch
    ends = batch.lengths.view(-1, sides).sum(1).cumsum(0).numpy()
    indices = batch.ids.numpy().copy()  # which summing up would sort in place
    shape = (batch.num_in_batch, num_rows)
    matrix = csr_matrix((np.ones(len(indices), np.float32), indices, np.append(0, ends)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def targets_of(batch: StudentBatch, *, problem_type: ProblemType, num_labels: int) -> tuple[Array, npt.NDArray[Any]]:
    """Return the labels' probabilities (B', C), by the teacher or else the gold labels, and whose (B',) they are.

    Raises:
        ValueError: For a regression, which has no labels.
    """
    if problem_type == "regression":
        raise ValueError("student.initial_rows is naive_bayes, but a regression has no labels; set it to random")
    several = problem_type == "multi_label_classification"
    if batch.logits is not None:
        found = torch.sigmoid(batch.logits) if several else torch.softmax(batch.logits, dim=-1)
        return found.numpy(), np.arange(len(found))
    assert batch.labels is not None
    if several:
        known = ~torch.isnan(batch.labels).any(dim=1)
        return batch.labels[known].numpy(), known.nonzero()[:, 0].numpy()
    known = batch.labels != IGNORED_LABEL
    return nn.functional.one_hot(batch.labels[known], num_labels).float().numpy(), known.nonzero()[:, 0].numpy()


def log_ratios(counts: Array, totals: Array, *, num_texts: float, occurrences: Array) -> Array:
    """Return log P(n-gram | label) - log P(n-gram | any other label), smoothed.

    One text is added to the texts with the n-gram and to those that would have it if it said nothing about the label,
    so that what is rare says little, of rare labels too.

    Args:
        counts: (V, C) texts of a label that have an n-gram; fractions where a teacher says how likely the label is.
        totals: (C,) texts of a label.
        num_texts: All texts.
        occurrences: (V,) texts that have an n-gram.

    Returns:
        Ratios (V, C); 0 for what occurs nowhere.
    """
    found = occurrences[:, None]
    expected = found * (totals / max(num_texts, 1.0)).astype(np.float32)
    within = np.log((counts + _SMOOTHING) / (expected + _SMOOTHING))
    without = np.log((found - counts + _SMOOTHING) / (found - expected + _SMOOTHING))
    ratios: Array = (within - without).astype(np.float32)
    return ratios


def mean_length(ratios: Array, texts: Any) -> float:
    """Return the root mean square, over texts (B, V), of the length of the mean of a text's ratios."""
    means = np.asarray(texts @ ratios) / np.maximum(1.0, np.asarray(texts.sum(axis=1)))
    return float(np.sqrt(np.square(means).sum(axis=1).mean()))


def count_ratios(
    batches: Iterable[StudentBatch], *, num_rows: int, num_labels: int, problem_type: ProblemType
) -> Array:
    """Return the ratios (V, C) of all n-grams by some batches, scaled so that their mean over a text has length 1.

    Only the 64 most frequent labels have any where there are more.
    """
    counts = np.zeros((num_rows, num_labels), np.float32) if num_labels <= _MOST_LABELS else None
    kept = np.arange(num_labels)
    occurrences, totals, num_texts = np.zeros(num_rows, np.float32), np.zeros(num_labels, np.float32), 0
    first: Any = None
    for batch in batches:
        targets, rows = targets_of(batch, problem_type=problem_type, num_labels=num_labels)
        if counts is None:  # the first batch tells which labels are frequent
            kept = np.sort(np.argsort(-targets.sum(axis=0), kind="stable")[:_MOST_LABELS])
            counts = np.zeros((num_rows, len(kept)), np.float32)
        texts = presence(batch, num_rows=num_rows)[rows]
        first = texts if first is None else first
        present = texts.T.tocsr()
        counts += present @ targets[:, kept]
        occurrences += np.asarray(present.sum(axis=1)).ravel()
        totals += targets.sum(axis=0)
        num_texts += len(targets)
    if counts is None or first is None:  # no texts
        return np.zeros((num_rows, 0), np.float32)
    ratios = log_ratios(counts, totals[kept], num_texts=num_texts, occurrences=occurrences)
    ratios /= mean_length(ratios, first) or 1.0
    return ratios


def add_ratios(
    blocks: Iterable[Tensor], ratios: Array, *, scale: float, seed: int, width: int, columns: tuple[int, int]
) -> None:
    """Add to each row of a table, in place, its ratios times a random direction for each label.

    Args:
        blocks: The table's blocks, of the wanted columns.
        ratios: (V, C).
        scale: Length of a direction.
        seed: Of the directions.
        width: Columns of the whole table.
        columns: First of the columns that the blocks have, and that behind the last.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(ratios.shape[1], width, generator=generator) * (scale / width**0.5)
    directions = directions[:, slice(*columns)]
    first = 0
    with torch.no_grad():
        for block in blocks:
            for start in range(0, len(block), _ROWS_AT_ONCE):
                part = block[start : start + _ROWS_AT_ONCE]
                part += torch.from_numpy(ratios[first + start : first + start + len(part)]) @ directions
            first += len(block)
