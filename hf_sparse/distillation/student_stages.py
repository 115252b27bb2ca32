"""What the stages do with students and labelled texts: build, train, choose, report, save."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from hf_sparse.distillation import student_weights
from hf_sparse.distillation.batches import BatchMaker, prefetch
from hf_sparse.distillation.checkpoint import has_checkpoint
from hf_sparse.distillation.exchange import Exchange, table_mode
from hf_sparse.distillation.label_space import LabelSpace
from hf_sparse.distillation.naive_bayes import add_ratios, count_ratios
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.recipe import FineTuneRecipe, TrainingRecipe
from hf_sparse.distillation.stream import TextShard, TextStream
from hf_sparse.distillation.student_weights import default_block_rows, new_student
from hf_sparse.distillation.subwords import Spellings
from hf_sparse.distillation.teacher import TeacherEncoder
from hf_sparse.distillation.texts import has_labels, read_texts, shards
from hf_sparse.distillation.training import BEST, CHECKPOINTS, START, StudentTrainer, predict_logits
from hf_sparse.distillation.units import Unit
from hf_sparse.evaluation.metrics import PRIMARY_METRIC, score
from hf_sparse.files import write_json
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification, SparseNgramTokenizer

_EVALUATION_BATCH = 512
_COUNTING_BATCH = 8192
_LOOKED_AT = 4096
_TRAININGS = ("distil", "fine_tune", "from_scratch")
_TRAINING_FILES = (CHECKPOINTS, BEST, START, "features-*.safetensors")


def require_labels(texts_folder: Path, text_set: str) -> None:
    """Check that a text set has labels.

    Raises:
        ValueError: If it is empty or has none.
    """
    if not has_labels(texts_folder, text_set):
        raise ValueError(f"data.{text_set} has no labels; name its label_column in the recipe")


def read_labelled(
    texts_folder: Path, text_set: str, space: LabelSpace
) -> tuple[tuple[list[str], list[str] | None], Tensor]:
    """Return all texts, their partners if they are pairs, and their labels as a tensor."""
    stream = TextStream(training_shards(texts_folder, None, (text_set,)), batch_size=4096, seed=None)
    texts: list[str] = []
    pairs: list[str] = []
    labels: list[object] = []
    for batch in stream.batches(first=0, stop=stream.batches_per_epoch):
        texts += batch.texts
        pairs += batch.text_pairs or []
        labels += batch.labels or []
    kind = torch.int64 if space.problem_type == "single_label_classification" else torch.float32
    return (texts, pairs or None), torch.tensor(labels, dtype=kind)


def score_teacher(
    encoder: TeacherEncoder, texts_folder: Path, text_set: str, space: LabelSpace, *, dtype: torch.dtype
) -> dict[str, float] | None:
    """Return the metrics of a teacher on a text set, computed in `dtype`; None if that has no texts or labels."""
    files = shards(texts_folder, text_set)
    if not files or "label" not in pq.read_schema(files[0]).names:
        return None
    texts, labels = read_labelled(texts_folder, text_set, space)
    with (
        torch.autocast(encoder.device.type, dtype, dtype != torch.float32),
        tqdm(total=len(labels), desc=f"teacher, {text_set}", unit=" texts") as bar,
    ):
        logits = encoder.logits(*texts, bar=bar)
    return score(logits, labels.numpy(), problem_type=space.problem_type)


def save_teacher(encoder: TeacherEncoder, folder: Path, *, scores: dict[str, float] | None, model: str) -> None:
    """Save a fine-tuned teacher."""
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    write_json(folder / "teacher.json", {"model": model, "fine_tuned": True, "validation": scores})


def training_shards(texts_folder: Path, logits_folder: Path | None, text_sets: Sequence[str]) -> list[TextShard]:
    """Return the shards of some text sets, with the teacher's logits if a folder of them is given."""
    return [
        TextShard(texts=path, logits=None if logits_folder is None else logits_folder / path.name)
        for text_set in text_sets
        for path in shards(texts_folder, text_set)
    ]


def student_config(plan: RunPlan, tokenizer: SparseNgramTokenizer) -> SparseNgramConfig:
    """Return the shape of a student for the run's vocabulary and labels."""
    recipe, space = plan.recipe, plan.space
    pooling = recipe.student.pooling_of(_ngrams_per_text(plan, tokenizer), are_pairs=has_pairs(plan))
    return SparseNgramConfig(
        vocab_size=tokenizer.vocab_size,
        embedding_size=recipe.student.embedding_size,
        hidden_sizes=recipe.student.hidden_sizes,
        block_rows=recipe.student.block_rows or default_block_rows(recipe.student.embedding_size),
        pooling=pooling,
        activation=recipe.student.activation,
        hidden_dropout=recipe.student.hidden_dropout,
        ngram_dropout=recipe.distil.dropout_of(pooling),
        sentence_pairs=has_pairs(plan),
        pair_bags=recipe.student.pair_bags,
        alignment_size=recipe.student.columns_to_align if has_pairs(plan) else 0,
        vocabulary_sha256=tokenizer.vocabulary_sha256,
        problem_type=space.problem_type,
        num_labels=space.num_labels,
        id2label=dict(enumerate(space.names)),
        label2id={name: index for index, name in enumerate(space.names)},
    )


