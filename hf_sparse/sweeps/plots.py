"""One picture for each study: the metric on validation data against what was varied."""

from pathlib import Path
from typing import Any

from hf_sparse.figures import new_figure, save_figure
from hf_sparse.sweeps.summary import series_of


def plot_study(study: dict[str, Any], path: Path, *, metric: str, teacher: float | None) -> None:
    """Draw a study: the mean of each point over seeds and folds, with all of them beside it.

    Args:
        study: That of `sweep.json`.
        path: Of the picture.
        metric: Which metric, for the axis.
        teacher: The teacher's, for a line.
    """
    figure, axes = new_figure()
    for name, points in series_of(study).items():
        values = [point["value"] for point in points]
        are_numbers = all(value is not None for value in values)
        places = values if are_numbers else list(range(len(points)))
        means = [100 * point["mean"] for point in points]
        (line,) = axes.plot(places, means, marker="o", label=name, linestyle="-" if are_numbers else "none")
        for place, point in zip(places, points, strict=True):
            values = [100 * value for value in point["values"]]
            axes.plot([place] * len(values), values, ".", color=line.get_color(), alpha=0.5)
        if are_numbers and study["is_logarithmic"]:
            axes.set_xscale("log")
        if not are_numbers or len(points) <= 8:
            axes.set_xticks(places, [point["name"] for point in points], fontsize=8)
            axes.minorticks_off()
    if teacher is not None:
        axes.axhline(100 * teacher, color="grey", linestyle="--", linewidth=1, label="teacher")
    axes.set_xlabel(study["title"])
    axes.set_ylabel(f"{metric.replace('_', ' ')} on validation texts, %")
    axes.legend(fontsize=8)
    save_figure(figure, path)
