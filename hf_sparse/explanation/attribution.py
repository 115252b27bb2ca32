"""What each n-gram contributes to a logit: integrated gradients (Sundararajan et al., ICML 2017) over the rows.

The rows of a text grow from zero, the text without n-grams, to what they are; the gradient with respect to a row,
averaged along that way, times the row is what its n-gram contributes. The contributions add up to the difference that
the n-grams make to the logit: exactly where a student is linear, up to a residual that falls with the number of steps
where it is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_sparse.student.alignment_sparse_ngram import Bags, with_words
from hf_sparse.student.modeling_sparse_ngram import SparseNgramForSequenceClassification
from hf_sparse.student.pairs_sparse_ngram import overlap_order


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Contributions of the N n-grams of B texts to the logits of L labels.

    Attributes:
        contributions: (N, L).
        logits: (B, L) of the texts.
        baselines: (B, L) of texts without n-grams.
        residuals: (B, L), what contributions and baseline leave of the logit.
    """

    contributions: Tensor
    logits: Tensor
    baselines: Tensor
    residuals: Tensor


def attribute(
    model: SparseNgramForSequenceClassification, ids: Tensor, lengths: Tensor, *, labels: list[int], steps: int = 32
) -> Attribution:
    """Attribute the logits of texts to their n-grams.

    Args:
        model: The student, of any pooling and number of layers; its rows may be packed.
        ids: (N,) row numbers, grouped by text.
        lengths: (B,) n-grams of each text; (2B,) for pairs, the sides interleaved.
        labels: Ids of L labels.
        steps: Points on the way from no n-grams to all.

    Raises:
        ValueError: If there are no steps.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, but must be at least 1")
    model.train(False)
    sides = lengths
    order = torch.arange(len(ids))
    if model.model.compares_overlap:
        order, lengths = overlap_order(ids, lengths)
    bags = Bags(torch.arange(1, len(ids) + 1), lengths)
    if model.model.alignment is not None:
        bags = with_words(bags.ids, lengths, F.pad(model.model.alignment.is_word[ids[order]], (1, 0)))
    rows = model.model.table.rows(ids[order]).detach().float()
    contributions = rows.new_zeros(len(labels), len(rows))
    with _rows_in_place_of_the_table(model) as classify:
        for step in range(steps):
            leaf = ((step + 0.5) / steps * rows).requires_grad_()
            logits = classify(leaf, bags)
            for place, label in enumerate(labels):
                keep = place + 1 < len(labels)
                (gradient,) = torch.autograd.grad(logits[:, label].sum(), leaf, retain_graph=keep)
                contributions[place] += (gradient * rows).sum(-1) / steps
        with torch.no_grad():
            logits, baselines = (classify(part, bags)[:, labels] for part in (rows, torch.zeros_like(rows)))
    contributions = contributions.T[torch.argsort(order)]
    return Attribution(
        contributions=contributions,
        logits=logits,
        baselines=baselines,
        residuals=logits - baselines - _sums(contributions, sides, len(logits)),
    )


def _sums(contributions: Tensor, lengths: Tensor, num_texts: int) -> Tensor:
    per_text = lengths.view(num_texts, -1).sum(1)
    texts = torch.repeat_interleave(torch.arange(num_texts), per_text)
    return contributions.new_zeros(num_texts, contributions.shape[1]).index_add_(0, texts, contributions)


class _Classify:
    """Classifies texts whose rows are given; ids count these from 1."""

    def __init__(self, model: SparseNgramForSequenceClassification) -> None:
        self._model = model

    def __call__(self, rows: Tensor, bags: Bags) -> Tensor:
        self._model.model.table.blocks = _Blocks([F.pad(rows, (0, 0, 1, 0))])
        logits: Tensor = self._model.classify(self._model.model.pool_bags(*bags))
        return logits.float()


class _Blocks(nn.Module):
    """A list of tensors in the place of a list of parameters: gradients flow through it."""

    def __init__(self, blocks: list[Tensor]) -> None:
        super().__init__()
        self._list = blocks

    def __len__(self) -> int:
        return len(self._list)

    def __getitem__(self, index: int) -> Tensor:
        return self._list[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._list)


@contextmanager
def _rows_in_place_of_the_table(model: SparseNgramForSequenceClassification) -> Iterator[_Classify]:
    table = model.model.table
    blocks = table.blocks
    frozen = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(False)
    try:
        yield _Classify(model)
    finally:
        table.blocks = blocks
        for weight in frozen:
            weight.requires_grad_(True)
