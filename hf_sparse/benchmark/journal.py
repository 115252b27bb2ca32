"""What has been measured, one line of JSON each: a benchmark that was interrupted goes on behind the last line."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """Records by kind and key, kept in a file that only grows."""

    def __init__(self, path: Path) -> None:
        """Read the records of a file, if it is there; a line that a kill has cut short is dropped."""
        self._path = path
        self._records: dict[tuple[str, str], dict[str, Any]] = {}
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            complete = [line for line in lines if line.endswith(b"\n")]
            if len(complete) < len(lines):
                partial = path.with_name(path.name + ".partial")
                partial.write_bytes(b"".join(complete))
                partial.replace(path)
            for line in complete:
                entry = json.loads(line)
                self._records[entry["kind"], entry["key"]] = entry["record"]

    def find(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return a record, None if there is none."""
        return self._records.get((kind, key))

    def add(self, kind: str, key: str, record: dict[str, Any]) -> None:
        """Keep a record; it is on disk when this returns."""
        self._records[kind, key] = record
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"kind": kind, "key": key, "record": record}) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def digest(*parts: Any) -> str:
    """Return a short hash of what can be written as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
