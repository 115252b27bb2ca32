"""From a recipe's shape, its texts and the hardware to rows, bytes, steps and seconds."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from hf_sparse.distillation.exchange import column_ranges, table_mode
from hf_sparse.distillation.recipe import Recipe, TrainingRecipe
from hf_sparse.distillation.recipe_checks import has_training
from hf_sparse.planning.corpus import CorpusSize, distinct_rows, ngrams_per_word
from hf_sparse.planning.hardware import Hardware
from hf_sparse.student.pairs_sparse_ngram import NUM_FEATURES

_FLOAT: Final = 4
# Python, torch, transformers and a window of texts.
_PROCESS_BYTES: Final = 1_200_000_000
# Measured: bytes of a file for each n-gram, of the tables that look n-grams up, and of the files of a counting in
# bounded memory for each character of the corpus; a compressed shard of texts, and of half-precision logits.
_VOCABULARY_BYTES: Final = 21
_LOOKUP_BYTES: Final = 40
_COUNTING_BYTES: Final = 3.3
_TEXT_BYTES: Final = 0.45
# Character n-grams of words that share their spellings: how many there are, and how many words, for each row of the
# table, how many a batch touches for each row that it touches, and how often each is moved; measured on reviews.
_PARTS: Final = 0.065
_WORDS: Final = 0.046
_PARTS_TOUCHED: Final = 2.0
_PARTS_MOVED: Final = 4
# How much longer a step of pairs takes whose words are aligned: 34 steps a second without and 17 with it, on SICK.
_ALIGNED_STEP: Final = 2.0
# How much longer a teacher is trained on a text than it takes to label it: 2 to 5 times on TREC, SST-2, SICK and MRPC.
_TEACHER_STEP: Final = 4.0
# Characters of a token of a transformer's vocabulary, in English.
_TOKEN_CHARACTERS: Final = 4.4


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step touches.

    Attributes:
        ngrams: N-grams of the batch, over all processes.
        rows: Different rows among them.
    """

    ngrams: float
    rows: float


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A student and how processes hold it.

    Attributes:
        num_ngrams: K.
        width: Columns D of the table.
        columns: Columns that a process has.
        head: Parameters outside the table.
        processes: W.
        is_split: Whether columns are shared out.
        subwords: Whether words share what their spellings share while the student is trained.
        is_aligned: Whether words of pairs are aligned.
    """

    num_ngrams: int
    width: int
    columns: int
    head: int
    processes: int
    is_split: bool
    subwords: bool
    is_aligned: bool

    @classmethod
    def of(cls, recipe: Recipe, *, num_labels: int, processes: int) -> "Shape":
        """Take the shape from a recipe.

        Raises:
            ValueError: The processes cannot hold this table.
        """
        student = recipe.student
        by_column = student.pooling != "attentive"
        mode = table_mode(student.embedding_size, processes, by_column=by_column, wanted=recipe.table)
        is_split = mode == "split" and processes > 1
        widest = max(stop - start for start, stop in column_ranges(student.embedding_size, processes))
        hidden = [student.embedding_size] if student.hidden_sizes is None else student.hidden_sizes
        is_of_pairs = _are_pairs(recipe)
        features = NUM_FEATURES[student.pair_bags] if is_of_pairs else 1
        widths = [features * student.embedding_size, *hidden, num_labels]
        aligned = student.columns_to_align if is_of_pairs else 0
        return cls(
            num_ngrams=recipe.vocabulary.num_ngrams,
            width=student.embedding_size,
            columns=widest if is_split else student.embedding_size,
            head=sum((wide + 1) * narrow for wide, narrow in pairwise(widths)) + (4 * aligned + 1) * aligned,
            processes=processes,
            is_split=is_split,
            subwords=student.subwords,
            is_aligned=aligned > 0,
        )

    @property
    def rows(self) -> int:
        """Rows of the table; one is that of no n-gram."""
        return self.num_ngrams + 1

    @property
    def parameters(self) -> int:
        """Parameters of the student."""
        return self.rows * self.width + self.head

    def state_bytes(self, optimizer: str, columns: int) -> int:
        """Return the bytes of the row optimiser's state for some columns of all rows."""
        return _FLOAT * self.rows * (1 if optimizer == "rowwise_adagrad" else 2 * columns + 1)

    def subword_bytes(self, optimizer: str, columns: int) -> int:
        """Return the bytes of what words share while the student is trained: values, and the optimiser's state."""
        if not self.subwords:
            return 0
        return round(_PARTS * (_FLOAT * self.rows * columns + self.state_bytes(optimizer, columns)))


