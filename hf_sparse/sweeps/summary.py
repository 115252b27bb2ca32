"""What a sweep found, from `sweep.json` alone: means over seeds, and the table."""

import statistics
from typing import Any


def series_of(study: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the points of each curve of a study: `name`, `value`, the `values` of all seeds and their `mean`.

    Points whose metric has no value for any seed are left out.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for point in study["points"]:
        values = [value for value in point["scores"] if value is not None]
        if values:
            row = {key: point[key] for key in ("name", "value")} | {"values": values, "mean": statistics.fmean(values)}
            found.setdefault(point["series"], []).append(row)
    return found


def format_sweep(report: dict[str, Any]) -> str:
    """Return the studies as tables for people; a metric is in per cent, a spread that of a sample."""
    metric, teacher = report["metric"], report["teacher"]
    lines = []
    for name, study in report["studies"].items():
        points = [(series, point) for series, found in series_of(study).items() for point in found]
        width = max([len(_label(study, *pair)) for pair in points] + [len(study["title"])])
        lines += [f"{name}", f"{study['title']:>{width}}  {metric:>9}  spread  seeds"]
        for series, point in points:
            values = point["values"]
            spread = f"{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "-"
            label = _label(study, series, point)
            lines.append(f"{label:>{width}}  {100 * point['mean']:9.2f}  {spread:>6}  {len(values):>5}")
        lines.append("")
    if teacher is not None:
        lines.append(f"teacher: {100 * teacher:.2f}")
    return "\n".join(lines).rstrip()


def _label(study: dict[str, Any], series: str, point: dict[str, Any]) -> str:
    several = len({row["series"] for row in study["points"]}) > 1
    return f"{series}, {point['name']}" if several else str(point["name"])
