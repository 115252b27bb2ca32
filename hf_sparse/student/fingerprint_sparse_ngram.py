"""A short fingerprint of a student's weights, by which `config.json` names the weights it belongs to.

It is taken from the shapes, the first and last rows of each block of the table, and all dense layers but the
classifier, which a model loaded by `AutoModel` lacks: enough to tell students apart, and so little that hardly a page
of a mapped table is read.
"""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

EDGE_ROWS = 64  # rows of a block that are looked at, from its beginning and from its end


def weights_fingerprint(
    edges: Iterable[tuple[int, npt.NDArray[np.uint8]]], dense: Mapping[str, npt.NDArray[np.float32]]
) -> str:
    """Return the fingerprint of weights.

    Args:
        edges: For each block of the table its number of rows, and the bytes of its first and its last `EDGE_ROWS`
            rows, one after the other (rows, bytes of a row).
        dense: The other tensors of the base model by name, as float32.

    Returns:
        A SHA-256.
    """
    digest = hashlib.sha256()
    for num_rows, rows in edges:
        digest.update(f"{num_rows} {rows.shape}".encode())
        digest.update(rows.tobytes())
    for name in sorted(dense):
        values = np.ascontiguousarray(dense[name], dtype="<f4")
        digest.update(f"{name} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def check_fingerprint(found: str, expected: str | None, *, where: object) -> None:
    """Compare the fingerprint of loaded weights with the one of the config; `None` in an older config fits all.

    Raises:
        ValueError: If they differ.
    """
    if expected not in (None, found):
        raise ValueError(
            f"the weights of {where} belong to another student: their fingerprint is {found}, but config.json names "
            f"{expected}; download the whole repository again, or save weights and config together"
        )
