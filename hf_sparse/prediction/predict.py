"""The command `hf-sparse predict`: classify a file, or standard input, at the speed of the runtime."""

import logging
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

from tqdm import tqdm

from hf_sparse.prediction.answers import AnswerForm, answer
from hf_sparse.prediction.formats import STANDARD, Format, file_format
from hf_sparse.prediction.readers import Reader
from hf_sparse.prediction.rows import Rows
from hf_sparse.prediction.writers import open_writer
from hf_sparse.runtime import NgramClassifier

logger = logging.getLogger(__name__)


def predict(
    student: str,
    *,
    input: str = STANDARD,
    output: str = STANDARD,
    revision: str | None = None,
    input_format: Format | None = None,
    output_format: Format | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    top_k: int | None = None,
    probabilities: bool = False,
    calibrated: bool = False,
    keep_columns: bool = True,
    prefix: str = "",
    batch_size: int = 4096,
    num_threads: int = 1,
    quiet: bool = False,
) -> int:
    """Classify the texts of a file, or of standard input, row by row and in constant memory.

    `label` and `score` are added to the columns of each row; a student of regression gives a `score` alone. `input`
    and `output` may be given by place: `hf-sparse predict STUDENT INPUT OUTPUT`. A text
    that is null is an empty one.

    Args:
        student: Folder of a student, or its repository on the Hub.
        input: File of the texts; `-` is standard input.
        output: File for the answers, which is there when all of them are; `-` is standard output.
        revision: Branch, tag or commit of the repository.
        input_format: null looks at the name, which may end with .gz too; standard input is txt, a text a line.
        output_format: null looks at the name; standard output is jsonl. txt is the label alone.
        text_column: Column of the texts.
        text_pair_column: Column of their partners, for a student of sentence pairs.
        top_k: Give lists of so many labels and scores, the most probable first, 0 of all; null gives the label, or for
            a student of several labels a text the list of those above their threshold.
        probabilities: Also add a column `probability_<label>` for each label.
        calibrated: Divide logits by the student's temperature.
        keep_columns: Whether the columns of the input are written too.
        prefix: Put before the names of the columns that are added.
        batch_size: Rows that are read, classified and written at a time; 1 for a live source.
        num_threads: Over how many threads texts are spread.
        quiet: Show no progress.

    Returns:
        The number of rows.

    Raises:
        FileNotFoundError: A file or the student is not there.
        ValueError: Something cannot be read, or does not fit the student.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    reader = Reader(
        input,
        file_format(input, input_format, standard="txt", option="input_format"),
        text_column=text_column,
        text_pair_column=text_pair_column,
        batch_size=batch_size,
        keep_columns=keep_columns,
    )
    written = file_format(output, output_format, standard="jsonl", option="output_format")
    form = AnswerForm(top_k=top_k, probabilities=probabilities, calibrated=calibrated, prefix=prefix)
    classifier = NgramClassifier.from_pretrained(student, revision=revision, num_threads=num_threads)
    form.check(classifier, is_pairs=text_pair_column is not None)
    num_rows = 0
    with open_writer(output, written) as write, _killed_by_pipe(output), _bar(quiet=quiet) as bar:
        for rows in reader:
            answers = answer(classifier, rows.texts, rows.text_pairs, form)
            if keep_columns and written != "txt":
                _check_names(rows, answers)
            write(rows if keep_columns else None, answers)
            num_rows += len(rows.texts)
            share = reader.share
            bar.total = round(num_rows / share) if share else None
            bar.update(len(rows.texts))
    if reader.num_replaced:
        logger.warning("%d places that are not UTF-8 were read as U+FFFD", reader.num_replaced)
    return num_rows


def _bar(*, quiet: bool) -> "tqdm[Any]":
    return tqdm(unit=" texts", unit_scale=True, disable=True if quiet else None)


def _check_names(rows: Rows, answers: Collection[str]) -> None:
    for name in answers:
        if name in rows.names:
            raise ValueError(
                f"the input has a column {name!r} already; choose a --prefix for the columns that are added, or set "
                "keep_columns to false"
            )


@contextmanager
def _killed_by_pipe(output: str) -> Iterator[None]:
    """Let the process end without a word when whoever reads its standard output has seen enough, as `head` has."""
    if output != STANDARD or not hasattr(signal, "SIGPIPE") or current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)
