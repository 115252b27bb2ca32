"""A recipe that names only ids of a Hub runs from download to student, against a Hub on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub.loopback import serve
from tests.tiny_task import NAMES, make_rows, make_teacher

ROOT = Path(__file__).parents[2]
RECIPE = """
data:
  train: {{path: org/texts, split: train, label_column: label, streaming: {streaming}}}
  corpus: [{{path: org/texts, split: unsupervised, streaming: {streaming}}}]
  test: {{path: org/texts, split: test, label_column: label}}
teacher: {{model: org/teacher}}
vocabulary: {{num_ngrams: 300, min_documents: 1}}
student: {{embedding_size: 8, hidden_sizes: [8]}}
distil: {{epochs: 1}}
fine_tune: {{epochs: 1}}
evaluate: {{speed_seconds: 0}}
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Hub with the teacher org/teacher and the data set org/texts."""
    root = tmp_path_factory.mktemp("hub")
    make_teacher(root / "models" / "org" / "teacher")
    folder = root / "datasets" / "org" / "texts"
    (folder / "data").mkdir(parents=True)
    for seed, (split, count) in enumerate({"train": 60, "test": 20, "unsupervised": 40}.items()):
        rows = make_rows(count, seed=seed)
        label = [-1 if split == "unsupervised" else NAMES.index(row["label"]) for row in rows]
        table = pa.table({"text": [row["text"] for row in rows], "label": label})
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    with serve(root) as address:
        yield address


def distil(hub: str, folder: Path, *arguments: str, **recipe: str) -> subprocess.CompletedProcess[str]:
    """Run the real command as a user of that Hub."""
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(streaming=recipe.get("streaming", "false")), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(folder / "home"),
        "HF_TOKEN": "hf_secretfortests",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, str(ROOT / "recipes" / "distill.py"), "--config", str(path)]
    command += ["--output_dir", str(folder / "run"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_recipe_of_hub_ids_runs_to_a_student(hub: str, tmp_path: Path, streaming: str) -> None:
    done = distil(hub, tmp_path, streaming=streaming)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "student" / "model.safetensors").exists()
    assert "base_model: org/teacher" in (tmp_path / "run" / "student" / "README.md").read_text(encoding="utf-8")
    assert "hf_secretfortests" not in done.stdout + done.stderr
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"hf_secretfortests" not in path.read_bytes()
    again = distil(hub, tmp_path, streaming=streaming)
    assert again.returncode == 0
    assert "distil: " in again.stderr
    assert "(there already)" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--teacher.model", "org/nobody"], "org/nobody"),
        (["--data.train.path", "org/nothing"], "org/nothing"),
        (["--data.train.split", "dev"], "dev"),
    ],
)
def test_wrong_names_fail_in_one_line(hub: str, tmp_path: Path, arguments: list[str], named: str) -> None:
    done = distil(hub, tmp_path, *arguments)
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert named in line
    assert "Traceback" not in done.stderr
