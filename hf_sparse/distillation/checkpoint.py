"""Checkpoints of a training: safetensors and JSON (never pickle), written whole or not at all.

A checkpoint is a folder `step-<number>`; it is written under another name, flushed, renamed, and only then is the one
before it removed. Everything that decides how training goes on is in it, so that a run that was killed ends with the
very weights of a run that was not.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_sparse.distillation.stages import replace_folder

_TENSORS = "tensors.safetensors"
_STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was saved: the step, the tensors by name and the JSON-able rest."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, *, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint into a folder and remove older ones.

    Raises:
        OSError: If the disk is full; the checkpoint before it is then still there.
    """
    temporary = folder / ".writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary / _TENSORS)
        (temporary / _STATE).write_text(json.dumps({"step": step, **state}), encoding="utf-8")
        target = folder / f"step-{step:09d}"
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for older in folder.glob("step-*"):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a folder, or None."""
    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    state = json.loads((found[-1] / _STATE).read_text(encoding="utf-8"))
    return Checkpoint(step=state.pop("step"), tensors=load_file(found[-1] / _TENSORS), state=state)


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
        for key, value in tensors.items():
            if key.startswith(start):
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
