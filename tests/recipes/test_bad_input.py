"""What a user can get wrong: one clear line that names it and the way out, exit code not 0, nothing half-written."""

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_sparse.files import only_process
from hf_sparse.vocabulary import count_ngrams
from tests.recipes.conftest import Launcher, recipe, write_recipe
from tests.tiny_task import make_rows, write_rows

STAGES = ("texts", "vocabulary", "teacher", "label", "distil", "fine_tune", "evaluate", "student")


def fails(
    launch: Launcher, content: dict[str, Any], folder: Path, *names: str, failed: str = "texts", **options: Any
) -> str:
    """Check that a recipe fails in one line that holds `names`, with the stages before `failed` whole; return it."""
    ended = launch("--config", str(write_recipe(content, folder)), **options)
    assert ended.status == 1, ended.err
    assert "Traceback" not in ended.err
    line = ended.err.splitlines()[-1]
    assert line.startswith("error: ")
    assert ended.out == ""
    for name in names:
        assert name in line
    output = Path(content["output_dir"])
    assert [name for name in STAGES if (output / name).exists()] == list(STAGES[: STAGES.index(failed)])
    assert not (output / "report.json").exists()
    return line


def test_unknown_key(launch: Launcher, task: Path, tmp_path: Path) -> None:
    fails(launch, recipe(task, tmp_path / "run", distil__epoch=3), tmp_path, "epoch")


def test_a_folder_in_which_another_process_is_at_work(launch: Launcher, task: Path, tmp_path: Path) -> None:
    with only_process(tmp_path / "run"):
        fails(launch, recipe(task, tmp_path / "run"), tmp_path, "another process is at work", str(tmp_path / "run"))


def test_missing_key(launch: Launcher, task: Path, tmp_path: Path) -> None:
    fails(launch, recipe(task, tmp_path / "run", teacher={}), tmp_path, "teacher.model")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("distil__batch_size", 0),
        ("distil__ngram_dropout", 1.0),
        ("distil__temperature", 0.0),
        ("fine_tune__gold_weight", 2.0),
        ("distil__evals_per_epoch", 0),
        ("teacher__batch_size", 0),
        ("vocabulary__num_ngrams", 0),
        ("student__embedding_size", 0),
        ("data__validation_size", -1),
        ("distil__lr", -0.1),
        ("teacher__warmup_ratio", 1.5),
        ("label__tokens_per_batch", 0),
        ("data__test__limit", 0),
        ("student__hidden_sizes", [0]),
    ],
)
def test_number_out_of_range(key: str, value: Any, launch: Launcher, task: Path, tmp_path: Path) -> None:
    fails(launch, recipe(task, tmp_path / "run", **{key: value}), tmp_path, key.rpartition("__")[2], str(value))


