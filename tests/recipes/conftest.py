"""Tiny runs of recipes/distill.py, in processes of their own that cost no start-up."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.recipes import kill_driver
from tests.tiny_task import make_encoder, write_task

# Shards of 32 texts, so that 96 texts have several.
SETTINGS = {"texts.SHARD_ROWS": 32, "texts.GROUP_ROWS": 16, "labelling.GROUP_ROWS": 16}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: exit status (negative for a signal), standard output and error."""

    status: int
    out: str
    err: str


class Launcher:
    """Runs `recipes/distill.py` with arguments, each time in a new process forked from a warm one."""

    def __init__(self, folder: Path) -> None:
        self._output = folder / "output"
        self._process = subprocess.Popen(
            [sys.executable, kill_driver.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=kill_driver.ROOT,
            env=os.environ | {"PYTHONPATH": str(kill_driver.ROOT), "OMP_NUM_THREADS": "1"},
        )

    def __call__(
        self, *arguments: str, kill: str = "", file_size: int = 0, settings: Mapping[str, int] = SETTINGS
    ) -> Ended:
        """Run the script; see `kill_driver.Command`."""
        command = kill_driver.Command(
            arguments=list(arguments),
            output=str(self._output),
            settings=dict(settings),
            kill=kill,
            file_size=file_size,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        out, err = (Path(f"{self._output}{suffix}").read_text(encoding="utf-8") for suffix in (".out", ".err"))
        return Ended(status=status, out=out, err=err)

    def close(self) -> None:
        """End the warm process."""
        self._process.communicate()


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """The launcher of this process."""
    launcher = Launcher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.close()


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, a classifier `teacher` and an `encoder` without a head."""
    folder = write_task(tmp_path_factory.mktemp("task"))
    make_encoder(folder / "encoder")
    return folder


def recipe(task: Path, output_dir: Path, **overrides: Any) -> dict[str, Any]:
    """Return a recipe for the tiny task; `overrides` like `distil__epochs=1` change single keys."""
    train = {"path": str(task / "train.jsonl"), "label_column": "label"}
    whole: dict[str, Any] = {
        "output_dir": str(output_dir),
        "data": {
            "train": train,
            "corpus": [{"path": str(task / "corpus.jsonl")}],
            "test": train | {"path": str(task / "test.jsonl")},
            "validation_size": 24,
        },
        "teacher": {"model": str(task / "teacher"), "max_length": 32},
        "vocabulary": {"num_ngrams": 200},
        "label": {"tokens_per_batch": 256, "dtype": "float32"},
        "student": {"embedding_size": 8, "hidden_sizes": [8], "block_rows": 64},
        "distil": {"epochs": 2, "batch_size": 16, "head_lr": 0.02, "checkpoint_minutes": 0.0},
        "fine_tune": {"epochs": 1, "batch_size": 16, "head_lr": 0.02, "checkpoint_minutes": 0.0},
        "evaluate": {"speed_seconds": 0.0},
    }
    for path, value in overrides.items():
        *parents, last = path.split("__")
        place = whole
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return whole


def write_recipe(content: Mapping[str, Any], folder: Path) -> Path:
    """Write a recipe beside the folder of its run."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(dict(content)), encoding="utf-8")
    return path
