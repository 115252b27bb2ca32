"""The whole student as a scikit-learn estimator: texts and labels in, a fitted classifier out."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from hf_sparse.files import write_json
from hf_sparse.runtime import NgramClassifier
from hf_sparse.runtime.pooling import MODES

Logits = npt.NDArray[np.float32]
_FILES: Final = ("config.json", "*.safetensors", "*.index.json", "tokenizer_config.json", "*_sparse_ngram.py")
_SMALLEST_PROBABILITY: Final = 1e-7
# Fewer texts choose badly among checkpoints, more are missed in training.
_FEWEST_VALIDATION_TEXTS: Final = 200
_MOST_VALIDATION_TEXTS: Final = 5000


class SparseNgramClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify texts by their n-grams with a deep averaging network (Ye et al. 2022), with or without a teacher.

    A tenth of the texts, at least 200 and at most 5,000, is held out, of fewer than 1,000 a fifth; by them checkpoints
    are chosen and the temperature is fitted.

    Args:
        num_ngrams: Most n-grams of the vocabulary.
        max_n: Longest n-gram.
        min_documents: Keep only n-grams that occur in at least so many texts.
        embedding_size: Width of a row.
        hidden_sizes: Widths of the hidden layers; None means one as wide as a row, () none.
        pooling: How the rows of a text become one vector: mean, sum or max; auto is max for short texts, else mean.
        epochs: Passes over all texts to learn from the teacher; without one, passes over the labelled texts. None: 4,
            and more where texts are few, so that there are 200 steps.
        fine_tune_epochs: Passes over the labelled texts after that; kept only if validation says so. None: 3, and more
            where texts are few, so that there are 100 steps.
        lr: Peak learning rate of the rows.
        head_lr: Peak learning rate of everything else.
        batch_size: Texts a step.
        ngram_dropout: Probability with which an n-gram is left out in training; None is 0.1, but 0 where a maximum is
            distilled.
        temperature: Of teacher and student in the distillation loss.
        num_threads: Over how many threads `predict` spreads texts.
        random_state: Seed of every random choice; the same one gives the same student.
        verbose: Show progress on stderr.

    Attributes:
        classes_: The labels (C,).
        student_: The `NgramClassifier`; its labels are `str` of those.
    """

    def __init__(
        self,
        *,
        num_ngrams: int = 1_000_000,
        max_n: int = 4,
        min_documents: int = 2,
        embedding_size: int = 64,
        hidden_sizes: Sequence[int] | None = None,
        pooling: str = "auto",
        epochs: int | None = None,
        fine_tune_epochs: int | None = None,
        lr: float = 0.05,
        head_lr: float = 1e-3,
        batch_size: int = 256,
        ngram_dropout: float | None = None,
        temperature: float = 1.0,
        num_threads: int = 1,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.num_ngrams = num_ngrams
        self.max_n = max_n
        self.min_documents = min_documents
        self.embedding_size = embedding_size
        self.hidden_sizes = hidden_sizes
        self.pooling = pooling
        self.epochs = epochs
        self.fine_tune_epochs = fine_tune_epochs
        self.lr = lr
        self.head_lr = head_lr
        self.batch_size = batch_size
        self.ngram_dropout = ngram_dropout
        self.temperature = temperature
        self.num_threads = num_threads
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Iterable[str],  # noqa: N803 (scikit-learn's name)
        y: Any,
        *,
        teacher: str | os.PathLike[str] | Callable[[list[str]], Any] | Any | None = None,
        unlabelled: Iterable[str] | None = None,
    ) -> "SparseNgramClassifier":
        """Learn from labelled texts, and from a teacher if one is given.

        Args:
            X: B texts.
            y: Their labels (B,): strings, integers or booleans of at least two kinds.
            teacher: A sequence classifier (folder or Hub id; its labels must be those of `y`), a fitted estimator with
                `predict_proba` or `decision_function` on texts, or a function from texts to logits (B, C) in the
                order of `classes_`.
            unlabelled: More texts, which the teacher labels.

        Raises:
            TypeError: Texts are no strings.
            ValueError: There are too few texts or labels, or the teacher does not fit.
        """
        texts = _texts(X)
        labels = _labels(y)
        if self.pooling not in ("auto", *MODES):
            raise ValueError(
                f"pooling is {self.pooling!r}, but must be one of {', '.join(map(repr, ('auto', *MODES)))}"
            )
        if labels.shape != (len(texts),):
            raise ValueError(f"y has shape {labels.shape}, but there are {len(texts)} texts: one label each")
        if unlabelled is not None and teacher is None:
            raise ValueError("unlabelled texts are labelled by a teacher: give one, or leave them out")
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_.tolist()}: a classifier needs two")
        if len(texts) < 5:
            raise ValueError(f"there are {len(texts)} texts, but at least 5 are needed: some are held out")
        corpus = [] if unlabelled is None else _texts(unlabelled)
        run = Path(tempfile.mkdtemp(prefix="hf-sparse-fit-"))
        try:
            with contextlib.nullcontext() if self.verbose else _quiet():
                student = self._distil(run, texts, labels, corpus, teacher)
            self._keep({path.name: path for pattern in _FILES for path in student.glob(pattern)})
        finally:
            shutil.rmtree(run, ignore_errors=True)
        return self

    def predict(self, X: Iterable[str]) -> npt.NDArray[Any]:  # noqa: N803
        """Return the labels (B,) of texts."""
        best = self._logits(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: Iterable[str]) -> npt.NDArray[np.float32]:  # noqa: N803
        """Return probabilities (B, C) in the order of `classes_`."""
        logits = self._logits(X)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: npt.NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return found

    def decision_function(self, X: Iterable[str]) -> Logits:  # noqa: N803
        """Return logits (B, C); for two classes how much larger that of the second is, (B,)."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the student as a Hugging Face model, to load or to push; its labels are `str` of the classes."""
        check_is_fitted(self)
        Path(folder).mkdir(parents=True, exist_ok=True)
        for path in Path(self._folder.name).iterdir():
            shutil.copyfile(path, Path(folder) / path.name)

    def __getstate__(self) -> dict[str, Any]:
        """Return everything, the files of the student among it, so that a pickle needs no others."""
        state: dict[str, Any] = dict(super().__getstate__())
        folder = state.pop("_folder", None)
        state.pop("student_", None)
        if folder is not None:
            state["_files"] = {path.name: path.read_bytes() for path in Path(folder.name).iterdir()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Write the files of the student to a folder of its own, and load it."""
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            self._keep(files)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "student_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags

    def _keep(self, files: dict[str, Any]) -> None:
        """Take files, paths or contents, as the student; the folder goes when this object does."""
        self._folder = tempfile.TemporaryDirectory(prefix="hf-sparse-student-")
        for name, content in files.items():
            target = Path(self._folder.name) / name
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.move(content, target)
        self._load()

    def _load(self) -> None:
        self.student_ = NgramClassifier.from_pretrained(self._folder.name, num_threads=self.num_threads)

    def _logits(self, X: Iterable[str]) -> Logits:  # noqa: N803
        check_is_fitted(self)
        if self.student_.num_threads != self.num_threads:  # set since
            self._load()
        columns = [self.student_.labels.index(str(label)) for label in self.classes_.tolist()]
        logits: Logits = self.student_.predict_logits(_texts(X))[:, columns]
        return logits

    def _distil(self, run: Path, texts: list[str], labels: npt.NDArray[Any], corpus: list[str], teacher: Any) -> Path:
        """Run a recipe in a folder; return the student's."""
        from accelerate import Accelerator

        from hf_sparse.distillation.run import DistillationRun

        distillation = DistillationRun(self._recipe(run, texts, labels, corpus, teacher), accelerator=Accelerator())
        for stage in ("texts", "vocabulary", "teacher", "label", "distil", "fine_tune", "evaluate", "save"):
            getattr(distillation, stage)()
        return run / "run" / "student"

    def _recipe(self, run: Path, texts: list[str], labels: npt.NDArray[Any], corpus: list[str], teacher: Any) -> Any:
        from hf_sparse.distillation import recipe as parts
        from hf_sparse.distillation.recipe_data import DataRecipe, TextSet

        model, ask = _teacher_of(teacher, self.classes_, run)
        gold = [str(label) for label in labels.tolist()]
        train = TextSet(path=str(run / "train.parquet"), label_column="label")
        more = [TextSet(path=str(run / "corpus.parquet"))] if corpus else []
        answers = _as_logits(labels, self.classes_) if ask is None and teacher is None else ask and ask(texts)
        _write(train, {"text": texts, "label": gold}, answers)
        if corpus:
            _write(more[0], {"text": corpus}, ask and ask(corpus))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rates = {
            "lr": self.lr,
            "head_lr": self.head_lr,
            "batch_size": self.batch_size,
            "ngram_dropout": self.ngram_dropout,
        }
        alone = teacher is None
        all_steps, gold_steps = (-(-count // self.batch_size) for count in (len(texts) + len(corpus), len(texts)))
        epochs = max(4, -(-200 // all_steps)) if self.epochs is None else self.epochs
        more_epochs = max(3, -(-100 // gold_steps)) if self.fine_tune_epochs is None else self.fine_tune_epochs
        return parts.Recipe(
            output_dir=str(run / "run"),
            data=DataRecipe(train=train, corpus=more, validation_size=_num_held_out(len(texts))),
            teacher=parts.TeacherRecipe(model=model),
            vocabulary=parts.VocabularyRecipe(
                num_ngrams=self.num_ngrams, max_n=self.max_n, min_documents=self.min_documents
            ),
            student=parts.StudentRecipe(
                embedding_size=self.embedding_size,
                hidden_sizes=None if self.hidden_sizes is None else list(self.hidden_sizes),
                pooling=self.pooling,  # type: ignore[arg-type]
            ),
            distil=parts.DistilRecipe(epochs=0 if alone else epochs, temperature=self.temperature, **rates),  # type: ignore[arg-type]
            fine_tune=parts.FineTuneRecipe(epochs=epochs if alone else more_epochs, **rates),  # type: ignore[arg-type]
            evaluate=parts.EvaluateRecipe(speed_seconds=0),
            seed=seed,
        )


def _num_held_out(num_texts: int) -> int:
    tenth = min(num_texts // 10, _MOST_VALIDATION_TEXTS)
    return min(num_texts // 5, max(tenth, _FEWEST_VALIDATION_TEXTS))


def _labels(y: Any) -> npt.NDArray[Any]:
    """Return labels as an array; a missing one equals nothing, not even itself."""
    try:
        labels = np.asarray(y)
    except ValueError as error:
        raise ValueError(f"y must have one label a text, in an array or a list: {error}") from error
    missing = [index for index, label in enumerate(labels.tolist()) if label is None or label != label]
    if missing:
        raise ValueError(f"y has no label for {len(missing)} of {len(labels)} texts, the first of them {missing[0]}")
    check_classification_targets(labels)
    return labels


def _texts(found: Iterable[str]) -> list[str]:
    if isinstance(found, str):
        raise TypeError("texts are given as a list, got one string; put it in a list")
    if isinstance(found, Mapping) or getattr(found, "ndim", 1) != 1:
        raise TypeError(f"texts are one column of a table, such as table['text'], got {type(found).__name__}")
    texts = found.to_pylist() if hasattr(found, "to_pylist") else list(found)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {index} is {type(text).__name__} and no string; convert the texts first")
    return [str(text) for text in texts]


def _teacher_of(
    teacher: Any, classes: npt.NDArray[Any], run: Path
) -> tuple[str, Callable[[list[str]], Logits] | None]:
    """Return the name of a teacher for a recipe, and the function from texts to its logits where that knows it."""
    if isinstance(teacher, str | os.PathLike):
        _check_names(str(teacher), classes)
        return str(teacher), None
    # The recipe wants a model that names the labels; what answers stands beside the texts.
    names = {str(index): str(label) for index, label in enumerate(classes.tolist())}
    (run / "teacher").mkdir()
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": names}
    config |= {"label2id": {name: int(index) for index, name in names.items()}}
    config |= {"problem_type": "single_label_classification"}
    write_json(run / "teacher" / "config.json", config)
    if teacher is None:
        return str(run / "teacher"), None
    if not callable(teacher) and not hasattr(teacher, "classes_"):
        kind = type(teacher).__name__
        raise ValueError(f"teacher is {kind}: give the name of a model, a fitted classifier or a function")
    return str(run / "teacher"), lambda texts: _ask(teacher, texts, classes)


def _check_names(model: str, classes: npt.NDArray[Any]) -> None:
    from hf_sparse.distillation.recipe import TeacherRecipe
    from hf_sparse.distillation.teacher import read_teacher_card

    names = read_teacher_card(TeacherRecipe(model=model)).names
    if names is None:  # a head is trained
        return
    unknown = [str(label) for label in classes.tolist() if str(label) not in names]
    if unknown:
        raise ValueError(
            f"y has the label {unknown[0]!r}, but the teacher {model!r} {', '.join(map(repr, names))}; name labels as "
            "the teacher does"
        )


def _ask(teacher: Any, texts: list[str], classes: npt.NDArray[Any]) -> Logits:
    """Return the logits (B, C) of a teacher in the order of classes."""
    if not hasattr(teacher, "classes_"):
        logits = np.asarray(teacher(texts), np.float32)
    else:
        if set(teacher.classes_.tolist()) != set(classes.tolist()):
            raise ValueError(f"the teacher has the classes {teacher.classes_.tolist()}, but y has {classes.tolist()}")
        if hasattr(teacher, "predict_proba"):
            logits = np.log(np.clip(teacher.predict_proba(texts), _SMALLEST_PROBABILITY, None))
        else:
            found = np.asarray(teacher.decision_function(texts))
            logits = np.stack([np.zeros_like(found), found], axis=1) if found.ndim == 1 else found
        logits = logits[:, [teacher.classes_.tolist().index(label) for label in classes.tolist()]]
    if logits.shape != (len(texts), len(classes)):
        raise ValueError(f"the teacher's logits have shape {logits.shape}, but must be {(len(texts), len(classes))}")
    return logits.astype(np.float32)


def _as_logits(labels: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Logits:
    """Return logits (B, C) that are sure of the labels: without a teacher, rows begin by these."""
    found: Logits = np.where(labels[:, None] == classes, -np.log(np.float32(_SMALLEST_PROBABILITY)), np.float32(0))
    return found


def _write(source: Any, columns: dict[str, Any], logits: Logits | None) -> None:
    """Write a text set of a recipe, and beside it the logits of a teacher that was asked here."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_sparse.distillation.logits import logits_column

    pq.write_table(pa.table(columns), source.path)
    if logits is not None:
        source.logits_path = source.path.replace(".parquet", "-logits.parquet")
        pq.write_table(pa.table({"logits": logits_column(logits, None)}), source.logits_path)


@contextlib.contextmanager
def _quiet() -> Any:
    from transformers.utils import logging

    shows = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        if shows:
            logging.enable_progress_bar()
