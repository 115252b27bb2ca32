"""Logits in files: all of a text's, or where there are many classes the largest and what the rest weigh together.

Given the k largest logits and the logarithm of the sum of the exponentials of all others, the probabilities of the k
classes are exact; the others share theirs evenly. A struct column holds `classes` and `values` (k a text), `rest` and
`num_labels`; whoever reads it gets the whole matrix back.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def logits_column(logits: npt.NDArray[np.float32], top_k: int | None) -> pa.Array:
    """Return logits (B, C) as a column: lists of all, or structs of the `top_k` largest where C is over twice that."""
    num_texts, num_labels = logits.shape
    if top_k is None or num_labels <= 2 * top_k:
        return _lists(logits)
    classes = np.argpartition(-logits, top_k - 1, axis=1)[:, :top_k]
    classes = np.sort(classes, axis=1)
    values = np.take_along_axis(logits, classes, axis=1)
    others = np.ones(logits.shape, dtype=np.bool_)
    np.put_along_axis(others, classes, False, axis=1)
    rest = _log_sum_exp(logits[others].reshape(num_texts, num_labels - top_k))
    arrays = [
        _lists(classes.astype(np.int32)),
        _lists(values),
        pa.array(rest),
        pa.array(np.full(num_texts, num_labels, np.int32)),
    ]
    return pa.StructArray.from_arrays(arrays, names=["classes", "values", "rest", "num_labels"])


def logits_matrix(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Return the logits (B, C) of a column of either kind; C is 0 if there are no texts."""
    if not len(column):
        return np.zeros((0, 0), np.float32)
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # as older versions of pyarrow return structs
        whole = pa.concat_arrays(whole.chunks)
    if not pa.types.is_struct(whole.type):
        return _matrix(whole)
    classes, values = _matrix(whole.field("classes")).astype(np.int64), _matrix(whole.field("values"))
    num_labels = whole.field("num_labels")[0].as_py()
    each = np.asarray(whole.field("rest")) - np.float32(np.log(num_labels - classes.shape[1]))
    logits = np.repeat(each[:, None], num_labels, axis=1).astype(np.float32)
    np.put_along_axis(logits, classes, values, axis=1)
    return logits


def _lists(matrix: npt.NDArray[np.int32] | npt.NDArray[np.float32]) -> pa.ListArray:
    offsets = np.arange(0, matrix.size + 1, matrix.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1)))


def _matrix(lists: pa.ListArray) -> npt.NDArray[np.float32]:
    # A copy, because torch warns of the read-only memory of a column.
    return np.array(lists.flatten().to_numpy(zero_copy_only=False)).reshape(len(lists), -1)


def _log_sum_exp(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    largest = logits.max(axis=1)
    summed: npt.NDArray[np.float32] = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    return summed
