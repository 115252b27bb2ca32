"""What a sweep found, from `sweep.json` alone: means over seeds and folds, and the table."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

# Beside the metric by which settings are told apart: in per cent, but for what is no share.
_NO_SHARES: Final = ("divergence", "mean_squared_error")


def series_of(study: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the points of each curve of a study: `name`, `value`, the `values` of all trainings and their `mean`.

    Points whose metric has no value for any training are left out. `means` has the means of all scores, where a study
    has them.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for point in study["points"]:
        values = [value for value in point["scores"] if value is not None]
        if values:
            row = {key: point[key] for key in ("name", "value")} | {"values": values, "mean": statistics.fmean(values)}
            found.setdefault(point["series"], []).append(row | {"means": point.get("means", {})})
    return found


def format_sweep(report: dict[str, Any]) -> str:
    """Return the studies as tables for people; a metric is in per cent, a spread that of a sample.

    The last column is the mean difference to the first point, and its standard error over folds (or seeds): what two
    points share, an easy fold say, is not in it. After it come the means of all other scores.
    """
    metric, teacher, folds = report["metric"], report["teacher"], report.get("folds", 1)
    lines = []
    for name, study in report["studies"].items():
        points = [(series, point) for series, found in series_of(study).items() for point in found]
        others = [other for other in points[0][1]["means"] if other != metric] if points else []
        width = max([len(_label(study, *pair)) for pair in points] + [len(study["title"]), len("teacher")])
        heads = "".join(f"  {other:>{_width(other)}}" for other in others)
        lines += [f"{name}", f"{study['title']:>{width}}  {metric:>9}  spread  runs     to the first{heads}"]
        for series, point in points:
            values = point["values"]
            spread = f"{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "-"
            label = _label(study, series, point)
            against = _difference(values, points[0][1]["values"], folds)
            row = f"{label:>{width}}  {100 * point['mean']:9.2f}  {spread:>6}  {len(values):>4}  {against:>15}"
            lines.append(row + _cells(point["means"], others))
        if teacher[metric] is not None:
            lines.append(f"{'teacher':>{width}}  {100 * teacher[metric]:9.2f}{'':31}" + _cells(teacher, others))
        lines.append("")
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _cells(scores: dict[str, float | None], names: Sequence[str]) -> str:
    return "".join(f"  {_cell(name, scores.get(name)):>{_width(name)}}" for name in names)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name in _NO_SHARES else f"{100 * value:.2f}"


def _width(name: str) -> int:
    return max(len(name), 6)


def _difference(values: Sequence[float], first: Sequence[float], folds: int) -> str:
    if values is first or len(values) != len(first):
        return "-"
    pairs = [value - other for value, other in zip(values, first, strict=True)]
    seeds = len(pairs) // folds if folds > 1 else 1
    found = [100 * statistics.fmean(pairs[start : start + seeds]) for start in range(0, len(pairs), seeds)]
    error = f" +- {statistics.stdev(found) / math.sqrt(len(found)):.2f}" if len(found) > 1 else ""
    return f"{statistics.fmean(found):+.2f}{error}"


def _label(study: dict[str, Any], series: str, point: dict[str, Any]) -> str:
    several = len({row["series"] for row in study["points"]}) > 1
    return f"{series}, {point['name']}" if several else str(point["name"])
