"""Tensors of several processes in one folder: whole or not there, readable by any number of processes.

`tensors.safetensors` has what all processes share, written by the first; `columns-<first>-<stop>.safetensors` has the
columns of one process, and `process-<rank>.safetensors` what is its own alone. Tensors that are split by columns have
names that begin with `columns.`, also where one process has all columns; whoever reads takes the columns it wants,
from as many files as they are in. safetensors, never pickle.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hf_sparse.distillation.exchange import Exchange
from hf_sparse.files import replace_folder

COLUMNS: Final = "columns."
_SHARED: Final = "tensors.safetensors"
_SPLIT: Final = "columns-{}-{}.safetensors"
_OWN: Final = "process-{}.safetensors"


def write_folder(
    target: Path,
    tensors: Mapping[str, Tensor],
    *,
    exchange: Exchange,
    own: Mapping[str, Tensor] | None = None,
    files: Mapping[str, str] | None = None,
) -> None:
    """Write the tensors of all processes; every process calls it.

    Args:
        target: The folder.
        tensors: What all processes have alike; of those named `columns.` a process gives its own columns.
        exchange: What the processes are.
        own: What only this process has.
        files: Texts to write beside, by name; those of the first process.

    Raises:
        OSError: If the disk is full; an older folder is then still there.
    """
    writing = target.with_name(f".{target.name}.writing")
    is_first = exchange.rank == 0
    if is_first:
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
    exchange.wait()
    try:
        split = {name: tensor for name, tensor in tensors.items() if exchange.is_split and name.startswith(COLUMNS)}
        if split:
            _save(split, writing / _SPLIT.format(*exchange.columns))
        if own:
            _save(own, writing / _OWN.format(exchange.rank))
        if is_first:
            _save({name: tensor for name, tensor in tensors.items() if name not in split}, writing / _SHARED)
            for name, content in (files or {}).items():
                (writing / name).write_text(content, encoding="utf-8")
        exchange.wait()
        if is_first:
            replace_folder(writing, target)
    finally:
        if is_first:
            shutil.rmtree(writing, ignore_errors=True)
    exchange.wait()


class TensorFolder(Mapping[str, Tensor]):
    """What all processes share, and some columns of what is split, whoever wrote them; read when it is asked for.

    Args:
        folder: What `write_folder` has written.
        columns: First column that is wanted, and that behind the last.
    """

    def __init__(self, folder: Path, columns: tuple[int, int]) -> None:
        self._folder = folder
        self._columns = columns
        with safe_open(folder / _SHARED, framework="pt") as file:
            self._shared = list(file.keys())
        self._split: list[str] = []
        for path in sorted(folder.glob(_SPLIT.format("*", "*")))[:1]:
            with safe_open(path, framework="pt") as file:
                self._split = list(file.keys())

    def __iter__(self) -> Iterator[str]:
        return iter([*self._shared, *self._split])

    def __len__(self) -> int:
        return len(self._shared) + len(self._split)

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor.

        Raises:
            KeyError: There is none of this name.
            ValueError: If some of its columns are in no file.
        """
        if name in self._split:
            return read_columns(self._folder, name, self._columns)
        if name not in self._shared:
            raise KeyError(name)
        with safe_open(self._folder / _SHARED, framework="pt") as file:
            if name.startswith(COLUMNS):
                columns: Tensor = file.get_slice(name)[:, slice(*self._columns)]
                return columns
            whole: Tensor = file.get_tensor(name)
            return whole


def read_columns(folder: Path, name: str, columns: tuple[int, int]) -> Tensor:
    """Return some columns of a tensor of which processes have written each their own.

    Raises:
        ValueError: If some of the columns are in no file.
    """
    found, (place, last) = [], columns
    while place < last:
        path, start, stop = _file_with(folder, place)
        with safe_open(path, framework="pt") as file:
            found.append(file.get_slice(name)[:, place - start : min(stop, last) - start])
        place = min(stop, last)
    return torch.cat(found, dim=1)


def read_own(folder: Path, rank: int) -> dict[str, Tensor]:
    """Return what a process alone had; nothing if there was no such process."""
    path = folder / _OWN.format(rank)
    if not path.is_file():
        return {}
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _file_with(folder: Path, column: int) -> tuple[Path, int, int]:
    for path in folder.glob(_SPLIT.format("*", "*")):
        start, stop = map(int, path.stem.split("-")[1:])
        if start <= column < stop:
            return path, start, stop
    raise ValueError(f"column {column} of the table is in no file of {folder}; remove it, then run the command again")


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
