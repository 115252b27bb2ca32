"""A recipe that names only ids of a Hub runs from download to student, against a Hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from transformers import pipeline

from tests.hub.loopback import TOKEN, environment, serve
from tests.hub.store import Hub
from tests.tiny_task import NAMES, make_encoder, make_rows, make_teacher

ROOT = Path(__file__).parents[2]
OUTPUT: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120, "check": False}
RECIPE = """
data:
  train: {{path: {dataset}, split: train, label_column: label, streaming: {streaming}}}
  corpus: [{{path: {dataset}, split: unsupervised, streaming: {streaming}}}]
  test: {{path: {dataset}, split: test, label_column: label}}
teacher: {{model: org/teacher}}
vocabulary: {{num_ngrams: 300, min_documents: 1}}
student: {{embedding_size: 8, hidden_sizes: [8]}}
distil: {{epochs: 1}}
fine_tune: {{epochs: 1}}
evaluate: {{speed_seconds: 0}}
"""
# What `push_to_hub` of a data set with a ClassLabel column writes.
CLASSES = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': sport
          '1': trade
          '2': music
---
"""
# What it also writes: how many rows each split has.
SIZES = """---
dataset_info:
  splits:
  - {name: train, num_bytes: 900, num_examples: 4000}
  - {name: test, num_bytes: 900, num_examples: 500}
  - {name: unsupervised, num_bytes: 900, num_examples: 70000}
---
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub with the teacher org/teacher and the data set org/texts."""
    root = tmp_path_factory.mktemp("hub")
    teacher = make_teacher(root / "models" / "org" / "teacher")
    (teacher / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    folder = root / "datasets" / "org" / "texts"
    (folder / "data").mkdir(parents=True)
    for seed, (split, count) in enumerate({"train": 60, "test": 20, "unsupervised": 40}.items()):
        rows = make_rows(count, seed=seed)
        label = [-1 if split == "unsupervised" else NAMES.index(row["label"]) for row in rows]
        table = pa.table({"text": [row["text"] for row in rows], "label": label})
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    make_encoder(root / "models" / "org" / "encoder")
    named = shutil.copytree(folder, root / "datasets" / "org" / "named")
    (named / "README.md").write_text(CLASSES, encoding="utf-8")
    sized = shutil.copytree(folder, root / "datasets" / "org" / "sized")
    (sized / "README.md").write_text(SIZES, encoding="utf-8")
    with serve(root) as served:
        yield served


def distil(hub: Hub, folder: Path, *arguments: str, **recipe: str) -> subprocess.CompletedProcess[str]:
    """Run the real command as a user of that Hub."""
    path = write_recipe(folder, **recipe)
    script = str(ROOT / "recipes" / "distill.py")
    return run(hub, folder, script, "--config", str(path), "--output_dir", str(folder / "run"), *arguments)


def write_recipe(folder: Path, **recipe: str) -> Path:
    """Write the recipe, of the data set org/texts if no other is given."""
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(**({"streaming": "false", "dataset": "org/texts"} | recipe)), encoding="utf-8")
    return path


def run(hub: Hub, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user of that Hub."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    variables |= environment(hub, folder / "home")
    return subprocess.run([sys.executable, *arguments], env=variables, **OUTPUT)


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_recipe_of_hub_ids_runs_to_a_student(hub: Hub, tmp_path: Path, streaming: str) -> None:
    done = distil(hub, tmp_path, streaming=streaming)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "student" / "model.safetensors").exists()
    assert "base_model: org/teacher" in (tmp_path / "run" / "student" / "README.md").read_text(encoding="utf-8")
    assert TOKEN not in done.stdout + done.stderr
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()
    again = distil(hub, tmp_path, streaming=streaming)
    assert again.returncode == 0
    assert "distil: " in again.stderr
    assert "(there already)" in again.stderr


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_limit_of_a_hub_data_set(hub: Hub, tmp_path: Path, streaming: str) -> None:
    done = distil(hub, tmp_path, "--data.train.limit", "30", "--stages", "[texts]", streaming=streaming)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [
        text
        for kind in ("train", "validation")
        for path in (tmp_path / "run" / "texts").glob(f"{kind}*.parquet")
        for text in pq.read_table(path)["text"].to_pylist()
    ]
    assert sorted(found) == sorted(row["text"] for row in make_rows(60, seed=0)[:30])


# A machine that has torch and transformers, and nothing else of what training takes.
STRANGER = """
import json, sys
from importlib.machinery import PathFinder

hidden = {"hf_sparse", "numba", "datasets", "accelerate", "evaluate", "pyarrow", "sklearn", "scipy", "matplotlib"}
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *more: None if name.split(".")[0] in hidden else find(name, *more))
from transformers import pipeline
classify = pipeline("text-classification", model="org/news", trust_remote_code=True, device="cpu")
print(json.dumps(classify(json.load(sys.stdin), top_k=None)))
"""


