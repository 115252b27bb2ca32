"""Writing rows and the answers to them, batch by batch; a file appears when all of it is written."""

import csv
import gzip
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from json.encoder import encode_basestring as encode_string
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias, cast

from hf_sparse.files import whole_file
from hf_sparse.prediction.answers import Answers
from hf_sparse.prediction.encoding import as_array, as_fields, as_json, encode_text
from hf_sparse.prediction.formats import DELIMITERS, STANDARD, Format, is_compressed
from hf_sparse.prediction.rows import ArrowRows, JsonRows, Rows

if TYPE_CHECKING:
    import pyarrow as pa

# Takes rows, None where only the answers are to be written, and the answers.
Write: TypeAlias = Callable[[Rows | None, Answers], None]

# Parquet is compressed and read by groups of rows, which must not be small.
_GROUP_ROWS: Final = 1 << 17
_GROUP_BYTES: Final = 1 << 26


@contextmanager
def open_writer(path: str, format: Format) -> Iterator[Write]:
    """Yield the function that writes a batch to a file, or at once to standard output.

    Args:
        path: The file, which is replaced when the context ends without an error; `-` is standard output.
        format: What to write.
    """
    if format == "parquet":
        with whole_file(Path(path)) as temporary:
            table = ParquetTable(temporary)
            try:
                yield table.write
                table.flush()
            finally:
                table.close()
        return
    encode = encode_labels if format == "txt" else encode_jsonl if format == "jsonl" else CsvLines(DELIMITERS[format])
    with _open(path) as file:

        def write(rows: Rows | None, answers: Answers) -> None:
            file.write(encode(rows, answers))
            file.flush()

        yield write


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    if path == STANDARD:
        yield sys.stdout.buffer
        return
    with whole_file(Path(path)) as temporary, temporary.open("wb") as file:
        if is_compressed(path):
            with gzip.GzipFile(Path(path).stem, "wb", 6, file) as packed:
                yield cast("BinaryIO", packed)
        else:
            yield file


def encode_labels(rows: Rows | None, answers: Answers) -> bytes:
    """Return the labels of texts, a line a text; several are separated by tabs. A regression gives its numbers."""
    found = next(iter(answers.values()))
    is_listed = isinstance(found, list) and bool(found) and not isinstance(found[0], str)
    lines = ["\t".join(as_fields(values)) for values in found] if is_listed else as_fields(found)
    return encode_text("".join([f"{line}\n" for line in lines]))


def encode_jsonl(rows: Rows | None, answers: Answers) -> bytes:
    """Return rows with their answers as lines of JSON; what was read as such is kept character by character."""
    columns: Mapping[str, Any] = answers
    heads: Sequence[str] = []
    if isinstance(rows, JsonRows):
        heads = [line[:-1] for line in rows.lines]
    elif rows is not None:
        columns = {**rows.columns(), **answers}
    members = ", ".join(f"{encode_string(name)}: %s".replace("%", "%%", name.count("%")) for name in columns)
    template = f"{', ' if heads else '{'}{members}}}\n"
    tails = map(
        template.__mod__, zip(*(_named(as_json, name, column) for name, column in columns.items()), strict=True)
    )
    lines = map(str.__add__, heads, tails) if heads else tails
    # What UTF-8 cannot hold are lone surrogates, and JSON's escapes of these are Python's.
    return "".join(lines).encode("utf-8", "backslashreplace")


class CsvLines:
    """Encodes rows and answers as CSV, with a header before the first ones.

    Raises:
        ValueError: A row has a column that the first ones have not.
    """

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._names: list[str] = []

    def __call__(self, rows: Rows | None, answers: Answers) -> bytes:
        """Return the lines of a batch."""
        columns = {**({} if rows is None else rows.columns()), **answers}
        lines: list[Sequence[str]] = []
        if not self._names:
            self._names = list(columns)
            lines.append(self._names)
        _check_new(columns, self._names)
        num_rows = len(next(iter(answers.values())))
        missing = [""] * num_rows
        fields = (_named(as_fields, name, columns.get(name, missing)) for name in self._names)
        lines += zip(*fields, strict=True)
        text = self._encode(lines, csv.QUOTE_MINIMAL)
        if "\r" in text:  # would stand without quotes, and end a line for whoever reads it
            text = self._encode(lines, csv.QUOTE_ALL)
        return encode_text(text)

    def _encode(self, lines: list[Sequence[str]], quoting: Any) -> str:
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=self._delimiter, lineterminator="\n", quoting=quoting).writerows(lines)
        return buffer.getvalue()


class ParquetTable:
    """A Parquet file that grows by groups of rows; the first batch says what its columns are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches: list[pa.RecordBatch] = []
        self._file: Any = None

    def write(self, rows: Rows | None, answers: Answers) -> None:
        """Add a batch.

        Raises:
            ValueError: Its columns are not those of the first batch.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {}
        if isinstance(rows, ArrowRows):
            columns = dict(zip(rows.names, rows.batch.columns, strict=True))
        elif rows is not None:
            columns = dict(rows.columns())
        columns |= answers
        if self._file is None:
            batch = pa.RecordBatch.from_pydict({name: _named(as_array, name, columns[name]) for name in columns})
            self._file = pq.ParquetWriter(self._path, batch.schema)
        else:
            schema = self._file.schema
            _check_new(columns, schema.names)
            missing = [None] * len(next(iter(answers.values())))
            arrays = [
                _named(partial(as_array, kind=field.type), field.name, columns.get(field.name, missing))
                for field in schema
            ]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        self._batches.append(batch)
        if sum(map(len, self._batches)) >= _GROUP_ROWS or sum(part.nbytes for part in self._batches) >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the batches that are not yet written as a group."""
        import pyarrow as pa

        if self._batches:
            self._file.write_table(pa.Table.from_batches(self._batches), row_group_size=_GROUP_ROWS)
            self._batches = []

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _check_new(columns: Iterable[str], names: Sequence[str]) -> None:
    new = [name for name in columns if name not in names]
    if new:
        raise ValueError(
            f"a row has the column {new[0]!r}, which the first rows have not, and CSV and Parquet cannot add one "
            "later: write jsonl, or set keep_columns to false"
        )


def _named(convert: Callable[[Any], Any], name: str, values: Any) -> Any:
    """Convert the values of a column; an error names it."""
    try:
        return convert(values)
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from error
