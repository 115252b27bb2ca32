"""Stages: folders that are either whole or not there.

A stage works in `<name>.partial/` and is published by one rename, so a kill at any moment leaves the last good folder
in place. `stage.json` holds the hash of everything the stage depends on: a finished folder with the same hash is
reused, a partial one is resumed, one with another hash is thrown away.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

MANIFEST = "stage.json"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL_TEXT = re.compile(rf"\(os error ({'|'.join(map(str, _DISK_FULL))})\)|\d+ requested and \d+ written")


def fingerprint(value: object) -> str:
    """Return the sha256 of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True, default=str).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name to write a file under; it becomes `path` when all of it is on disk, and goes away on an error.

    Raises:
        OSError: If it cannot be written (a full disk, say); an older file at `path` is then untouched.
    """
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


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: Its name, and that of its folder.
        run_dir: Folder of the run.
        key: Hash of what it depends on.
    """

    name: str
    run_dir: Path
    key: str

    @classmethod
    def of(cls, name: str, run_dir: Path, *, inputs: Mapping[str, Any]) -> "Stage":
        """Make the stage whose key is the hash of its inputs."""
        return cls(name=name, run_dir=run_dir, key=fingerprint({"stage": name, "inputs": inputs}))

    @property
    def folder(self) -> Path:
        """Where its finished output is."""
        return self.run_dir / self.name

    @property
    def partial(self) -> Path:
        """Where it works."""
        return self.run_dir / f"{self.name}.partial"

    def is_done(self) -> bool:
        """Tell whether the finished output for these very inputs is there."""
        return _key_of(self.folder) == self.key

    def is_begun(self) -> bool:
        """Tell whether an interrupted run of the same inputs left something to go on with."""
        return _key_of(self.partial) == self.key

    def open_partial(self) -> Path:
        """Return the folder to work in: what an interrupted run of the same inputs left, or an empty one."""
        if not self.is_begun():
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            write_json(self.partial / MANIFEST, {"stage": self.name, "key": self.key})
        # Names with a dot are files in the making; a kill leaves them.
        for path in self.partial.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return self.partial

    def publish(self) -> Path:
        """Make the partial folder the finished one."""
        replace_folder(self.partial, self.folder)
        return self.folder


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _key_of(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(manifest.get("key")) if isinstance(manifest, dict) else None
