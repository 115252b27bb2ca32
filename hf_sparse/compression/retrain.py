"""Retraining of a pruned student: those n-grams that are left learn to say what all of them said before.

The teacher is the student before pruning, so texts need no labels, and their soft labels cost microseconds each.
"""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from hf_sparse.compression.fold import frozen
from hf_sparse.compression.measure import predict_logits
from hf_sparse.distillation.batches import BatchMaker
from hf_sparse.distillation.recipe import TrainingRecipe
from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.sources import read_rows
from hf_sparse.distillation.stream import TextShard, TextStream
from hf_sparse.distillation.texts import GROUP_ROWS
from hf_sparse.distillation.training import StudentTrainer
from hf_sparse.student.modeling_sparse_ngram import SparseNgramForSequenceClassification
from hf_sparse.student.tokenization_sparse_ngram import SparseNgramTokenizer

logger = logging.getLogger(__name__)

_HELD_OUT_EVERY = 20
_EVALUATION_BATCH = 512
_LR = 0.01


@dataclass(frozen=True)
class Whole:
    """A student before pruning, and its tokenizer."""

    student: SparseNgramForSequenceClassification
    tokenizer: SparseNgramTokenizer


def retrain(
    student: SparseNgramForSequenceClassification,
    tokenizer: SparseNgramTokenizer,
    *,
    teacher: Whole,
    texts: TextSet,
    epochs: int,
    folder: Path,
    lr: float = _LR,
) -> SparseNgramForSequenceClassification:
    """Distil the student before pruning into the pruned one.

    Args:
        student: The pruned student, with float rows; it stays as it is.
        tokenizer: Its tokenizer.
        teacher: The student before pruning, and its tokenizer.
        texts: What to train on; one in 20 is held out to choose by.
        epochs: Passes over the texts.
        folder: For the soft labels and the weights in between; the caller removes it.
        lr: Peak learning rate of the rows.

    Returns:
        The student with the smallest divergence on the texts held out; the given one, if that is it.

    Raises:
        ValueError: There are too few texts, the rows are quantised, or the student compares pairs of texts.
    """
    _check(student, epochs=epochs)
    folder.mkdir(parents=True, exist_ok=True)
    train, held_out = _soft_labels(teacher, texts, folder)
    problem_type: Any = student.config.problem_type or "single_label_classification"
    recipe = TrainingRecipe(epochs=epochs, lr=lr, ngram_dropout=0.0, evals_per_epoch=4, checkpoint_minutes=1e9)
    trained = copy.deepcopy(student).requires_grad_(True)
    torch.manual_seed(0)
    trainer = StudentTrainer(
        trained,
        tokenizer=tokenizer,
        recipe=recipe,
        problem_type=problem_type,
        accelerator=Accelerator(),
        folder=folder,
        seed=0,
    )
    validation = _stream(held_out, batch_size=_EVALUATION_BATCH, seed=None)
    make = BatchMaker.of(student, tokenizer=tokenizer, problem_type=problem_type)
    before = trainer.evaluate(
        [make(batch) for batch in validation.batches(first=0, stop=validation.batches_per_epoch)]
    )
    after = trainer.fit(_stream(train, batch_size=recipe.batch_size, seed=0), validation)
    logger.info("retraining: divergence from the student before pruning %.5f, then %.5f", before.loss, after.loss)
    if after.loss >= before.loss:
        return student
    trained.cpu()
    trained.requires_grad_(True)
    return frozen(trained)


def _check(student: SparseNgramForSequenceClassification, *, epochs: int) -> None:
    if epochs < 1:
        raise ValueError(f"retrain_epochs must be at least 1, got {epochs}")
    if student.config.sentence_pairs:
        raise ValueError("retraining reads single texts, but the student compares pairs: leave out retrain_data")
    if not all(block.is_floating_point() for block in student.model.table.blocks):
        raise ValueError("the student's rows are quantised: retrain the student that it was made from")


def _stream(path: Path, *, batch_size: int, seed: int | None) -> TextStream:
    return TextStream([TextShard(texts=path, logits=path)], batch_size=batch_size, seed=seed)


def _soft_labels(teacher: Whole, source: TextSet, folder: Path) -> tuple[Path, Path]:
    """Write texts with the teacher's logits: most to train on, one in 20 to choose by."""
    paths = folder / "train.parquet", folder / "held-out.parquet"
    schema = pa.schema([("text", pa.string()), ("logits", pa.list_(pa.float32()))])
    done = 0
    with pq.ParquetWriter(paths[0], schema) as train, pq.ParquetWriter(paths[1], schema) as held_out:
        for texts in _pieces(source):
            logits = predict_logits(teacher.student, teacher.tokenizer, texts)
            rows = pa.table({"text": pa.array(texts, pa.string()), "logits": list(logits)}, schema=schema)
            is_held_out = pa.array([(done + index) % _HELD_OUT_EVERY == 0 for index in range(len(texts))])
            train.write_table(rows.filter(pc.invert(is_held_out)), row_group_size=GROUP_ROWS)
            held_out.write_table(rows.filter(is_held_out), row_group_size=GROUP_ROWS)
            done += len(texts)
    if done < _HELD_OUT_EVERY:
        raise ValueError(f"{source.path!r} holds {done} texts: too few to retrain on")
    return paths


def _pieces(source: TextSet) -> Iterator[list[str]]:
    with tqdm(unit="text", desc="soft labels") as bar:
        for table in read_rows(source):
            texts = table["text"].to_pylist()
            for first in range(0, len(texts), GROUP_ROWS):
                piece = texts[first : first + GROUP_ROWS]
                yield piece
                bar.update(len(piece))
