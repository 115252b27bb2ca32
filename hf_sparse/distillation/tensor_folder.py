"""Tensors of several processes in one folder: whole or not there, readable by any number of processes.

`tensors.safetensors` has what all processes share, written by the first; `columns-<first>-<stop>.safetensors` has the
columns of one process, and `process-<rank>.safetensors` what is its own alone. Tensors that are split by columns have
names that begin with `columns.`, also where one process has all columns; whoever reads takes the columns it wants,
from as many files as they are in. safetensors, never pickle.
"""

import shutil
from collections.abc import Mapping
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


def read_folder(folder: Path, columns: tuple[int, int]) -> dict[str, Tensor]:
    """Return what all processes share, and some columns of what is split, whoever wrote them.

    Raises:
        ValueError: If some of the columns are in no file.
    """
    tensors: dict[str, Tensor] = {}
    with safe_open(folder / _SHARED, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dictionary)
            whole = file.get_slice(name)
            tensors[name] = whole[:, slice(*columns)] if name.startswith(COLUMNS) else file.get_tensor(name)
    split = sorted(folder.glob(_SPLIT.format("*", "*")))
    if split:
        with safe_open(split[0], framework="pt") as file:
            names = list(file.keys())
        tensors |= {name: read_columns(folder, name, columns) for name in names}
    return tensors


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
