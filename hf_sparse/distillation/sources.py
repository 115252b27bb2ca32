"""Reading texts: local Parquet, CSV, TSV and JSON Lines files and data sets on the Hub, as batches of rows.

Files are read one at a time and in batches, so that nothing has to fit into memory and an unreadable file is named.
"""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_sparse.distillation.recipe import TextSet
from hf_sparse.distillation.stages import file_sha256

BATCH_ROWS = 1024
_READERS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".json": "json",
}


def local_files(path: str) -> list[Path]:
    """Return the files that a path, glob pattern or folder stands for, sorted; none if it is not local.

    Raises:
        ValueError: If a folder or pattern holds no file of a known kind.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if root.is_dir():
        found = sorted(file for file in root.rglob("*") if file.suffix in _READERS)
    elif any(mark in path for mark in "*?["):
        # pathlib globs only below a folder; a pattern may be absolute.
        names = glob.glob(str(root), recursive=True)  # noqa: PTH207
        found = sorted(Path(name) for name in names if Path(name).suffix in _READERS)
    else:
        return []
    if not found:
        raise ValueError(f"{path!r} holds no {', '.join(_READERS)} file; name a file, a folder or a glob pattern")
    return found


def source_fingerprint(source: TextSet) -> dict[str, Any]:
    """Return what identifies the content of a text set: file hashes, or the Hub id and revision."""
    description: dict[str, Any] = {
        name: getattr(source, name) for name in ("text_column", "text_pair_column", "label_column", "limit")
    }
    files = local_files(source.path)
    if files:
        description["files"] = [file_sha256(file) for file in files]
    else:
        _require_hub_id(source.path)
        description["hub"] = [source.path, source.name, source.split, source.revision]
    if source.logits_path is not None:
        description["logits"] = [file_sha256(file) for file in _logits_files(source.logits_path)]
    return description


def read_rows(source: TextSet) -> Iterator[pa.Table]:
    """Yield a text set as tables of its text, text_pair, label and logits columns, renamed to those names.

    Raises:
        ValueError: If a file cannot be read, a column is missing, or the logits are not as many as the texts.
    """
    tables = _limited(_read_columns(source), source.limit)
    if source.logits_path is None:
        yield from tables
        return
    logits = _read_logits(source.logits_path)
    position = 0
    for table in tables:
        part = logits.slice(position, table.num_rows)
        position += table.num_rows
        if len(part) < table.num_rows:
            raise ValueError(f"{source.logits_path!r} has {len(logits)} rows of logits, fewer than {source.path!r}")
        yield table.append_column("logits", part)
    if source.limit is None and position != len(logits):
        raise ValueError(
            f"{source.logits_path!r} has {len(logits)} rows of logits but {source.path!r} has {position} texts; "
            "they must match row by row"
        )


def _read_columns(source: TextSet) -> Iterator[pa.Table]:
    wanted = {
        "text": source.text_column,
        "text_pair": source.text_pair_column,
        "label": source.label_column,
    }
    columns = {name: column for name, column in wanted.items() if column is not None}
    files = local_files(source.path)
    batches = (batch for file in files for batch in _read_file(file, columns)) if files else _read_hub(source)
    for batch in batches:
        yield _select(batch, columns, where=source.path)


def _read_file(file: Path, columns: dict[str, str]) -> Iterator[pa.Table]:
    try:
        if file.suffix == ".parquet":
            parquet = pq.ParquetFile(file)
            _check_columns(parquet.schema_arrow.names, columns, where=str(file))
            for batch in parquet.iter_batches(BATCH_ROWS, columns=sorted(set(columns.values()))):
                yield pa.Table.from_batches([batch])
        else:
            yield from _read_text_file(file, columns)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{str(file)!r} cannot be read as {_READERS.get(file.suffix, 'a known format')}: {error}; "
            "replace or remove the file, then run the same command again"
        ) from error


def _read_text_file(file: Path, columns: dict[str, str]) -> Iterator[pa.Table]:
    import datasets

    reader = _READERS.get(file.suffix)
    if reader is None:
        raise ValueError(f"{str(file)!r} is of an unknown kind; known: {', '.join(_READERS)}")
    options: dict[str, Any] = {}
    if reader == "csv":
        # A text such as "NA" or "007" is that text, neither missing nor a number.
        as_text = {column: str for name, column in columns.items() if name != "label"}
        options = {"keep_default_na": False, "sep": "\t" if file.suffix == ".tsv" else ",", "converters": as_text}
    try:
        rows = datasets.load_dataset(reader, data_files=str(file), split="train", streaming=True, **options)
        yield from rows.with_format("arrow").iter(batch_size=BATCH_ROWS)
    except (datasets.exceptions.DatasetGenerationError, UnicodeDecodeError, ValueError, StopIteration) as error:
        raise ValueError(f"{str(file)!r} cannot be read as {reader}: {error}") from error


def _read_hub(source: TextSet) -> Iterator[pa.Table]:
    import datasets

    _require_hub_id(source.path)
    if source.split is None:
        raise ValueError(f"data set {source.path!r} on the Hub needs a split; add `split: train` to the recipe")
    rows = datasets.load_dataset(
        source.path, source.name, split=source.split, revision=source.revision, streaming=source.streaming
    )
    yield from rows.with_format("arrow").iter(batch_size=BATCH_ROWS)


def _require_hub_id(path: str) -> None:
    if path.count("/") > 1 or path.startswith((".", "~", "/")) or Path(path).suffix in _READERS:
        raise ValueError(f"{path!r} does not exist; name a file, a folder, a glob pattern or a data set on the Hub")


def _check_columns(names: list[str], columns: dict[str, str], *, where: str) -> None:
    for key, column in columns.items():
        if column not in names:
            raise ValueError(
                f"{where!r} has no column {column!r} for {key}_column; its columns are {', '.join(map(repr, names))}"
            )


def _select(table: pa.Table, columns: dict[str, str], *, where: str) -> pa.Table:
    _check_columns(table.column_names, columns, where=where)
    arrays = {}
    for name, column in columns.items():
        array = table[column].combine_chunks()
        if name != "label":
            try:
                if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
                    array = array.cast(pa.string())
                array = array.cast(pa.large_string()).fill_null("")
            except pa.ArrowException as error:
                raise ValueError(f"column {column!r} of {where!r} holds no texts: {error}") from error
        arrays[name] = array
    return pa.table(arrays)


def _limited(tables: Iterator[pa.Table], limit: int | None) -> Iterator[pa.Table]:
    left = limit
    for table in tables:
        part = table if left is None else table.slice(0, left)
        if part.num_rows:
            yield part
        if left is not None:
            left -= part.num_rows
            if left <= 0:
                return


def _logits_files(path: str) -> list[Path]:
    files = local_files(path)
    if not files:
        raise ValueError(f"logits_path {path!r} does not exist; name the Parquet file(s) of the teacher's logits")
    return files


def _read_logits(path: str) -> pa.Array:
    tables = []
    for file in _logits_files(path):
        try:
            tables.append(pq.read_table(file))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{str(file)!r} cannot be read as Parquet: {error}") from error
    table = pa.concat_tables(tables)
    kind = pa.list_(pa.float32())
    if "logits" in table.column_names:
        return table["logits"].cast(kind).combine_chunks()
    names = [f"logit_{index}" for index in range(len(table.column_names))]
    names = [name for name in names if name in table.column_names]
    if not names:
        raise ValueError(f"{path!r} has neither a column 'logits' nor columns 'logit_0', 'logit_1', ...")
    import numpy as np

    values = np.stack([table[name].to_numpy().astype(np.float32) for name in names], axis=1)
    offsets = np.arange(0, values.size + 1, len(names), dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, values.reshape(-1)).cast(kind)
