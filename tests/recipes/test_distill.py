"""Whole runs of recipes/distill.py on tiny data, one for each kind of task, teacher and student."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.evaluation.calibration import calibrate
from hf_sparse.evaluation.cascade import cascade
from hf_sparse.evaluation.labelled_texts import Student
from tests.recipes.conftest import Ended, Launcher, recipe, write_recipe
from tests.recipes.kill_driver import ROOT, SCRIPT
from tests.tiny_task import NAMES, make_rows, make_teacher, write_rows

# Those of the benchmark are not read by this script; `tests/benchmark/test_recipes.py` has them.
RECIPES = sorted(path for path in ROOT.glob("recipes/*/*.yaml") if path.parent.name != "benchmark")


def run(launch: Launcher, task: Path, folder: Path, **overrides: Any) -> dict[str, Any]:
    """Run a recipe and return its report."""
    ended = launch("--config", str(write_recipe(recipe(task, folder / "run", **overrides), folder)))
    assert ended.status == 0, ended.err
    report: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
    assert json.loads((folder / "run" / "student" / "report.json").read_text(encoding="utf-8")) == report
    assert "distil" in report["stages"]
    assert f"agreement {report['agreement']:.4f}" in ended.out
    return report


def test_distils_a_classifier(launch: Launcher, task: Path, tmp_path: Path) -> None:
    report = run(launch, task, tmp_path, evaluate__speed_seconds=0.05, distil__epochs=6, from_scratch__epochs=2)
    assert report["num_texts"] == {
        "train": 96,
        "corpus": 70,
        "augmented": 0,
        "validation": 24,
        "calibration": 0,
        "test": 40,
    }
    teacher, student = report["teacher"], report["student"]
    assert report["retention"] == student["accuracy"] / teacher["accuracy"]
    assert 0 <= report["agreement"] <= 1
    speeds = report["texts_per_second"]
    assert report["speedup"] == speeds["student"] / speeds["teacher"]
    assert set(report["stages"]) == {"distil", "fine_tune", "from_scratch"}

    took = report["resources"]
    stages = ["texts", "vocabulary", "teacher", "label", "distil", "fine_tune", "from_scratch", "evaluate"]
    assert list(took["seconds"]) == stages
    assert took["total_seconds"] == pytest.approx(sum(took["seconds"].values()))
    assert took["peak_memory_bytes"] > 50e6  # torch alone

    folder = tmp_path / "run" / "student"
    assert "Peak memory" in (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "recipe.yaml").is_file()
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    assert model.num_parameters() == report["num_parameters"]
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    rows = [json.loads(line) for line in (task / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    with torch.inference_mode():
        encoded = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
        found = [model.config.id2label[index] for index in model(**encoded).logits.argmax(-1).tolist()]
    accuracy = np.mean([label == row["label"] for label, row in zip(found, rows, strict=True)])
    assert accuracy == pytest.approx(student["accuracy"])
    classify = pipeline("text-classification", model=str(folder), trust_remote_code=True)
    assert [item["label"] for item in classify([row["text"] for row in rows])] == found

    calibration = report["calibration"]
    assert [calibration[name]["num_texts"] for name in ("validation", "test")] == [24, 40]
    assert calibration["validation"]["nll_after"] <= calibration["validation"]["nll_before"]
    assert model.config.calibration_temperature == calibration["temperature"]
    assert calibration["label_thresholds"] is None

    cascaded = cascade(str(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "cascade.json").read_text(encoding="utf-8")) == cascaded
    for who in ("student", "teacher"):
        assert cascaded[who]["accuracy"] == pytest.approx(report[who]["accuracy"])
    assert cascaded["num_validation_texts"] == 24
    assert cascaded["chosen"]["seconds_per_text"] >= 1 / report["texts_per_second"]["student"]
    assert (tmp_path / "run" / "cascade.png").is_file()


def test_temperature_and_thresholds_are_fitted_on_texts_of_their_own(
    launch: Launcher, task: Path, tmp_path: Path
) -> None:
    """They change nothing but that: the student's weights are those of a run without them."""
    settings = {"teacher": {"model": str(task / "encoder"), "fine_tune": "head", "epochs": 1}, "fine_tune__epochs": 2}
    weights, stamps = [], []
    for number in (0, 30, 31):
        # With labels by chance, so that the temperature cannot be that of the validation texts.
        rows = make_rows(number, seed=4)
        path = write_rows(
            tmp_path / "calibration.jsonl", [row | {"label": NAMES[i % 3]} for i, row in enumerate(rows)]
        )
        named = {"path": str(path), "label_column": "label"} if number else None
        report = run(launch, task, tmp_path, data__calibration=named, **settings)
        assert report["num_texts"]["calibration"] == number
        folder = tmp_path / "run"
        weights.append((folder / "student" / "model.safetensors").read_bytes())
        stamps.append([(folder / stage / "stage.json").stat().st_mtime_ns for stage in ("teacher", "vocabulary")])
        cascaded = cascade(str(folder))
        assert cascaded["num_validation_texts"] == (number or 24)
        if number:
            student = Student(folder / "student")
            texts = student.read(TextSet(**named))
            expected = calibrate(student.logits(texts.texts), texts.labels, problem_type="single_label_classification")
            found = report["calibration"]
            assert found["temperature"] == cascaded["student_temperature"]
            assert found["temperature"] == pytest.approx(expected.temperature, rel=1e-4)
            assert found["fitted_on"] == "the texts of data.calibration"
            sizes = {name: found[name]["num_texts"] for name in ("validation", "calibration", "test")}
            assert sizes == {"validation": 24, "calibration": number, "test": 40}
            assert "the texts of data.calibration" in (folder / "student" / "README.md").read_text(encoding="utf-8")
    assert weights[0] == weights[1] == weights[2]
    assert stamps[0] == stamps[1] == stamps[2]


