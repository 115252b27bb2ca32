"""The report of a benchmark: `benchmark.json` holds every figure, and all else is made from it alone."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_sparse.benchmark.contestants import Contestant
from hf_sparse.benchmark.harness import CellResult
from hf_sparse.benchmark.session import Measured, Settings
from hf_sparse.benchmark.statistics import ratio
from hf_sparse.benchmark.tables import format_report
from hf_sparse.benchmark.targets import check_targets

FORMAT_VERSION = 1


def make_report(measured: Measured, circumstances: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return what `benchmark.json` holds.

    Args:
        measured: What the run has found.
        circumstances: Date, command, commit, hardware, versions and texts.
        settings: The cells and the time for each.
    """
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        **circumstances,
        "settings": asdict(settings),
        "baseline": measured.baseline,
        "contestants": [_row(one, measured) for one in measured.contestants],
        "cells": [asdict(cell) for cell in measured.cells],
        "ratios": _ratios(measured),
        "roofline": measured.roofline,
    }
    report["targets"] = [asdict(outcome) | {"met": outcome.met} for outcome in check_targets(report)]
    # What JSON makes of it (tuples become lists), so that a report that was read is equal to the one written.
    plain: dict[str, Any] = json.loads(json.dumps(report))
    return plain


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Write `benchmark.json`, `benchmark.md` and the pictures."""
    from hf_sparse.benchmark.plots import plot_accuracy, plot_latency

    _write(folder / "benchmark.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    _write(folder / "benchmark.md", format_report(report))
    plot_accuracy(report, folder / "accuracy.png")
    plot_latency(report, folder / "latency.png")


def read_report(folder: Path) -> dict[str, Any]:
    """Return the report of a folder.

    Raises:
        ValueError: If it was written by another version of the package.
    """
    report: dict[str, Any] = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    if report.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{folder / 'benchmark.json'} has format version {report.get('format_version')}, this code reads "
            f"{FORMAT_VERSION}: run the benchmark again"
        )
    return report


def _row(one: Contestant, measured: Measured) -> dict[str, Any]:
    starts = measured.starts.get(one.name, {})
    loads = [start for name, start in starts.items() if name.startswith("threads_")]
    first = loads[0] if loads else {}
    return {
        "name": one.name,
        "title": one.title,
        "group": one.group,
        "note": first.get("note", ""),
        "reason": measured.reasons.get(one.name),
        "versions": first.get("versions", {}),
        "file_bytes": first.get("file_bytes") or None,
        "starts": starts,
        "compile_seconds": _compile_seconds(one, starts),
        "memory_above_baseline_bytes": _above_baseline(first, measured.baseline, "resident"),
        "peak_above_baseline_bytes": _above_baseline(first, measured.baseline, "peak"),
        "accuracy": _accuracy(one.name, measured),
        "agreement": _agreement(one.name, measured),
    }


def _compile_seconds(one: Contestant, starts: dict[str, dict[str, Any]]) -> float | None:
    """Return how much longer the first start took, with nothing compiled yet, than a later one."""
    later = next((start for name, start in starts.items() if name.startswith("threads_")), None)
    if not one.is_compiled or later is None or "prepare" not in starts:
        return None
    usual = sum(later[part] for part in ("import_seconds", "load_seconds", "first_call_seconds"))
    return max(0.0, float(starts["prepare"]["seconds"]) - float(usual))


def _above_baseline(start: dict[str, Any], baseline: dict[str, Any], kind: str) -> int | None:
    if kind not in start.get("memory", {}) or kind not in baseline.get("memory", {}):
        return None
    return int(start["memory"][kind] - baseline["memory"][kind])


def _accuracy(name: str, measured: Measured) -> dict[str, Any] | None:
    answers = measured.answers.get(name)
    if not answers or measured.labels is None:
        return None
    right = sum(answer == label for answer, label in zip(answers, measured.labels, strict=False))
    return {"value": right / len(answers), "num_texts": len(answers)}


def _agreement(name: str, measured: Measured) -> dict[str, Any] | None:
    """Return how often a contestant answers as the uncompressed student does."""
    students = [one.name for one in measured.contestants if one.group == "student" and one.name in measured.answers]
    answers = measured.answers.get(name)
    if not answers or not students:
        return None
    # The compressed form comes first in the table.
    reference = next((student for student in students if student.endswith(("fp32", "float"))), students[0])
    others = measured.answers[reference]
    count = min(len(answers), len(others))
    same = sum(left == right for left, right in zip(answers[:count], others[:count], strict=True))
    return {"with": reference, "value": same / count, "num_texts": count}


def _ratios(measured: Measured) -> list[dict[str, Any]]:
    """Compare every cell with that of the first contestant of the table."""
    if not measured.contestants:
        return []
    reference = measured.contestants[0].name
    cells = {(cell.contestant, _place(cell)): cell for cell in measured.cells if cell.warm is not None}
    found = []
    for (name, place), cell in cells.items():
        other = cells.get((reference, place))
        if name == reference or other is None or cell.warm is None or other.warm is None:
            continue
        compared = asdict(ratio(cell.warm.rounds, other.warm.rounds))
        head = {"contestant": name, "reference": reference, "length": cell.length, "batch_size": cell.batch_size}
        found.append({**head, "threads": cell.threads, "is_extrapolated": cell.is_extrapolated, **compared})
    return found


def _place(cell: CellResult) -> tuple[int, int, int]:
    return cell.length, cell.batch_size, cell.threads


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
