"""What a student has to show: figures of `benchmark.json` against the bounds that the project has set itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

LENGTH, BATCH_SIZE = 235, 256
_SERVED = "runtime-int8"
_FLOAT = "runtime-fp32"
# (slower, faster, threads, at least, aim)
_RATIOS: tuple[tuple[str, str, int, float, float | None], ...] = (
    ("fasttext-4-64", _SERVED, 1, 4.0, 6.0),
    ("fasttext-2-10", _SERVED, 1, 1.6, 2.5),
    ("model2vec", _SERVED, 1, 22.0, None),
    ("luxical", _SERVED, 1, 5.0, None),
    ("count-dan", _SERVED, 1, 25.0, None),
    ("teacher-fp32", _SERVED, 2, 1_000.0, None),
    ("roberta-large-fp32", _SERVED, 2, 30_000.0, None),
    ("roberta-large-bf16", _SERVED, 2, 4_000.0, None),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A bound and what was measured; `met` is None where it was not."""

    name: str
    kind: Literal["at least", "at most"]
    bound: float
    unit: str
    measured: float | None
    spread: float | None = None
    aim: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bound holds."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.kind == "at least" else self.measured <= self.bound


def check_targets(report: dict[str, Any]) -> list[Outcome]:
    """Compare a report with all bounds, in the order in which they are published."""
    return [*_speed(report), *_roofline(report), *_pipelines(report), *_process(report), *_answers(report)]


def find_cell(
    report: dict[str, Any], name: str, *, threads: int = 1, length: int = LENGTH, batch_size: int = BATCH_SIZE
) -> dict[str, Any] | None:
    """Return the cell of a contestant, None if it was not measured."""
    for cell in report["cells"]:
        place = (cell["contestant"], cell["length"], cell["batch_size"], cell["threads"])
        if place == (name, length, batch_size, threads) and cell["warm"] is not None:
            found: dict[str, Any] = cell
            return found
    return None


def find_ratio(report: dict[str, Any], slower: str, faster: str, **place: int) -> tuple[float, float, str] | None:
    """Return how many times slower a contestant is, the spread over rounds, and whether that is extrapolated."""
    from hf_sparse.benchmark.statistics import ratio

    cells = find_cell(report, slower, **place), find_cell(report, faster, **place)
    if cells[0] is None or cells[1] is None:
        return None
    found = ratio(cells[0]["warm"]["rounds"], cells[1]["warm"]["rounds"])
    return found.median, found.iqr, "extrapolated" if cells[0]["is_extrapolated"] else ""


def _speed(report: dict[str, Any]) -> Iterator[Outcome]:
    for slower, faster, threads, bound, aim in _RATIOS:
        found = find_ratio(report, slower, faster, threads=threads)
        yield Outcome(
            name=f"{faster} against {slower}, {threads} thread{'s' if threads > 1 else ''}",
            kind="at least",
            bound=bound,
            unit="x",
            measured=found and found[0],
            spread=found and found[1],
            aim=aim,
            note=found[2] if found else "",
        )
    one, two = (find_cell(report, _SERVED, threads=threads) for threads in (1, 2))
    measured = one["warm"]["median"] / two["warm"]["median"] if one and two else None
    yield Outcome(name="two threads against one", kind="at least", bound=1.8, unit="x", measured=measured)


def _roofline(report: dict[str, Any]) -> Iterator[Outcome]:
    forms = (report.get("roofline") or {}).get("forms", {})
    for title, contestant, part in (("extraction", "extraction", "extraction"), ("whole path", _SERVED, "path")):
        cell = find_cell(report, contestant)
        limits = forms.get(_SERVED, {}).get("microseconds", {})
        measured = note = None
        if cell and limits:
            microseconds = cell["warm"]["median"] / BATCH_SIZE * 1e6
            measured = microseconds / limits["prefetched"][part]["median"]
            loads = microseconds / limits["loads"][part]["median"]
            note = f"{microseconds:.1f} µs a text; {loads:.1f}x what loads alone take without prefetching"
        yield Outcome(
            name=f"{title} against its roofline",
            kind="at most",
            bound=2.0,
            unit="x",
            measured=measured,
            note=note or "",
        )


def _pipelines(report: dict[str, Any]) -> Iterator[Outcome]:
    for name, bound in (("pipeline-int8", 2.5), ("pipeline-int8-plain", 10.0)):
        found = find_ratio(report, name, _SERVED)
        yield Outcome(
            name=f"{name} against {_SERVED}",
            kind="at most",
            bound=bound,
            unit="x",
            measured=found and found[0],
            spread=found and found[1],
        )
    for name, bound in (("pipeline-int8", 1000.0), (_SERVED, 100.0)):
        cell = find_cell(report, name, batch_size=1)
        yield Outcome(
            name=f"{name}, one text at a time, 99th percentile",
            kind="at most",
            bound=bound,
            unit="µs",
            measured=None if cell is None else cell["warm"]["p99"] * 1e6,
        )


def _process(report: dict[str, Any]) -> Iterator[Outcome]:
    row = next((row for row in report["contestants"] if row["name"] == _SERVED), None)
    memory = row and row["memory_above_baseline_bytes"]
    yield Outcome(
        name=f"{_SERVED}, memory above a process with one cached kernel",
        kind="at most",
        bound=110.0,
        unit="MB",
        measured=None if memory is None else memory / 1e6,
    )
    starts = (row or {}).get("starts", {})
    for name, title in (("threads_1", "files in memory"), ("cold", "from disk")):
        yield Outcome(
            name=f"{_SERVED}, load after the imports, {title}",
            kind="at most",
            bound=0.5,
            unit="s",
            measured=starts[name]["load_seconds"] if name in starts else None,
        )


def _answers(report: dict[str, Any]) -> Iterator[Outcome]:
    rows = {row["name"]: row for row in report["contestants"]}
    served, full = rows.get(_SERVED), rows.get(_FLOAT)
    lost = None
    if served and full and served["accuracy"] and full["accuracy"]:
        lost = 100 * (full["accuracy"]["value"] - served["accuracy"]["value"])
    yield Outcome(name="accuracy lost by compression", kind="at most", bound=0.1, unit="points", measured=lost)
    agreed = served and served["agreement"]
    yield Outcome(
        name="agreement of the compressed student with the float one",
        kind="at least",
        bound=99.5,
        unit="%",
        measured=100 * agreed["value"] if agreed else None,
    )
