"""The processors that this process may run on."""

import os


def available_processors() -> list[int]:
    """Return their numbers, in order; where the system does not say which, those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
