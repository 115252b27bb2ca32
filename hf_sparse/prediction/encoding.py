"""Values of columns as JSON, as fields of CSV and as Arrow arrays.

Numbers of students are float32 and written with the nine digits that give the same float32 back. A lone surrogate,
which only JSON can hold, becomes U+FFFD in the other formats.
"""

import json
import math
from collections.abc import Sequence
from json.encoder import encode_basestring as encode_string
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def as_json(values: Sequence[Any] | np.ndarray[Any, Any]) -> list[str]:
    """Return each value as JSON; a number that is not finite as null, dates and decimals as strings.

    Raises:
        ValueError: One is of a type that JSON does not have.
    """
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return [f"{value:#.9g}" for value in values.tolist()]
    try:
        return list(map(encode_string, values))
    except TypeError:
        return list(map(_value_as_json, values))


def as_fields(values: Sequence[Any] | np.ndarray[Any, Any]) -> Sequence[str]:
    """Return each value as a field of CSV: strings as they are, None as nothing, all else as JSON."""
    if not isinstance(values, np.ndarray):
        if all(map(str.__instancecheck__, values)):
            return values
        return [
            "" if value is None else value if isinstance(value, str) else _value_as_json(value) for value in values
        ]
    return as_json(values)


def as_array(values: Sequence[Any] | np.ndarray[Any, Any], kind: "pa.DataType | None" = None) -> "pa.Array":
    """Return values as an Arrow array, of a type if one is given.

    Raises:
        ValueError: They have no common type, or the one that is given would change them.
    """
    import pyarrow as pa

    if isinstance(values, pa.Array):
        return values
    try:
        try:
            found = pa.array(values)
        except UnicodeEncodeError:
            values = [without_surrogates(value) if isinstance(value, str) else value for value in values]
            found = pa.array(values)
    except (pa.ArrowException, OverflowError) as error:  # not all of these are ValueErrors
        raise ValueError(str(error)) from error
    # Nothing but None, or empty lists, says nothing about a type.
    if pa.types.is_null(found.type):
        return found.cast(kind or pa.string())
    if pa.types.is_list(found.type) and pa.types.is_null(found.type.value_type):
        return found.cast(kind or pa.list_(pa.string()))
    if kind is None or kind == found.type:
        return found
    try:
        fitted = pa.array(values, kind)
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(f"{error}; the first rows have {kind}") from error
    # pyarrow makes 1.5 an integer without a word.
    if fitted.to_pylist() != found.to_pylist():
        raise ValueError(f"it holds {found.type}, but {kind} in the first rows")
    return fitted


def encode_text(text: str) -> bytes:
    """Return text as UTF-8."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return without_surrogates(text).encode()


def without_surrogates(text: str) -> str:
    """Return text with U+FFFD in place of lone surrogates."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _value_as_json(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"[{', '.join(as_json(value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    return _ENCODER.encode(value)


def _plain(value: Any) -> str:
    """Return a value as a string that JSON has no type for."""
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, bytes):
        raise ValueError(
            "a column holds bytes, which JSON and CSV cannot: write parquet, or set keep_columns to false"
        )
    return str(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain)
