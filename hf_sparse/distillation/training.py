"""Training of a student: rows by a row optimiser, everything else by AdamW, checkpoints, the best one kept.

For linear pooling (mean, sum) a step pools without autograd, runs the head on the pooled vectors as a leaf, and hands
their gradient to the row optimiser. For max and attentive pooling the rows of the batch are gathered into a small
table that autograd sees. The gradient of the whole table never exists.
"""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_sparse.distillation.batches import BatchMaker, Extractor, StudentBatch, prefetch
from hf_sparse.distillation.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    random_state,
    restore_optimizer,
    restore_random_state,
    save_checkpoint,
)
from hf_sparse.distillation.losses import has_label, mixed_loss
from hf_sparse.distillation.recipe import ProblemType, TrainingRecipe
from hf_sparse.distillation.row_optimizer import (
    LazyAdam,
    RowGradient,
    RowOptimizer,
    RowwiseAdagrad,
    pooled_row_gradients,
)
from hf_sparse.distillation.stages import whole_file
from hf_sparse.distillation.stream import TextStream
from hf_sparse.evaluation.metrics import PRIMARY_METRIC, score
from hf_sparse.student import SparseNgramForSequenceClassification

logger = logging.getLogger(__name__)

_LOG_EVERY = 50
_MODEL = "model."


@dataclass(frozen=True, kw_only=True)
class ValidationScore:
    """Scores on validation data: the mean loss, and the primary metric if every text has a label."""

    loss: float
    primary: float | None

    def rank(self, *, by_loss: bool) -> tuple[float, float]:
        """Return what is larger for a better student: the primary metric, then the smaller loss."""
        return (0.0 if by_loss or self.primary is None else self.primary, -self.loss)


