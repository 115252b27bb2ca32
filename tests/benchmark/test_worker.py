"""Workers and their processes, with a contestant of four lines."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_sparse.benchmark.process import ContestantError, ContestantProcess, pinned_processors
from hf_sparse.benchmark.worker import choose_parts, memory

MakeSpec = Callable[..., dict[str, Any]]
TIMEOUT = 60.0


@contextmanager
def running(spec: dict[str, Any], tmp_path: Path) -> Iterator[ContestantProcess]:
    process = ContestantProcess(sys.executable, spec, environment={}, log=tmp_path / "log")
    try:
        yield process
    finally:
        process.stop()


def test_conversation(worker_spec: MakeSpec, tmp_path: Path) -> None:
    with running(worker_spec(), tmp_path) as process:
        assert process.ask("prepare", timeout=TIMEOUT)["seconds"] > 0
        start = process.ask("load", timeout=TIMEOUT, length=4, from_disk=True)
        assert start["file_bytes"] == 1000
        assert start["note"] == "1 threads"
        assert set(start["versions"]) == {"numpy"}
        assert 1e6 < start["memory"]["resident"] <= start["memory"]["peak"]
        settings = {"length": 4, "seconds": 0.01, "part_size": 0, "max_parts": 1}
        found = process.ask("measure", timeout=TIMEOUT, batch_size=3, max_calls=5, cold=True, **settings)
        assert found["cold_seconds"] > 0
        assert 1 <= len(found["call_seconds"]) <= 5
        assert (
            process.ask("measure", timeout=TIMEOUT, batch_size=3, max_calls=1, cold=False, **settings)["cold_seconds"]
            is None
        )
        answers = tmp_path / "answers.json"
        answers.write_text(json.dumps(["b x", "a y", "c"]), encoding="utf-8")
        found = process.ask("answer", timeout=TIMEOUT, file=str(answers), seconds=5, batch_size=2)
        assert found["labels"] == ["b", "a", "c"]
        assert process.ask("answer", timeout=TIMEOUT, file=str(answers), seconds=0, batch_size=2)["labels"] == [
            "b",
            "a",
        ]
    assert "libraries print what they like" in (tmp_path / "log").read_text(encoding="utf-8")


def test_parts_are_scaled_up(worker_spec: MakeSpec, tmp_path: Path) -> None:
    with running(worker_spec(sleep=0.002), tmp_path) as process:
        process.ask("load", timeout=TIMEOUT, length=4, from_disk=False)
        settings = {"length": 4, "seconds": 0.0, "max_calls": 1, "cold": False, "batch_size": 64, "part_size": 4}
        found = process.ask("measure", timeout=TIMEOUT, max_parts=2, **settings)
    # Two parts of sixteen are timed, and stand for about eight times as much.
    assert found["call_seconds"][0] > 4 * 2 * 0.002


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("load", "ImportError: no such library"),
        ("predict", "MemoryError: too many texts"),
        ("exit", "ended with code 3"),
    ],
)
def test_failures_have_reasons(worker_spec: MakeSpec, tmp_path: Path, fail: str, message: str) -> None:
    with (
        running(worker_spec(fail=fail), tmp_path) as process,
        pytest.raises(ContestantError, match=message),
    ):
        process.ask("load", timeout=TIMEOUT, length=4, from_disk=False)


def test_no_answer(worker_spec: MakeSpec, tmp_path: Path) -> None:
    with running(worker_spec(sleep=30.0), tmp_path) as process:
        with pytest.raises(ContestantError, match="no answer within 0 s"):
            process.ask("load", timeout=0.3, length=4, from_disk=False)
        process.stop()
        assert not process.is_running


def test_hidden_packages(worker_spec: MakeSpec, tmp_path: Path) -> None:
    with running(worker_spec(package="json"), tmp_path) as process:
        process.ask("load", timeout=TIMEOUT, length=4, from_disk=False)
    with (
        running(worker_spec(package="hf_sparse", hidden=("hf_sparse",)), tmp_path) as process,
        pytest.raises(ContestantError, match="hf_sparse"),
    ):
        process.ask("load", timeout=TIMEOUT, length=4, from_disk=False)


@given(st.lists(st.text("ab ", max_size=30), min_size=1, max_size=50), st.integers(1, 9), st.integers(1, 9))
def test_parts(batch: list[str], part_size: int, max_parts: int) -> None:
    parts, share = choose_parts(batch, part_size, max_parts)
    everything = sorted(batch, key=len)
    assert 1 <= len(parts) <= max_parts
    assert all(1 <= len(part) <= part_size for part in parts)
    lengths = [len(text) for part in parts for text in part]
    assert lengths == sorted(lengths)
    if -(-len(batch) // part_size) <= max_parts:
        assert share == 1
        assert [text for part in parts for text in part] == everything
    else:
        assert len(parts) == max_parts
        assert share == sum(lengths) / max(1, sum(map(len, batch)))


def test_memory_of_this_process() -> None:
    found = memory()
    assert found["anonymous"] + found["files"] <= found["resident"] * 1.01
    assert found["resident"] <= found["peak"]


def test_too_many_threads() -> None:
    with pytest.raises(ValueError, match="threads must be at most"):
        pinned_processors(10_000)
