"""What one process of a run has to work with, as measured constants: a YAML file per kind of machine."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import yaml

_FOLDER: Final = Path(__file__).parent / "hardware"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One process and its share of a machine; rates are per second, sizes in bytes.

    Attributes:
        name: What it is.
        measured: Whether the rates were measured; otherwise they come from data sheets.
        memory: Memory of a process for table, optimiser state and gradients (of the accelerator where there is one).
        disk: Free disk of a node.
        row_bandwidth: Bytes of rows that a training step reads and writes, rows lying anywhere.
        seconds_per_ngram: What a step takes for each n-gram of its batch besides moving rows (sorting, indexing).
        seconds_per_step: What a step takes besides.
        extraction: Characters whose n-grams the input threads of a process find, while the step computes.
        reading: Characters that the first process writes into shards of texts.
        counting: Characters of which the n-grams are counted, on one machine.
        teacher_flops: Floating-point operations of a teacher that labels.
        initialisation: Bytes of random weights that a process makes.
        disk_bandwidth: Bytes that a process writes to files.
        network_bandwidth: Bytes that a process receives from other nodes.
        local_bandwidth: Bytes that a process receives from others of its node.
        processes_per_node: Processes that share a node.
    """

    name: str
    measured: bool
    memory: float
    disk: float
    row_bandwidth: float
    seconds_per_ngram: float
    seconds_per_step: float
    extraction: float
    reading: float
    counting: float
    teacher_flops: float
    initialisation: float
    disk_bandwidth: float
    network_bandwidth: float
    local_bandwidth: float
    processes_per_node: int


def known_hardware() -> list[str]:
    """Return the names of the kinds of machines that have a file."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_hardware(name: str) -> Hardware:
    """Read the constants of a kind of machine, by its name or from a YAML file of one's own.

    Raises:
        ValueError: There is none of this name, or the file lacks a constant or has one that is not above 0.
    """
    path = _FOLDER / f"{name}.yaml"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        raise ValueError(f"hardware {name!r} is not known; name one of {', '.join(known_hardware())}, or a YAML file")
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    wanted = {field.name: field.type for field in fields(Hardware)}
    wrong = sorted(wanted.keys() ^ values.keys())
    if wrong:
        raise ValueError(f"{str(path)!r} lacks or must not have {', '.join(wrong)}; its keys are {', '.join(wanted)}")
    for key, value in values.items():
        if key in ("name", "measured"):
            continue
        try:
            values[key] = int(value) if key == "processes_per_node" else float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key} in {str(path)!r} must be a number, got {value!r}") from error
        if not values[key] > 0:
            raise ValueError(f"{key} in {str(path)!r} must be above 0, got {value!r}")
    return Hardware(**values)
