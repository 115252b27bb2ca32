"""Training of a student: steps over a stream, validation, checkpoints, the best weights kept."""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from hf_sparse.distillation.batches import BatchMaker, Extractor, StudentBatch, cut_batch, prefetch
from hf_sparse.distillation.checkpoint import (
    load_checkpoint,
    random_state,
    remove_checkpoints,
    restore_random_state,
    save_checkpoint,
    step_folder,
)
from hf_sparse.distillation.exchange import Exchange
from hf_sparse.distillation.losses import has_label
from hf_sparse.distillation.recipe import TrainingRecipe
from hf_sparse.distillation.recipe_data import ProblemType
from hf_sparse.distillation.stream import TextStream
from hf_sparse.distillation.student_step import StudentStep
from hf_sparse.distillation.student_weights import save_student
from hf_sparse.distillation.subwords import Spellings
from hf_sparse.distillation.tensor_folder import TensorFolder, write_folder
from hf_sparse.distillation.units import Unit
from hf_sparse.evaluation.metrics import PRIMARY_METRIC, score
from hf_sparse.files import write_atomic
from hf_sparse.student import SparseNgramForSequenceClassification

logger = logging.getLogger(__name__)

_LOG_EVERY = 50
CHECKPOINTS = "checkpoints"
BEST = "best"
START = "start"
# Shares of the trained weights that are tried, the rest being those that it began with.
_SHARES = (0.75, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class ValidationScore:
    """Scores on validation data.

    Attributes:
        loss: The mean loss.
        primary: The primary metric, if every text has a label.
        share: Of the trained weights, where they were averaged with those that the training began with.
    """

    loss: float
    primary: float | None
    share: float = 1.0

    def rank(self, *, by_loss: bool) -> tuple[float, float]:
        """Return what is larger for a better student: the primary metric, then the smaller loss."""
        return (0.0 if by_loss or self.primary is None else self.primary, -self.loss)


@dataclass(kw_only=True)
class _Progress:
    """What a training knows of itself besides its weights.

    Attributes:
        step: Batches done.
        best: Of the best student so far, and the step after which it was.
        losses: Since the last line of metrics.
        seconds: Since then.
        waited: Of these, for data.
    """

    step: int = 0
    best: ValidationScore | None = None
    best_step: int | None = None
    losses: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0


class StudentTrainer:
    """Trains one student in one folder, in which an interrupted training is found again.

    Args:
        model: The student, with this process's columns of the table; trained in place.
        tokenizer: Extracts its n-grams.
        recipe: How to train.
        problem_type: Of the task.
        accelerator: Device, precision, trackers.
        folder: Where checkpoints, the best weights and `metrics.jsonl` go.
        seed: Of n-gram dropout.
        steps_before: Batches of earlier trainings of the run; trackers count on from there, since some need rising
            steps.
        exchange: The processes that train together; None: this one alone.
        spellings: Of words that share what their spellings share while they are trained; None: they do not.
        unit: In which a regression is trained; the saved student gives scores as they are. None: as they are.
        averages: Average the trained weights with those that the training began with, if that is better on validation
            texts (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
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
        exchange: Exchange | None = None,
        spellings: Spellings | None = None,
        unit: Unit | None = None,
        averages: bool = False,
    ) -> None:
        self.model = model
        self._unit = unit
        self.recipe = recipe
        self.problem_type = problem_type
        self.accelerator = accelerator
        self.folder = folder
        self._exchange = exchange or Exchange(model.config.embedding_size, mode="replicated")
        self._step = StudentStep(
            model,
            recipe=recipe,
            problem_type=problem_type,
            accelerator=accelerator,
            exchange=self._exchange,
            spellings=spellings,
        )
        self._plain = BatchMaker.of(
            model, tokenizer=tokenizer, problem_type=problem_type, max_length=recipe.max_length, unit=unit
        )
        self._dropped = dataclasses.replace(self._plain, ngram_dropout=recipe.ngram_dropout or 0.0, seed=seed)
        self._metrics = folder / "metrics.jsonl"
        self._best_to_resume: int | None = None  # step of the best weights that the checkpoint on disk names
        self._steps_before = steps_before
        self.averages = averages
        self._share = (self._exchange.rank, self._exchange.num_processes)

    def fit(self, stream: TextStream, validation: TextStream) -> ValidationScore:
        """Train on a stream, leave the best weights in the model and return their validation score.

        Raises:
            ValueError: If the loss does not stay finite.
        """
        total = self.recipe.epochs * stream.batches_per_epoch
        held_out = self.held_out(validation)
        progress = self._resume()
        if self.averages and not progress.step:
            write_folder(self.folder / START, self._step.weights(), exchange=self._exchange)
        eval_steps = _evaluation_steps(stream.batches_per_epoch, total, per_epoch=self.recipe.evals_per_epoch)
        batches = prefetch(
            [self._dropped(part) for part in cut_batch(batch, self.recipe.accumulation_steps)]
            for batch in stream.batches(first=progress.step, stop=total, share=self._share)
        )
        saved = time.monotonic()
        bar = tqdm(total=total, initial=progress.step, unit="batch", desc=self.folder.name.removesuffix(".partial"),
                   disable=not self.accelerator.is_main_process)  # fmt: skip
        with bar:
            while progress.step < total:
                self._train_on(batches, progress, total=total)
                bar.update()
                if progress.step in eval_steps:
                    with self._step.folded():
                        self._validate(held_out, progress)
                late = time.monotonic() - saved > 60 * self.recipe.checkpoint_minutes and progress.step < total
                if self._is_agreed(late):
                    self._save_checkpoint(progress)
                    saved = time.monotonic()
        self._step.end_sharing()
        if progress.best is None:
            return self.evaluate(held_out)
        self._load_best(progress)
        return self._average(held_out, progress) if self.averages else progress.best

    def save(self) -> None:
        """Save the trained student in the folder, as `save_pretrained` does; every process calls it, once."""
        if self._unit is not None:
            assert self.model.classifier is not None  # no folded student is trained
            self._unit.leave(self.model.classifier)
        save_student(self.model, self.folder, weights=self._step.weights(), exchange=self._exchange)

    def held_out(self, validation: TextStream) -> list[StudentBatch]:
        """Return this process's share of the batches of a stream."""
        stop = validation.batches_per_epoch
        return [self._plain(batch) for batch in validation.batches(first=0, stop=stop, share=self._share)]

    def evaluate(self, batches: list[StudentBatch]) -> ValidationScore:
        """Score the student on batches: the loss it is trained with, and the primary metric of its task.

        Every process calls it with its share of the same batches, and gets the scores of all.
        """
        self.model.train(False)
        losses, logits, labels = torch.zeros(2, dtype=torch.float64), [], []
        for batch in batches:
            moved = batch.to(self.accelerator.device)
            with torch.inference_mode():
                found = self.model.classify(self._step.pool(moved)).float()
                if len(found):
                    losses += torch.tensor([float(self._step.loss(found, moved)) * len(found), len(found)])
            logits.append(self._exchange.gather_rows(found).cpu())
            if moved.labels is not None:
                labels.append(self._exchange.gather_rows(moved.labels).cpu())
        if self._exchange.num_processes > 1:
            losses = self._exchange.add(losses.to(self.accelerator.device))
        loss, num_texts = losses.tolist()
        if not num_texts:
            return ValidationScore(loss=math.nan, primary=None)
        primary = None
        if len(labels) == len(logits) and bool(has_label(torch.cat(labels)).all()):
            references = torch.cat(labels).numpy()
            scores = score(torch.cat(logits).numpy(), references, problem_type=self.problem_type)
            primary = scores[PRIMARY_METRIC[self.problem_type]]
        return ValidationScore(loss=loss / num_texts, primary=primary)

    def _train_on(self, batches: Iterator[list[StudentBatch]], progress: _Progress, *, total: int) -> None:
        """Take the next batch, and write a line of metrics now and then."""
        asked = time.monotonic()
        parts = next(batches)
        progress.waited += time.monotonic() - asked
        progress.step += 1
        parts = [part.to(self.accelerator.device) for part in parts]
        try:
            loss = self._step.take(parts, lr_scale=self._lr_scale(progress.step, total))
        except FloatingPointError as error:
            raise self._not_finite(error) from error
        progress.losses.append(float(loss))
        progress.seconds += time.monotonic() - asked
        if progress.step % _LOG_EVERY == 0 or progress.step == total:
            line = {"step": progress.step, "loss": float(np.mean(progress.losses)), "seconds": progress.seconds}
            line["seconds_waited"] = progress.waited
            if self._exchange.num_processes > 1:
                traffic = self._exchange.take_traffic()
                line["seconds_exchanged"] = traffic.seconds
                line["bytes_sent"] = traffic.bytes / len(progress.losses)
            self._log(line)
            progress.losses, progress.seconds, progress.waited = [], 0.0, 0.0

    def _validate(self, held_out: list[StudentBatch], progress: _Progress) -> None:
        """Score the student, and keep it if it is the best."""
        found = self.evaluate(held_out)
        if not math.isfinite(found.loss):
            raise self._not_finite(found.loss)
        self._log({"step": progress.step, "validation_loss": found.loss, "validation_score": found.primary})
        by_loss = self.recipe.gold_weight == 0
        if progress.best is None or found.rank(by_loss=by_loss) > progress.best.rank(by_loss=by_loss):
            progress.best, progress.best_step = found, progress.step
            write_folder(self._best_folder(progress), self._step.weights(), exchange=self._exchange)
            self._remove_other_bests(progress)

    def _not_finite(self, loss: object) -> ValueError:
        stage = self.folder.name.removesuffix(".partial")
        return ValueError(f"the loss of {stage} became {loss}; lower {stage}.lr or {stage}.head_lr in the recipe")

    def _lr_scale(self, step: int, total: int) -> float:
        warmup = max(1, round(total * self.recipe.warmup_ratio))
        return min(step / warmup, (total - step + 1) / max(1, total - warmup + 1))

    def _is_agreed(self, wish: bool) -> bool:
        """Return what the first process wishes: clocks differ."""
        if self._exchange.num_processes == 1:
            return wish
        first = self._exchange.rank == 0
        return bool(self._exchange.add(torch.tensor(float(wish and first), device=self.accelerator.device)))

    def _resume(self) -> _Progress:
        checkpoint = load_checkpoint(self.folder / CHECKPOINTS, exchange=self._exchange)
        progress = _Progress()
        if checkpoint is not None:
            self._step.restore(checkpoint)
            if checkpoint.own:
                restore_random_state(checkpoint.own)
            best = checkpoint.state.pop("best")
            best = None if best is None else ValidationScore(**best)
            progress = _Progress(step=checkpoint.step, best=best, **checkpoint.state)
            logger.info("%s goes on at batch %d", self.folder.name, checkpoint.step)
        if self._exchange.rank == 0:
            _truncate_metrics(self._metrics, progress.step)
        self._best_to_resume = progress.best_step
        self._remove_other_bests(progress)  # of later steps than the checkpoint, too: they are made again
        self._exchange.wait()
        return progress

    def _save_checkpoint(self, progress: _Progress) -> None:
        state = dataclasses.asdict(progress)
        save_checkpoint(
            self.folder / CHECKPOINTS,
            step=state.pop("step"),
            tensors=self._step.tensors(),
            own=random_state(),
            state=state,
            exchange=self._exchange,
        )
        self._best_to_resume = progress.best_step
        self._remove_other_bests(progress)

    def _remove_other_bests(self, progress: _Progress) -> None:
        if self._exchange.rank == 0:
            remove_checkpoints(self.folder / BEST, except_for={progress.best_step, self._best_to_resume})

    def _best_folder(self, progress: _Progress) -> Path:
        assert progress.best_step is not None
        return step_folder(self.folder / BEST, progress.best_step)

    def _average(self, held_out: list[StudentBatch], progress: _Progress) -> ValidationScore:
        """Leave that average of the first and the best weights in the model which is best on validation texts."""
        assert progress.best is not None
        first, best = (
            TensorFolder(folder, self._exchange.columns)
            for folder in (self.folder / START, self._best_folder(progress))
        )
        found = [progress.best]
        for share in _SHARES:
            self._step.restore_weights(_Average(first, best, share))
            found.append(dataclasses.replace(self.evaluate(held_out), share=share))
            line = {"validation_loss": found[-1].loss, "validation_score": found[-1].primary}
            self._log({"step": progress.step, "share": share, **line})
        chosen = max(found, key=lambda each: each.rank(by_loss=self.recipe.gold_weight == 0))
        self._step.restore_weights(best if chosen.share == 1 else _Average(first, best, chosen.share))
        return chosen

    def _load_best(self, progress: _Progress) -> None:
        self._step.restore_weights(TensorFolder(self._best_folder(progress), self._exchange.columns))

    def _log(self, values: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")
        stage = self.folder.name.removesuffix(".partial")
        numbers = {f"{stage}/{name}": value for name, value in values.items() if name != "step" and value is not None}
        self.accelerator.log(numbers, step=self._steps_before + values["step"])


class _Average(Mapping[str, torch.Tensor]):
    """The averages of tensors of the same names, made when they are asked for."""

    def __init__(self, first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], share: float) -> None:
        self._first, self._second, self._share = first, second, share

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.lerp(self._first[name], self._second[name], self._share)

    def __iter__(self) -> Iterator[str]:
        return iter(self._second)

    def __len__(self) -> int:
        return len(self._second)


def predict_logits(
    model: SparseNgramForSequenceClassification, batches: Iterator[StudentBatch], *, device: torch.device
) -> npt.NDArray[np.float32]:
    """Return the student's logits (B, C) for all texts of some batches."""
    model.train(False).to(device)
    found = []
    with torch.inference_mode():
        for batch in batches:
            moved = batch.to(device)
            pooled = model.model.pool_bags(moved.ids, moved.lengths, moved.words)
            found.append(model.classify(pooled).float().cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, model.num_labels), np.float32)


def _evaluation_steps(per_pass: int, total: int, *, per_epoch: int) -> set[int]:
    count = max(1, round(total / max(1, per_pass) * per_epoch))
    return {round(total * (index + 1) / count) for index in range(count)} if total else set()


def _truncate_metrics(path: Path, step: int) -> None:
    """Keep the lines up to a step; what a kill or a full disk has torn is dropped."""
    if not step:
        path.unlink(missing_ok=True)
    elif path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        write_atomic(path, "".join(line + "\n" for line in lines))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf
