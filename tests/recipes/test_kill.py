"""kill -9 at any moment, then the same command: it goes on, and ends with the very bytes of an undisturbed run."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.conftest import SETTINGS, Launcher, recipe, write_recipe

KILLED = -9
STAGES = ("texts", "vocabulary", "teacher", "label", "distil", "fine_tune", "evaluate", "student")
# Chunks of features and checkpoints of the teacher, which tiny data would otherwise never reach.
TEACHER_SETTINGS = SETTINGS | {"teacher_training._FEATURE_CHUNK": 32, "teacher_training._CHECKPOINT_SECONDS": 0}

Reference = Callable[[str], Path]


def teacher_of(kind: str, task: Path) -> dict[str, Any]:
    """Return the overrides of a recipe for a kind of teacher."""
    if kind == "classifier":
        return {}
    return {"teacher__model": str(task / "encoder"), "teacher__fine_tune": kind}


@pytest.fixture(scope="session")
def reference(launch: Launcher, task: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Undisturbed runs by kind of teacher, each made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(f"reference-{kind}")
            path = write_recipe(recipe(task, folder / "run", **teacher_of(kind, task)), folder)
            ended = launch("--config", str(path), settings=TEACHER_SETTINGS)
            assert ended.status == 0, ended.err
            made[kind] = folder / "run"
        return made[kind]

    return get


def copy_run(source: Path, target: Path, *, before: str) -> None:
    """Copy a run as it was before a stage."""
    shutil.copytree(source, target)
    for name in STAGES[STAGES.index(before) :]:
        shutil.rmtree(target / name)
    (target / "report.json").unlink()
    (target / ".student.json").unlink()


def contents(run: Path, *, made_as: Path | None = None) -> dict[str, bytes]:
    """Return every file of a run, part of which may be a copy of another; without times and memory."""
    found = {}
    for path in sorted(run.rglob("*")):
        if path.is_file():
            content = path.read_bytes().replace(str(run).encode(), b"RUN")
            content = content if made_as is None else content.replace(str(made_as).encode(), b"RUN")
            found[str(path.relative_to(run))] = without_resources(path.name, content)
    return found


def without_resources(name: str, content: bytes) -> bytes:
    """Return what of a file's content must be the same each time."""
    if name in ("metrics.jsonl", "resources.json"):
        return b""
    if name == "report.json":
        report = json.loads(content)
        assert report.pop("resources")["peak_memory_bytes"] > 0
        return json.dumps(report).encode()
    if name == "README.md":
        return re.sub(rb"(?m)^(Wall time|Peak memory).*$", b"", content)
    return content


@pytest.mark.parametrize(
    ("kind", "stage", "moment", "resumed"),
    [
        ("classifier", "texts", "texts: after the second shard", ""),
        ("classifier", "texts", "texts: amid the third shard", ""),
        ("classifier", "vocabulary", "vocabulary: amid its file", ""),
        ("head", "teacher", "teacher: amid the second chunk of features", ""),
        ("head", "teacher", "teacher: after the second checkpoint", "teacher goes on at batch 2"),
        ("head", "teacher", "teacher: before it is scored", "teacher goes on at batch 8"),
        ("head", "teacher", "teacher: before it is published", "teacher goes on at batch 8"),
        ("all", "teacher", "teacher: after the second checkpoint", "teacher goes on at batch 2"),
        ("all", "teacher", "teacher: amid the second checkpoint", "teacher goes on at batch 1"),
        ("classifier", "label", "label: after the first shard", ""),
        ("classifier", "label", "label: after the first part of the second shard", ""),
        ("classifier", "label", "label: amid the third shard", ""),
        ("classifier", "distil", "student: after the third checkpoint", "goes on at batch 3"),
        ("classifier", "distil", "student: amid the fourth checkpoint", "goes on at batch 3"),
        ("classifier", "distil", "student: amid the second best weights", "goes on at batch"),
        ("classifier", "distil", "student: amid the removal of checkpoints", ""),
        ("classifier", "distil", "student: before it is published", "goes on at batch 21"),
        ("classifier", "distil", "student: after it is published", ""),
        ("classifier", "fine_tune", "student: after the third checkpoint", "goes on at batch 3"),
        ("classifier", "evaluate", "evaluate: after the report is made", ""),
        ("classifier", "evaluate", "evaluate: before the report is copied", ""),
        ("classifier", "student", "save: after the model is written", ""),
        ("classifier", "student", "save: before the marker", ""),
    ],
)
def test_killed_run_goes_on_to_the_same_bytes(
    kind: str,
    stage: str,
    moment: str,
    resumed: str,
    launch: Launcher,
    reference: Reference,
    task: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    copy_run(reference(kind), run, before=stage)
    command = ["--config", str(write_recipe(recipe(task, run, **teacher_of(kind, task)), tmp_path))]
    killed = launch(*command, kill=moment, settings=TEACHER_SETTINGS)
    assert killed.status == KILLED, killed.err
    published = ("report", "marker", "removal of checkpoints", "after it is published")
    assert any(words in moment for words in published) or not (run / stage).exists()
    again = launch(*command, settings=TEACHER_SETTINGS)
    assert again.status == 0, again.err
    assert resumed in again.err
    found, expected = contents(run, made_as=reference(kind)), contents(reference(kind))
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("stage", ["distil", "save"])
def test_kill_between_the_renames_of_a_replaced_folder(
    stage: str, launch: Launcher, reference: Reference, task: Path, tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run, other):
        shutil.copytree(reference("classifier"), folder)
    changed = {"distil__lr": 0.02}
    command = ["--config", str(write_recipe(recipe(task, run, **changed), tmp_path))]
    assert launch(*command, kill=f"{stage}: between the two renames").status == KILLED
    again = launch(*command)
    assert again.status == 0, again.err
    undisturbed = launch("--config", str(write_recipe(recipe(task, other, **changed), tmp_path)))
    assert undisturbed.status == 0, undisturbed.err
    assert contents(run) == contents(other)


def test_recipe_taken_back_after_a_kill_in_save_gives_the_first_student(
    launch: Launcher, reference: Reference, task: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference("classifier"), run)
    expected = contents(reference("classifier"))
    path = write_recipe(recipe(task, run), tmp_path)
    killed = launch("--config", str(path), "--distil.lr", "0.02", kill="save: before the marker")
    assert killed.status == KILLED, killed.err
    assert launch("--config", str(path)).status == 0
    assert contents(run, made_as=reference("classifier")) == expected


@pytest.mark.parametrize("pooling", ["attentive", "mean"])
def test_other_optimiser_and_pooling_go_on_to_the_same_bytes(
    pooling: str, launch: Launcher, reference: Reference, task: Path, tmp_path: Path
) -> None:
    students = []
    for name, kill in (("undisturbed", ""), ("killed", "student: after the third checkpoint")):
        run = tmp_path / name
        copy_run(reference("classifier"), run, before="distil")
        changes = {"distil__optimizer": "lazy_adam", "student__pooling": pooling, "distil__lr": 0.01}
        command = ["--config", str(write_recipe(recipe(task, run, fine_tune__epochs=0, **changes), tmp_path))]
        if kill:
            assert launch(*command, kill=kill).status == KILLED
        ended = launch(*command)
        assert ended.status == 0, ended.err
        assert ("goes on at batch 3" in ended.err) == bool(kill)
        students.append((run / "student" / "model.safetensors").read_bytes())
    assert students[0] == students[1]