@pytest.mark.parametrize("trained", ["head", "all"])
def test_fine_tunes_an_encoder(trained: str, launch: Launcher, task: Path, tmp_path: Path) -> None:
    settings = {"model": str(task / "encoder"), "fine_tune": trained, "epochs": 10, "batch_size": 16, "lr": 0.01}
    report = run(launch, task, tmp_path, teacher=settings, distil__epochs=6)
    assert report["teacher"]["fine_tuned"]
    assert report["labels"] == sorted(NAMES)
    assert report["teacher"]["accuracy"] > 0.45  # of three subjects
    assert report["retention"] > 0.9
    teacher = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "teacher")
    encoder = AutoModelForSequenceClassification.from_pretrained(task / "encoder")
    name = "bert.encoder.layer.0.output.dense.weight"
    unchanged = torch.equal(teacher.state_dict()[name], encoder.state_dict()[name])
    assert unchanged == (trained == "head")


def test_distils_pairs(launch: Launcher, task: Path, tmp_path: Path) -> None:
    pair = {"text_pair_column": "text_pair"}
    report = run(
        launch,
        task,
        tmp_path,
        data__train={"path": str(task / "train.jsonl"), "label_column": "label"} | pair,
        data__corpus=[{"path": str(task / "corpus.jsonl")} | pair],
        data__test={"path": str(task / "test.jsonl"), "label_column": "label"} | pair,
        evaluate__speed_seconds=0.05,
    )
    folder = tmp_path / "run" / "student"
    classify = pipeline("text-classification", model=str(folder), trust_remote_code=True)
    assert classify({"text": "the goal", "text_pair": "the song"})["label"] in NAMES
    assert report["pooling"] == "mean"
    assert report["agreement"] > 0


@pytest.mark.parametrize(
    ("problem_type", "column", "metric"),
    [("multi_label_classification", "labels", "macro_f1"), ("regression", "number", "pearson")],
)
def test_distils_other_problems(
    problem_type: str, column: str, metric: str, launch: Launcher, task: Path, tmp_path: Path
) -> None:
    labelled = {"label_column": column}
    report = run(
        launch,
        task,
        tmp_path,
        data__problem_type=problem_type,
        data__train={"path": str(task / "train.jsonl")} | labelled,
        data__test={"path": str(task / "test.jsonl")} | labelled,
        teacher={"model": str(task / "encoder"), "epochs": 6, "lr": 0.01},
        distil__epochs=8,
    )
    assert metric in report["teacher"]
    assert metric in report["student"]
    config = json.loads((tmp_path / "run" / "student" / "config.json").read_text(encoding="utf-8"))
    assert config["problem_type"] == problem_type
    if problem_type == "regression":
        assert report["calibration"] is None
    else:
        assert config["label_thresholds"] == report["calibration"]["label_thresholds"]
        measured = report["calibration"]["validation"]
        assert measured["macro_f1_after"] >= measured["macro_f1_before"]
        by_thresholds = report["student_with_thresholds"]["macro_f1"]
        assert by_thresholds == pytest.approx(report["calibration"]["test"]["macro_f1_after"])


