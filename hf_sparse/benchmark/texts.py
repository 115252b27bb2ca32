"""The texts of a benchmark: real ones, read from a file, cut and joined to the lengths that are measured."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_sparse.runtime.student_files import NgramVocabulary

POOL_SIZE = 4096
_WORD = re.compile(r"\S+")
# Reviews are between half and twice as long as a cell says: a real spread, without texts of another cell's length.
_SHORTEST, _LONGEST = 0.5, 2.0
_MADE_TEXTS, _MADE_NGRAMS = 1000, 20


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Texts, and their labels by name where there are any."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] | None


def read_texts(path: str, *, text_column: str, label_column: str | None, label_names: Sequence[str]) -> LabelledTexts:
    """Read texts, and labels where there is such a column.

    Args:
        path: A Parquet, CSV, JSON Lines or plain text file (one text a line), or a pattern that several match.
        text_column: The column of the texts.
        label_column: The column of the labels; None reads none.
        label_names: The names of the student's labels; a label that is a number is an index into them.

    Raises:
        ValueError: If there is no such file or column, the file's kind is unknown, or there are no texts.
    """
    rows: list[dict[str, Any]] = []
    for file in _matching(path):
        rows += _read_rows(file, text_column)
    if not rows:
        raise ValueError(f"{path} holds no texts")
    for column in (text_column, label_column):
        if column is not None and column not in rows[0]:
            raise ValueError(f"{path} has no column {column!r}, only {sorted(rows[0])}")
    texts = tuple(str(row[text_column]) for row in rows)
    if label_column is None:
        return LabelledTexts(texts=texts, labels=None)
    return LabelledTexts(texts=texts, labels=tuple(_label_name(row[label_column], label_names) for row in rows))


def made_texts(vocabulary: NgramVocabulary, *, seed: int) -> LabelledTexts:
    """Return texts for a student of which there are none: n-grams of its vocabulary, frequent ones more often.

    An n-gram's probability falls with its rank, by Zipf's law, as rows are in the order of frequency. Such texts have
    more known n-grams than real ones.
    """
    random = np.random.default_rng(seed)
    shares = 1 / np.arange(1, vocabulary.num_ngrams + 1)
    rows = 1 + random.choice(vocabulary.num_ngrams, size=_MADE_TEXTS * _MADE_NGRAMS, p=shares / shares.sum())
    ngrams = [vocabulary.ngram_text(row) for row in rows.tolist()]
    texts = (" ".join(ngrams[start : start + _MADE_NGRAMS]) for start in range(0, len(ngrams), _MADE_NGRAMS))
    return LabelledTexts(texts=tuple(texts), labels=None)


def shuffle(labelled: LabelledTexts, *, seed: int) -> LabelledTexts:
    """Return the texts in a random order: files may be sorted by label, and slow contestants answer few."""
    order = np.random.default_rng(seed).permutation(len(labelled.texts)).tolist()
    labels = labelled.labels
    return LabelledTexts(
        texts=tuple(labelled.texts[index] for index in order),
        labels=None if labels is None else tuple(labels[index] for index in order),
    )


def make_pool(texts: Sequence[str], *, length: int, size: int, seed: int) -> list[str]:
    """Return texts of a length, made of real ones.

    The lengths spread as those of the given texts do (each over their mean, between half and twice), around `length`
    words. A text that is too long is cut behind a word; one that is too short goes on with the next text. Both keep
    the white space, the mark-up and the spelling.

    Args:
        texts: At least one text with a word in it.
        length: Mean number of words (parts between white space).
        size: Number of texts.
        seed: Of the order in which texts are taken.

    Raises:
        ValueError: If no text has a word.
    """
    random = np.random.default_rng(seed)
    ends = [[match.end() for match in _WORD.finditer(text)] for text in texts]
    usable = [index for index, words in enumerate(ends) if words]
    if not usable:
        raise ValueError("none of the texts has a word in it")
    counts = np.array([len(ends[index]) for index in usable])
    shares = np.clip(counts / counts.mean(), _SHORTEST, _LONGEST)
    wanted = np.maximum(1, np.rint(random.choice(shares, size) / shares.mean() * length)).astype(int)
    order = random.permutation(usable)
    pool, place = [], 0
    for words in wanted.tolist():
        parts: list[str] = []
        while words > 0:
            index = int(order[place % order.size])
            place += 1
            taken = min(words, len(ends[index]))
            parts.append(texts[index][: ends[index][taken - 1]])
            words -= taken
        pool.append(" ".join(parts))
    return pool


def describe_pool(pool: Sequence[str]) -> dict[str, float]:
    """Return the number of texts, and mean, shortest and longest of their words, with their mean bytes."""
    words = [len(text.split()) for text in pool]
    return {
        "texts": len(pool),
        "mean_words": float(np.mean(words)),
        "fewest_words": min(words),
        "most_words": max(words),
        "mean_bytes": float(np.mean([len(text.encode("utf-8", "surrogatepass")) for text in pool])),
        "ascii_share": float(np.mean([text.isascii() for text in pool])),
    }


def _matching(path: str) -> list[Path]:
    files = sorted(Path().glob(path)) if not Path(path).is_absolute() else sorted(Path("/").glob(path[1:]))
    if not files:
        raise ValueError(f"there is no file {path}")
    return files


def _read_rows(file: Path, text_column: str) -> list[dict[str, Any]]:
    match file.suffix:
        case ".parquet":
            import pyarrow.parquet as pq

            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
            return rows
        case ".csv":
            import csv

            with file.open(encoding="utf-8", newline="") as stream:
                return list(csv.DictReader(stream))
        case ".jsonl":
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        case ".txt":
            return [{text_column: line} for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    raise ValueError(f"{file} has to be a .parquet, .csv, .jsonl or .txt file")


def _label_name(label: Any, names: Sequence[str]) -> str:
    if str(label) in names:
        return str(label)
    try:
        return names[int(label)]
    except (ValueError, IndexError):
        raise ValueError(
            f"label {label!r} is neither one of the student's labels {list(names)} nor an index"
        ) from None
