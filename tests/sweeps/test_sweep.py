"""Sweeps over the settings of a tiny task, their resuming, and what reads a student in part."""

import json
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_sparse.compression.measure import predict_logits
from hf_sparse.compression.prune import prune_student
from hf_sparse.distillation import student_stages
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.run import DistillationRun
from hf_sparse.distillation.shares import read_recipe
from hf_sparse.distillation.texts import read_texts
from hf_sparse.evaluation.metrics import score
from hf_sparse.student import SparseNgramTokenizer
from hf_sparse.sweeps.reading import Reader, ngram_lengths
from hf_sparse.sweeps.studies import STUDIES, study_of
from hf_sparse.sweeps.sweep import format_sweep, sweep
from hf_sparse.vocabulary import count_ngrams
from tests.recipes.conftest import recipe, write_recipe
from tests.tiny_task import write_task


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts and a teacher."""
    return write_task(tmp_path_factory.mktemp("sweep-task"))


def count_trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the seed and the changed shape of each distillation."""
    done: list[str] = []
    original = DistillationRun.distil

    def distil(run: DistillationRun) -> None:
        done.append(f"{run.recipe.student.pooling} {run.recipe.student.seed}")
        original(run)

    monkeypatch.setattr(DistillationRun, "distil", distil)
    return done


