"""One step of a student's training: rows by a row optimiser, everything else by AdamW.

A step pools, runs the head on the pooled vectors as a leaf, and goes on with their gradient. Where pooling is linear
(mean, sum), or by maximum on the CPU, the row optimiser knows what follows for the rows. For attentive pooling, and
for maxima elsewhere, the rows of the batch are gathered into a small table that autograd sees. The gradient of the
whole table never exists. Several processes share a step as `exchange.py` says; a batch may be computed in parts, to
save memory. Loss and gradients are those of the mean over the whole batch, whoever computes which part of it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hf_sparse.distillation.batches import StudentBatch
from hf_sparse.distillation.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from hf_sparse.distillation.exchange import Exchange, Gathered
from hf_sparse.distillation.losses import mixed_loss
from hf_sparse.distillation.recipe import TrainingRecipe
from hf_sparse.distillation.recipe_data import ProblemType
from hf_sparse.distillation.row_kernel import Threads, as_array, maximum_rows
from hf_sparse.distillation.row_optimizer import (
    LazyAdam,
    PooledGradient,
    RowGradient,
    RowOptimizer,
    RowwiseAdagrad,
)
from hf_sparse.distillation.subwords import Spellings, SubwordRows
from hf_sparse.distillation.tensor_folder import COLUMNS
from hf_sparse.student import SparseNgramForSequenceClassification

_MODEL = "model."
_BLOCKS = "model.table.blocks."
_SUBWORDS = "subwords.table"


class StudentStep:
    """A student, its optimisers, and the processes that train it.

    Args:
        model: The student, with this process's columns of the table; trained in place.
        recipe: How to train.
        problem_type: Of the task.
        accelerator: Device and precision.
        exchange: The processes.
        spellings: Of words whose rows share what their spellings share; None: each has its own alone.
    """

    def __init__(
        self,
        model: SparseNgramForSequenceClassification,
        *,
        recipe: TrainingRecipe,
        problem_type: ProblemType,
        accelerator: Accelerator,
        exchange: Exchange,
        spellings: Spellings | None = None,
    ) -> None:
        self.model = model.to(accelerator.device)
        self.exchange = exchange
        self._recipe = recipe
        self._problem_type = problem_type
        self._accelerator = accelerator
        self._table = model.model.table
        self._table.requires_grad_(False)
        self._pooling = model.config.pooling
        self._threads = Threads()
        width = model.config.embedding_size
        self._rows = _row_optimizer(recipe, list(self._table.blocks), exchange, width=width)
        self._subwords: SubwordRows | None = None
        if spellings is not None and spellings.num_parts:
            own = self._table.blocks[0]
            self._subwords = SubwordRows(
                spellings, num_rows=model.config.vocab_size, width=own.shape[1], device=own.device
            )
            self._parts = _row_optimizer(recipe, [self._subwords.table], exchange, width=width)
        self._parameters = [weight for weight in model.parameters() if weight.requires_grad]
        self._head = torch.optim.AdamW(self._parameters, lr=recipe.head_lr, weight_decay=recipe.weight_decay)

    def pool(self, batch: StudentBatch) -> Tensor:
        """Return the vectors of this process's texts, or sides of pairs; every process calls it."""
        encoder = self.model.model
        if not self.exchange.is_split:
            pooled, _ = self._pool(batch.ids, batch.lengths)
        else:
            gathered = self.exchange.gather(batch.ids, batch.lengths)
            columns, _ = self._pool(gathered.ids, gathered.lengths)
            pooled = self.exchange.to_texts(columns, gathered.num_texts)
        finished: Tensor = encoder.finish_bags(pooled, batch.lengths, batch.words)
        return finished

    def loss(self, logits: Tensor, batch: StudentBatch) -> Tensor:
        """Return the mean loss of this process's texts."""
        return mixed_loss(
            logits,
            batch.logits,
            batch.labels,
            problem_type=self._problem_type,
            temperature=self._recipe.temperature,
            gold_weight=self._recipe.gold_weight,
        )

    def take(self, parts: Sequence[StudentBatch], *, lr_scale: float) -> Tensor:
        """Train on a batch, given as one or several parts, and return its loss.

        Raises:
            FloatingPointError: If the loss is not finite; nothing is changed then.
        """
        for optimizer in self._row_optimizers().values():
            optimizer.param_groups[0]["lr"] = self._recipe.lr * lr_scale
        self._head.param_groups[0]["lr"] = self._recipe.head_lr * lr_scale
        self.model.train()
        self._head.zero_grad(set_to_none=True)
        pooled = self._pooling in ("mean", "sum") or self._has_kernel
        loss, gradients = self._pooled_step(parts) if pooled else self._gathered_step(parts)
        loss = self._add_up(loss)
        if not math.isfinite(loss):
            raise FloatingPointError(str(float(loss)))
        self._rows.accumulate(gradients)
        if self._subwords is not None:
            self._parts.accumulate(self._subwords.gradients(gradients))
        if self._recipe.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.max_grad_norm)
        self._head.step()
        for optimizer in self._row_optimizers().values():
            optimizer.step()
        return loss

    def tensors(self) -> dict[str, Tensor]:
        """Return all that training goes on with, by name; what is split by columns is named `columns.`."""
        tensors = self.weights() | optimizer_tensors("head", self._head)
        if self._subwords is not None:
            tensors[COLUMNS + _SUBWORDS] = self._subwords.table
        for prefix, optimizer in self._row_optimizers().items():
            for name, value in optimizer_tensors(prefix, optimizer).items():
                tensors[COLUMNS + name if value.dim() == 2 else name] = value
        return tensors

    def weights(self) -> dict[str, Tensor]:
        """Return the weights, named as in `tensors`."""
        return {
            (COLUMNS if name.startswith(_BLOCKS) else "") + _MODEL + name: value.detach()
            for name, value in self.model.named_parameters()
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from what `tensors` returned."""
        self.restore_weights(checkpoint.tensors)
        names = {name.removeprefix(COLUMNS): name for name in checkpoint.tensors}
        states = {plain: name for plain, name in names.items() if not plain.startswith(_MODEL)}
        tensors = {plain: checkpoint.tensors[name] for plain, name in states.items()}
        for prefix, optimizer in self._row_optimizers().items():
            restore_optimizer(prefix, optimizer, tensors)
        restore_optimizer("head", self._head, tensors)
        if self._subwords is not None:
            with torch.no_grad():
                self._subwords.table.copy_(tensors[_SUBWORDS])

    def restore_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `weights` returned, one after the other: the table does not fit into memory twice."""
        with torch.no_grad():
            for name, weight in self.weights().items():
                weight.copy_(tensors[name])

    def folded(self) -> AbstractContextManager[None]:
        """Give the rows of words what they share with others, as the finished student has them."""
        return self._shared(None)

    def end_sharing(self) -> None:
        """Leave the rows as they are from now on: they have what they share, or are never to get it."""
        self._subwords = None

    @contextmanager
    def _shared(self, ids: Tensor | None) -> Iterator[None]:
        if self._subwords is None:
            yield
            return
        with self._subwords.added(list(self._table.blocks), ids):
            yield

    def _row_optimizers(self) -> dict[str, RowOptimizer]:
        if self._subwords is None:
            return {"rows": self._rows}
        return {"rows": self._rows, "parts": self._parts}

    @property
    def _has_kernel(self) -> bool:
        """Whether a compiled loop finds the maxima, and whose they are."""
        blocks = self._table.blocks
        return self._pooling == "max" and all(
            block.device.type == "cpu" and block.dtype == torch.float32 for block in blocks
        )

    def _pool(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the vectors of texts and, where they are maxima that a loop has found, the row of each column."""
        if not self._has_kernel:
            return self.model.model.pool_rows(ids, lengths), None
        blocks = [as_array(block) for block in self._table.blocks]
        number = torch.get_num_threads()
        best, winners = maximum_rows(
            blocks, as_array(ids), as_array(lengths), threads=self._threads, num_threads=number
        )
        return torch.from_numpy(best), torch.from_numpy(winners)

    def _own(self, columns: Tensor, gathered: Gathered) -> Tensor:
        """Return whole vectors of this process's texts, given its columns of those of all texts."""
        if self.exchange.is_split:
            return self.exchange.to_texts(columns, gathered.num_texts)
        first, stop = self.exchange.own_texts(gathered)
        return columns[first:stop]

    def _pooled_step(self, parts: Sequence[StudentBatch]) -> tuple[Tensor, Iterable[RowGradient]]:
        loss = torch.zeros((), device=self._accelerator.device)
        found: list[PooledGradient] = []
        for part in parts:
            gathered = self.exchange.gather(part.ids, part.lengths)
            # Of maxima, all processes must know whose they are.
            all_texts = self.exchange.is_split or self._has_kernel
            read = gathered if all_texts else part
            with torch.no_grad(), self._shared(read.ids):
                columns, winners = self._pool(read.ids, read.lengths)
                pooled = self._own(columns, gathered) if all_texts else columns
            part_loss, gradient = self._head_gradient(pooled, part)
            loss += part_loss
            gradient = self.exchange.to_columns(gradient, gathered.num_texts)
            found.append(
                PooledGradient(
                    ids=gathered.ids,
                    lengths=gathered.lengths,
                    gradient=gradient,
                    mean=self._pooling == "mean",
                    winners=winners,
                )
            )
        return loss, PooledGradient.join(found)

    def _gathered_step(self, parts: Sequence[StudentBatch]) -> tuple[Tensor, Iterable[RowGradient]]:
        loss = torch.zeros((), device=self._accelerator.device)
        found = [self.exchange.gather(part.ids, part.lengths) for part in parts]
        with self._local_table(torch.cat([each.ids for each in found])) as (local_ids, rows, leaf):
            for part, gathered, ids in zip(
                parts, found, local_ids.split([len(each.ids) for each in found]), strict=True
            ):
                columns = self.model.model.pool_rows(ids, gathered.lengths)
                part_loss, gradient = self._head_gradient(self._own(columns.detach(), gathered), part)
                loss += part_loss
                if columns.requires_grad:
                    columns.backward(self.exchange.to_columns(gradient, gathered.num_texts))
        if leaf.grad is None:
            return loss, []
        return loss, [RowGradient(rows=rows, values=leaf.grad[1:])]

    def _head_gradient(self, pooled: Tensor, part: StudentBatch) -> tuple[Tensor, Tensor]:
        """Return the loss of this process's texts times their share in the batch, and its gradient by `pooled`."""
        pooled.requires_grad_()
        encoder = self.model.model
        scale = encoder.kept_scale(self._recipe.ngram_dropout or 0.0)
        with self._accelerator.autocast():
            bags = encoder.finish_bags(pooled, part.lengths, part.words, scale=scale)
            logits = self.model.classify(bags).float()
        if not len(logits):
            return torch.zeros((), device=logits.device), torch.zeros_like(pooled)
        loss = self.loss(logits, part) * (len(logits) / part.num_in_batch)
        loss.backward()
        assert pooled.grad is not None
        return loss.detach(), pooled.grad

    def _add_up(self, loss: Tensor) -> Tensor:
        """Add up loss and gradients of the head over all processes."""
        if self.exchange.num_processes == 1:
            return loss
        parameters = self._parameters
        for weight in parameters:
            if weight.grad is None:  # a process without texts in this batch
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        flat = self.exchange.add(torch.cat([loss.reshape(1), *(gradient.flatten().float() for gradient in gradients)]))
        sums = flat[1:].split([gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))
        return flat[0].clone()

    @contextmanager
    def _local_table(self, ids: Tensor) -> Iterator[tuple[Tensor, Tensor, nn.Parameter]]:
        """Put the rows of a batch in the place of the table: yields ids into it, the rows' numbers, the rows."""
        rows, local = torch.unique(ids, return_inverse=True)
        with self._shared(rows):
            gathered = self._table.rows(rows)
        leaf = nn.Parameter(torch.cat([gathered.new_zeros(1, gathered.shape[1]), gathered]))
        blocks = self._table.blocks
        self._table.blocks = nn.ParameterList([leaf])
        try:
            yield (local + 1).to(ids.dtype), rows, leaf
        finally:
            self._table.blocks = blocks


def _row_optimizer(
    recipe: TrainingRecipe, blocks: list[nn.Parameter], exchange: Exchange, *, width: int
) -> RowOptimizer:
    if recipe.optimizer == "lazy_adam":
        return LazyAdam(blocks, lr=recipe.lr)
    if not exchange.is_split:
        return RowwiseAdagrad(blocks, lr=recipe.lr)
    return RowwiseAdagrad(blocks, lr=recipe.lr, add_up=exchange.add, width=width)
