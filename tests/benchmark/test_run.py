"""Whole runs with contestants of a few lines in real processes: blank rows, resuming, what is measured again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hf_sparse.benchmark import contestants as registry
from hf_sparse.benchmark.bench import choose
from hf_sparse.benchmark.contestants import Contestant, Field, make_contestants, row_bytes
from hf_sparse.benchmark.harness import Timing
from hf_sparse.benchmark.journal import Journal, digest
from hf_sparse.benchmark.run import run_benchmark
from hf_sparse.benchmark.session import Materials, Measured, Run, Settings
from tests.benchmark.conftest import PEER

SETTINGS = Settings(
    lengths=(4,),
    batch_sizes=(1, 8),
    threads=(1,),
    timing=Timing(seconds=0.02, bound=5.0, rounds=2),
    answer_seconds=5.0,
    from_disk=True,
)


@pytest.fixture
def materials(tmp_path: Path) -> Materials:
    texts = [f"label{index % 2} and some words" for index in range(16)]
    for name in ("pool", "answers"):
        (tmp_path / f"{name}.json").write_text(json.dumps(texts), encoding="utf-8")
    return Materials(
        pools={4: tmp_path / "pool.json"},
        described={},
        answers=tmp_path / "answers.json",
        labels=tuple(text.split()[0] for text in texts),
        pool_keys={4: "key"},
        answers_key="key",
    )


@pytest.fixture
def field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Contestant]:
    """One that works, one that must be prepared, and three that fail in three ways."""
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "echo.py").write_text(PEER, encoding="utf-8")
    monkeypatch.setattr(registry, "_PEERS", tmp_path / "peers")
    common: dict[str, Any] = {"title": "", "group": "lexical", "module": "echo", "peer": "Echo"}
    monkeypatch.setattr("hf_sparse.benchmark.run.baseline", lambda: Contestant(name="baseline", **common))
    return [
        Contestant(name="good", **common),
        Contestant(name="prepared", is_prepared=True, **common),
        Contestant(name="unloadable", options={"fail": "load"}, **common),
        Contestant(name="crashing", options={"fail": "exit"}, **common),
        Contestant(name="missing", missing="needs a teacher", **common),
    ]


def run(field: list[Contestant], materials: Materials, folder: Path, **settings: Any) -> Measured:
    journal = Journal(folder / "journal.jsonl")
    arguments: dict[str, Any] = {"settings": SETTINGS, "commit": "c"} | settings
    return run_benchmark(field, materials, journal=journal, folder=folder, **arguments)


def test_run(field: list[Contestant], materials: Materials, tmp_path: Path) -> None:
    found = run(field, materials, tmp_path)
    assert [(cell.contestant, cell.batch_size) for cell in found.cells] == [
        ("good", 1),
        ("prepared", 1),
        ("good", 8),
        ("prepared", 8),
    ]
    assert all(cell.warm is not None and len(cell.warm.rounds) == 2 for cell in found.cells)
    assert found.reasons["missing"] == "needs a teacher"
    assert found.reasons["unloadable"] == "ImportError: no such library"
    assert "ended with code 3" in found.reasons["crashing"]
    assert found.answers["good"] == list(materials.labels or ())
    assert set(found.starts["prepared"]) == {"prepare", "cold", "threads_1"}
    assert found.starts["prepared"]["threads_1"]["file_bytes"] == 1000
    assert found.baseline["memory"]["resident"] > 1e6
    assert found.roofline is None


def test_nothing_is_measured_twice(
    field: list[Contestant], materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = field[:2]
    first = run(able, materials, tmp_path)
    asked: list[str] = []
    start = Run.start

    def note(self: Run, contestant: Contestant, threads: int) -> Any:
        asked.append(contestant.name)
        return start(self, contestant, threads)

    monkeypatch.setattr(Run, "start", note)
    again = run(able, materials, tmp_path)
    assert asked == []
    assert again.cells == first.cells
    assert again.starts == first.starts
    assert again.answers == first.answers
    assert again.baseline == first.baseline

    lines = (tmp_path / "journal.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    cells = [line for line in lines if '"kind": "cell"' in line]
    kept = [line for line in lines if line != cells[-1]]
    (tmp_path / "journal.jsonl").write_text("".join(kept) + cells[-1][:40], encoding="utf-8")
    resumed = run(able, materials, tmp_path)
    assert set(asked) == {"prepared"}
    assert resumed.cells[:3] == first.cells[:3]
    assert resumed.cells[3] != first.cells[3]
    assert (resumed.cells[3].contestant, resumed.cells[3].batch_size) == ("prepared", 8)


def test_another_commit_is_measured_anew(field: list[Contestant], materials: Materials, tmp_path: Path) -> None:
    first = run(field[:1], materials, tmp_path)
    assert run(field[:1], materials, tmp_path, commit="d").cells != first.cells


def test_more_cells_in_a_second_run(field: list[Contestant], materials: Materials, tmp_path: Path) -> None:
    timing = Timing(seconds=0.02, bound=9.0, rounds=2)
    first = run(field[:1], materials, tmp_path, settings=replace(SETTINGS, batch_sizes=(8,), timing=timing))
    both = run(field[:1], materials, tmp_path)
    assert [(cell.batch_size, cell.bound) for cell in both.cells] == [(1, 5.0), (8, 9.0)]
    assert both.cells[1] == first.cells[0]


def test_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add("cell", "a", {"x": 1})
    journal.add("cell", "a", {"x": 2})
    again = Journal(tmp_path / "journal")
    assert again.find("cell", "a") == {"x": 2}
    assert again.find("start", "a") is None
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def make_student(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    config = {"vocab_size": 11, "embedding_size": 64, "id2label": {"1": "yes", "0": "no"}} | settings
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"x")
    return folder


def make_field(tmp_path: Path, **settings: Any) -> Field:
    defaults: dict[str, Any] = {
        "compressed": None,
        "teacher": None,
        "encoder": None,
        "train": None,
        "teacher_max_length": 512,
        "peers": False,
        "gpu": False,
    }
    return Field(student=make_student(tmp_path / "student"), **(defaults | settings))


def test_everyone(tmp_path: Path) -> None:
    compressed = make_student(tmp_path / "int8", table_dtype="int8")
    found = make_contestants(make_field(tmp_path, compressed=compressed, peers=True))
    names = [one.name for one in found]
    assert len(set(names)) == len(names)
    assert names[:3] == ["runtime-int8", "runtime-fp32", "extraction"]
    by_name = {one.name: one for one in found}
    assert by_name["pipeline-int8-plain"].hidden == ("hf_sparse", "numba")
    assert by_name["roberta-large-bf16"].missing == "needs a teacher, also for its tokenizer"
    assert by_name["fasttext-4-64"].missing == "needs labelled training texts"
    assert by_name["teacher-bf16-gpu"].missing == "no GPU on this machine"
    assert by_name["count-dan"].options["names"] == ["no", "yes"]
    assert by_name["fasttext-turbo-2-10"].environment == "fasttext-turbo"
    assert all(one.path.exists() for one in found)


def test_student_only(tmp_path: Path) -> None:
    names = [one.name for one in make_contestants(make_field(tmp_path))]
    assert names == [
        "runtime-fp32",
        "extraction",
        "pipeline-fp32",
        "pipeline-fp32-plain",
        "model-fp32",
        "model-fp32-plain",
        "pipeline-gpu",
        "model-gpu",
    ]


def test_two_students_of_one_kind(tmp_path: Path) -> None:
    names = [one.name for one in make_contestants(make_field(tmp_path, compressed=make_student(tmp_path / "pruned")))]
    assert names[:2] == ["runtime-compressed", "runtime-float"]


def test_choosing(tmp_path: Path) -> None:
    everyone = make_contestants(make_field(tmp_path))
    chosen = choose(everyone, ["model-*", "runtime-fp32"])
    assert [one.name for one in chosen] == ["runtime-fp32", "model-fp32", "model-fp32-plain", "model-gpu"]
    with pytest.raises(ValueError, match="there is no contestant 'fasttext'"):
        choose(everyone, ["fasttext"])


@pytest.mark.parametrize(("dtype", "size"), [("float32", 256), ("bfloat16", 128), ("int8", 72), ("int4", 36)])
def test_row_bytes(dtype: str, size: int) -> None:
    assert row_bytes({"embedding_size": 64, "table_dtype": dtype}) == size