def batch_of(recipe: Recipe, training: TrainingRecipe, corpus: CorpusSize) -> Batch:
    """Return what a batch of a training touches."""
    words = corpus.words if training.max_length is None else min(corpus.words, training.max_length)
    per_text = words * ngrams_per_word(recipe.vocabulary.num_ngrams, recipe.vocabulary.max_n)
    if training.max_length is not None:
        per_text = min(per_text, training.max_length)
    pooling = recipe.student.pooling_of(per_text, are_pairs=_are_pairs(recipe))
    ngrams = training.batch_size * per_text * (1 - training.dropout_of(pooling))
    return Batch(ngrams=ngrams, rows=distinct_rows(ngrams, recipe.vocabulary.num_ngrams))


def _are_pairs(recipe: Recipe) -> bool:
    return any(source.text_pair_column is not None for source in recipe.data.text_sets().values())


def received_bytes(shape: Shape, batch: Batch, *, batch_size: int, optimizer: str) -> float:
    """Return what a process receives in a step: it depends on the batch, not on the number of rows."""
    others = (shape.processes - 1) / shape.processes
    texts = batch_size / shape.processes
    ids = others * (batch.ngrams + batch_size) * _FLOAT
    head = 2 * others * (shape.head + 1) * _FLOAT
    if not shape.is_split:
        return ids + head + others * batch_size * shape.width * _FLOAT
    squares = 2 * others * batch.rows * _FLOAT if optimizer == "rowwise_adagrad" else 0.0
    return ids + head + squares + 2 * others * texts * shape.width * _FLOAT


def step_seconds(
    shape: Shape, batch: Batch, hardware: Hardware, *, batch_size: int, characters: float, optimizer: str
) -> dict[str, float]:
    """Return the seconds of a step, by what takes them; extraction runs beside the rest."""
    pooled = batch.ngrams if shape.is_split else batch.ngrams / shape.processes
    moved = (pooled + 2 * batch.rows) * shape.columns * _FLOAT
    if optimizer == "lazy_adam":
        moved += 4 * batch.rows * shape.columns * _FLOAT
    if shape.subwords:
        moved += _PARTS_MOVED * _PARTS_TOUCHED * batch.rows * shape.columns * _FLOAT
    bandwidth = hardware.local_bandwidth
    if shape.processes > hardware.processes_per_node:
        bandwidth = hardware.network_bandwidth
    return {
        "rows": moved / hardware.row_bandwidth,
        # Words are looked for among the n-grams, and so are they for the gradient.
        "ngrams": batch.ngrams * hardware.seconds_per_ngram * (3 if shape.subwords else 1),
        "other": hardware.seconds_per_step,
        "network": received_bytes(shape, batch, batch_size=batch_size, optimizer=optimizer) / bandwidth,
        "extraction": batch_size * characters / shape.processes / hardware.extraction,
    }