def test_missing_column(launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run", data__train__text_column="body")
    fails(launch, content, tmp_path, "train.jsonl", "'body'", "text_column", "'text'")


def test_label_outside_the_teachers(launch: Launcher, task: Path, tmp_path: Path) -> None:
    rows = make_rows(20, seed=1)
    rows[7]["label"] = "weather"
    path = write_rows(tmp_path / "train.jsonl", rows)
    content = recipe(task, tmp_path / "run", data__train__path=str(path))
    fails(launch, content, tmp_path, str(path), "'weather'", "'sport'", "data.labels")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_empty_file(suffix: str, launch: Launcher, task: Path, tmp_path: Path) -> None:
    path = tmp_path / f"train.{suffix}"
    path.touch()
    fails(launch, recipe(task, tmp_path / "run", data__train__path=str(path)), tmp_path, str(path))


def test_corpus_without_texts(launch: Launcher, task: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    content = recipe(task, tmp_path / "run", data__corpus=[{"path": str(path)}], data__train=None)
    fails(launch, content, tmp_path, "data.corpus with texts", "name at least one source")


def test_corpus_of_empty_texts(launch: Launcher, task: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "corpus.jsonl", [{"text": ""}] * 30)
    content = recipe(task, tmp_path / "run", data__corpus=[{"path": str(path)}], data__train=None)
    fails(launch, content, tmp_path, "no words", failed="vocabulary")


def test_no_corpus_for_the_privacy_setting(launch: Launcher, task: Path, tmp_path: Path) -> None:
    settings = {"distil__include_train": False, "fine_tune__epochs": 0}
    content = recipe(task, tmp_path / "run", data__corpus=[], vocabulary__include_train=False, **settings)
    fails(launch, content, tmp_path, "data.corpus", "vocabulary.include_train", failed="vocabulary")
    content = recipe(task, tmp_path / "run2", data__corpus=[], **settings)
    fails(launch, content, tmp_path, "data.corpus", "distil.include_train", failed="distil")


def test_fine_tuning_in_the_privacy_setting(launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run", vocabulary__include_train=False, distil__include_train=False)
    fails(launch, content, tmp_path, "vocabulary.include_train", "fine_tune.epochs: 0")
    ended = launch("--config", str(tmp_path / "recipe.yaml"), "--fine_tune.epochs", "0", "--stages", "[texts]")
    assert ended.status == 0, ended.err


def test_student_that_nothing_trains(launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run", distil__epochs=0, fine_tune__epochs=0)
    fails(launch, content, tmp_path, "random weights", "distil.epochs")


def test_validation_without_labels(launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run", data__validation={"path": str(task / "test.jsonl")})
    fails(launch, content, tmp_path, "data.validation has no label_column", "fine_tune.epochs")


def test_n_grams_in_too_few_texts(launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run", vocabulary__min_documents=9999)
    fails(launch, content, tmp_path, "9999 texts", "lower", "vocabulary.min_documents", failed="vocabulary")


@pytest.mark.parametrize("name", ["tensorboard", "everything"])
def test_tracker_that_is_not_there(name: str, launch: Launcher, task: Path, tmp_path: Path) -> None:
    if name != "everything" and importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    install = "pip install tensorboard" if name == "tensorboard" else "tensorboard"
    fails(launch, recipe(task, tmp_path / "run", trackers=[name]), tmp_path, "trackers", repr(name), install)


def test_no_validation_texts(launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run", data__validation_size=0)
    fails(launch, content, tmp_path, "validation_size", "data.validation")


def test_pairs_and_single_texts(launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run", data__train__text_pair_column="text_pair")
    fails(launch, content, tmp_path, "text_pair_column", "data.train", "data.test")


@pytest.mark.parametrize("damage", ["cut off", "a page overwritten"])
def test_corrupt_parquet_shard(damage: str, launch: Launcher, task: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for index in range(3):
        table = pa.Table.from_pylist(make_rows(500, seed=index))
        pq.write_table(table, folder / f"{index}.parquet", compression="zstd")
    shard = folder / "1.parquet"
    whole = shard.read_bytes()
    middle = len(whole) // 2
    shard.write_bytes(whole[:middle] if damage == "cut off" else whole[:60] + b"\xff" * 400 + whole[460:])
    content = recipe(task, tmp_path / "run", data__corpus=[{"path": str(folder)}])
    fails(launch, content, tmp_path, str(shard), "replace or remove the file")
    shard.write_bytes(whole)
    assert launch("--config", str(tmp_path / "recipe.yaml"), "--stages", "[texts]").status == 0


def test_corrupt_shard_in_the_run(launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run")
    early = launch("--config", str(write_recipe(content, tmp_path)), "--stages", "[texts, vocabulary, teacher]")
    assert early.status == 0, early.err
    shard = tmp_path / "run" / "texts" / "train-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:200])
    fails(launch, content, tmp_path, str(shard), "remove", failed="label")


@pytest.mark.parametrize(
    ("path", "said"), [("./nothing.jsonl", "does not exist"), ("nothing/here", "nothing/here"), ("*.nope", "holds no")]
)
def test_texts_that_do_not_exist(path: str, said: str, launch: Launcher, task: Path, tmp_path: Path) -> None:
    fails(launch, recipe(task, tmp_path / "run", data__train__path=path), tmp_path, path, said)


def test_teacher_that_does_not_exist(launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run", teacher__model="nobody/nothing")
    fails(launch, content, tmp_path, "teacher.model", "'nobody/nothing'")


@pytest.mark.parametrize("model", ["/no/such/teacher", "./teacher", "runs/no/teacher"])
def test_folder_of_a_teacher_that_does_not_exist(model: str, launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run", teacher__model=model)
    line = fails(launch, content, tmp_path, "teacher.model", repr(model), "no such folder")
    assert "Repo id" not in line


def test_teacher_without_tokenizer(launch: Launcher, task: Path, tmp_path: Path) -> None:
    teacher = shutil.copytree(task / "teacher", tmp_path / "teacher")
    for file in teacher.glob("tokenizer*"):
        file.unlink()
    content = recipe(task, tmp_path / "run", teacher__model=str(teacher))
    fails(launch, content, tmp_path, str(teacher), "tokenizer", failed="label")


def test_teacher_with_damaged_weights(launch: Launcher, task: Path, tmp_path: Path) -> None:
    teacher = shutil.copytree(task / "teacher", tmp_path / "teacher")
    weights = teacher / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    content = recipe(task, tmp_path / "run", teacher__model=str(teacher))
    fails(launch, content, tmp_path, str(teacher), failed="label")


def test_teacher_of_another_task(launch: Launcher, task: Path, tmp_path: Path) -> None:
    source = {"path": str(task / "train.jsonl"), "label_column": "number"}
    overrides = {"data__problem_type": "regression", "data__train": source, "data__test": None}
    content = recipe(task, tmp_path / "run", **overrides)
    fails(launch, content, tmp_path, "3 outputs", "data.problem_type", failed="label")


def test_encoder_without_labels_to_train_it(launch: Launcher, task: Path, tmp_path: Path) -> None:
    overrides = {"teacher__model": str(task / "encoder"), "data__train__label_column": None}
    fails(launch, recipe(task, tmp_path / "run", **overrides), tmp_path, "label_column", "no classification head")


def test_teacher_with_infinite_logits(launch: Launcher, task: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(task / "teacher")
    model.classifier.bias.data[1] = torch.nan
    model.save_pretrained(shutil.copytree(task / "teacher", tmp_path / "teacher"))
    content = recipe(task, tmp_path / "run", teacher__model=str(tmp_path / "teacher"))
    fails(launch, content, tmp_path, "not all finite", "label.dtype", failed="label")


def test_other_number_of_processes(launch: Launcher, task: Path, tmp_path: Path) -> None:
    fails(launch, recipe(task, tmp_path / "run", num_processes=3), tmp_path, "num_processes: 3", "accelerate launch")


@pytest.mark.parametrize(
    ("overrides", "failed", "names"),
    [
        ({"distil__head_lr": 1e30, "distil__lr": 1e30}, "distil", ("loss of distil", "distil.lr")),
        ({"distil__head_lr": 1e30, "distil__batch_size": 999, "distil__epochs": 1}, "distil", ("distil.head_lr",)),
        ({"teacher__lr": 1e30, "teacher__model": "encoder"}, "teacher", ("teacher.lr",)),
    ],
)
def test_loss_that_is_not_a_number(
    overrides: dict[str, Any], failed: str, names: tuple[str, ...], launch: Launcher, task: Path, tmp_path: Path
) -> None:
    if "teacher__model" in overrides:
        overrides = overrides | {"teacher__model": str(task / "encoder")}
    fails(launch, recipe(task, tmp_path / "run", **overrides), tmp_path, *names, failed=failed)


@pytest.mark.parametrize(("size", "failed"), [(2000, "texts"), (6500, "distil")])
def test_files_larger_than_allowed(size: int, failed: str, launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, tmp_path / "run")
    fails(launch, content, tmp_path, "free space", "run the same command again", failed=failed, file_size=size)
    assert launch("--config", str(tmp_path / "recipe.yaml")).status == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KB; skips where mounting is not permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount command")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"mounting is not permitted: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("stage", "kilobytes"),
    [("texts", 4), ("vocabulary", 8), ("label", 4), ("distil", 16), ("distil", 60), ("student", 40)],
)
def test_full_disk(stage: str, kilobytes: int, small_disk: Path, launch: Launcher, task: Path, tmp_path: Path) -> None:
    content = recipe(task, small_disk / "run", fine_tune__epochs=0)
    path = write_recipe(content, tmp_path)
    before = ["texts", "vocabulary", "teacher", "label", "distil", "evaluate"]
    before = before[: before.index(stage)] if stage in before else before
    if before:
        early = launch("--config", str(path), "--stages", f"[{', '.join(before)}]")
        assert early.status == 0, early.err
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - kilobytes * 1024))
    ended = launch("--config", str(path))
    assert ended.status == 1, ended.err
    line = ended.err.splitlines()[-1]
    assert line.startswith("error: cannot write to")
    assert str(small_disk / "run") in line
    assert "free space" in line
    assert not (small_disk / "run" / stage).exists()
    assert all((small_disk / "run" / name / "stage.json").exists() for name in before)
    ballast.unlink()
    again = launch("--config", str(path))
    assert again.status == 0, again.err
    assert all(f"{name}: {small_disk / 'run' / name} (there already)" in again.err for name in before)


@pytest.fixture(scope="session")
def finished(launch: Launcher, task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its recipe, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    ended = launch("--config", str(write_recipe(recipe(task, folder / "run"), folder)))
    assert ended.status == 0, ended.err
    return folder


def other_vocabulary(folder: Path) -> None:
    """Put the vocabulary of another model, with as many n-grams, in the place of a folder's."""
    words = [f"w{index}" for index in range(200)]
    count_ngrams([" ".join(words)], num_ngrams=200, max_n=1, progress=False).save(folder)


def test_student_with_the_vocabulary_of_another_model(finished: Path, tmp_path: Path) -> None:
    student = shutil.copytree(finished / "run" / "student", tmp_path / "student")
    other_vocabulary(student)
    with pytest.raises(ValueError, match="belongs to another model"):
        AutoTokenizer.from_pretrained(student, trust_remote_code=True)
    # Even with its own tokenizer_config.json, as when all of a tokenizer's files are mixed up.
    config = json.loads((student / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("vocabulary_sha256")
    (student / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="vocabulary"):
        pipeline("text-classification", model=str(student), trust_remote_code=True)


@pytest.mark.parametrize("changes", [["--distil.lr", "0.02"], ["--fine_tune.lr", "0.02"]])
def test_run_with_the_vocabulary_of_another_model(
    changes: list[str], launch: Launcher, finished: Path, task: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished / "run", tmp_path / "run")
    path = write_recipe(recipe(task, run), tmp_path)
    other_vocabulary(run / "vocabulary")
    ended = launch("--config", str(path), *changes)
    assert ended.status == 1
    assert "holds another vocabulary" in ended.err.splitlines()[-1]
    assert "remove that folder" in ended.err.splitlines()[-1]
    shutil.rmtree(run / "vocabulary")
    assert launch("--config", str(path), *changes).status == 0
