"""The tables of a benchmark in Markdown, made from `benchmark.json` alone."""

from collections.abc import Iterable, Sequence
from typing import Any

from hf_sparse.benchmark.targets import BATCH_SIZE, LENGTH, find_cell

_BLANK = "–"
_EXTRAPOLATED = "\\*"


def format_report(report: dict[str, Any]) -> str:
    """Return the whole page: circumstances, targets, tables, roofline."""
    sections = [
        "# Benchmark",
        _circumstances(report),
        "## Targets",
        _targets(report),
        "## Who and how",
        _contestants(report),
        *_speeds(report),
        "## One text at a time",
        _latencies(report),
        "## Roofline",
        format_roofline(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def format_summary(report: dict[str, Any]) -> str:
    """Return the short table for the terminal: every contestant in one cell of each number of threads."""
    length, batch_size = headline_cell(report)
    threads = report["settings"]["threads"]
    header = ["", *(f"µs a text, threads {number}" for number in threads), "accuracy"]
    rows = []
    for row in report["contestants"]:
        cells = [find_cell(report, row["name"], threads=n, length=length, batch_size=batch_size) for n in threads]
        shown = [_per_text(cell) for cell in cells] if row["reason"] is None else [row["reason"][:60]]
        rows.append([row["title"], *shown, *[_BLANK] * (len(threads) - len(shown)), _share(row["accuracy"])])
    title = f"{length} words, batches of {batch_size}, from strings to labels ({_EXTRAPOLATED[1:]} extrapolated)"
    return f"{title}\n{_table(header, rows)}"


def headline_cell(report: dict[str, Any]) -> tuple[int, int]:
    """Return the length and batch size that stand for the rest: 235 words and 256 texts, or the nearest measured."""
    settings = report["settings"]
    length = min(settings["lengths"], key=lambda value: abs(value - LENGTH))
    return length, min(settings["batch_sizes"], key=lambda value: abs(value - BATCH_SIZE))


def format_roofline(report: dict[str, Any]) -> str:
    """Return the roofline page: what a text has to touch, what that costs, and how far the path is from it."""
    roofline = report.get("roofline")
    if not roofline:
        return ""
    counts = roofline["a_text"]
    lines = [
        f"A text of {LENGTH} words has {counts['bytes']:,.0f} bytes and makes {counts['word_look_ups']:,.0f} look-ups "
        f"of words and {counts['ngram_look_ups']:,.0f} of longer n-grams (those that find nothing included), and "
        f"fetches {counts['rows']:,.0f} rows (counted on {roofline['texts']:,} texts). Microseconds a text, one "
        "thread, for a loop that does nothing but read, at the places of the real texts, in arrays of the student's "
        "sizes. *Loads*: each thing when its turn comes. *Prefetched*: all of a text is asked for first: the limit."
    ]
    header = ["", "", "bytes", "words", "n-grams", "rows", "extraction", "whole path"]
    rows = []
    for form, found in roofline["forms"].items():
        for way, limits in found["microseconds"].items():
            shown = [f"{limits[part]['median']:.2f} ± {limits[part]['iqr']:.2f}" for part in limits]
            rows.append([form, way, *shown])
    lines.append(_table(header, rows))
    lines.append(_distances(report))
    return "\n\n".join(line for line in lines if line)


def _distances(report: dict[str, Any]) -> str:
    """Return how many times its limit each measured part takes."""
    rows = []
    for form, found in report["roofline"]["forms"].items():
        for name, part in (("extraction", "extraction"), (form, "path")):
            cell = find_cell(report, name)
            if cell is not None:
                microseconds = cell["warm"]["median"] / BATCH_SIZE * 1e6
                limits = [found["microseconds"][way][part]["median"] for way in ("loads", "prefetched")]
                rows.append(
                    [f"{name} ({form})", f"{microseconds:.2f}", *(f"{microseconds / one:.2f}x" for one in limits)]
                )
    header = ["", f"µs a text, batches of {BATCH_SIZE}", "against loads", "against prefetched"]
    return _table(header, rows) if rows else ""


def _circumstances(report: dict[str, Any]) -> str:
    hardware, texts = report["hardware"], report["texts"]["lengths"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lengths = "; ".join(
        f"{length}: {pool['mean_words']:.0f} words ({pool['fewest_words']}-{pool['most_words']}), "
        f"{pool['mean_bytes']:,.0f} bytes"
        for length, pool in texts.items()
    )
    timing = report["settings"]["timing"]
    return "\n".join(
        [
            f"- {report['created']}, commit {report['commit']}: `{' '.join(report['command'])}`",
            f"- {hardware['processor']}, {hardware['processors']} processors, caches {hardware['caches']}, GPU: "
            f"{hardware['accelerator'] or 'none'}; load average at the start {hardware['load_average']}",
            f"- {versions}",
            f"- From Python strings to label names; the same texts for all, mean of each length: {lengths}",
            f"- Contestants take turns ({timing['rounds']} rounds, {timing['seconds']} s a cell, at most "
            f"{timing['bound']} s), each in its own process, pinned to as many processors as it has threads; "
            "compilation is left out and stated",
            f"- {_EXTRAPOLATED[1:]}: measured on a part of each batch, and extrapolated",
        ]
    )


def _targets(report: dict[str, Any]) -> str:
    rows = []
    for outcome in report["targets"]:
        bound = f"{outcome['kind']} {outcome['bound']:,g} {outcome['unit']}"
        if outcome["aim"]:
            bound += f" (aim {outcome['aim']:g})"
        spread = f" ± {_number(outcome['spread'])}" if outcome["spread"] is not None else ""
        measured = (
            _BLANK if outcome["measured"] is None else f"{_number(outcome['measured'])}{spread} {outcome['unit']}"
        )
        verdict = {True: "yes", False: "**no**", None: _BLANK}[outcome["met"]]
        rows.append([outcome["name"], bound, measured, verdict, outcome["note"]])
    return _table(["", "wanted", "measured", "met", ""], rows)


def _contestants(report: dict[str, Any]) -> str:
    header = [
        "",
        "accuracy",
        "agreement",
        "files, MB",
        "memory, MB",
        "peak, MB",
        "import, s",
        "load, s",
        "from disk, s",
        "first text, ms",
        "compile, s",
        "",
    ]
    rows = []
    for row in report["contestants"]:
        starts = row["starts"]
        warm: dict[str, Any] = next((start for name, start in starts.items() if name.startswith("threads_")), {})
        cold = starts.get("cold", {})
        rows.append(
            [
                f"{row['title']} (`{row['name']}`)",
                _share(row["accuracy"]),
                _share(row["agreement"]),
                _scaled(row["file_bytes"], 1e6),
                _scaled(row["memory_above_baseline_bytes"], 1e6),
                _scaled(row["peak_above_baseline_bytes"], 1e6),
                _scaled(warm.get("import_seconds"), 1),
                _scaled(warm.get("load_seconds"), 1),
                _scaled(cold.get("load_seconds"), 1),
                _scaled(warm.get("first_call_seconds"), 1e-3),
                _scaled(row["compile_seconds"], 1),
                row["reason"] or "; ".join(filter(None, [row["note"], _versions(row["versions"])])),
            ]
        )
    note = "Memory is what a process has above one that has loaded a cached kernel, after 256 texts."
    return f"{_table(header, rows)}\n\n{note}"


def _speeds(report: dict[str, Any]) -> Iterable[str]:
    """Yield a table of texts per second for each number of threads and batch size."""
    settings = report["settings"]
    for threads in settings["threads"]:
        yield f"## Microseconds a text, {threads} thread{'s' if threads > 1 else ''}"
        places = [(length, batch) for length in settings["lengths"] for batch in settings["batch_sizes"]]
        header = ["words / batch", *(f"{length} / {batch}" for length, batch in places)]
        rows = []
        for row in report["contestants"]:
            cells = [
                find_cell(report, row["name"], threads=threads, length=length, batch_size=batch)
                for length, batch in places
            ]
            rows.append([row["title"], *map(_per_text, cells)])
        yield _table(header, rows)


def _latencies(report: dict[str, Any]) -> str:
    """Return percentiles of single calls, warm and cold, of the texts of the headline length."""
    if 1 not in report["settings"]["batch_sizes"]:
        return ""
    length, _ = headline_cell(report)
    rows = []
    for row in report["contestants"]:
        for threads in report["settings"]["threads"][:1]:
            cell = find_cell(report, row["name"], threads=threads, length=length, batch_size=1)
            if cell is not None:
                warm, cold = cell["warm"], cell["cold"]
                shown = [warm["median"], warm["p95"], warm["p99"], warm["iqr"], cold and cold["median"]]
                rows.append([row["title"], *(_scaled(value, 1e-6) for value in shown), f"{warm['num_calls']:,}"])
    header = [f"µs, {length} words", "median", "p95", "p99", "quartile distance", "cold median", "calls"]
    return _table(header, rows)


def _per_text(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return _BLANK
    mark = _EXTRAPOLATED if cell["is_extrapolated"] else ""
    return _number(cell["warm"]["median"] / cell["batch_size"] * 1e6) + mark


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _share(found: dict[str, Any] | None) -> str:
    if found is None:
        return _BLANK
    return f"{found['value']:.4f} ({found['num_texts']:,})"


def _scaled(value: float | None, unit: float) -> str:
    return _BLANK if value is None else _number(value / unit)


def _number(value: float) -> str:
    """Write a number with three significant digits, thousands apart, no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
