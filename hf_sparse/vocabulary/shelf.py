"""Arrays by name: in memory, or each group in a safetensors file of a folder, whole or not there at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Array = npt.NDArray[Any]


class Shelf:
    """Keeps groups of arrays; what is in a folder outlives the process."""

    def __init__(self, folder: Path | None) -> None:
        """Keep them in memory, or in a folder, which is made if need be."""
        self._folder = folder
        self._groups: dict[str, dict[str, Array]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def outlives_process(self) -> bool:
        """Whether what it keeps is there for the next process."""
        return self._folder is not None

    def __contains__(self, group: str) -> bool:
        """Tell whether there is a group."""
        if self._folder is None:
            return group in self._groups
        try:
            with safe_open(self._path(group), framework="numpy"):
                return True
        except (OSError, SafetensorError):  # not there, or cut short when the power went
            return False

    def put(self, group: str, arrays: Mapping[str, Array]) -> None:
        """Keep a group of arrays."""
        if self._folder is None:
            self._groups[group] = dict(arrays)
            return
        temporary = self._folder / f".{group}.tmp"
        save_file(dict(arrays), temporary)
        # A kill leaves the file whole or not there. It is not flushed: these files are made again if they are lost.
        temporary.replace(self._path(group))

    def get(self, group: str, name: str) -> Array:
        """Return an array of a group."""
        if self._folder is None:
            return self._groups[group][name]
        with safe_open(self._path(group), framework="numpy") as file:
            array: Array = file.get_tensor(name)
        return array

    def get_slice(self, group: str, name: str, first: int, last: int) -> Array:
        """Return the elements from `first` to before `last`, or to the end, of an array of one dimension."""
        if self._folder is None:
            return self._groups[group][name][first:last]
        with safe_open(self._path(group), framework="numpy") as file:
            whole = file.get_slice(name)
            size = whole.get_shape()[0]
            last = min(last, size)
            if first < last:
                part: Array = whole[first:last]
            else:  # an empty slice at the end is an error to safetensors
                part = (whole[:1] if size else file.get_tensor(name))[:0]
        return part

    def drop(self, group: str) -> None:
        """Forget a group, if it is there."""
        if self._folder is None:
            self._groups.pop(group, None)
        else:
            self._path(group).unlink(missing_ok=True)

    def _path(self, group: str) -> Path:
        assert self._folder is not None, "only what is in a folder has a path"
        return self._folder / f"{group}.safetensors"
