"""What a run costs: the wall time of each stage and the memory of the process, measured where they are spent."""

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_sparse.distillation.stages import Stage
from hf_sparse.files import write_json

RESOURCES = "resources.json"


def peak_memory() -> dict[str, int]:
    """Return the most memory that this process had so far, in bytes; that of the accelerator only where there is one.

    Memory-mapped files count with the pages that were read.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in kilobytes on Linux
    found = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    torch = sys.modules.get("torch")  # whoever has not imported it has used no accelerator
    if torch is not None and torch.cuda.is_available():
        found["peak_accelerator_memory_bytes"] = torch.cuda.max_memory_allocated()
    return found


def write_resources(folder: Path, *, seconds: float, resumed: bool) -> None:
    """Write what a stage took into its folder.

    Args:
        folder: Of the stage.
        seconds: Wall time in this process.
        resumed: Whether an earlier process, whose time is not known, did a part of the stage.
    """
    write_json(folder / RESOURCES, {"seconds": round(seconds, 3), "resumed": resumed, **peak_memory()})


def collect_resources(stages: Sequence[Stage], *, name: str, now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run took: the seconds of its stages, their sum, and the most memory that a process of it had.

    Args:
        stages: Finished stages.
        name: The stage that asks.
        now: What that stage has taken so far, like the content of a `resources.json`.

    Returns:
        `seconds` by stage (None for a stage that was resumed: then no one knows), `total_seconds` (None likewise),
        `peak_memory_bytes` and, with an accelerator, `peak_accelerator_memory_bytes`.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for stage in stages:
        path = stage.folder / RESOURCES
        if path.exists():
            found[stage.name] = json.loads(path.read_text(encoding="utf-8"))
    found[name] = now
    seconds = {name: None if one["resumed"] else one["seconds"] for name, one in found.items()}
    known = [value for value in seconds.values() if value is not None]
    peaks = sorted({name for one in found.values() for name in one if name.startswith("peak_")})
    return {
        "seconds": seconds,
        "total_seconds": round(sum(known), 3) if len(known) == len(seconds) else None,
        **{peak: max(one.get(peak, 0) for one in found.values()) for peak in peaks},
    }
