"""Pictures of how far a student can be trusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_sparse.evaluation.calibration import Reliability
from hf_sparse.figures import new_figure, save_figure


def plot_reliability(diagrams: dict[str, Reliability], path: Path) -> None:
    """Draw reliability diagrams: how often predictions are right against the probability they state.

    Args:
        diagrams: By name; empty bins are left out, and the more predictions a bin has, the larger is its point.
        path: Of the picture.
    """
    figure, axes = new_figure(width=6, height=5.5)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1, label="perfect")
    for name, diagram in diagrams.items():
        some = diagram.counts > 0
        sizes = 10 + 150 * diagram.counts[some] / diagram.counts.sum()
        (line,) = axes.plot(
            diagram.stated[some], diagram.observed[some], label=f"{name}: calibration error {diagram.error:.4f}"
        )
        axes.scatter(diagram.stated[some], diagram.observed[some], s=sizes, color=line.get_color(), alpha=0.6)
    axes.set_xlabel("stated probability")
    axes.set_ylabel("share that is right")
    axes.legend(loc="upper left", fontsize=8)
    save_figure(figure, path)


def plot_confusion(matrix: list[list[int]], labels: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix: of the texts of each label the share that gets each answer, with their numbers.

    Args:
        matrix: (C, C) texts, gold labels in rows, answers in columns.
        labels: Their names.
        path: Of the picture.
    """
    counts = np.array(matrix)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    size = max(4.0, 1.5 + 0.55 * len(labels))
    figure, axes = new_figure(width=size + 1, height=size)
    axes.grid(visible=False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the label's texts", shrink=0.8)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=90 if len(labels) > 3 else 0)
    axes.set_yticks(places, labels)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xlabel("answer of the student")
    axes.set_ylabel("label")
    save_figure(figure, path)


def plot_cascade(report: dict[str, Any], path: Path) -> None:
    """Draw accuracy against the share of texts handed over, with the chosen points.

    Args:
        report: That of `hf-sparse cascade`.
        path: Of the picture.
    """
    figure, axes = new_figure()
    for name, colour in (("student", "tab:red"), ("teacher", "tab:blue")):
        accuracy = 100 * report[name]["accuracy"]
        axes.axhline(accuracy, color=colour, linestyle="--", linewidth=1, label=f"{name} alone, {accuracy:.2f} %")
    for rule, colour in (("teacher", "tab:green"), ("average", "tab:purple")):
        curve = report["curves"][rule]
        shares, accuracies = (100 * np.array(curve[key]) for key in ("share", "accuracy"))
        label = "teacher decides what is handed over" if rule == "teacher" else "student and teacher decide together"
        axes.plot(shares, accuracies, color=colour, label=label)
    markers = {"reaches_teacher": ("o", 8), "best": ("*", 12), "given_share": ("s", 8)}
    for point in report["points"]:
        marker, size = markers[point["choice"]]
        axes.plot(
            100 * point["share"],
            100 * point["accuracy"],
            marker,
            color="tab:green" if point["rule"] == "teacher" else "tab:purple",
            markersize=size,
            markeredgecolor="black",
        )
    axes.set_xlabel("texts handed over to the teacher, % (points: thresholds chosen on validation texts)")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=8)
    save_figure(figure, path)