def _ngrams_per_text(plan: RunPlan, tokenizer: SparseNgramTokenizer) -> float:
    """Return how many n-grams of the vocabulary a validation text has, on average."""
    texts = list(islice(read_texts(plan.stage_folder("texts"), "validation"), _LOOKED_AT))
    return float(tokenizer.extract(texts).lengths.mean())


def has_pairs(plan: RunPlan) -> bool:
    """Tell whether the run's texts are pairs."""
    files = shards(plan.stage_folder("texts"), "validation")
    return "text_pair" in pq.read_schema(files[0]).names


def load_tokenizer(plan: RunPlan) -> SparseNgramTokenizer:
    """Load the tokenizer of the run's vocabulary.

    Raises:
        ValueError: If the file is damaged or not the one that the run has counted.
    """
    folder = plan.stage_folder("vocabulary")
    tokenizer = SparseNgramTokenizer(vocabulary_file=str(folder / "vocabulary.safetensors"))
    counted = folder / "vocabulary.json"
    if counted.exists():
        expected = json.loads(counted.read_text(encoding="utf-8"))["sha256"]
        _require_vocabulary(tokenizer.vocabulary_sha256, expected, folder=folder)
    return tokenizer


def load_student(
    plan: RunPlan, name: str, *, columns: tuple[int, int] | None = None
) -> SparseNgramForSequenceClassification:
    """Load the student of a stage, whole or some columns of its table.

    Raises:
        ValueError: If its vocabulary is not the run's.
    """
    model = student_weights.load_student(plan.stage_folder(name), columns=columns)
    folder = plan.stage_folder("vocabulary")
    _require_vocabulary(load_tokenizer(plan).vocabulary_sha256, model.config.vocabulary_sha256, folder=folder)
    return model


def train_student(
    plan: RunPlan,
    folder: Path,
    recipe: TrainingRecipe,
    read: list[TextShard],
    *,
    start: str | None,
    accelerator: Accelerator,
) -> None:
    """Train a student, new or that of another stage, on shards of texts; leave weights and scores in `folder`.

    Every process calls it.

    Raises:
        ValueError: If there are no texts, or several processes cannot share this student.
    """
    exchange = _exchange(plan, accelerator)
    columns = exchange.columns if exchange.is_split else None
    tokenizer = load_tokenizer(plan)
    if start is None:
        model = new_student(student_config(plan, tokenizer), seed=plan.student_seed, columns=columns)
        model.model.mark_words(torch.from_numpy(tokenizer.vocabulary.is_word))
        # A checkpoint has the rows, and counting reads the whole corpus.
        if _begins_with_naive_bayes(plan) and not has_checkpoint(folder / CHECKPOINTS):
            _add_ratios(plan, model, tokenizer, read, columns=columns)
    else:
        torch.manual_seed(plan.student_seed + 1)
        model = load_student(plan, start, columns=columns)
    recipe = replace(recipe, ngram_dropout=recipe.dropout_of(model.config.pooling))
    unit = Unit.of_targets(read) if plan.space.problem_type == "regression" else None
    if unit is not None and start is not None:
        assert model.classifier is not None  # no folded student is trained
        unit.enter(model.classifier)
    if exchange.num_processes > 1:  # each drops other hidden units
        torch.manual_seed(plan.student_seed + 1_000_003 * (exchange.rank + 1))
    stream = TextStream(read, batch_size=recipe.batch_size, seed=plan.student_seed)
    if not stream.num_texts:
        raise ValueError(
            f"{folder.name.removesuffix('.partial')} has no texts to train on; add data.corpus, or data.train with "
            "distil.include_train"
        )
    logits = plan.targets_stage.folder if read[0].logits is not None else None
    held_out = training_shards(plan.stage_folder("texts"), logits, ("validation",))
    trainer = StudentTrainer(
        model,
        tokenizer=tokenizer,
        recipe=recipe,
        problem_type=plan.space.problem_type,
        accelerator=accelerator,
        folder=folder,
        seed=plan.student_seed,
        steps_before=_steps_before(plan, folder.name.removesuffix(".partial")),
        exchange=exchange,
        spellings=Spellings.of(tokenizer.vocabulary) if plan.recipe.student.subwords else None,
        unit=unit,
        averages=isinstance(recipe, FineTuneRecipe) and recipe.average and plan.recipe.distil.epochs > 0,
    )
    best = trainer.fit(stream, TextStream(held_out, batch_size=_EVALUATION_BATCH, seed=None))
    trainer.save()
    if accelerator.is_main_process:
        metric = PRIMARY_METRIC[plan.space.problem_type]
        scores = {"loss": best.loss, metric: best.primary}
        write_json(folder / "validation.json", scores | ({"share": best.share} if trainer.averages else {}))


