"""The results table of the project's README, made from the reports of finished runs.

    python -m hf_sparse.hub.results    # in a checkout: rewrites the table in README.md

A folder of `model_cards/` is a task: `report.json` is that of seed 0, `report-seed-<n>.json` those of other seeds of
the student, `cascade.json` what `hf-sparse cascade` measured.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hf_sparse.files import write_atomic

BEGIN: Final = "<!-- results: python -m hf_sparse.hub.results -->"
END: Final = "<!-- end of results -->"
_HEADER: Final = (
    "task",
    "teacher",
    "student",
    "kept",
    "distilled",
    "fine-tuned",
    "from scratch",
    "best without a transformer",
    "ECE, calibrated",
    "cascade (handed over)",
)


def render_results(folder: Path) -> str:
    """Return the table of all tasks below a folder, as Markdown, tests in percent of accuracy.

    Args:
        folder: `model_cards/`.
    """
    rows = [_row(path.parent) for path in sorted(folder.glob("*/report.json")) if _is_measured(path)]
    lines = [_line(_HEADER), _line(["---", *["---:"] * (len(_HEADER) - 1)]), *map(_line, rows)]
    return "\n".join(lines)


def insert_results(readme: str, table: str) -> str:
    """Return a README with the table between its two marks.

    Raises:
        ValueError: If a mark is missing.
    """
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"the README lacks the marks {BEGIN!r} and {END!r}; add both on lines of their own")
    before, rest = readme.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END, 1)[1]}"


def _is_measured(path: Path) -> bool:
    report = json.loads(path.read_text(encoding="utf-8"))
    return "accuracy" in report["student"] and "calibration" in report


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(folder: Path) -> list[str]:
    paths = [folder / "report.json", *sorted(folder.glob("report-seed-*.json"))]
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    first = reports[0]
    stages = [
        _mean([report["stages"][name]["metrics"]["accuracy"] for report in reports if name in report["stages"]])
        for name in ("distil", "fine_tune", "from_scratch")
    ]
    students = [report["student"]["accuracy"] for report in reports]
    kept = statistics.mean(students) / first["teacher"]["accuracy"]
    ece = [report["calibration"] for report in reports]
    return [
        f"[{folder.name}](recipes/{folder.name})",
        _percent(first["teacher"]["accuracy"]),
        f"**{_mean(students)}**",
        _percent(kept),
        *stages,
        _best_baseline(first.get("baselines", {})),
        _ece(ece),
        _cascade(folder / "cascade.json"),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _mean(shares: Sequence[float]) -> str:
    """Return the mean, and the standard deviation where there are several."""
    if not shares:
        return ""
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return _percent(statistics.mean(shares)) + spread


def _best_baseline(baselines: Mapping[str, Any]) -> str:
    scores = {name: found["test"]["accuracy"] for name, found in baselines.items() if "test" in found}
    if not scores:
        return ""
    best = max(scores, key=lambda name: scores[name])
    return f"{_percent(scores[best])} ({best})"


def _ece(calibrations: Sequence[Mapping[str, Any]]) -> str:
    """Return the expected calibration error before and after the temperature, by the test texts."""
    before, after = (
        statistics.mean(found["test" if "test" in found else "validation"][f"ece_{when}"] for found in calibrations)
        for when in ("before", "after")
    )
    return f"{before:.3f} → {after:.3f}"


def _cascade(path: Path) -> str:
    if not path.exists():
        return ""
    chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"]
    return "" if chosen is None else f"{_percent(chosen['accuracy'])} ({_percent(chosen['share'])} %)"


def main() -> None:
    """Rewrite the table of the README of the current folder."""
    readme = Path("README.md")
    table = render_results(Path("model_cards"))
    write_atomic(readme, insert_results(readme.read_text(encoding="utf-8"), table))


if __name__ == "__main__":
    main()
