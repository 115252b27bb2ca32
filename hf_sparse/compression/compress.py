"""A student's folder in, a smaller student's folder out."""

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from hf_sparse.compression.fold import fold as fold_layer
from hf_sparse.compression.fold import frozen, obstacle
from hf_sparse.compression.measure import (
    EvaluationTexts,
    Step,
    format_steps,
    predict_ids,
    read_evaluation_texts,
    student_bytes,
)
from hf_sparse.compression.prune import Criterion, ngrams_for_size, prune_student
from hf_sparse.compression.quantise import quantise
from hf_sparse.compression.retrain import Whole, retrain
from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.evaluation.labelled_texts import label_names, label_space
from hf_sparse.files import parse_size, replace_folder, write_atomic, write_json
from hf_sparse.hub.card import write_card
from hf_sparse.student.modeling_sparse_ngram import SparseNgramForSequenceClassification
from hf_sparse.student.tokenization_sparse_ngram import SparseNgramTokenizer
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary

REPORT_FILE = "compression.json"
# What goes on being true of a compressed student; its card is made from these.
_COPIED = ("report.json", "recipe.yaml")

logger = logging.getLogger(__name__)

_Student = SparseNgramForSequenceClassification


def compress(
    model: str,
    output: str,
    *,
    fold: bool = True,
    table_dtype: str = "int8",
    keep_ngrams: int | None = None,
    target_size: str | None = None,
    prune_by: Criterion = "norm",
    retrain_data: str | None = None,
    retrain_epochs: int = 1,
    data: str | None = None,
    text_column: str = "text",
    label_column: str | None = "label",
    limit: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Make a student smaller and faster: prune n-grams (and retrain), fold the first dense layer, quantise.

    Args:
        model: Folder of a student with float rows.
        output: Folder to write; complete or not there at all, whatever happens.
        fold: Fold the first dense layer into the table, which changes no answer, where that is possible: not where a
            maximum is pooled, nor for pairs.
        table_dtype: How rows are stored: float32, float16, bfloat16, int8 or int4.
        keep_ngrams: Keep only this many n-grams.
        target_size: Keep as many n-grams as fit, for instance 50MB (of 10**6 bytes), weights and vocabulary together.
        prune_by: Which n-grams are the best: frequency, or norm (how much they move the student's answer).
        retrain_data: Parquet, CSV or JSON Lines of texts, without labels, on which the pruned student learns to answer
            as the whole one does; kept only where it comes closer.
        retrain_epochs: Passes over these texts.
        data: Parquet, CSV or JSON Lines to measure accuracy and agreement on after each step; do not choose by a test
            set.
        text_column: Column of the texts.
        label_column: Column of the labels, ids or names; null when there are none.
        limit: How many rows of the data to read.
        overwrite: Replace an output that exists.

    Returns:
        The report, which is also in `compression.json`: the settings, and size and scores after each step.

    Raises:
        FileNotFoundError: The model's folder is not there.
        FileExistsError: The output exists.
        ValueError: A step does not fit the student; the message names it and the way out.
    """
    source, target = Path(model), Path(output)
    _check_folders(source, target, overwrite=overwrite)
    if keep_ngrams is not None and target_size is not None:
        raise ValueError("give keep_ngrams or target_size, not both: each says how many n-grams are kept")
    is_pruned = keep_ngrams is not None or target_size is not None
    if retrain_data is not None and not is_pruned:
        raise ValueError(
            "only a pruned student is retrained: give keep_ngrams or target_size, or leave out retrain_data"
        )
    student = frozen(_Student.from_pretrained(source))
    tokenizer = SparseNgramTokenizer.from_pretrained(source)
    expected = student.config.vocabulary_sha256
    if expected is not None and expected != tokenizer.vocabulary.sha256:
        raise ValueError(f"{source} has the vocabulary of another student: its sha256 is not the config's {expected}")
    texts, config = None, student.config
    if fold and (found := obstacle(config)) is not None:
        logger.warning("no layer of %s folds into its table: %s", source, found)
        fold = False
    if data is not None:
        _check_measurable(config)
        space = label_space(source, label_names(config), problem_type="single_label_classification")
        texts = read_evaluation_texts(data, space, text_column=text_column, label_column=label_column, limit=limit)
    steps = _Steps(student, tokenizer, texts)
    if is_pruned:
        whole = Whole(steps.student, steps.tokenizer)
        steps.take(
            "prune", *_prune(steps, keep_ngrams, target_size, by=prune_by, table_dtype=table_dtype, folded=fold)
        )
        if retrain_data is not None:
            texts_to_learn = TextSet(path=retrain_data, text_column=text_column)
            steps.take(*_retrain(steps, whole, texts_to_learn, epochs=retrain_epochs, folder=_partial(target)))
    steps.leave_out_counts()
    if fold:
        steps.take("fold", fold_layer(steps.student), steps.tokenizer)
    if table_dtype != steps.student.config.table_dtype:
        steps.take(table_dtype, quantise(steps.student, table_dtype), steps.tokenizer)
    settings = {"fold": fold, "table_dtype": table_dtype, "keep_ngrams": keep_ngrams, "target_size": target_size}
    report = {
        "settings": settings | {"prune_by": prune_by, "retrain_data": retrain_data, "retrain_epochs": retrain_epochs},
        "num_texts": 0 if texts is None else len(texts.texts),
        "steps": [step.as_dict() for step in steps.done],
    }
    _write(steps, source, target, report)
    return report


def format_report(report: dict[str, Any]) -> str:
    """Return the report as a table for people."""
    return format_steps([Step(**step) for step in report["steps"]])


@dataclass
class _Steps:
    """The student as it is now, and what each step so far has cost."""

    student: _Student
    tokenizer: SparseNgramTokenizer
    texts: EvaluationTexts | None

    def __post_init__(self) -> None:
        self.done: list[Step] = []
        self._reference: Any = None
        self.take("student", self.student, self.tokenizer)

    def take(self, name: str, student: _Student, tokenizer: SparseNgramTokenizer) -> None:
        """Go on with a student, measuring it."""
        self.student, self.tokenizer = student, tokenizer
        accuracy = agreement = None
        if self.texts is not None:
            found = predict_ids(student, tokenizer, self.texts.texts)
            self._reference = found if self._reference is None else self._reference
            agreement = float((found == self._reference).mean())
            accuracy = None if self.texts.labels is None else float((found == self.texts.labels).mean())
        config = student.config
        self.done.append(
            Step(
                name=name,
                num_ngrams=tokenizer.vocabulary.num_ngrams,
                num_columns=config.embedding_size,
                table_dtype=config.table_dtype,
                num_bytes=student_bytes(student, tokenizer.vocabulary),
                accuracy=accuracy,
                agreement=agreement,
            )
        )

    def leave_out_counts(self) -> None:
        """Drop what the vocabulary knows of its corpus: serving has no use for it."""
        vocabulary = replace(self.tokenizer.vocabulary, counts=None)
        self.tokenizer = SparseNgramTokenizer(vocabulary=vocabulary)
        self.student.config.vocabulary_sha256 = vocabulary.sha256


def _prune(
    steps: _Steps, keep: int | None, target_size: str | None, *, by: Criterion, table_dtype: str, folded: bool
) -> tuple[_Student, SparseNgramTokenizer]:
    vocabulary: NgramVocabulary = steps.tokenizer.vocabulary
    if target_size is not None:
        keep = ngrams_for_size(
            steps.student,
            vocabulary,
            target_bytes=parse_size(target_size),
            table_dtype=table_dtype,
            folded=folded,
            by=by,
        )
    assert keep is not None, "one of the two is given"
    student, pruned = prune_student(steps.student, vocabulary, keep=keep, by=by)
    return student, SparseNgramTokenizer(vocabulary=pruned)


def _retrain(
    steps: _Steps, whole: Whole, texts: TextSet, *, epochs: int, folder: Path
) -> tuple[str, _Student, SparseNgramTokenizer]:
    try:
        student = retrain(
            steps.student, steps.tokenizer, teacher=whole, texts=texts, epochs=epochs, folder=folder / "retrain"
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "retrain", student, steps.tokenizer


def _check_folders(source: Path, target: Path, *, overwrite: bool) -> None:
    if not (source / "config.json").is_file():
        raise FileNotFoundError(f"{source} is not the folder of a student: it has no config.json")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists already: remove it, name another output, or say overwrite")
    if target.resolve() == source.resolve():
        raise ValueError(f"the output {target} is the student itself: name another folder")


def _check_measurable(config: PreTrainedConfig) -> None:
    kind = config.problem_type or "single_label_classification"
    if config.sentence_pairs or kind != "single_label_classification":
        raise ValueError(
            f"data measures students of single texts with one label each, but this is one of "
            f"{'pairs of texts' if config.sentence_pairs else kind}; leave data out, and score the output with "
            "`hf-sparse evaluate`"
        )


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _write(steps: _Steps, source: Path, target: Path, report: dict[str, Any]) -> None:
    """Write the folder next to its place, then rename it: a kill leaves the old one, or the new one whole."""
    partial = _partial(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    steps.student.save_pretrained(partial)
    steps.tokenizer.save_pretrained(partial)
    write_json(partial / REPORT_FILE, report)
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, partial / name)
    if (partial / "report.json").is_file():
        write_card(partial)
    elif (source / "README.md").is_file():
        card = (source / "README.md").read_text(encoding="utf-8")
        write_atomic(partial / "README.md", f"{card.rstrip()}\n\n{_card_section(report)}")
    replace_folder(partial, target)


def _card_section(report: dict[str, Any]) -> str:
    """Return what a card that was not made from a report says of the compression."""
    return (
        "## Compression\n\nThis is a compressed form of the student that the rest of this page describes. Size is "
        f"that of weights and vocabulary; scores are on {report['num_texts']} texts, agreement is with the student "
        f"before compression.\n\n```\n{format_report(report)}\n```\n"
    )
