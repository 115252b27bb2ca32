"""What the figures were measured on: processor, memory, accelerator, system, versions, commit."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("hf-sparse", "numpy", "numba", "torch", "transformers", "tokenizers", "matplotlib")


def describe_hardware() -> dict[str, Any]:
    """Return processor, caches, memory and accelerator; what is unknown is None."""
    fields = _processor_fields()
    return {
        "processor": fields.get("model name") or platform.processor() or None,
        "family": f"{fields.get('cpu family', '?')}/{fields.get('model', '?')}",
        "flags": sorted(flag for flag in fields.get("flags", "").split() if flag.startswith(("avx", "amx", "sse4"))),
        "processors": os.cpu_count(),
        "caches": _caches(),
        "memory_bytes": _memory_bytes(),
        "accelerator": _accelerator(),
        "system": platform.platform(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the coordinator's packages; contestants report their own."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe_commit(folder: Path) -> str | None:
    """Return the git commit of the code in a folder, with `-dirty` where it was changed; None without git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor_fields() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = text.split("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _caches() -> dict[str, str]:
    """Return the size of each cache of the first processor, by its level and kind."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        found[f"L{level} {kind.lower()}"] = size
    return found


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _accelerator() -> str | None:
    """Ask the driver's own tool: importing torch would cost the coordinator seconds and memory."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return None
    return names[0].strip() or None
