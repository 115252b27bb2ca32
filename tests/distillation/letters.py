"""A tiny task whose n-grams are letters: models, trainers and texts for tests of the training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator

from hf_sparse.distillation.exchange import Exchange
from hf_sparse.distillation.recipe import TrainingRecipe
from hf_sparse.distillation.stream import TextShard, TextStream
from hf_sparse.distillation.student_weights import new_student
from hf_sparse.distillation.subwords import Spellings
from hf_sparse.distillation.training import StudentTrainer
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification

ROWS = 50


@dataclass
class LetterBatch:
    """Flat ids and lengths."""

    ids: np.ndarray
    lengths: np.ndarray


class LetterTokenizer:
    """Takes each letter of a text as an n-gram."""

    def extract(
        self, texts: list[str], text_pairs: list[str] | None = None, *, max_length: int | None = None
    ) -> LetterBatch:
        """Return an id for each letter."""
        sides = (
            texts if text_pairs is None else [side for pair in zip(texts, text_pairs, strict=True) for side in pair]
        )
        ids = [[ord(letter) % (ROWS - 1) + 1 for letter in text[:max_length]] for text in sides]
        return LetterBatch(
            ids=np.array(sum(ids, []), np.int32),  # noqa: RUF017
            lengths=np.array([len(part) for part in ids], np.int64),
        )


def make_model(*, columns: tuple[int, int] | None = None, **changes: object) -> SparseNgramForSequenceClassification:
    """Return a student, always the same, or some columns of it."""
    config = {"vocab_size": ROWS, "embedding_size": 6, "hidden_sizes": [5], "hidden_dropout": 0.0, "num_labels": 3}
    # With five hidden units a seed may leave too many of them dead.
    model = new_student(SparseNgramConfig(**(config | changes)), seed=1, columns=columns)
    if model.model.alignment is not None:
        model.model.alignment.is_word[2::2] = 1
    return model


def make_trainer(
    folder: Path,
    model: SparseNgramForSequenceClassification,
    *,
    steps_before: int = 0,
    exchange: Exchange | None = None,
    subwords: bool = False,
    averages: bool = False,
    **changes: object,
) -> StudentTrainer:
    """Return a trainer of a student in a folder; `changes` go to the recipe."""
    settings = {"batch_size": 8, "ngram_dropout": 0.0, "max_grad_norm": None, "epochs": 3} | changes
    folder.mkdir(exist_ok=True)
    return StudentTrainer(
        model,
        tokenizer=LetterTokenizer(),
        recipe=TrainingRecipe(**settings),  # type: ignore[arg-type]
        problem_type="single_label_classification",
        accelerator=Accelerator(cpu=True),
        folder=folder,
        seed=0,
        steps_before=steps_before,
        exchange=exchange,
        spellings=make_spellings() if subwords else None,
        averages=averages,
    )


def make_spellings() -> Spellings:
    """Return spellings in which every other row is a word, of three of eight parts."""
    rows = torch.arange(2, ROWS, 2)
    parts = np.random.default_rng(0).permuted(np.tile(np.arange(8), (len(rows), 1)), axis=1)[:, :3]
    ends = torch.arange(0, 3 * len(rows) + 1, 3)
    return Spellings(rows=rows, ends=ends, parts=torch.from_numpy(parts.flatten()), num_parts=8)


def make_streams(folder: Path, *, batch_size: int = 8, pairs: bool = False) -> tuple[TextStream, TextStream]:
    """Return texts whose label is the letter they repeat, with logits that say so: to train on, and to validate by.

    Each text is cut into a pair of three and nine letters, if `pairs` are wanted.
    """
    random = np.random.default_rng(0)
    streams = []
    for name, rows in (("train", 60), ("validation", 24)):
        labels = random.integers(0, 3, rows)
        letters = [list(part) for part in ("abcdefgh", "ijklmnop", "qrstuvwx")]
        texts = ["".join(random.choice(letters[label], 12)) for label in labels]
        logits = pa.array((4.0 * np.eye(3)[labels]).tolist(), pa.list_(pa.float32()))
        columns = {"text": texts, "label": labels}
        if pairs:
            columns |= {"text": [text[:3] for text in texts], "text_pair": [text[3:] for text in texts]}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        pq.write_table(pa.table({"logits": logits}), folder / f"{name}-logits.parquet")
        shard = TextShard(texts=folder / f"{name}.parquet", logits=folder / f"{name}-logits.parquet")
        streams.append(TextStream([shard], batch_size=batch_size, seed=0 if name == "train" else None))
    return streams[0], streams[1]
