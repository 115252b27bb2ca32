"""Figures of one look, drawn without a display."""

from pathlib import Path
from typing import Any, Final

from hf_sparse.files import whole_file

_DPI: Final = 150


def new_figure(*, width: float = 9, height: float = 5.5) -> tuple[Any, Any]:
    """Return a figure, inches large, and its axes."""
    # The object interface: pyplot would choose a backend, and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(visible=True, which="major", alpha=0.3)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure to a file, whole, in the format that the file's name ends with (`.png`, `.svg`, `.pdf`)."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format=path.suffix.removeprefix(".") or "png")
