"""How the loops of this folder are compiled, and the types that their arrays have.

numba keeps machine code on disk beside the source of each function and looks at that one file to see whether it is
stale. Here a function's code also comes from what it inlines from other files, so the stamp is the content of all of
them. And numba numbers the files of machine code, so that two processes which compile at the same time may both write
number 1, and one of them then runs the other's: here what was compiled gives a file its name.
"""

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Flags: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int32]
Keys: TypeAlias = npt.NDArray[np.uint64]
Offsets: TypeAlias = npt.NDArray[np.int64]

# Odd, so that multiplying by it modulo a power of two loses nothing: 2**64 over the golden ratio.
SPREAD: Final = 0x9E3779B97F4A7C15

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile a function on its first call, without the GIL; cached on disk wherever numba finds a place for it.

    A function that is called once for every word or n-gram must be `inline` instead: passing an array to a compiled
    function counts its references, which costs some 10 ns.
    """
    return _compile(function)


def jit_sums(function: Function) -> Function:
    """Compile a function whose sums of floats may be added up in any order, and so several terms at a time."""
    return _compile(function, fastmath={"reassoc", "contract", "nsz"})


def _compile(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Any = numba.njit(cache=True, **options)(function)
        # Set after the fact, as numba offers no place to say it; without this attribute its own stamp stays.
        stored: Any = getattr(compiled._cache, "_cache_file", None)
        if hasattr(stored, "_source_stamp"):
            stored._source_stamp = sources_stamp()
            stored.save = partial(_save, stored)
    except RuntimeError:  # read-only site-packages and no home directory
        compiled = numba.njit(**options)(function)
    return cast("Function", compiled)


def _save(stored: Any, key: object, data: object) -> None:
    """Keep machine code under a name of its own, and only then name it in the index.

    A process that writes the index at the same time may lose this entry, which is then compiled once more.
    """
    identity = f"{stored._source_stamp} {stored._version} {key!r}"
    name = f"{stored._index_name.removesuffix('.nbi')}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}.nbc"
    stored._save_data(name, data)
    stored._save_index(stored._load_index() | {key: name})


def inline(function: Function) -> Function:
    """Mark a function that becomes part of each compiled function which calls it."""
    return cast("Function", numba.njit(inline="always", nogil=True, error_model="numpy")(function))


@cache
def sources_stamp() -> str:
    """Return the SHA-256 of the sources of this folder and of all others that are compiled the same way."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    others = [*here.parent.glob("vocabulary/*.py"), here.parent / "distillation/row_kernel.py"]
    for file in sorted([*here.glob("*.py"), *others]):
        digest.update(file.read_bytes())
    return digest.hexdigest()
