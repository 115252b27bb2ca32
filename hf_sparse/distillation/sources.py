"""Reading texts: local Parquet, CSV, TSV, JSON Lines and plain text files, data sets on the Hub, as batches of rows.

Files are read one at a time and in batches, so that nothing has to fit into memory and an unreadable file is named.
"""

import ast
import csv
import glob
import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.file_download import repo_folder_name

from hf_sparse.distillation.given_logits import GivenLogits
from hf_sparse.distillation.recipe_checks import check_bounds
from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.files import file_sha256

BATCH_ROWS = 1024
_COMMIT = re.compile("[0-9a-f]{40}")
_READERS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".json": "json",
    ".txt": "text",  # a line is a text
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
    # A text file beside others is more likely a note.
    found = [file for file in found if file.suffix != ".txt"] or found
    if not found:
        raise ValueError(f"{path!r} holds no {', '.join(_READERS)} file; name a file, a folder or a glob pattern")
    return found


def source_fingerprint(source: TextSet) -> dict[str, Any]:
    """Return what identifies the content of a text set: file hashes, or the Hub id and commit."""
    names = ("text_column", "text_pair_column", "label_column", "limit")
    description: dict[str, Any] = {name: getattr(source, name) for name in names}
    if source.label_threshold is not None:
        description["label_threshold"] = source.label_threshold
    files = local_files(source.path)
    if files:
        # How a file is read depends on its kind.
        description["files"] = [[file.suffix, file_sha256(file)] for file in files]
    else:
        _require_hub_id(source.path)
        commit = _hub_commit(source.path, source.revision)
        description["hub"] = [source.path, source.name, source.split, commit or source.revision]
    if source.logits_path is not None:
        description["logits"] = [file_sha256(file) for file in _logits_files(source.logits_path)]
    return description


def _hub_commit(repo: str, revision: str | None) -> str | None:
    """Return the commit that a revision of a Hub data set stands for now, as the cache knows it when offline."""
    revision = revision or constants.DEFAULT_REVISION
    if _COMMIT.fullmatch(revision):
        return revision
    # Asking for any file, there or not, leaves in the cache which commit the revision stands for; an error worth
    # telling comes again when the data set is read.
    with suppress(OSError, ValueError):
        hf_hub_download(repo, constants.REPOCARD_NAME, repo_type="dataset", revision=revision)
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="dataset")
    reference = folder / "refs" / revision
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def class_names(source: TextSet) -> list[str] | None:
    """Return the names that a data set itself gives to the integers of its label column, None if it gives none.

    Hub data sets and Parquet files written by `datasets` have such features (`ClassLabel`).

    Raises:
        ValueError: If the source cannot be read.
    """
    import datasets

    if source.label_column is None:
        return None
    files = local_files(source.path)
    if not files:
        features = _load_hub(source).features
    elif files[0].suffix == ".parquet":
        try:
            schema = pq.read_schema(files[0])
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(files[0], error) from error
        if b"huggingface" not in (schema.metadata or {}):
            return None
        features = datasets.Features.from_arrow_schema(schema)
    else:
        return None
    feature = (features or {}).get(source.label_column)
    feature = getattr(feature, "feature", feature)  # of a list
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def read_rows(source: TextSet) -> Iterator[pa.Table]:
    """Yield a text set as tables of its text, text_pair, label and logits columns, renamed to those names.

    Raises:
        ValueError: If a file cannot be read, a column is missing, the logits are not as many as the texts, or the
            limit is below 1.
    """
    check_bounds("", source, limit=(1, math.inf))  # not all text sets are those of a recipe
    tables = _limited(_read_columns(source), source.limit)
    if source.logits_path is None:
        yield from tables
        return
    logits, position = GivenLogits(source.logits_path, _logits_files(source.logits_path)), 0
    for table in tables:
        part = logits.take(table.num_rows)
        position += table.num_rows
        if len(part) < table.num_rows:
            raise ValueError(
                f"{source.logits_path!r} has {logits.num_rows} rows of logits, fewer than {source.path!r}"
            )
        yield table.append_column("logits", part)
    if source.limit is None and position != logits.num_rows:
        raise ValueError(
            f"{source.logits_path!r} has {logits.num_rows} rows of logits but {source.path!r} has {position} texts; "
            "they must match row by row"
        )


def num_rows(source: TextSet) -> int | None:
    """Return how many rows a text set has where that is known before it is read: Parquet files say so."""
    files = local_files(source.path)
    if not files or any(file.suffix != ".parquet" for file in files):
        return source.limit
    try:
        rows: int = sum(pq.read_metadata(file).num_rows for file in files)
    except (pa.ArrowException, OSError):  # whoever reads it says what is wrong
        return source.limit
    return rows if source.limit is None else min(rows, source.limit)


def hub_rows(source: TextSet) -> int | None:
    """Return how many rows a split of a data set on the Hub has, if the Hub answers and its card says so."""
    import datasets

    try:
        found = datasets.load_dataset_builder(source.path, source.name, revision=source.revision).info.splits
    except (OSError, ValueError, datasets.exceptions.DatasetsError):
        return None
    split = (found or {}).get(source.split)
    return None if split is None else int(split.num_examples)


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
        table = _select(batch, columns, where=source.path)
        yield table if source.label_threshold is None else _with_threshold(table, source)


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
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{str(file)!r} cannot be read as {_READERS.get(file.suffix, 'a known format')}: {error}; "
        "replace or remove the file, then run the same command again"
    )


