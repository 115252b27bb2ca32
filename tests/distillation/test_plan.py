"""What a recipe's stages depend on: keys that change with whatever changes the result, and with nothing else."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.recipe import FineTuneRecipe, LabelRecipe, Recipe, TeacherRecipe, VocabularyRecipe
from hf_sparse.distillation.recipe_data import DataRecipe, TextSet
from tests.tiny_task import make_rows, make_teacher, write_rows

STAGES = ("texts", "vocabulary", "teacher", "label", "distil", "fine_tune", "from_scratch", "evaluate")
CPU = torch.device("cpu")

PlanMaker = Callable[..., RunPlan]


@pytest.fixture
def make_plan(tmp_path: Path, teacher_folder: Path, encoder_folder: Path) -> PlanMaker:
    """Make plans for 20 labelled texts; settings are sections of the recipe, or those of `teacher` and `data`."""
    train = write_rows(tmp_path / "train.jsonl", make_rows(20, seed=0))

    def make(
        *,
        head: bool = True,
        teacher: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        mixed_precision: str = "no",
        **sections: Any,
    ) -> RunPlan:
        recipe = Recipe(
            output_dir=str(tmp_path / "run"),
            teacher=TeacherRecipe(**({"model": str(teacher_folder if head else encoder_folder)} | (teacher or {}))),
            data=DataRecipe(**({"train": TextSet(path=str(train), label_column="label")} | (data or {}))),
            **sections,
        )
        return RunPlan(recipe, device=CPU, mixed_precision=mixed_precision)

    return make


def changed(one: RunPlan, other: RunPlan) -> list[str]:
    """Return the stages whose keys differ."""
    return [name for name in STAGES if getattr(one, f"{name}_stage").key != getattr(other, f"{name}_stage").key]


def test_same_recipe_has_the_same_keys(make_plan: PlanMaker) -> None:
    assert changed(make_plan(head=False), make_plan(head=False)) == []


def test_features_of_a_head_depend_on_their_precision(make_plan: PlanMaker) -> None:
    single, half = LabelRecipe(dtype="float32"), LabelRecipe(dtype="bfloat16")
    head = {"fine_tune": "head"}
    plans = [make_plan(head=False, teacher=head, label=label) for label in (single, half)]
    assert "teacher" in changed(*plans)
    plans = [make_plan(head=False, label=label) for label in (single, half)]
    assert changed(*plans)[0] == "label"


def test_name_on_the_card_changes_the_card_only(make_plan: PlanMaker) -> None:
    for head in (True, False):
        assert changed(make_plan(head=head), make_plan(head=head, teacher={"base_model": "org/m"})) == ["evaluate"]


def test_mixed_precision_redoes_what_is_trained(make_plan: PlanMaker) -> None:
    trained = ["distil", "fine_tune", "from_scratch", "evaluate"]
    assert changed(make_plan(), make_plan(mixed_precision="bf16")) == trained
    plans = make_plan(head=False), make_plan(head=False, mixed_precision="bf16")
    assert changed(*plans) == ["teacher", "label", *trained]


def test_vocabulary_depends_on_the_tokenizer_itself(
    make_plan: PlanMaker, teacher_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(teacher_folder, tmp_path / "words")
    rule = VocabularyRecipe(word_rule=f"hf:{folder}")
    before = make_plan(vocabulary=rule)
    assert changed(before, make_plan(vocabulary=rule)) == []
    key = before.vocabulary_stage.key
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert make_plan(vocabulary=rule).vocabulary_stage.key != key
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        _ = make_plan(vocabulary=rule).vocabulary_stage


@pytest.mark.parametrize(
    ("column", "problem_type", "names"),
    [
        ("label", "single_label_classification", ("music", "sport", "trade")),
        ("labels", "multi_label_classification", ("music", "sport", "trade")),
        ("share", "regression", ("score",)),
        ("stars", "single_label_classification", ("1", "2", "3", "4")),
    ],
)
def test_task_of_an_encoder_is_that_of_its_labels(
    column: str, problem_type: str, names: tuple[str, ...], make_plan: PlanMaker, tmp_path: Path
) -> None:
    rows = [row | {"share": row["number"] / 4, "stars": i % 4 + 1} for i, row in enumerate(make_rows(20, seed=1))]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    space = make_plan(head=False, data={"train": TextSet(path=str(path), label_column=column)}).space
    assert (space.problem_type, space.names) == (problem_type, names)


def test_whole_floats_ask_for_the_task(make_plan: PlanMaker, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", make_rows(20, seed=1))
    train = TextSet(path=str(path), label_column="number")
    with pytest.raises(ValueError, match=r"set data\.problem_type"):
        _ = make_plan(head=False, data={"train": train}).space
    found = make_plan(head=False, data={"train": train, "problem_type": "regression"}).space
    assert found.problem_type == "regression"
    named = {str(number): str(number % 2) for number in range(20)}
    space = make_plan(head=False, data={"train": train, "labels": named}).space
    assert space.names == ("0", "1")


def test_recipe_names_the_labels_of_lists(make_plan: PlanMaker, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", make_rows(20, seed=1))
    labels = {"sport": "S", "trade": "T", "music": "M"}
    train = TextSet(path=str(path), label_column="labels")
    space = make_plan(head=False, data={"train": train, "labels": labels}).space
    assert (space.problem_type, space.names) == ("multi_label_classification", ("S", "T", "M"))


def test_class_names_of_a_data_set_name_an_encoders_labels(make_plan: PlanMaker, tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["World", "Sports", "1"])}
    )
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    made.to_parquet(tmp_path / "rows.parquet")
    train = TextSet(path=str(tmp_path / "rows.parquet"), label_column="label")
    space = make_plan(head=False, data={"train": train}).space
    assert space.names == ("World", "Sports", "1")
    assert space.numbers == {0: 0, 1: 1, 2: 2}
    named = make_plan(head=False, data={"train": train, "labels": {"0": "x", "1": "y"}}).space
    assert named.names == ("x", "y")


def test_teachers_task_wins(make_plan: PlanMaker, tmp_path: Path) -> None:
    several = make_teacher(tmp_path / "several", problem_type="multi_label_classification")
    assert make_plan(teacher={"model": str(several)}).space.problem_type == "multi_label_classification"
    assert make_plan().space.problem_type == "single_label_classification"


def test_time_between_checkpoints_changes_nothing(make_plan: PlanMaker) -> None:
    often = dataclasses.replace(FineTuneRecipe(), checkpoint_minutes=0.5)
    assert changed(make_plan(), make_plan(fine_tune=often)) == []
