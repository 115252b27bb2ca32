"""The report, its tables and its pictures, from JSON alone."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hf_sparse.benchmark.contestants import Contestant, PeerGroup
from hf_sparse.benchmark.harness import CellResult, Timing
from hf_sparse.benchmark.report import make_report, read_report, write_report
from hf_sparse.benchmark.session import Measured, Settings, read_cell
from hf_sparse.benchmark.statistics import summarise
from hf_sparse.benchmark.tables import format_report, format_summary
from hf_sparse.benchmark.targets import check_targets

START = {
    "import_seconds": 0.5,
    "load_seconds": 0.25,
    "first_call_seconds": 0.001,
    "memory": {"resident": 150_000_000, "peak": 200_000_000},
    "file_bytes": 93_000_000,
    "versions": {"numba": "0.68.1"},
    "note": "",
}
SECONDS_PER_TEXT = {"runtime-int8": 20e-6, "runtime-fp32": 40e-6, "fasttext-4-64": 90e-6, "teacher-fp32": 25e-3}


def contestant(name: str, group: PeerGroup = "student") -> Contestant:
    compiled = name.startswith("runtime")
    return Contestant(
        name=name, title=f"Title of {name}", group=group, module="student", peer="Runtime", is_compiled=compiled
    )


@pytest.fixture
def settings() -> Settings:
    return Settings(
        lengths=(60, 235),
        batch_sizes=(1, 256),
        threads=(1, 2),
        timing=Timing(seconds=0.5, bound=60.0, rounds=3),
        answer_seconds=20.0,
        from_disk=True,
    )


@pytest.fixture
def report(settings: Settings) -> dict[str, Any]:
    """A report of four contestants, one of which is extrapolated, and a blank one."""
    groups: dict[str, PeerGroup] = {"fasttext-4-64": "lexical", "teacher-fp32": "encoder"}
    ones = [contestant(name, groups.get(name, "student")) for name in (*SECONDS_PER_TEXT, "luxical")]
    measured = Measured(
        contestants=ones, labels=("a", "b", "a", "b"), baseline={"memory": {"resident": 60e6, "peak": 60e6}}
    )
    for name, seconds in SECONDS_PER_TEXT.items():
        measured.starts[name] = {
            "prepare": {"seconds": 9.0},
            "cold": START | {"load_seconds": 0.4},
            "threads_1": START,
        }
        for length in settings.lengths:
            for batch_size in settings.batch_sizes:
                for threads in settings.threads:
                    call = seconds * batch_size * length / 235 / (1.9 if threads == 2 else 1)
                    rounds = [[call, call * 1.1], [call * 2, call * 2.2]]
                    measured.cells.append(
                        CellResult(
                            contestant=name,
                            length=length,
                            batch_size=batch_size,
                            threads=threads,
                            warm=summarise(rounds),
                            cold=summarise([[3 * call]]),
                            texts_per_second=batch_size / call,
                            is_extrapolated=name == "teacher-fp32" and batch_size > 1,
                        )
                    )
    measured.answers = {
        "runtime-int8": ["a", "b", "b", "b"],
        "runtime-fp32": ["a", "b", "a", "a"],
        "teacher-fp32": ["a"],
    }
    measured.reasons = {"luxical": "luxical==1.1.2 cannot be installed"}
    limits = {
        part: {"median": 12.0, "iqr": 0.5} for part in ("bytes", "words", "ngrams", "rows", "extraction", "path")
    }
    counts = {"bytes": 1300.0, "word_look_ups": 270.0, "ngram_look_ups": 480.0, "rows": 500.0}
    form = {
        "sizes": {},
        "microseconds": {"loads": limits, "prefetched": {**limits, "path": {"median": 5.0, "iqr": 0.1}}},
    }
    measured.roofline = {"texts": 10, "a_text": counts, "forms": {"runtime-int8": form}}
    pool = {
        "texts": 9,
        "mean_words": 60.0,
        "fewest_words": 30,
        "most_words": 99,
        "mean_bytes": 300.0,
        "ascii_share": 1.0,
    }
    circumstances = {
        "created": "2026-11-23T12:00:00+00:00",
        "command": ["bench"],
        "commit": "abc",
        "hardware": {"processor": "P", "processors": 2, "caches": {}, "accelerator": None, "load_average": 0.1},
        "versions": {"python": "3.11"},
        "texts": {"source": "x", "lengths": {length: pool for length in settings.lengths}, "labelled": True},
    }
    return make_report(measured, circumstances, settings)


def rows_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in report["contestants"]}


def test_round_trip(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(report, tmp_path)
    again = read_report(tmp_path)
    assert again == report
    assert format_report(again) == (tmp_path / "benchmark.md").read_text(encoding="utf-8")
    for name in ("accuracy.png", "latency.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    (tmp_path / "benchmark.json").write_text(json.dumps(report | {"format_version": 0}), encoding="utf-8")
    with pytest.raises(ValueError, match="format version 0"):
        read_report(tmp_path)


def test_cells_round_trip(report: dict[str, Any]) -> None:
    for record in report["cells"]:
        assert json.loads(json.dumps(asdict(read_cell(record)))) == record


def test_facts(report: dict[str, Any]) -> None:
    served = rows_of(report)["runtime-int8"]
    assert served["memory_above_baseline_bytes"] == 90_000_000
    assert served["compile_seconds"] == pytest.approx(9.0 - 0.751)
    assert served["accuracy"] == {"value": 0.75, "num_texts": 4}
    assert served["agreement"] == {"with": "runtime-fp32", "value": 0.5, "num_texts": 4}
    assert rows_of(report)["teacher-fp32"]["accuracy"] == {"value": 1.0, "num_texts": 1}
    assert rows_of(report)["luxical"]["reason"] == "luxical==1.1.2 cannot be installed"


def test_ratios(report: dict[str, Any]) -> None:
    found = [
        one
        for one in report["ratios"]
        if (one["contestant"], one["length"], one["batch_size"], one["threads"]) == ("fasttext-4-64", 235, 256, 1)
    ]
    assert len(found) == 1
    assert found[0]["reference"] == "runtime-int8"
    assert found[0]["median"] == pytest.approx(4.5)
    assert found[0]["iqr"] == pytest.approx(0)


def test_targets(report: dict[str, Any]) -> None:
    found = {outcome.name: outcome for outcome in check_targets(report)}
    assert found["runtime-int8 against fasttext-4-64, 1 thread"].measured == pytest.approx(4.5)
    assert found["runtime-int8 against fasttext-4-64, 1 thread"].met is True
    assert found["runtime-int8 against luxical, 1 thread"].met is None
    teacher = found["runtime-int8 against teacher-fp32, 2 threads"]
    assert (teacher.measured, teacher.note) == (pytest.approx(1250), "extrapolated")
    assert found["two threads against one"].measured == pytest.approx(1.9)
    # The median of the calls 20, 22, 40 and 44 µs a text, over 12 and over 5 µs.
    path = found["whole path against its roofline"]
    assert path.measured == pytest.approx(31 / 5)
    assert path.note == "31.0 µs a text; 2.6x what loads alone take without prefetching"
    assert path.met is False
    assert found["runtime-int8, memory above a process with one cached kernel"].measured == pytest.approx(90)
    assert found["runtime-int8, load after the imports, from disk"].measured == pytest.approx(0.4)
    assert found["accuracy lost by compression"].measured == pytest.approx(0)
    assert found["agreement of the compressed student with the float one"].measured == pytest.approx(50)


def test_tables(report: dict[str, Any]) -> None:
    page = format_report(report)
    assert "| Title of fasttext-4-64 | 35.6 | 35.6 | 140 | 140 |" in page
    assert "| Title of teacher-fp32 | 9,894 | 9,894\\* | 38,750 | 38,750\\* |" in page
    assert "| Title of luxical | – | – | – | – |" in page
    assert "luxical==1.1.2 cannot be installed" in page
    assert "| runtime-int8 (runtime-int8) | 31.00 | 2.58x | 6.20x |" in page
    lines = format_summary(report).splitlines()
    assert lines[0].startswith("235 words, batches of 256")
    assert len(lines) == 3 + 5