def _read_text_file(file: Path, columns: dict[str, str]) -> Iterator[pa.Table]:
    import datasets

    reader = _READERS.get(file.suffix)
    if reader is None:
        raise ValueError(f"{str(file)!r} is of an unknown kind; known: {', '.join(_READERS)}")
    if not file.stat().st_size:
        raise ValueError(f"{str(file)!r} is empty and holds no texts; remove it or name another file")
    options: dict[str, Any] = {}
    if reader == "csv":
        # A text such as "NA" or "007" is that text, neither missing nor a number.
        as_text = {column: str for name, column in columns.items() if name != "label"}
        separator = "\t" if file.suffix == ".tsv" else ","
        plain = file.suffix == ".tsv" and _has_plain_quotes(file)
        quoting: Literal[0, 3] = csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL
        _check_first_row(file, separator, quoting)
        options = {"keep_default_na": False, "sep": separator, "quoting": quoting, "converters": as_text}
        # Without it, pandas takes the first column for a name of rows where they end with a separator.
        options["index_col"] = False
    try:
        rows = datasets.load_dataset(reader, data_files=str(file), split="train", streaming=True, **options)
        for batch in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
            yield _with_lists(batch, columns.get("label")) if reader == "csv" else batch
    except StopIteration as error:
        raise ValueError(f"{str(file)!r} holds no texts; remove it or name another file") from error
    except (datasets.exceptions.DatasetGenerationError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{str(file)!r} cannot be read as {reader}: {error}") from error


def _with_lists(table: pa.Table, column: str | None) -> pa.Table:
    """Read labels such as `["a", "b"]`, or with single quotes as pandas writes them, as the lists that they are.

    A column in which one is something else is left alone: `[sic]` may be a name. What is empty is missing.
    """
    if column not in table.column_names or table[column].type not in (pa.string(), pa.large_string()):
        return table
    lists = {value: _list_in(value) for value in table[column].to_pylist() if value}
    if not lists or None in lists.values():
        return table
    try:
        array = pa.array([lists.get(value) for value in table[column].to_pylist()])
    except pa.ArrowException:  # names beside numbers, or lists in lists
        return table
    return table.set_column(table.column_names.index(column), column, array)


def _list_in(text: str) -> list[Any] | None:
    """Return the list that a text spells, None if it is not one."""
    try:
        found = ast.literal_eval(text) if text.startswith("[") else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    is_flat = isinstance(found, list) and all(isinstance(value, str | int | float) for value in found)
    return found if is_flat else None


def _has_plain_quotes(file: Path) -> bool:
    """Tell whether quotes in a TSV file are letters as others: a lone one would swallow the lines up to the next.

    Where each line has the fields of the header, no field spans lines.
    """
    with file.open(encoding="utf-8", errors="replace") as lines:
        num_tabs = next(lines, "").count("\t")
        lone = False
        for line in lines:
            if line.count("\t") != num_tabs:
                return False
            lone |= line.count('"') % 2 == 1
    return lone


def _check_first_row(file: Path, separator: str, quoting: Literal[0, 3]) -> None:
    """Refuse a first row with more than the header has names for: pandas would drop it, of later rows it says so."""
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        rows = csv.reader(lines, delimiter=separator, quoting=quoting)
        try:
            header, first = next(rows, []), next(rows, [])
        except csv.Error:  # pandas says what is wrong
            return
    if any(first[len(header) :]):
        raise ValueError(
            f"{str(file)!r} cannot be read as csv: line {rows.line_num} has {len(first)} fields, but the header has "
            f"{len(header)}"
        )


def _read_hub(source: TextSet) -> Iterator[pa.Table]:
    yield from _load_hub(source).with_format("arrow").iter(batch_size=BATCH_ROWS)


def _load_hub(source: TextSet) -> Any:
    import datasets

    _require_hub_id(source.path)
    if source.split is None:
        raise ValueError(f"data set {source.path!r} on the Hub needs a split; add `split: train` to the recipe")
    return datasets.load_dataset(
        source.path, source.name, split=source.split, revision=source.revision, streaming=source.streaming
    )


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
        if isinstance(array.type, pa.BaseExtensionType) and array.type.extension_name == "arrow.json":
            array = _of_json(array, column, where=where)
        if name != "label":
            try:
                if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
                    array = array.cast(pa.string())
                array = array.cast(pa.large_string()).fill_null("")
            except pa.ArrowException as error:
                raise ValueError(f"column {column!r} of {where!r} holds no texts: {error}") from error
        arrays[name] = array
    return pa.table(arrays)


def _of_json(array: pa.Array, column: str, *, where: str) -> pa.Array:
    """Return texts and numbers as strings: datasets gives a column of both in JSON Lines as pieces of JSON."""
    values = [None if value is None else json.loads(value) for value in array.cast(pa.string()).to_pylist()]
    wrong = [value for value in values if not isinstance(value, str | int | float | None)]
    if wrong:
        raise ValueError(f"column {column!r} of {where!r} holds {wrong[0]!r} beside texts or numbers")
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _with_threshold(table: pa.Table, source: TextSet) -> pa.Table:
    """Make numbers labels: 1 from the threshold on, else 0; what is missing stays so."""
    if "label" not in table.column_names:
        raise ValueError(f"{source.path!r} has a label_threshold but no label_column; name the column of the numbers")
    try:
        numbers = table["label"].cast(pa.float64())
    except pa.ArrowException as error:
        raise ValueError(
            f"column {source.label_column!r} of {source.path!r} has a label_threshold, but is not of numbers: {error}"
        ) from error
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    labels = pc.greater_equal(numbers, source.label_threshold).cast(pa.int64())
    return table.set_column(table.column_names.index("label"), "label", labels)


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
