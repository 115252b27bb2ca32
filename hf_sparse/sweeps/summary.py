"""What a sweep found, from `sweep.json` alone: means over seeds and folds, and the table."""

import math
import statistics
from collections.abc import Sequence
from typing import Any


def series_of(study: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the points of each curve of a study: `name`, `value`, the `values` of all trainings and their `mean`.

    Points whose metric has no value for any training are left out.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for point in study["points"]:
        values = [value for value in point["scores"] if value is not None]
        if values:
            row = {key: point[key] for key in ("name", "value")} | {"values": values, "mean": statistics.fmean(values)}
            found.setdefault(point["series"], []).append(row)
    return found


def format_sweep(report: dict[str, Any]) -> str:
    """Return the studies as tables for people; a metric is in per cent, a spread that of a sample.

    The last column is the mean difference to the first point, and its standard error over folds (or seeds): what two
    points share, an easy fold say, is not in it.
    """
    metric, teacher, folds = report["metric"], report["teacher"], report.get("folds", 1)
    lines = []
    for name, study in report["studies"].items():
        points = [(series, point) for series, found in series_of(study).items() for point in found]
        width = max([len(_label(study, *pair)) for pair in points] + [len(study["title"])])
        lines += [f"{name}", f"{study['title']:>{width}}  {metric:>9}  spread  runs     to the first"]
        for series, point in points:
            values = point["values"]
            spread = f"{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "-"
            label = _label(study, series, point)
            against = _difference(values, points[0][1]["values"], folds)
            lines.append(f"{label:>{width}}  {100 * point['mean']:9.2f}  {spread:>6}  {len(values):>4}  {against:>15}")
        lines.append("")
    if teacher is not None:
        lines.append(f"teacher: {100 * teacher:.2f}")
    return "\n".join(lines).rstrip()


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