def estimate_training(
    recipe: Recipe, training: TrainingRecipe, shape: Shape, corpus: CorpusSize, hardware: Hardware, *, texts: int
) -> dict[str, Any]:
    """Return steps, seconds and bytes on the network of one training."""
    batch = batch_of(recipe, training, corpus)
    steps = -(-texts // training.batch_size) * training.epochs
    parts = step_seconds(
        shape,
        batch,
        hardware,
        batch_size=training.batch_size,
        characters=corpus.characters,
        optimizer=training.optimizer,
    )
    computed = (parts["rows"] + parts["ngrams"] + parts["other"]) * (_ALIGNED_STEP if shape.is_aligned else 1)
    step = max(computed + parts["network"], parts["extraction"])
    received = received_bytes(shape, batch, batch_size=training.batch_size, optimizer=training.optimizer)
    weights, state = shape.rows * shape.columns * _FLOAT, shape.state_bytes(training.optimizer, shape.columns)
    state += shape.subword_bytes(training.optimizer, shape.columns)
    evaluations = training.epochs * training.evals_per_epoch
    scoring = evaluations * corpus.validation / training.batch_size * max(step / 2, parts["extraction"])
    checkpoints = steps * step / (60 * training.checkpoint_minutes) if training.checkpoint_minutes else steps
    # The best weights are written at each evaluation, at worst, read in the end, and saved as the student's.
    writing = ((evaluations + 2) * weights + checkpoints * (weights + state)) / hardware.disk_bandwidth
    beginning = weights / hardware.initialisation
    return {
        "steps": steps,
        "ngrams_per_step": round(batch.ngrams),
        "rows_per_step": round(batch.rows),
        "seconds_per_step": step,
        "seconds_per_step_by_part": parts,
        "network_bytes_per_step": round(received) if shape.processes > 1 else 0,
        "network_bytes": round(received * steps * shape.processes) if shape.processes > 1 else 0,
        "seconds": beginning + steps * step + scoring + writing,
    }


def estimate_stages(
    recipe: Recipe,
    shape: Shape,
    corpus: CorpusSize,
    hardware: Hardware,
    *,
    teacher_parameters: float | None,
    fine_tunes_teacher: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return what each stage of a recipe takes, in the order in which they run; evaluation and baselines are left out.

    Raises:
        ValueError: The teacher's size is needed and not known.
    """
    everything = corpus.num_texts * corpus.characters
    counted = (corpus.corpus + corpus.train * recipe.vocabulary.include_train) * corpus.characters
    stages: dict[str, dict[str, Any]] = {"texts": {"seconds": everything / hardware.reading}}
    stages["vocabulary"] = {"seconds": 0.0 if recipe.vocabulary.file else counted / hardware.counting}
    stages["label"] = {"seconds": 0.0}
    if not corpus.has_logits:
        if teacher_parameters is None:
            raise ValueError("the teacher's size is not known; give --teacher_parameters, such as 355e6")
        tokens = min(recipe.teacher.max_length, corpus.characters / _TOKEN_CHARACTERS + 2)
        seconds_per_text = 2 * teacher_parameters * tokens / hardware.teacher_flops / shape.processes
        if fine_tunes_teacher:
            # For a head alone each text is encoded once.
            passes = 1.0 if recipe.teacher.fine_tune == "head" else _TEACHER_STEP * recipe.teacher.epochs
            del stages["label"]
            stages["teacher"] = {"seconds": passes * seconds_per_text * corpus.train}
        stages["label"] = {"seconds": seconds_per_text * corpus.num_texts}
    for name, (training, texts) in _trainings(recipe, corpus).items():
        stages[name] = estimate_training(recipe, training, shape, corpus, hardware, texts=texts)
    return stages


def estimate_bytes(recipe: Recipe, shape: Shape, corpus: CorpusSize, *, num_labels: int) -> dict[str, int]:
    """Return the bytes in the memory of a process, and on disk."""
    optimizer = recipe.distil.optimizer
    batch = batch_of(recipe, recipe.distil, corpus)
    table = shape.rows * shape.columns * _FLOAT
    subwords = shape.subword_bytes(optimizer, shape.columns)
    # To be scored, all words get what they share, and what they had is kept.
    folded = round(2 * _WORDS * table) if shape.subwords else 0
    state = shape.state_bytes(optimizer, shape.columns)
    pooled = recipe.distil.batch_size * shape.columns * _FLOAT
    # Ids, their order, the gradient of the pooled vectors, and four batches that wait.
    batches = round(batch.ngrams * 4 * _FLOAT * 3 + 4 * pooled)
    lookup = shape.num_ngrams * (_LOOKUP_BYTES + _VOCABULARY_BYTES)
    student = shape.parameters * _FLOAT
    checkpoint = student + shape.state_bytes(optimizer, shape.width) + shape.subword_bytes(optimizer, shape.width)
    counted = (corpus.corpus + corpus.train) * corpus.characters
    disk = {
        "texts": round(corpus.num_texts * corpus.characters * _TEXT_BYTES),
        "counting": 0 if recipe.vocabulary.memory is None else round(counted * _COUNTING_BYTES),
        "vocabulary": shape.num_ngrams * _VOCABULARY_BYTES,
        "logits": corpus.num_texts * num_labels * _FLOAT,
        # While a checkpoint is written the one before is there; so are the best weights, old and new.
        "training": 2 * checkpoint + 2 * student,
        # Of each training, and the one that is published.
        "students": student
        * (2 + sum(has_training(recipe, each) for each in (recipe.fine_tune, recipe.from_scratch))),
    }
    return {
        "table_per_process": table,
        "optimizer_state_per_process": state,
        "subwords_per_process": subwords,
        "memory_per_process": table
        + state
        + subwords
        + folded
        + batches
        + lookup
        + shape.head * _FLOAT * 4
        + _PROCESS_BYTES,
        **{f"disk_{name}": size for name, size in disk.items()},
        # The files of the counting are gone before training begins.
        "disk": max(sum(disk.values()) - disk["counting"], disk["texts"] + disk["counting"]),
        "student_file": student,
    }


def _trainings(recipe: Recipe, corpus: CorpusSize) -> dict[str, tuple[TrainingRecipe, int]]:
    """Return the trainings of a recipe and how many texts each reads in an epoch."""
    distilled = corpus.corpus + corpus.augmented + corpus.train * recipe.distil.include_train
    found: dict[str, tuple[TrainingRecipe, int]] = {"distil": (recipe.distil, distilled)}
    if has_training(recipe, recipe.fine_tune):
        found["fine_tune"] = (recipe.fine_tune, corpus.train)
    if has_training(recipe, recipe.from_scratch):
        found["from_scratch"] = (recipe.from_scratch, corpus.train)
    return found
