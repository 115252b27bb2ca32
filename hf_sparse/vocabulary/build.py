"""`hf-sparse vocabulary`: from texts anywhere to the file of a vocabulary."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.resources import peak_memory
from hf_sparse.distillation.sources import num_rows, read_rows
from hf_sparse.files import LOCK_FILE, disk_full_named, only_process, remove_folder, replace_folder, write_json
from hf_sparse.runtime.student_files import NgramVocabulary
from hf_sparse.vocabulary.counting import count_ngrams

REPORT_FILE = "vocabulary.json"
# Where an interrupted counting is found again, in the folder that it works in.
COUNTING_FOLDER = "counting"


def build_vocabulary(
    texts: str,
    output: str,
    *,
    num_ngrams: int = 1_000_000,
    max_n: int = 4,
    min_documents: int = 2,
    word_rule: str = "words",
    clean: Literal["html", "none"] | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
    memory: str | None = "2GB",
    threads: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Count the 1-4-grams of a corpus of any size, exactly, and write the most frequent as a vocabulary.

    An interrupted command goes on where it was when it is given again.

    Args:
        texts: File, folder or glob pattern of Parquet, CSV, TSV, JSON Lines or plain text (a line is a text), or the
            id of a data set on the Hub.
        output: Folder to write; complete or not there at all. Beside it `<output>.partial` holds the work.
        num_ngrams: How many n-grams are kept.
        max_n: Longest n-gram.
        min_documents: Keep only n-grams that occur in at least so many texts. Above 1 it keeps the wording of single
            texts out of the vocabulary.
        word_rule: words, sklearn or hf:<repo or folder>.
        clean: html, none, or null for the word rule's own default.
        text_column: Column of the texts.
        text_pair_column: Column of the second texts of pairs.
        name: Configuration of a Hub data set.
        split: Split of a Hub data set.
        revision: Revision of a Hub data set.
        streaming: Read a Hub data set while it is being downloaded, and keep no copy.
        limit: How many rows to read.
        memory: How much memory to use, such as 2GB; the rest goes to files beside the output. null keeps all of it in
            memory.
        threads: How many to use; null is one for each processor.
        overwrite: Replace an output that exists.

    Returns:
        The report, which is also in `vocabulary.json`.

    Raises:
        FileExistsError: The output exists.
        ValueError: The texts cannot be read, a number makes no sense, or another process writes the same output; the
            message names it.
    """
    started = time.monotonic()
    target = Path(output)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{output} exists already; name another output, or give --overwrite true")
    source = TextSet(
        path=texts,
        text_column=text_column,
        text_pair_column=text_pair_column,
        name=name,
        split=split,
        revision=revision,
        streaming=streaming,
        limit=limit,
    )
    rows = num_rows(source)
    partial = target.with_name(f"{target.name}.partial")
    with disk_full_named(partial), only_process(partial):
        vocabulary = count_ngrams(
            _texts(source),
            num_ngrams=num_ngrams,
            max_n=max_n,
            min_documents=min_documents,
            word_rule=word_rule,
            clean=clean,
            memory=memory,
            folder=None if memory is None else partial / COUNTING_FOLDER,
            threads=threads,
            total=None if rows is None else rows * (1 if text_pair_column is None else 2),
        )
        file = vocabulary.save(partial)
        report = describe(vocabulary) | {
            "file_bytes": file.stat().st_size,
            "seconds": round(time.monotonic() - started, 1),
            **peak_memory(),
        }
        write_json(partial / REPORT_FILE, report)
        remove_folder(partial / COUNTING_FOLDER)
        replace_folder(partial, target)
    (target / LOCK_FILE).unlink()
    return report


def describe(vocabulary: NgramVocabulary) -> dict[str, Any]:
    """Return what there is to know of a vocabulary."""
    lengths = np.ones(vocabulary.num_ngrams, dtype=np.int64)
    for _ in range(vocabulary.max_n - 1):  # a prefix stands before what it begins
        has_prefix = vocabulary.node_prefix >= 0
        lengths[has_prefix] = lengths[vocabulary.node_prefix[has_prefix]] + 1
    return {
        "num_ngrams": vocabulary.num_ngrams,
        "ngrams_by_length": np.bincount(lengths, minlength=vocabulary.max_n + 1)[1:].tolist(),
        "smallest_count": None if vocabulary.counts is None else int(vocabulary.counts.min()),
        "word_rule": vocabulary.word_rule,
        "clean": vocabulary.clean,
        "sha256": vocabulary.sha256,
    }


def format_report(report: dict[str, Any]) -> str:
    """Return the report as a line for people."""
    by_length = ", ".join(f"{number:,} of {n}" for n, number in enumerate(report["ngrams_by_length"], 1))
    return (
        f"{report['num_ngrams']:,} n-grams (words: {by_length}), each occurring at least {report['smallest_count']:,} "
        f"times; {report['file_bytes'] / 1e6:,.1f} MB, {report['seconds']:,.1f} s"
    )


def _texts(source: TextSet) -> Iterator[str]:
    for table in read_rows(source):
        columns = [table[name].to_pylist() for name in ("text", "text_pair") if name in table.column_names]
        for row in zip(*columns, strict=True):
            yield from row