def _begins_with_naive_bayes(plan: RunPlan) -> bool:
    wanted = plan.recipe.student.initial_rows
    return wanted == "naive_bayes" or (
        wanted == "auto" and plan.space.problem_type != "regression" and not has_pairs(plan)
    )


def _add_ratios(
    plan: RunPlan,
    model: SparseNgramForSequenceClassification,
    tokenizer: SparseNgramTokenizer,
    read: list[TextShard],
    *,
    columns: tuple[int, int] | None,
) -> None:
    """Give the rows of a new student directions, by naive Bayes over the texts that it is to be trained on."""
    space, student = plan.space, plan.recipe.student
    maker = BatchMaker(tokenizer=tokenizer, problem_type=space.problem_type, num_labels=space.num_labels)
    stream = TextStream(read, batch_size=_COUNTING_BATCH, seed=None)
    batches = prefetch((maker(batch) for batch in stream.batches(first=0, stop=stream.batches_per_epoch)), depth=1)
    ratios = count_ratios(
        batches, num_rows=tokenizer.vocab_size, num_labels=space.num_labels, problem_type=space.problem_type
    )
    add_ratios(
        model.model.table.blocks,
        ratios,
        scale=student.naive_bayes_scale,
        seed=plan.student_seed,
        width=student.embedding_size,
        columns=columns or (0, student.embedding_size),
    )


def _exchange(plan: RunPlan, accelerator: Accelerator) -> Exchange:
    student, num_processes = plan.recipe.student, accelerator.num_processes
    by_column = student.pooling != "attentive"
    mode = table_mode(student.embedding_size, num_processes, by_column=by_column, wanted=plan.recipe.table)
    rank = accelerator.process_index
    return Exchange(student.embedding_size, mode=mode, rank=rank, num_processes=num_processes)


def choose_student(plan: RunPlan) -> str:
    """Return the stage whose student is kept: the fine-tuned one if it is better on validation data."""
    found = {}
    for name in ("distil", "fine_tune"):
        path = plan.stage_folder(name) / "validation.json"
        if path.exists() and plan.is_current(name):
            found[name] = json.loads(path.read_text(encoding="utf-8"))[PRIMARY_METRIC[plan.space.problem_type]]
    if found.get("fine_tune") is not None and found.get("distil") is not None and found["fine_tune"] > found["distil"]:
        return "fine_tune"
    return "distil"


def student_logits(plan: RunPlan, name: str, text_set: str) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Return the logits (B, C) of a stage's student for a text set."""
    model = load_student(plan, name)
    maker = BatchMaker.of(model, tokenizer=load_tokenizer(plan), problem_type=plan.space.problem_type)
    read = training_shards(plan.stage_folder("texts"), None, (text_set,))
    stream = TextStream(read, batch_size=_EVALUATION_BATCH, seed=None)
    batches: Iterator[Any] = prefetch(maker(batch) for batch in stream.batches(first=0, stop=stream.batches_per_epoch))
    return predict_logits(model, batches, device=plan.device)


def _steps_before(plan: RunPlan, name: str) -> int:
    """Return how many batches the finished trainings before a stage had."""
    steps = 0
    for earlier in _TRAININGS[: _TRAININGS.index(name)]:
        metrics = plan.stage_folder(earlier) / "metrics.jsonl"
        if plan.is_current(earlier) and metrics.exists():
            steps += json.loads(metrics.read_text(encoding="utf-8").splitlines()[-1])["step"]
    return steps


def _require_vocabulary(found: str | None, expected: str | None, *, folder: Path) -> None:
    if found != expected:
        raise ValueError(
            f"{str(folder)!r} holds another vocabulary (SHA-256 {found}) than this run was made with ({expected}); "
            "remove that folder and run the same command again, which counts it anew"
        )


def remove_training_files(folder: Path) -> None:
    """Remove what only the training of a stage needed, once the stage is published and not to be gone on with."""
    for pattern in _TRAINING_FILES:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
