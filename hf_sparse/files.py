"""Files and folders that are either whole or not there: written, flushed, renamed; their sizes and digests."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

LOCK_FILE: Final = ".lock"  # of `only_process`, which leaves it behind
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL_TEXT = re.compile(rf"\(os error ({'|'.join(map(str, _DISK_FULL))})\)|\d+ requested and \d+ written")
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]b)", re.IGNORECASE)
_UNITS: Final = {"kb": 10**3, "mb": 10**6, "gb": 10**9}


def fingerprint(value: object) -> str:
    """Return the sha256 of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True, default=str).encode()).hexdigest()


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `50MB`, `800 kB` or `1.5GB`, of which a kB has 1000.

    Raises:
        ValueError: It is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a size is a number with kB, MB or GB, such as 50MB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(content: str | bytes, *, where: object) -> Any:
    """Return what a JSON text holds.

    Args:
        content: The text.
        where: The file, for the message.

    Raises:
        ValueError: It is no JSON, or nested so deep that nobody has written it in good faith.
    """
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{where} is no JSON that can be read: it is nested too deep") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no JSON, or something else than an object.
    """
    found = parse_json(path.read_bytes(), where=path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an object, got {type(found).__name__}")
    return found


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name to write a file under; it becomes `path` when all of it is on disk, and goes away on an error.

    A pipe or device at `path` is written to itself: it is no file that could be replaced.

    Raises:
        FileNotFoundError: There is no folder to write it to.
        OSError: If it cannot be written (a full disk, say); an older file at `path` is then untouched.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to; make it first")
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str) -> None:
    """Write a text file so that either the old or the new content is there after a kill."""
    with whole_file(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Flush every file below a folder, and the folders themselves, to disk."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        _flush(path)


def replace_folder(source: Path, target: Path) -> None:
    """Put a finished folder in the place of an older one; the older one goes only when the new one is on disk."""
    sync_folder(source)
    retired = target.with_name(f".{target.name}.old")
    shutil.rmtree(retired, ignore_errors=True)
    if target.exists():
        target.rename(retired)
    source.rename(target)
    shutil.rmtree(retired, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder; a kill leaves it whole or hidden, never with half of its files."""
    if folder.exists():
        retired = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(retired, ignore_errors=True)
        folder.rename(retired)
        shutil.rmtree(retired)


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder; the system lets go of it however this process ends.

    Where the file system has no locks, nobody is kept out.

    Raises:
        ValueError: If another process is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process is at work in {str(folder)!r}; wait until it has ended, or name another folder"
            ) from error
        except (ImportError, OSError):
            pass
        yield


@contextmanager
def disk_full_named(folder: Path) -> Iterator[None]:
    """Name the folder and the way out where the disk is full: libraries say neither.

    Raises:
        OSError: If the disk is full, a quota used up, or a file larger than is allowed.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        # NumPy has no error number, safetensors has it in its text.
        is_full = getattr(error, "errno", None) in _DISK_FULL or _DISK_FULL_TEXT.search(str(error))
        if not is_full:
            raise
        raise OSError(
            f"cannot write to {str(folder)!r}: {error}; free space on its disk, then run the same command again: "
            "what is finished stays"
        ) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
