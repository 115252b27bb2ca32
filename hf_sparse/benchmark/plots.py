"""The two pictures of a benchmark, made from `benchmark.json` alone."""

from collections import Counter
from pathlib import Path
from typing import Any

from hf_sparse.benchmark.tables import headline_cell
from hf_sparse.benchmark.targets import find_cell
from hf_sparse.figures import new_figure, save_figure

_COLOURS = {"student": "tab:red", "encoder": "tab:blue", "lexical": "tab:green"}
_SHADES = {"student": "Reds", "encoder": "Blues", "lexical": "Greens"}
_OFFSETS = ((0, 12), (0, -18), (0, 28), (0, -34), (0, 44), (0, -50))


def plot_accuracy(report: dict[str, Any], path: Path) -> None:
    """Draw accuracy (agreement with the student where texts have no labels) against texts per second."""
    figure, axes = new_figure()
    length, batch_size = headline_cell(report)
    threads = report["settings"]["threads"][0]
    kind = "accuracy" if any(row["accuracy"] for row in report["contestants"]) else "agreement"
    points = []
    for row in report["contestants"]:
        cell = find_cell(report, row["name"], threads=threads, length=length, batch_size=batch_size)
        if cell is not None and row[kind] is not None:
            points.append((cell["texts_per_second"], 100 * row[kind]["value"], row, cell))
    for index, (speed, value, row, cell) in enumerate(sorted(points, key=lambda point: point[:2])):
        marker = "o" if not cell["is_extrapolated"] else "s"
        axes.plot(speed, value, marker, color=_COLOURS[row["group"]])
        # Points of one accuracy lie side by side: their names go to different heights, with a line to each.
        axes.annotate(
            row["name"],
            (speed, value),
            xytext=_OFFSETS[index % len(_OFFSETS)],
            textcoords="offset points",
            ha="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "linewidth": 0.3},
        )
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.3)
    axes.set_xlabel(
        f"texts per second ({length} words, batches of {batch_size}, {threads} thread{'s' if threads > 1 else ''}; "
        "squares: extrapolated)"
    )
    axes.set_ylabel("accuracy, %" if kind == "accuracy" else "agreement with the student, %")
    save_figure(figure, path)


def plot_latency(report: dict[str, Any], path: Path) -> None:
    """Draw the median time of a single text against its length, of every contestant."""
    from matplotlib import colormaps

    figure, axes = new_figure()
    batch_size = min(report["settings"]["batch_sizes"])
    threads = report["settings"]["threads"][0]
    styles = ("-", "--", ":", "-.")
    drawn = dict.fromkeys(_COLOURS, 0)
    sizes = Counter(row["group"] for row in report["contestants"] if row["reason"] is None)
    for row in report["contestants"]:
        cells = [
            find_cell(report, row["name"], threads=threads, length=length, batch_size=batch_size)
            for length in report["settings"]["lengths"]
        ]
        found = [cell for cell in cells if cell is not None]
        if not found:
            continue
        group = row["group"]
        axes.plot(
            [report["texts"]["lengths"][str(cell["length"])]["mean_words"] for cell in found],
            [cell["warm"]["median"] / batch_size * 1e6 for cell in found],
            marker="o",
            markersize=3,
            linestyle=styles[drawn[group] % len(styles)],
            color=colormaps[_SHADES[group]](0.95 - 0.55 * drawn[group] / max(1, sizes[group])),
            label=row["name"],
        )
        drawn[group] += 1
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(f"words a text (batches of {batch_size}, {threads} thread{'s' if threads > 1 else ''})")
    axes.set_ylabel("µs a text, median")
    if sum(drawn.values()):
        axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)