class StudentTrainer:
    """Trains one student in one folder, in which an interrupted training is found again.

    Args:
        model: The student; trained in place.
        tokenizer: Extracts its n-grams.
        recipe: How to train.
        problem_type: Of the task.
        accelerator: Device, precision, trackers.
        folder: Where checkpoints, the best weights and `metrics.jsonl` go.
        seed: Of n-gram dropout.
        steps_before: Batches of earlier trainings of the run; trackers count on from there, since some need rising
            steps.
    """

    def __init__(
        self,
        model: SparseNgramForSequenceClassification,
        *,
        tokenizer: Extractor,
        recipe: TrainingRecipe,
        problem_type: ProblemType,
        accelerator: Accelerator,
        folder: Path,
        seed: int,
        steps_before: int = 0,
    ) -> None:
        self.model = model.to(accelerator.device)
        self.recipe = recipe
        self.problem_type = problem_type
        self.accelerator = accelerator
        self.folder = folder
        self._table = model.model.table
        self._table.requires_grad_(False)
        self._linear = model.config.pooling in ("mean", "sum")
        self._plain = BatchMaker(
            tokenizer=tokenizer,
            problem_type=problem_type,
            num_labels=model.num_labels,
            max_length=recipe.max_length,
        )
        self._dropped = dataclasses.replace(self._plain, ngram_dropout=recipe.ngram_dropout, seed=seed)
        self._rows = _row_optimizer(recipe, list(self._table.blocks))
        self._head_parameters = [weight for weight in model.parameters() if weight.requires_grad]
        self._head = torch.optim.AdamW(self._head_parameters, lr=recipe.head_lr, weight_decay=recipe.weight_decay)
        self._metrics = folder / "metrics.jsonl"
        self._steps_before = steps_before
        # Since the last line of metrics.
        self._losses: list[Tensor] = []
        self._waited = 0.0

    def fit(self, stream: TextStream, validation: TextStream) -> ValidationScore:
        """Train on a stream, leave the best weights in the model and return their validation score."""
        total = self.recipe.epochs * stream.batches_per_epoch
        held_out = [self._plain(batch) for batch in validation.batches(first=0, stop=validation.batches_per_epoch)]
        by_loss = self.recipe.gold_weight == 0
        first, best = self._resume()
        eval_steps = _evaluation_steps(stream.batches_per_epoch, total, per_epoch=self.recipe.evals_per_epoch)
        batches = prefetch(self._dropped(batch) for batch in stream.batches(first=first, stop=total))
        saved = time.monotonic()
        bar = tqdm(total=total, initial=first, unit="batch", desc=self.folder.name.removesuffix(".partial"),
                   disable=not self.accelerator.is_main_process)  # fmt: skip
        with bar:
            for step in range(first + 1, total + 1):
                asked = time.monotonic()
                batch = next(batches)
                self._waited += time.monotonic() - asked
                self._losses.append(
                    self._step(batch.to(self.accelerator.device), lr_scale=self._lr_scale(step, total))
                )
                bar.update()
                if step % _LOG_EVERY == 0 or step == total:
                    loss = float(torch.stack(self._losses).mean())
                    self._log({"step": step, "loss": loss, "seconds_waited": self._waited})
                    self._losses, self._waited = [], 0.0
                if step in eval_steps:
                    found = self.evaluate(held_out)
                    self._require_finite(found.loss)
                    self._log({"step": step, "validation_loss": found.loss, "validation_score": found.primary})
                    if best is None or found.rank(by_loss=by_loss) > best.rank(by_loss=by_loss):
                        best = found
                        self._save_best()
                if time.monotonic() - saved > 60 * self.recipe.checkpoint_minutes and step < total:
                    self._save_checkpoint(step, best)
                    saved = time.monotonic()
        if best is None:
            best = self.evaluate(held_out)
        else:
            self._load_best()
        return best

    def evaluate(self, batches: list[StudentBatch]) -> ValidationScore:
        """Score the student on batches: the loss it is trained with, and the primary metric of its task."""
        self.model.eval()
        losses, logits, labels = 0.0, [], []
        num_texts = 0
        for batch in batches:
            moved = batch.to(self.accelerator.device)
            with torch.inference_mode():
                found = self.model.classify(self.model.pool(moved.ids, moved.lengths)).float()
            losses += float(self._loss(found, moved)) * len(found)
            num_texts += len(found)
            logits.append(found.cpu())
            if batch.labels is not None:
                labels.append(batch.labels)
        if not num_texts:
            return ValidationScore(loss=math.nan, primary=None)
        primary = None
        if len(labels) == len(logits) and bool(has_label(torch.cat(labels)).all()):
            references = torch.cat(labels).numpy()
            scores = score(torch.cat(logits).numpy(), references, problem_type=self.problem_type)
            primary = scores[PRIMARY_METRIC[self.problem_type]]
        return ValidationScore(loss=losses / num_texts, primary=primary)

    def _step(self, batch: StudentBatch, *, lr_scale: float) -> Tensor:
        for optimizer, lr in ((self._rows, self.recipe.lr), (self._head, self.recipe.head_lr)):
            optimizer.param_groups[0]["lr"] = lr * lr_scale
        self.model.train()
        self._head.zero_grad(set_to_none=True)
        scale = 1.0 / (1.0 - self.recipe.ngram_dropout) if self.model.config.pooling == "sum" else 1.0
        if self._linear:
            with torch.no_grad():
                pooled = self.model.pool(batch.ids, batch.lengths) * scale
            pooled.requires_grad_()
            loss = self._backward(pooled, batch)
            assert pooled.grad is not None
            self._rows.accumulate(
                pooled_row_gradients(
                    batch.ids, batch.lengths, pooled.grad * scale, mean=self.model.config.pooling == "mean"
                )
            )
        else:
            with self._local_table(batch.ids) as (local_ids, rows, leaf):
                loss = self._backward(self.model.pool(local_ids, batch.lengths), batch)
                if leaf.grad is not None:
                    self._rows.accumulate(iter([RowGradient(rows=rows, values=leaf.grad[1:])]))
        if self.recipe.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._head_parameters, self.recipe.max_grad_norm)
        self._head.step()
        self._rows.step()
        return loss

    def _backward(self, pooled: Tensor, batch: StudentBatch) -> Tensor:
        with self.accelerator.autocast():
            logits = self.model.classify(pooled).float()
        loss = self._loss(logits, batch)
        self._require_finite(float(loss.detach()))
        loss.backward()
        return loss.detach()

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            stage = self.folder.name.removesuffix(".partial")
            raise ValueError(f"the loss of {stage} became {loss}; lower {stage}.lr or {stage}.head_lr in the recipe")

    def _loss(self, logits: Tensor, batch: StudentBatch) -> Tensor:
        return mixed_loss(
            logits,
            batch.logits,
            batch.labels,
            problem_type=self.problem_type,
            temperature=self.recipe.temperature,
            gold_weight=self.recipe.gold_weight,
        )

    @contextmanager
    def _local_table(self, ids: Tensor) -> Iterator[tuple[Tensor, Tensor, nn.Parameter]]:
        """Put the rows of a batch in the place of the table: yields ids into it, the rows' numbers, the rows."""
        rows, local = torch.unique(ids, return_inverse=True)
        gathered = self._table.rows(rows)
        leaf = nn.Parameter(torch.cat([gathered.new_zeros(1, gathered.shape[1]), gathered]))
        blocks = self._table.blocks
        self._table.blocks = nn.ParameterList([leaf])
        try:
            yield (local + 1).to(ids.dtype), rows, leaf
        finally:
            self._table.blocks = blocks

    def _lr_scale(self, step: int, total: int) -> float:
        warmup = max(1, round(total * self.recipe.warmup_ratio))
        return min(step / warmup, (total - step + 1) / max(1, total - warmup + 1))

    def _resume(self) -> tuple[int, ValidationScore | None]:
        checkpoint = load_checkpoint(self.folder / "checkpoints")
        if checkpoint is None:
            self._metrics.unlink(missing_ok=True)
            return 0, None
        tensors = checkpoint.tensors
        weights = {name.removeprefix(_MODEL): value for name, value in tensors.items() if name.startswith(_MODEL)}
        self.model.load_state_dict(weights)
        restore_optimizer("rows", self._rows, tensors)
        restore_optimizer("head", self._head, tensors)
        restore_random_state(tensors)
        _truncate_metrics(self._metrics, checkpoint.step)
        best = checkpoint.state["best"]
        self._losses = [torch.tensor(loss, device=self.accelerator.device) for loss in checkpoint.state["losses"]]
        self._waited = checkpoint.state["seconds_waited"]
        logger.info("%s goes on at batch %d", self.folder.name, checkpoint.step)
        return checkpoint.step, None if best is None else ValidationScore(**best)

    def _save_checkpoint(self, step: int, best: ValidationScore | None) -> None:
        tensors = {_MODEL + name: value for name, value in self.model.state_dict().items()}
        tensors |= optimizer_tensors("rows", self._rows) | optimizer_tensors("head", self._head) | random_state()
        state = {
            "best": None if best is None else {"loss": best.loss, "primary": best.primary},
            "losses": [float(loss) for loss in self._losses],
            "seconds_waited": self._waited,
        }
        save_checkpoint(self.folder / "checkpoints", step=step, tensors=tensors, state=state)

    def _save_best(self) -> None:
        with whole_file(self.folder / "best.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in self.model.state_dict().items()}, temporary)

    def _load_best(self) -> None:
        self.model.load_state_dict(load_file(self.folder / "best.safetensors"))

    def _log(self, values: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")
        stage = self.folder.name.removesuffix(".partial")
        numbers = {f"{stage}/{name}": value for name, value in values.items() if name != "step" and value is not None}
        self.accelerator.log(numbers, step=self._steps_before + values["step"])


def predict_logits(
    model: SparseNgramForSequenceClassification, batches: Iterator[StudentBatch], *, device: torch.device
) -> npt.NDArray[np.float32]:
    """Return the student's logits (B, C) for all texts of some batches."""
    model.train(False).to(device)
    found = []
    with torch.inference_mode():
        for batch in batches:
            moved = batch.to(device)
            found.append(model.classify(model.pool(moved.ids, moved.lengths)).float().cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, model.num_labels), np.float32)


def _row_optimizer(recipe: TrainingRecipe, blocks: list[nn.Parameter]) -> RowOptimizer:
    if recipe.optimizer == "lazy_adam":
        return LazyAdam(blocks, lr=recipe.lr)
    return RowwiseAdagrad(blocks, lr=recipe.lr)


def _evaluation_steps(per_pass: int, total: int, *, per_epoch: int) -> set[int]:
    count = max(1, round(total / max(1, per_pass) * per_epoch))
    return {round(total * (index + 1) / count) for index in range(count)} if total else set()


def _truncate_metrics(path: Path, step: int) -> None:
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
