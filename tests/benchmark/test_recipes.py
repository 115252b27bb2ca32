"""The recipes are complete: every key is an argument of the benchmark."""

import json
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from hf_sparse.benchmark import bench

RECIPES = sorted(Path("recipes/benchmark").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(bench)
    settings = parser.parse_path(path)
    assert settings.peers
    assert settings.lengths == [12, 60, 235, 1000]
    assert settings.batch_sizes == [1, 32, 256, 4096]


def test_nonsense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seconds must be above 0, got 0"):
        bench("student", texts="texts", output=str(tmp_path), seconds=0)
    with pytest.raises(ValueError, match="is not a student"):
        bench(str(tmp_path), texts="texts", output=str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"sentence_pairs": True}, "a student of pairs, but the benchmark's texts are single"),
        ({"problem_type": "regression"}, "a student of regression, but the benchmark compares labels"),
    ],
)
def test_students_that_cannot_be_compared(tmp_path: Path, setting: dict[str, object], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(setting), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        bench(str(tmp_path), output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
