"""Counting and labelling in shares, by an executor of datatrove's on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hf_sparse.distillation.shares import steps_of
from tests.recipes.conftest import Launcher, recipe, write_recipe
from tests.recipes.kill_driver import ROOT

STAGES = "--stages=[texts,vocabulary,teacher,label]"


def on_cluster(config: Path, stage: str, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "recipes/cluster.py"), str(config), stage, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def overrides(name: str) -> dict[str, Any]:
    """Give both runs something to do: several sources, and a bound on memory for one of them."""
    return {"vocabulary__memory": "1GB"} if name == "shared" else {}


def test_shares_make_the_same_stages(task: Path, tmp_path: Path, launch: Launcher) -> None:
    """By three tasks, then by two more after a share was lost; published by the next run of the script."""
    configs = {}
    for name in ("alone", "shared"):
        (tmp_path / name).mkdir()
        content = recipe(task, tmp_path / name / "run", vocabulary__max_n=3, **overrides(name))
        configs[name] = write_recipe(content, tmp_path / name)
        stages = STAGES if name == "alone" else "--stages=[texts,teacher]"
        assert launch(f"--config={configs[name]}", stages).status == 0
    run = tmp_path / "shared/run"
    for stage in ("vocabulary", "label"):
        ended = on_cluster(configs["shared"], stage, "--tasks=3", "--workers=2")
        assert ended.returncode == 0, ended.stderr[-3000:]
    done = {path.name for path in (run / "vocabulary.partial/cluster").iterdir()}
    assert done == {f"{step}-of-{1 if step.startswith('merge') else 3}" for step in steps_of("vocabulary", 3)}
    (run / "label.partial/train-00000.parquet").unlink()
    assert on_cluster(configs["shared"], "label", "--tasks=2").returncode == 0
    before = {path.name: path.stat().st_mtime_ns for path in (run / "label.partial").glob("*.parquet")}
    assert "train-00000.parquet" in before
    assert launch(f"--config={configs['shared']}", STAGES).status == 0
    assert {path.name: path.stat().st_mtime_ns for path in (run / "label").glob("*.parquet")} == before
    assert not list(run.glob("*/cluster"))
    keys = [json.loads((tmp_path / name / "run/vocabulary/vocabulary.json").read_text())["sha256"] for name in configs]
    assert keys[0] == keys[1]
    for path in (tmp_path / "alone/run/label").glob("*.parquet"):
        assert pq.read_table(path).equals(pq.read_table(run / "label" / path.name))
    ended = on_cluster(configs["shared"], "label")
    assert ended.returncode == 0
    assert "there already" in ended.stderr


@pytest.mark.parametrize("stage", ["vocabulary", "label"])
def test_what_a_stage_needs_is_named(task: Path, tmp_path: Path, stage: str) -> None:
    ended = on_cluster(write_recipe(recipe(task, tmp_path / "run"), tmp_path), stage)
    assert ended.returncode != 0
    assert "needs the output of stage 'texts'" in ended.stderr
    assert "Traceback" not in ended.stderr
