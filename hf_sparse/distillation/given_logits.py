"""Logits of a teacher that come with the texts: Parquet files, read a batch at a time in step with them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_ROWS: Final = 1024
_KIND: Final = pa.list_(pa.float32())


class GivenLogits:
    """The rows of logits of some files, one after the other, of which only a few are in memory.

    Args:
        path: What the files are called in a recipe, for messages.
        files: Parquet files with a column `logits` of lists, or columns `logit_0`, `logit_1`, ...

    Raises:
        ValueError: A file cannot be read, or has no such columns.
    """

    def __init__(self, path: str, files: Sequence[Path]) -> None:
        columns = [_columns(file, path=path) for file in files]
        self.num_rows: int = sum(pq.read_metadata(file).num_rows for file in files)
        self._batches = (
            batch for file, names in zip(files, columns, strict=True) for batch in _read(file, names, path=path)
        )
        self._rest = pa.array([], _KIND)

    def take(self, num_rows: int) -> pa.ListArray:
        """Return the logits of the next rows, fewer at the end.

        Raises:
            ValueError: One of them is no finite number, or the file cannot be read.
        """
        parts, missing = [self._rest], num_rows - len(self._rest)
        while missing > 0 and (batch := next(self._batches, None)) is not None:
            parts.append(batch)
            missing -= len(batch)
        rows = pa.concat_arrays(parts)
        self._rest = rows.slice(num_rows)
        return rows.slice(0, num_rows)


def _columns(file: Path, *, path: str) -> list[str]:
    """Return the names of a file's columns of logits, in the order of the labels."""
    try:
        names = pq.read_schema(file).names
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error
    if "logits" in names:
        return ["logits"]
    found = [name for name in names if re.fullmatch(r"logit_\d+", name)]
    ordered = [f"logit_{index}" for index in range(len(found))]
    if not ordered:
        raise ValueError(f"{path!r} has neither a column 'logits' nor columns 'logit_0', 'logit_1', ...")
    if set(ordered) != set(found):
        raise ValueError(
            f"{path!r} has the columns {', '.join(found)}, but the logits of {len(found)} labels must be "
            f"{ordered[0]} to {ordered[-1]}; name them in the order of the label ids, with none left out"
        )
    return ordered


def _read(file: Path, columns: list[str], *, path: str) -> Iterator[pa.ListArray]:
    try:
        for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=columns):
            lists = batch["logits"].cast(_KIND) if columns == ["logits"] else _stacked(batch, columns)
            values = lists.flatten().to_numpy(zero_copy_only=False)
            if lists.null_count or not np.isfinite(values).all():
                raise ValueError(
                    f"the logits in {path!r} are not all finite numbers; correct the file, or leave logits_path out "
                    "to ask the teacher again"
                )
            yield lists
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error


def _stacked(batch: pa.RecordBatch, columns: list[str]) -> pa.ListArray:
    """Return columns side by side."""
    values = np.stack([batch[name].to_numpy(zero_copy_only=False).astype(np.float32) for name in columns], axis=1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), len(columns)).cast(_KIND)


def _unreadable(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{str(file)!r} cannot be read as Parquet: {error}")
