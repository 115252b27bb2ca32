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


def finish(run: "subprocess.Popen[str]") -> None:
    assert run.wait(timeout=240) == 0, run.communicate()[1][-2000:]
    run.communicate()


def wait_for_checkpoint(run: "subprocess.Popen[str]", folder: Path) -> None:
    end = time.monotonic() + 120
    while not (folder / "distil.partial/checkpoints").exists() and time.monotonic() < end:
        assert run.poll() is None, run.communicate()[1][-2000:]
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that one process has made."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(write_recipe(recipe(task, folder / "run", **SETTINGS), folder), 1))
    return folder / "run"


def assert_same_run(folder: Path, alone: Path) -> None:
    """Labels and vocabulary are the same, weights to rounding."""
    reports = [json.loads((each / "report.json").read_text()) for each in (folder, alone)]
    assert reports[0]["student"] == pytest.approx(reports[1]["student"], abs=1e-4)
    files = [path.relative_to(alone) for path in (alone / "label").glob("*.parquet")]
    assert files
    for path in files:
        assert pq.read_table(folder / path).equals(pq.read_table(alone / path))
    vocabularies = [(each / "student/vocabulary.safetensors").read_bytes() for each in (folder, alone)]
    assert vocabularies[0] == vocabularies[1]
    expected = weights(alone / "student")
    for name, value in weights(folder / "student").items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=0.0, msg=name)


def test_all_are_killed(task: Path, alone: Path, tmp_path: Path) -> None:
    """As many go on and make the student of one process."""
    path = write_recipe(recipe(task, tmp_path / "run", **SETTINGS), tmp_path)
    run = start(path, 2)
    wait_for_checkpoint(run, tmp_path / "run")
    kill(run)
    assert not (tmp_path / "run/distil").exists()
    finish(start(path, 2))
    assert_same_run(tmp_path / "run", alone)


def test_one_is_killed(task: Path, alone: Path, tmp_path: Path) -> None:
    """The launcher ends the other one; three go on."""
    path = write_recipe(recipe(task, tmp_path / "run", **SETTINGS), tmp_path)
    run = start(path, 2)
    wait_for_checkpoint(run, tmp_path / "run")
    workers = [each for each in psutil.Process(run.pid).children(recursive=True) if SCRIPT.name in str(each.cmdline())]
    assert len(workers) >= 2
    workers[-1].send_signal(signal.SIGKILL)
    assert run.wait(timeout=120) != 0
    run.communicate()
    assert not (tmp_path / "run/distil").exists()
    finish(start(path, 3))
    assert_same_run(tmp_path / "run", alone)


def test_pooling_that_one_process_must_do(task: Path, tmp_path: Path) -> None:
    path = write_recipe(recipe(task, tmp_path / "run", student__pooling="attentive", **SETTINGS), tmp_path)
    run = start(path, 2)
    _, errors = run.communicate(timeout=240)
    assert run.returncode != 0
    assert "attentive pooling trains on one" in errors