def test_lists_of_labels_are_a_multi_label_task(launch: Launcher, task: Path, tmp_path: Path) -> None:
    report = run(
        launch,
        task,
        tmp_path,
        data__train={"path": str(task / "train.jsonl"), "label_column": "labels"},
        data__test={"path": str(task / "test.jsonl"), "label_column": "labels"},
        teacher={"model": str(task / "encoder"), "epochs": 1},
        fine_tune__epochs=0,
    )
    assert report["problem_type"] == "multi_label_classification"


def test_made_texts_are_distilled_on_alone(launch: Launcher, task: Path, tmp_path: Path) -> None:
    """Teacher and vocabulary do not see them; another number of them leaves both as they are."""
    teacher = {"model": str(task / "encoder"), "fine_tune": "head", "epochs": 1}
    texts = {"teacher": teacher, "vocabulary__min_documents": 1}
    stages: list[dict[str, Any]] = []
    for number in (0, 60, 70):
        made = {"crossed": number, "fragments": number // 2, "train_weight": 2}
        report = run(launch, task, tmp_path, data__augmentation=made, **texts)
        count = report["num_texts"]["augmented"]
        assert count == number + number // 2
        assert report["num_texts"]["corpus"] == 70
        folder = tmp_path / "run"
        found = list((folder / "texts").glob("augmented-*.parquet"))
        labelled = sum(pq.read_metadata(path).num_rows for path in (folder / "label").glob("augmented-*.parquet"))
        assert labelled == count
        names = ("teacher/stage.json", "vocabulary/stage.json", "vocabulary/vocabulary.safetensors")
        stages.append({name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in names})
        steps = [json.loads(line) for line in (folder / "distil" / "metrics.jsonl").read_text().splitlines()]
        assert steps[-1]["step"] == 2 * -(-(96 + 70 + count) // 16)
        assert bool(found) == bool(number)
    assert stages[0] == stages[1] == stages[2]


def test_test_set_without_labels(launch: Launcher, task: Path, tmp_path: Path) -> None:
    report = run(launch, task, tmp_path, data__test={"path": str(task / "test.jsonl")}, fine_tune__epochs=0)
    assert report["retention"] is None
    assert "accuracy" not in report["student"]
    assert "| teacher |" not in (tmp_path / "run" / "student" / "README.md").read_text(encoding="utf-8")


def test_head_of_one_output_is_a_regression(launch: Launcher, task: Path, tmp_path: Path) -> None:
    make_teacher(tmp_path / "teacher", labels=["score"])
    source = {"path": str(task / "train.jsonl"), "label_column": "number"}
    overrides = {"data__train": source, "data__test": None, "teacher__model": str(tmp_path / "teacher")}
    assert run(launch, task, tmp_path, **overrides)["problem_type"] == "regression"


def test_privacy_setting_never_reads_training_texts(launch: Launcher, task: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (task / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    secret = tmp_path / "train.jsonl"
    secret.write_text("".join(json.dumps(row | {"text": f"secret {row['text']}"}) + "\n" for row in rows))
    run(
        launch,
        task,
        tmp_path,
        data__train__path=str(secret),
        vocabulary__include_train=False,
        distil__include_train=False,
        fine_tune__epochs=0,
    )
    student = tmp_path / "run" / "student"
    tokenizer = AutoTokenizer.from_pretrained(student, trust_remote_code=True)
    assert tokenizer.convert_tokens_to_ids("secret") is None
    assert tokenizer.convert_tokens_to_ids("the") > 0
    lines = (tmp_path / "run" / "distil" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["step"] == 2 * -(-70 // 16)  # the batches of the corpus alone


@pytest.mark.parametrize("pooling", ["max", "mean", "attentive", "sum"])
def test_distils_with_any_pooling(pooling: str, launch: Launcher, task: Path, tmp_path: Path) -> None:
    report = run(launch, task, tmp_path, student__pooling=pooling, distil__lr=0.02, fine_tune__epochs=0)
    assert report["pooling"] == report["recipe"]["student"]["pooling"] == pooling


@pytest.mark.parametrize(
    ("times", "pooling", "word", "dropout"), [(1, "max", "maximum", 0.0), (20, "mean", "mean", 0.1)]
)
def test_the_texts_say_how_they_are_pooled(
    times: int, pooling: str, word: str, dropout: float, launch: Launcher, task: Path, tmp_path: Path
) -> None:
    sources = {}
    for name in ("train", "corpus", "test"):
        rows = [json.loads(line) for line in (task / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        longer = [row | {"text": " ".join([row["text"]] * times)} for row in rows]
        sources[name] = {"path": str(write_rows(tmp_path / f"{name}.jsonl", longer)), "label_column": "label"}
    del sources["corpus"]["label_column"]
    overrides = {f"data__{name}": [source] if name == "corpus" else source for name, source in sources.items()}
    report = run(launch, task, tmp_path, fine_tune__epochs=0, **overrides)
    assert report["recipe"]["student"]["pooling"] == "auto"
    assert report["pooling"] == pooling
    folder = tmp_path / "run" / "student"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["pooling"], config["ngram_dropout"]) == (pooling, dropout)
    assert f"takes their {word}" in (folder / "README.md").read_text(encoding="utf-8")


def test_given_logits_need_no_teacher_run(launch: Launcher, task: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    overrides: dict[str, Any] = {"fine_tune__epochs": 0}
    for name, count in (("train", 120), ("corpus", 70), ("test", 40)):
        rows = [json.loads(line) for line in (task / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        logits = random.normal(size=(count, 3)).astype(np.float32)
        for index, row in enumerate(rows):
            logits[index, NAMES.index(row["label"])] += 9
        columns = {f"logit_{index}": logits[:, index] for index in range(3)}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        source = {"path": str(task / f"{name}.jsonl"), "logits_path": str(tmp_path / f"{name}.parquet")}
        source |= {} if name == "corpus" else {"label_column": "label"}
        overrides[f"data__{name}"] = [source] if name == "corpus" else source
    report = run(launch, task, tmp_path, distil__epochs=6, **overrides)
    assert report["teacher"]["accuracy"] == 1.0
    assert report["student"]["accuracy"] > 0.9


def ended_well(ended: Ended) -> Ended:
    """Check that a command succeeded."""
    assert ended.status == 0, ended.err
    return ended


def test_stages_run_alone_are_reused_and_redone_where_a_key_reaches(
    launch: Launcher, task: Path, tmp_path: Path
) -> None:
    command = ["--config", str(write_recipe(recipe(task, tmp_path / "run"), tmp_path))]
    early = launch(*command, "--stages", "[distil]")
    assert early.status == 1
    assert "error: stage 'distil' needs the output of stage 'texts'" in early.err
    for stages in ("[texts]", "[vocabulary, teacher]", "[label]", "[distil, fine_tune]", "[evaluate]", "[save]"):
        ended_well(launch(*command, "--stages", stages))

    def times() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}

    before = times()
    again = ended_well(launch(*command))
    assert again.err.count("(there already)") == 7
    changed = {path for path, time in times().items() if before[path] != time}
    assert changed <= {str(tmp_path / "run" / "report.json")}

    redone = ended_well(launch(*command, "--distil.lr", "0.01")).err
    for stage in ("texts", "vocabulary", "teacher", "label"):
        assert f"{tmp_path / 'run' / stage} (there already)" in redone
    for stage in ("distil", "fine_tune", "evaluate"):
        assert f"{tmp_path / 'run' / stage} (there already)" not in redone
    seconds = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["resources"]["seconds"]
    assert seconds["label"] == json.loads((tmp_path / "run" / "label" / "resources.json").read_bytes())["seconds"]
    kept = ended_well(launch(*command, "--distil.lr", "0.01", "--distil.checkpoint_minutes", "5"))
    assert kept.err.count("(there already)") == 7


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_file_parses(path: Path, launch: Launcher) -> None:
    if path.parent.name == "accelerate":
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert settings["num_processes"] % settings["num_machines"] == 0
        assert (settings["distributed_type"] == "NO") == (settings["num_processes"] == 1)
        return
    printed = ended_well(launch("--config", str(path), "--print_config")).out
    assert "output_dir:" in printed
    assert "gold_weight:" in printed


@pytest.mark.parametrize("kind", ["python", "accelerate"])
def test_runs_as_a_command(kind: str, task: Path, tmp_path: Path) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    programs = {
        "python": [sys.executable],
        "accelerate": [
            *(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"),
            *("--config_file", str(ROOT / "recipes" / "accelerate" / "cpu.yaml")),
        ],
    }
    ended = subprocess.run(
        [*programs[kind], str(SCRIPT), "--config", str(path), "--num_processes", "1"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[:2] == ["accuracy", "macro"]
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()


def test_one_process_fails_where_a_command_fails(task: Path, tmp_path: Path) -> None:
    path = write_recipe(recipe(task, tmp_path / "run") | {"nonsense": 1}, tmp_path)
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--config", str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert "nonsense" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_ngram_expert_joins_the_teacher(launch: Launcher, task: Path, tmp_path: Path) -> None:
    settings = {"model": str(task / "teacher"), "max_length": 32, "ngram_expert": True}
    report = run(launch, task, tmp_path, teacher=settings, student__initial_rows="naive_bayes", distil__epochs=4)
    found = json.loads((tmp_path / "run" / "ensemble" / "ensemble.json").read_text(encoding="utf-8"))
    # The teacher is random; its labels are easily told from their words.
    assert found["weights"]["ngram_expert"] > 0
    assert found["validation"]["ensemble"]["accuracy"] >= found["validation"]["teacher"]["accuracy"] + 0.2
    assert report["ensemble"]["accuracy"] > report["teacher"]["accuracy"]
    assert report["student"]["accuracy"] > report["teacher"]["accuracy"]
    assert "ensemble" in report["resources"]["seconds"]
    for text_set, count in report["num_texts"].items():
        shards = sorted((tmp_path / "run" / "ensemble").glob(f"{text_set}-*.parquet"))
        assert sum(pq.read_metadata(path).num_rows for path in shards) == count


def test_baselines_stand_beside_the_student(launch: Launcher, task: Path, tmp_path: Path) -> None:
    names = ["majority", "tfidf", "nb_lr"]
    report = run(launch, task, tmp_path, baselines__names=names)
    assert list(report["baselines"]) == names
    scores = {name: found["test"]["accuracy"] for name, found in report["baselines"].items()}
    assert scores["majority"] < 0.5 < 0.8 < min(scores["tfidf"], scores["nb_lr"])
    assert "C" in report["baselines"]["tfidf"]["setting"]
    # Another list trains the new one; what a finished stage depends on has changed, the student's has not.
    again = launch("--config", str(tmp_path / "recipe.yaml"), "--baselines.names", "[majority]")
    assert again.status == 0, again.err
    assert "distil: " in again.err
    assert "distil (there already)" in again.err.replace(str(tmp_path / "run" / "distil"), "distil")
    assert "majority" in again.out
    assert "tfidf" not in again.out


def test_baselines_of_a_task_they_do_not_know(launch: Launcher, task: Path, tmp_path: Path) -> None:
    train = {"path": str(task / "train.jsonl"), "label_column": "labels"}
    teacher = make_teacher(tmp_path / "several", problem_type="multi_label_classification")
    content = recipe(
        task,
        tmp_path / "run",
        data__train=train,
        data__test=train,
        teacher__model=str(teacher),
        baselines__names=["tfidf"],
        stages=["texts"],
    )
    ended = launch("--config", str(write_recipe(content, tmp_path)))
    assert ended.status == 1
    assert "baselines only give one label; set baselines.names: []" in ended.err
