"""Trackers of Accelerate: asked for by name, refused where they are not installed."""

from collections.abc import Sequence

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

# Where the package is not called as the tracker is.
_PACKAGES = {"comet_ml": "comet-ml"}


def require_trackers(names: Sequence[str]) -> None:
    """Check that the trackers of a recipe can be used: Accelerate itself leaves out those that are not installed.

    Raises:
        ValueError: If a tracker is unknown or not installed; what to install is named.
    """
    installed = set(map(str, get_available_trackers()))
    for name in names:
        if name == "all":
            continue
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(map(str, LOGGER_TYPE_TO_CLASS)))
            raise ValueError(f"trackers names {name!r}, which Accelerate does not know; it knows {known}")
        if name not in installed:
            raise ValueError(
                f"trackers names {name!r}, which is not installed: `pip install {_PACKAGES.get(name, name)}`, or take "
                "it out of trackers (metrics.jsonl is always written)"
            )
