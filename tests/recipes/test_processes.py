"""Runs by several processes: shared, interrupted, gone on with by more or fewer, and the same student in the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.recipes.conftest import recipe, write_recipe
from tests.recipes.kill_driver import ROOT, SCRIPT

SETTINGS: dict[str, Any] = {
    "student__embedding_size": 32,
    "student__hidden_dropout": 0.0,
    "distil__epochs": 20,
    "evaluate__speed_seconds": 0.0,
}


def start(config: Path, num_processes: int) -> "subprocess.Popen[str]":
    """Start a run by several processes on this machine, as the README says."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"]
    kind = "cpus" if num_processes > 1 else "cpu"
    command += ["--config_file", str(ROOT / f"recipes/accelerate/{kind}.yaml"), "--main_process_port", "0"]
    command += ["--num_processes", str(num_processes), str(SCRIPT), "--config", str(config)]
    command += ["--num_processes", str(num_processes)]  # the recipe's: that so many have really started
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def kill(run: "subprocess.Popen[str]") -> None:
    """Kill the launcher and all processes that it has started."""
    for process in [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]:
        process.send_signal(signal.SIGKILL)
    run.communicate()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).state_dict()


def test_two_processes_make_the_student_of_one(task: Path, tmp_path: Path) -> None:
    """Labels and vocabulary are the same, weights to rounding, although all are killed on the way."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_recipe(recipe(task, tmp_path / name / "run", **SETTINGS), tmp_path / name)
    run = start(tmp_path / "one/recipe.yaml", 1)
    assert run.wait(timeout=240) == 0, run.communicate()[1][-2000:]
    run.communicate()

    run = start(tmp_path / "two/recipe.yaml", 2)
    folder = tmp_path / "two/run"
    end = time.monotonic() + 120
    while not (folder / "distil.partial/checkpoints").exists() and time.monotonic() < end:
        assert run.poll() is None, run.communicate()[1][-2000:]
        time.sleep(0.01)
    kill(run)
    assert not (folder / "distil").exists()

    run = start(tmp_path / "two/recipe.yaml", 2)
    assert run.wait(timeout=240) == 0, run.communicate()[1][-2000:]
    run.communicate()
    one, two = (json.loads((tmp_path / name / "run/report.json").read_text()) for name in ("one", "two"))
    assert two["student"] == pytest.approx(one["student"], abs=1e-4)
    files = [path.relative_to(tmp_path / "one/run") for path in (tmp_path / "one/run/label").glob("*.parquet")]
    assert files
    for path in files:
        assert pq.read_table(tmp_path / "two/run" / path).equals(pq.read_table(tmp_path / "one/run" / path))
    vocabularies = [(tmp_path / name / "run/student/vocabulary.safetensors").read_bytes() for name in ("one", "two")]
    assert vocabularies[0] == vocabularies[1]
    expected = weights(tmp_path / "one/run/student")
    for name, value in weights(tmp_path / "two/run/student").items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=0.0, msg=name)


def test_pooling_that_one_process_must_do(task: Path, tmp_path: Path) -> None:
    path = write_recipe(recipe(task, tmp_path / "run", student__pooling="max", **SETTINGS), tmp_path)
    run = start(path, 2)
    _, errors = run.communicate(timeout=240)
    assert run.returncode != 0
    assert "max and attentive pooling train on one" in errors
