"""Some rows of the input: their texts, and what else they hold, in the form in which it was read.

A writer asks for `columns()`; the one that writes the format which was read takes the rows as they are, so that they
keep every digit and every type.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Rows:
    """B rows with their texts, and the partners of these where they are pairs."""

    texts: list[str]
    text_pairs: list[str] | None = None

    @property
    def names(self) -> Collection[str]:
        """The names of all columns."""
        return self.columns().keys()

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return all columns by name, each with B values."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ColumnRows(Rows):
    """Rows that were read as columns of strings."""

    values: Mapping[str, Sequence[str]]

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return all columns."""
        return self.values


@dataclass(frozen=True, kw_only=True)
class JsonRows(Rows):
    """Rows that were read as lines of JSON objects, without white space around them.

    `keys` are those that occur in any of them.
    """

    lines: list[str]
    keys: frozenset[str]

    @property
    def names(self) -> Collection[str]:
        """The names of all columns."""
        return self.keys

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return the columns that occur in any row; None where a row lacks one."""
        # Not orjson, which rounds whole numbers beyond 64 bits.
        objects = [json.loads(line) for line in self.lines]
        names = dict.fromkeys(name for found in objects for name in found)
        return {name: [found.get(name) for found in objects] for name in names}


@dataclass(frozen=True, kw_only=True)
class ArrowRows(Rows):
    """Rows that were read from Parquet."""

    batch: "pa.RecordBatch"

    @property
    def names(self) -> Collection[str]:
        """The names of all columns."""
        names: list[str] = self.batch.schema.names
        return names

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return all columns as Python values."""
        columns: Mapping[str, Sequence[Any]] = self.batch.to_pydict()
        return columns
