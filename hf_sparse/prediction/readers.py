"""Reading texts row by row from files of any size, or from standard input.

CSV is read by the csv module: there all values are strings ("007" stays "007"), a quoted field may hold any
characters, and a mistake is named with its line. pyarrow's reader guesses types and cannot name lines.
"""

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

from hf_sparse.prediction.formats import DELIMITERS, STANDARD, Format, is_compressed
from hf_sparse.prediction.rows import ArrowRows, ColumnRows, JsonRows, Rows

try:
    import orjson as quick_json  # three times as fast
except ImportError:
    quick_json = json  # type: ignore[misc]

Item = TypeVar("Item")

# A batch ends when its texts have this many bytes, so that long ones do not fill the memory.
_BATCH_BYTES: Final = 1 << 23
# Rows between two looks at that.
_PIECE: Final = 64
_BUFFER_BYTES: Final = 1 << 20
_LARGEST_FIELD: Final = 2**31 - 1


class Reader:
    """Reads a file, or standard input, in batches of rows; the first may be empty, so that its columns are known.

    Args:
        path: The file; `-` is standard input.
        format: What it holds.
        text_column: Column of the texts; what txt has is given this name.
        text_pair_column: Column of their partners, None where they have none.
        batch_size: Rows of a batch at the most.
        keep_columns: Whether columns other than those of the texts are wanted.

    Raises:
        ValueError: Pairs are to be read from txt.
    """

    def __init__(
        self,
        path: str,
        format: Format,
        *,
        text_column: str,
        text_pair_column: str | None,
        batch_size: int,
        keep_columns: bool,
    ) -> None:
        if format == "txt" and text_pair_column is not None:
            raise ValueError("txt has one text a line and no pairs: use jsonl, csv, tsv or parquet")
        self.num_replaced = 0
        self._path, self._format = path, format
        self._name = "standard input" if path == STANDARD else path
        self._wanted = [text_column] if text_pair_column is None else [text_column, text_pair_column]
        self._batch_size, self._keep_columns = batch_size, keep_columns
        self._share: Callable[[], float | None] = lambda: None

    @property
    def share(self) -> float | None:
        """The share of the file that has been read, None where that cannot be known."""
        return self._share()

    def __iter__(self) -> Iterator[Rows]:
        """Yield the rows in order.

        Raises:
            ValueError: Something cannot be read; the message names file and line.
        """
        if self._format == "parquet":
            yield from self._parquet()
            return
        readers = {"txt": self._txt, "jsonl": self._jsonl}
        with self._open() as file:
            yield from readers.get(self._format, self._csv)(_without_bom(file))

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self._path == STANDARD:
            yield sys.stdin.buffer
            return
        with Path(self._path).open("rb", buffering=_BUFFER_BYTES) as file:
            size = Path(self._path).stat().st_size
            if size:  # a pipe has none
                self._share = lambda: file.tell() / size
            if is_compressed(self._path):
                with self._unpacking(), gzip.open(file) as unpacked:
                    yield cast("BinaryIO", io.BufferedReader(cast("Any", unpacked), _BUFFER_BYTES))
            else:
                yield file

    @contextmanager
    def _unpacking(self) -> Iterator[None]:
        try:
            yield
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{self._name} cannot be read as gzip: {error}; compress it again, or rename it"
            ) from error

    def _txt(self, lines: Iterator[bytes]) -> Iterator[Rows]:
        for batch in self._batches(lines, _lengths):
            texts = self._decode(b"".join(batch)).split("\n")
            if not texts[-1]:
                texts.pop()
            if any(text.endswith("\r") for text in texts):
                texts = [text.removesuffix("\r") for text in texts]
            yield ColumnRows(texts=texts, values={self._wanted[0]: texts})

    def _jsonl(self, lines: Iterator[bytes]) -> Iterator[Rows]:
        first, is_empty = 1, True
        for batch in self._batches(map(bytes.strip, lines), _lengths):
            full = [line for line in batch if line]
            try:
                objects = list(map(quick_json.loads, full))
                sides = [[row[name] for row in objects] for name in self._wanted]
                is_done = all(all(map(str.__instancecheck__, side)) for side in sides)
            except (ValueError, LookupError, TypeError, RecursionError):
                is_done = False
            if not is_done:
                objects = [self._object(line, number) for number, line in enumerate(batch, first) if line]
                sides = [[row[name] for row in objects] for name in self._wanted]
            if full:
                keys = frozenset[str]().union(*objects)
                decoded = b"\n".join(full).decode().split("\n")
                yield JsonRows(texts=sides[0], text_pairs=sides[1] if sides[1:] else None, lines=decoded, keys=keys)
                is_empty = False
            first += len(batch)
        if is_empty:
            no_pairs: list[str] | None = [] if len(self._wanted) > 1 else None
            yield JsonRows(texts=[], text_pairs=no_pairs, lines=[], keys=frozenset())

    def _object(self, line: bytes, number: int) -> dict[str, Any]:
        """Return the JSON object of a line, with a text for each wanted column.

        Raises:
            ValueError: It is none, or has no such text.
        """
        try:
            row = _parse(line.decode())
            self._require_columns(row)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number:,} of {self._name}: {error}") from error
        for name in self._wanted:
            if row[name] is None:
                row[name] = ""
            elif not isinstance(row[name], str):
                raise ValueError(
                    f"line {number:,} of {self._name}: column {name!r} holds {row[name]!r:.50}, which is no text"
                )
        return row

    def _csv(self, lines: Iterator[bytes]) -> Iterator[Rows]:
        csv.field_size_limit(_LARGEST_FIELD)
        rows = csv.reader(map(self._decode, lines), delimiter=DELIMITERS[self._format], strict=True)
        try:
            header = next(rows, None)
            if header is None:
                raise ValueError(f"{self._name} is empty: its first line must name the columns")
            self._check_names(header)
            places = [header.index(name) for name in self._wanted]
            for batch in self._batches(
                self._whole(rows, len(header)), lambda rows: map(len, chain.from_iterable(rows))
            ):
                yield self._csv_rows(header, batch, places)
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num:,} of {self._name}: {error}") from error

    def _whole(self, rows: Any, width: int) -> Iterator[list[str]]:
        """Yield the rows of a CSV reader that are not blank."""
        for row in rows:
            if len(row) == width:
                yield row
            elif row:
                raise ValueError(
                    f"line {rows.line_num:,} of {self._name} has {len(row)} fields, but the header has {width}"
                )

    def _csv_rows(self, header: list[str], batch: list[list[str]], places: list[int]) -> Rows:
        columns = list(zip(*batch, strict=True)) or [()] * len(header)
        texts, *pairs = (list(columns[place]) for place in places)
        values = dict(zip(header, columns, strict=True))
        return ColumnRows(texts=texts, text_pairs=pairs[0] if pairs else None, values=values)

    def _parquet(self) -> Iterator[Rows]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # Without these two all columns of a row group are held at once.
            with pq.ParquetFile(self._path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
                schema, total, done = file.schema_arrow, file.metadata.num_rows, 0
                self._share = lambda: done / total if total else None
                self._check_names(schema.names)
                chosen = None if self._keep_columns else self._wanted
                batches = file.iter_batches(self._batch_size, columns=chosen)
                for batch in batches if total else [pa.RecordBatch.from_pylist([], schema=schema)]:
                    done += batch.num_rows
                    texts, *pairs = (self._arrow_texts(batch[name], name) for name in self._wanted)
                    yield ArrowRows(texts=texts, text_pairs=pairs[0] if pairs else None, batch=batch)
        except pa.ArrowException as error:
            raise ValueError(f"{self._path} cannot be read as Parquet: {error}") from error

    def _arrow_texts(self, column: Any, name: str) -> list[str]:
        import pyarrow.types as kinds

        kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
        if not (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)):
            raise ValueError(f"column {name!r} of {self._path} holds {column.type}, not texts")
        texts: list[str | None] = column.to_pylist()
        return [text or "" for text in texts] if column.null_count else cast("list[str]", texts)

    def _check_names(self, names: Sequence[str]) -> None:
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{self._name} has two columns {twice!r}; rename one")
        try:
            self._require_columns(names)
        except ValueError as error:
            raise ValueError(f"{self._name}: {error}") from error

    def _require_columns(self, names: Iterable[str]) -> None:
        for name in self._wanted:
            if name not in names:
                option = "text_column" if name == self._wanted[0] else "text_pair_column"
                raise ValueError(
                    f"there is no column {name!r}; name one of {', '.join(map(repr, names))} with --{option}"
                )

    def _decode(self, raw: bytes) -> str:
        """Return text; what is not UTF-8 becomes U+FFFD and is counted."""
        try:
            return raw.decode()
        except UnicodeDecodeError:
            text = raw.decode(errors="replace")
            self.num_replaced += text.count("\ufffd") - raw.count("\ufffd".encode())
            return text

    def _batches(self, items: Iterator[Item], lengths: Callable[[list[Item]], Iterable[int]]) -> Iterator[list[Item]]:
        """Yield one batch at least."""
        is_first = True
        while True:
            batch: list[Item] = []
            room = _BATCH_BYTES
            while len(batch) < self._batch_size and room > 0:
                piece = list(islice(items, min(_PIECE, self._batch_size - len(batch))))
                if not piece:
                    break
                batch += piece
                room -= sum(lengths(piece))
            if batch or is_first:
                yield batch
            if not batch:
                return
            is_first = False


def _lengths(lines: list[bytes]) -> Iterable[int]:
    return map(len, lines)


def _without_bom(lines: Iterable[bytes]) -> Iterator[bytes]:
    lines = iter(lines)
    first = next(lines, b"").removeprefix(codecs.BOM_UTF8)
    return chain([first] if first else [], lines)


def _parse(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)  # takes lone surrogates and NaN, unlike orjson
    except json.JSONDecodeError as error:
        raise ValueError(f"this is no JSON: {error.msg} at character {error.pos + 1:,}") from error
    if not isinstance(found, dict):
        raise ValueError(f"a line must be a JSON object, this is a {type(found).__name__}")
    return found
