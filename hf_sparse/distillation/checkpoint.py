"""Checkpoints of a training: safetensors and JSON (never pickle), written whole or not at all.

A checkpoint is a folder `step-<number>`; it is written under another name, flushed, renamed, and only then is the one
before it removed. Everything that decides how training goes on is in it, so that a run that was killed ends with the
very weights of a run that was not.
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from hf_sparse.distillation.exchange import Exchange
from hf_sparse.distillation.tensor_folder import TensorFolder, read_own, write_folder
from hf_sparse.files import remove_folder

_STATE: Final = "state.json"
_ALONE: Final = Exchange(1, mode="replicated")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was saved: the step, the tensors by name and the JSON-able rest.

    Of tensors that are split by columns it has those of this process; they are read when they are asked for. `own` is
    what this process alone had, empty if it was saved by another number of processes.
    """

    step: int
    tensors: Mapping[str, Tensor]
    own: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
    exchange: Exchange = _ALONE,
) -> None:
    """Write a checkpoint into a folder and remove older ones; every process calls it (see `write_folder`).

    Raises:
        OSError: If the disk is full; the checkpoint before it is then still there.
    """
    files = {_STATE: json.dumps({"step": step, "num_processes": exchange.num_processes, **state})}
    write_folder(step_folder(folder, step), tensors, exchange=exchange, own=own, files=files)
    if exchange.rank == 0:
        remove_checkpoints(folder, except_for={step})


def has_checkpoint(folder: Path) -> bool:
    """Tell whether a folder has a checkpoint to go on from."""
    return any(folder.glob("step-*"))


def load_checkpoint(folder: Path, *, exchange: Exchange = _ALONE) -> Checkpoint | None:
    """Return the newest checkpoint of a folder, or None."""
    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    state = json.loads((found[-1] / _STATE).read_text(encoding="utf-8"))
    is_same_number = state.pop("num_processes") == exchange.num_processes
    return Checkpoint(
        step=state.pop("step"),
        tensors=TensorFolder(found[-1], exchange.columns),
        own=read_own(found[-1], exchange.rank) if is_same_number else {},
        state=state,
    )


def step_folder(folder: Path, step: int) -> Path:
    """Return where what belongs to a step is kept."""
    return folder / f"step-{step:09d}"


def remove_checkpoints(folder: Path, *, except_for: Set[int | None]) -> None:
    """Remove all checkpoints of a folder but those of some steps; None is no step."""
    kept = {step_folder(folder, step) for step in except_for if step is not None}
    for found in set(folder.glob("step-*")) - kept:
        remove_folder(found)


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser as named tensors."""
    tensors = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state[parameter].items():
            tensors[f"{prefix}.{index}.{name}"] = value
    return tensors


def restore_optimizer(prefix: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned, each tensor on its parameter's device."""
    for index, parameter in enumerate(_parameters(optimizer)):
        start = f"{prefix}.{index}."
        for key in tensors:
            if key.startswith(start):
                value = tensors[key]
                # AdamW keeps its step counter on the host.
                device = value.device if value.dim() == 0 else parameter.device
                optimizer.state[parameter][key.removeprefix(start)] = value.to(device)


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's random generators."""
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(tensors: Mapping[str, Tensor]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