def test_from_hub_names_to_a_stranger(hub: Hub, tmp_path: Path) -> None:
    settings = {
        "--push_to_hub": "true",
        "--hub.model_id": "org/news",
        "--hub.max_shard_size": "2KB",
        "--hub.examples": "[the team and the coach !]",
        "--student.block_rows": "50",
    }
    done = distil(hub, tmp_path, *(word for setting in settings.items() for word in setting))
    assert done.returncode == 0, done.stderr[-2000:]
    assert TOKEN not in done.stdout + done.stderr
    commits = hub.repo("org/news").history()
    assert [commit.title for commit in commits] == ["Upload a sparse n-gram student", "initial commit"]
    names = set(commits[0].files)
    assert sum(name.startswith("model-") for name in names) > 2
    assert {"README.md", "recipe.yaml", "report.json", "vocabulary.safetensors", "tokenizer_config.json"} <= names
    assert ".eval_results/org--texts.yaml" in names
    card = ModelCard(commits[0].files["README.md"].path.read_text(encoding="utf-8"))
    assert card.data.base_model == "org/teacher"
    assert card.data.datasets == ["org/texts"]
    assert card.data.license == "mit"  # which the teacher's card says
    assert 'model="org/news"' in card.content
    texts = [row["text"] for row in make_rows(30, seed=9)] + ["", "unknown words !"]
    variables = os.environ | environment(hub, tmp_path / "fresh")
    stranger = subprocess.run(
        [sys.executable, "-c", STRANGER], input=json.dumps(texts), env=variables, cwd=tmp_path, **OUTPUT
    )
    assert stranger.returncode == 0, stranger.stderr[-2000:]
    folder = str(tmp_path / "run" / "student")
    expected = pipeline("text-classification", model=folder, trust_remote_code=True, device="cpu")(texts, top_k=None)
    for ours, theirs in zip(json.loads(stranger.stdout), expected, strict=True):
        assert [one["label"] for one in ours] == [one["label"] for one in theirs]
        assert [one["score"] for one in ours] == pytest.approx([one["score"] for one in theirs], abs=1e-6)
    again = distil(hub, tmp_path, *(word for setting in settings.items() for word in setting))
    assert again.returncode == 0
    assert len(hub.repo("org/news").history()) == 2


def test_push_to_hub_needs_a_name(hub: Hub, tmp_path: Path) -> None:
    done = distil(hub, tmp_path, "--push_to_hub", "true")
    assert done.returncode == 1
    assert "name the repository" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_new_commit_of_a_data_set_is_read_anew(hub: Hub, tmp_path: Path) -> None:
    def texts() -> str:
        done = distil(hub, tmp_path, "--stages", "[texts]", streaming="true")
        assert done.returncode == 0, done.stderr[-2000:]
        return next(line for line in done.stderr.splitlines() if line.startswith("texts: "))

    assert "there already" not in texts()
    assert "there already" in texts()
    repo = hub.repo("org/texts", "datasets")
    repo.commit(dict(repo.history()[0].files), title="another")
    assert "there already" not in texts()


def test_plan_asks_the_hub_how_many_rows_a_split_has(hub: Hub, tmp_path: Path) -> None:
    def plan(dataset: str) -> subprocess.CompletedProcess[str]:
        path = write_recipe(tmp_path, dataset=dataset)
        path.write_text(path.read_text(encoding="utf-8") + f"output_dir: {tmp_path / 'run'}\n", encoding="utf-8")
        known = ("--words_per_text", "20", "--teacher_parameters", "1e6", "--format", "json")
        return run(hub, tmp_path, "-m", "hf_sparse", "plan", str(path), *known)

    done = plan("org/sized")
    assert done.returncode == 0, done.stderr[-2000:]
    found, pool = json.loads(done.stdout), 4000 - 800 + 70000  # without a fifth of D_train, which is held out
    assert found["texts_made"] == 2 * 2 * pool
    assert found["texts"] - found["texts_made"] == 4000 + 70000 + 500
    unknown = plan("org/texts")
    assert unknown.returncode == 2
    assert "data.train ('org/texts') has is not known before it is read; set data.train.limit" in unknown.stderr


def test_class_names_of_a_hub_data_set(hub: Hub, tmp_path: Path) -> None:
    done = distil(
        hub, tmp_path, "--teacher.model", "org/encoder", "--stages", "[texts, vocabulary]", dataset="org/named"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    named = distil(hub, tmp_path, "--teacher.model", "org/encoder", "--stages", "[teacher]", dataset="org/named")
    assert named.returncode == 0, named.stderr[-2000:]
    config = json.loads((tmp_path / "run" / "teacher" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {str(index): name for index, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--teacher.model", "org/nobody"], "org/nobody"),
        (["--data.train.path", "org/nothing"], "org/nothing"),
        (["--data.train.split", "dev"], "dev"),
    ],
)
def test_wrong_names_fail_in_one_line(hub: Hub, tmp_path: Path, arguments: list[str], named: str) -> None:
    done = distil(hub, tmp_path, *arguments)
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert named in line
    assert "Traceback" not in done.stderr