def test_studies_and_resuming(task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    done = count_trainings(monkeypatch)
    report = sweep(str(path), vary=['student.pooling=["mean", "max"]'], seeds=2, overrides=["distil.epochs=1"])
    assert done == ["mean 0", "mean 1", "max 0", "max 1"]
    points = report["studies"]["student.pooling"]["points"]
    assert [point["name"] for point in points] == ["mean", "max"]
    for point in points:
        assert len(point["scores"]) == 2
        stages = [max(found.values()) for found in point["stages"]]
        assert point["scores"] == stages
        assert point["means"]["accuracy"] == pytest.approx(sum(stages) / 2)
        assert set(point["means"]) == {*report["teacher"], "agreement", "divergence"}
        assert all(0 <= value <= 1 for value in point["scores"])
    folder = tmp_path / "run" / "sweep"
    assert json.loads((folder / "sweep.json").read_text()) == report
    assert (folder / "student.pooling.png").stat().st_size > 1000
    assert [place.name for place in (folder / "runs").iterdir()] == ["base-seed-0"]  # students were removed
    table = format_sweep(report)
    assert f"{50 * sum(points[0]['scores']):.2f}" in table
    assert f"{points[1]['means']['divergence']:.4f}" in table.splitlines()[3]
    assert f"{100 * report['teacher']['macro_f1']:.2f}" in table.splitlines()[4]

    done.clear()
    longer = sweep(str(path), vary=['student.pooling=["mean", "max", "sum"]'], seeds=2, overrides=["distil.epochs=1"])
    assert done == ["sum 0", "sum 1"]  # the others were known
    assert longer["studies"]["student.pooling"]["points"][:2] == points


def test_folds(task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    done: list[tuple[int | None, int | None]] = []
    held_out: dict[int | None, list[str]] = {}
    original = DistillationRun.distil

    def distil(run: DistillationRun) -> None:
        done.append((run.recipe.data.fold, run.recipe.student.seed))
        texts = run.stage_folder("texts")
        held_out[run.recipe.data.fold] = list(read_texts(texts, "validation"))
        assert not set(held_out[run.recipe.data.fold]) & set(read_texts(texts, "train"))
        original(run)

    monkeypatch.setattr(DistillationRun, "distil", distil)
    settings: dict[str, Any] = {"vary": ["distil.lr=[0.02, 0.05]"], "seeds": 2, "folds": 2}
    report = sweep(str(path), **settings)
    assert done == [(fold, seed) for fold in (1, 2) for seed in (0, 1)] * 2
    texts = [json.loads(line)["text"] for line in (task / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(sum(held_out.values(), [])) == sorted(texts)  # noqa: RUF017 (two)
    points = report["studies"]["distil.lr"]["points"]
    assert [len(point["scores"]) for point in points] == [4, 4]
    folder = tmp_path / "run" / "sweep-2"
    assert sorted(place.name for place in (folder / "runs").iterdir()) == [f"base-fold-{i}-seed-0" for i in (1, 2)]
    differences = np.subtract(points[1]["scores"], points[0]["scores"]).reshape(2, 2).mean(1) * 100
    expected = f"{differences.mean():+.2f} +- {differences.std(ddof=1) / np.sqrt(2):.2f}"
    assert expected in format_sweep(report)

    done.clear()
    assert sweep(str(path), **settings) == report
    assert done == []


def test_the_stages_of_a_run_are_reused(task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    sweep(str(path), vary=["distil.lr=[0.02, 0.05]"], seeds=1, output=str(tmp_path / "first"))
    made = tmp_path / "first" / "runs" / "base-seed-0"
    (tmp_path / "run").mkdir(exist_ok=True)
    for name in ("texts", "vocabulary", "teacher", "label"):
        (made / name).rename(tmp_path / "run" / name)
    for name in ("write_text_sets", "label_texts"):
        monkeypatch.setattr(f"hf_sparse.distillation.run.{name}", None)  # neither is called
    report = sweep(str(path), vary=["distil.lr=[0.02, 0.05]"], seeds=1, output=str(tmp_path / "second"))
    folders = (tmp_path / "run", tmp_path / "second" / "runs" / "base-seed-0")
    assert len({(folder / "label" / "validation-00000.parquet").stat().st_ino for folder in folders}) == 1
    first = json.loads((tmp_path / "first" / "sweep.json").read_text())
    assert report["studies"] == first["studies"]


def test_reading_in_part(task: Path, tmp_path: Path) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    report = sweep(str(path), study=["ngrams", "pruning"], seeds=2)
    plan = read_plan(path, tmp_path / "run" / "sweep" / "runs" / "base-seed-0")
    whole = json.loads((plan.stage_folder(student_stages.choose_student(plan)) / "validation.json").read_text())
    scored = next(iter(report["scores"].values()))
    assert scored["stages"][scored["chosen"]]["accuracy"] == pytest.approx(whole["accuracy"])
    lengths = report["studies"]["ngrams"]["points"]
    assert [point["value"] for point in lengths] == [1, 2, 3, 4]
    assert lengths[-1]["scores"][0] == pytest.approx(whole["accuracy"])
    pruned = report["studies"]["pruning"]["points"]
    assert {point["series"] for point in pruned} == {"frequency", "norm"}
    assert all(point["scores"][0] == pytest.approx(whole["accuracy"]) for point in pruned if point["value"] == 1)
    assert [point["ngrams"] for point in pruned[:3]] == sorted((point["ngrams"] for point in pruned[:3]), reverse=True)
    table = format_sweep(report)
    assert "words of the longest n-gram" in table
    assert "frequency, 0.01" in table


def read_plan(path: Path, folder: Path) -> RunPlan:
    """Return the plan of the first training of the recipe as it is."""
    words = ["--output_dir", str(folder), "--student.seed", "0"]
    return RunPlan(read_recipe(str(path), words), device=torch.device("cpu"))


def test_a_student_that_reads_in_part_is_the_pruned_one(task: Path, tmp_path: Path) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    sweep(str(path), study=["ngrams"], seeds=1)
    plan = read_plan(path, tmp_path / "run" / "sweep" / "runs" / "base-seed-0")
    reader = Reader(plan)
    name = student_stages.choose_student(plan)
    rows = reader.of_rank("norm")(30 / reader.vocabulary.num_ngrams)
    folder = plan.stage_folder("texts")
    student = student_stages.load_student(plan, name)
    model, vocabulary = prune_student(student, reader.vocabulary, keep=30, texts=read_texts(folder, "train"))
    assert rows.sum() == model.config.vocab_size - 1 == 30
    (texts, _), labels = student_stages.read_labelled(folder, "validation", plan.space)
    logits = predict_logits(model, SparseNgramTokenizer(vocabulary=vocabulary), texts)
    assert reader.score(rows) == score(logits, labels.numpy(), problem_type="single_label_classification")


def test_lengths_of_ngrams() -> None:
    vocabulary = count_ngrams(["a b c d e", "a b c", "a b"], num_ngrams=9, progress=False)
    lengths = ngram_lengths(vocabulary)
    assert lengths[0] == 0
    assert lengths[1:].tolist() == [len(vocabulary.ngram_words(row)) for row in range(1, vocabulary.num_rows)]


def test_settings_of_the_studies(task: Path, tmp_path: Path) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    base = read_recipe(str(path))
    for study in STUDIES.values():
        settings = study.settings(base, 70)
        assert len({setting.name for setting in settings}) == len(settings) >= 4
        for setting in settings:
            read_recipe(str(path), setting.overrides)
    budgets = []
    for setting in STUDIES["width"].settings(base, 70):
        changed = read_recipe(str(path), setting.overrides)
        budgets.append(changed.vocabulary.num_ngrams * changed.student.embedding_size)
        assert changed.student.hidden_sizes == [8]
    assert len(set(budgets)) == 1
    assert [setting.value for setting in STUDIES["corpus"].settings(base, 70)] == [1, 4, 18, 70]


def test_part_of_the_corpus(task: Path, tmp_path: Path) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    report = sweep(str(path), vary=["distil.corpus_texts=[1, 70]"], seeds=1)
    assert [point["value"] for point in report["studies"]["distil.corpus_texts"]["points"]] == [1, 70]
    whole = sweep(str(path), vary=["distil.corpus_texts=[70, null]"], seeds=1)
    (first,), (second,) = (point["scores"] for point in whole["studies"]["distil.corpus_texts"]["points"])
    assert np.isclose(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "there is nothing to vary; name a study"),
        ({"vary": ["distil.lr"]}, "vary is 'distil.lr', but must be a key of the recipe and a JSON list"),
        ({"vary": ["distil.lr=[0.1]"]}, "at least two values"),
        ({"vary": ["distil.lr=[0.1, 0.2]"], "seeds": 0}, "seeds is 0, but must be at least 1"),
        ({"vary": ["student.seed=[0, 5]"]}, "vary has 'student.seed', by which settings would not be scored"),
        ({"vary": ["data.validation_size=[12, 24]"]}, "vary has 'data.validation_size'"),
        ({"vary": ["data.calibration.limit=[12, 24]"]}, "vary has 'data.calibration.limit'"),
        ({"vary": ["distil.lr=[0.1, 0.2]", "distil.lr=[0.3, 0.4]"]}, "vary has 'distil.lr' twice"),
        ({"vary": ["distil.lr=[0.1, 0.2]"], "folds": 1}, "folds is 1, but must be at least 2"),
        ({"study": ["depth"], "overrides": ["distil.lr"]}, "overrides has 'distil.lr', but must have KEY=VALUE"),
        ({"study": ["corpus"], "overrides": ["data.corpus=[]"]}, "the study corpus varies how many texts"),
    ],
)
def test_bad_input(task: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        sweep(str(path), **settings)


def test_bad_settings_are_refused_before_anything_is_trained(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(recipe(task, tmp_path / "run"), tmp_path)
    done = count_trainings(monkeypatch)
    for settings in ("distil.lr=[0.1, -1]", "distil.lrr=[0.1, 0.2]", 'student.pooling=["mean", "median"]'):
        with pytest.raises((ArgumentError, ValueError), match=settings.partition("=")[0].partition(".")[2]):
            sweep(str(path), vary=[settings], folds=2)
    assert done == []
    assert not (tmp_path / "run").exists()


def test_names_of_varied_values() -> None:
    _, study = study_of('student.pooling=["mean", "max"]')
    assert [(setting.name, setting.value) for setting in study.settings(None, 0)] == [("mean", None), ("max", None)]  # type: ignore[arg-type]
    _, study = study_of("student.hidden_sizes=[[], [8]]")
    assert [setting.name for setting in study.settings(None, 0)] == ["[]", "[8]"]  # type: ignore[arg-type]
