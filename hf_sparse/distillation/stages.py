"""Stages: folders that are either whole or not there.

A stage works in `<name>.partial/` and is published by one rename, so a kill at any moment leaves the last good folder
in place. `stage.json` holds the hash of everything the stage depends on: a finished folder with the same hash is
reused, a partial one is resumed, one with another hash is thrown away.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_sparse.files import fingerprint, replace_folder, write_json

MANIFEST = "stage.json"


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


def _key_of(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(manifest.get("key")) if isinstance(manifest, dict) else None
