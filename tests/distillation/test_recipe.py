"""Recipes that cannot work are refused when they are made, by name and with the way out."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import torch

from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.recipe import (
    BaselinesRecipe,
    DistilRecipe,
    EvaluateRecipe,
    FineTuneRecipe,
    FromScratchRecipe,
    LabelRecipe,
    Recipe,
    StudentRecipe,
    TeacherRecipe,
    VocabularyRecipe,
)
from hf_sparse.distillation.recipe_data import DataRecipe, TextSet
from tests.tiny_task import make_encoder, write_rows

GOLD = TextSet(path="train.csv", label_column="label")


def make_recipe(*, data: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    """Return a recipe with labelled training texts."""
    return Recipe(
        output_dir="run",
        data=DataRecipe(**({"train": GOLD} | (data or {}))),
        **({"teacher": TeacherRecipe(model="org/teacher")} | sections),
    )


@pytest.mark.parametrize(
    ("section", "name", "values"),
    [
        (DistilRecipe, "lr", (0, -0.1)),
        (FineTuneRecipe, "head_lr", (0, -1e-3)),
        (DistilRecipe, "weight_decay", (-0.1, float("nan"))),
        (FromScratchRecipe, "warmup_ratio", (-0.1, 1.1)),
        (DistilRecipe, "max_grad_norm", (0, -1)),
        (DistilRecipe, "max_length", (0,)),
        (DistilRecipe, "checkpoint_minutes", (-1,)),
        (LabelRecipe, "tokens_per_batch", (0,)),
        (LabelRecipe, "top_k", (0,)),
        (EvaluateRecipe, "batch_size", (0,)),
        (EvaluateRecipe, "speed_seconds", (-1,)),
        (StudentRecipe, "hidden_sizes", ([0], [64, -1])),
    ],
)
def test_numbers_outside_are_named(section: type, name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"^\w+\.{name} is .* must be ") as raised:
            section(**{name: value})
        assert str(value) in str(raised.value)


@pytest.mark.parametrize(("pooling", "distilled"), [("max", 0.0), ("mean", 0.1), ("attentive", 0.1), ("auto", None)])
def test_ngram_dropout_follows_the_pooling(pooling: Any, distilled: float) -> None:
    """Unless it is given; if the texts decide how to pool, then also about the dropout."""
    recipe = make_recipe(student=StudentRecipe(pooling=pooling))
    assert recipe.distil.ngram_dropout == distilled
    assert recipe.fine_tune.ngram_dropout == recipe.from_scratch.ngram_dropout == 0.1
    given = DistilRecipe(ngram_dropout=0.2)
    assert make_recipe(student=StudentRecipe(pooling=pooling), distil=given).distil.ngram_dropout == 0.2


def test_short_texts_are_pooled_by_their_maximum() -> None:
    shape = StudentRecipe()
    assert [shape.pooling_of(number, are_pairs=False) for number in (0.0, 100.0, 100.5)] == ["max", "max", "mean"]
    assert shape.pooling_of(10.0, are_pairs=True) == "mean"
    assert StudentRecipe(pooling="sum").pooling_of(10.0, are_pairs=False) == "sum"


@pytest.mark.parametrize(
    ("settings", "columns"),
    [({}, 64), ({"embedding_size": 64}, 16), ({"embedding_size": 3}, 0), ({"alignment_size": 10}, 10),
     ({"alignment_size": 0}, 0), ({"pair_bags": "sides"}, 0)],
)  # fmt: skip
def test_columns_that_align_pairs(settings: dict[str, Any], columns: int) -> None:
    assert StudentRecipe(**settings).columns_to_align == columns


def test_alignments_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"student\.alignment_size is 64, but must be at least 0 and at most 63"):
        StudentRecipe(embedding_size=64, alignment_size=64)
    with pytest.raises(ValueError, match=r"student\.pair_bags is sides, where nothing is aligned"):
        StudentRecipe(pair_bags="sides", alignment_size=8)


@pytest.mark.parametrize(("name", "value"), [("lr", 0), ("weight_decay", -1), ("warmup_ratio", 2)])
def test_numbers_of_the_teacher(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^teacher\.{name} is {value}"):
        TeacherRecipe(model="m", **{name: value})


def test_edges_are_allowed() -> None:
    DistilRecipe(weight_decay=0, warmup_ratio=1, max_grad_norm=None, max_length=1, checkpoint_minutes=0)
    FineTuneRecipe(warmup_ratio=0, epochs=0)
    StudentRecipe(hidden_sizes=[])
    EvaluateRecipe(speed_seconds=0)
    make_recipe(seed=0, num_processes=1)


@pytest.mark.parametrize(
    ("sets", "named"),
    [({"test": "x"}, "data.test"), ({"corpus": ["x"]}, r"data.corpus\[0\]"), ({"validation": "x"}, "data.validation")],
)
def test_limit_below_one_is_named(sets: dict[str, Any], named: str) -> None:
    (name,) = sets
    empty = TextSet(path="x", limit=0)
    with pytest.raises(ValueError, match=rf"^{named}\.limit is 0, but must be at least 1"):
        DataRecipe(**{name: [empty] if name == "corpus" else empty})


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("num_processes", 0)])
def test_numbers_of_the_run(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is {value}, but must be at least"):
        make_recipe(**{name: value})


def test_integer_keys_of_labels_become_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "output_dir: run\nteacher: {model: org/t}\ndata: {train: {path: t.csv}, labels: {0: no!, '1': yes!, a: b}}\n"
    )
    monkeypatch.setattr(sys, "argv", ["distill.py", "--config", str(path)])
    found = jsonargparse.auto_cli(Recipe, as_positional=False)
    assert found.data.labels == {"0": "no!", "1": "yes!", "a": "b"}


def test_private_texts_are_not_trained_on() -> None:
    private = VocabularyRecipe(include_train=False)
    corpus_alone = DistilRecipe(include_train=False)
    with pytest.raises(ValueError, match=r"vocabulary\.include_train is false.* set fine_tune\.epochs: 0"):
        make_recipe(vocabulary=private, distil=corpus_alone)
    with pytest.raises(ValueError, match=r"vocabulary\.include_train is false.* set distil\.include_train: false"):
        make_recipe(vocabulary=private, fine_tune=FineTuneRecipe(epochs=0))
    make_recipe(vocabulary=private, distil=corpus_alone, fine_tune=FineTuneRecipe(epochs=0))
    # Without labels there is no fine-tuning anyway.
    make_recipe(vocabulary=private, distil=corpus_alone, data={"train": TextSet(path="train.csv")})
    # Another domain: distilled on a corpus, fine-tuned on D_train.
    make_recipe(distil=corpus_alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"train": TextSet(path="train.csv")}}, "no labels to train it on"),
        (
            {"data": {"train": TextSet(path="t.csv", label_column="l", text_pair_column="p")}},
            "the texts are pairs, which it cannot compare",
        ),
        ({"data": {"train": GOLD, "problem_type": "multi_label_classification"}}, "only tells labels apart"),
        (
            {"data": {"validation": TextSet(path="validation.csv")}, "fine_tune": FineTuneRecipe(epochs=0)},
            r"name data\.validation\.label_column",
        ),
        ({"distil": DistilRecipe(include_train=False)}, "bring D_train's labels into the student"),
    ],
)
def test_ngram_expert_where_it_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"teacher.ngram_expert is true, but .*{message}; set it to false"):
        make_recipe(teacher=TeacherRecipe(model="org/t", ngram_expert=True), **changes)


@pytest.mark.parametrize("found", ["multi_label_classification", "regression"])
def test_baselines_where_they_cannot_be(found: str) -> None:
    baselines = BaselinesRecipe(names=["tfidf"])
    with pytest.raises(ValueError, match=rf"the task is a {found}, .* set baselines\.names: \[\]"):
        make_recipe(baselines=baselines, data={"problem_type": found})
    make_recipe(baselines=baselines, data={"problem_type": "single_label_classification"})


def test_texts_for_calibration_that_calibrate_nothing() -> None:
    with pytest.raises(ValueError, match=r"data\.calibration has no label_column, .* set data\.calibration: null"):
        make_recipe(data={"calibration": TextSet(path="texts.csv")})
    labelled = TextSet(path="texts.csv", label_column="label")
    with pytest.raises(ValueError, match=r"the task is a regression, .* set data\.calibration: null"):
        make_recipe(data={"calibration": labelled, "problem_type": "regression"})
    make_recipe(data={"calibration": labelled, "problem_type": "multi_label_classification"})


@pytest.mark.parametrize(("label", "found"), [(["a", "b"], "multi_label_classification"), (0.5, "regression")])
def test_what_the_labels_say_that_cannot_be(tmp_path: Path, label: Any, found: str) -> None:
    """The type of the task is known only when the labels have been read, and then nothing has been made yet."""
    write_rows(tmp_path / "train.jsonl", [{"text": f"text {i}", "label": label} for i in range(9)])
    make_encoder(tmp_path / "encoder")
    train = TextSet(path=str(tmp_path / "train.jsonl"), label_column="label")
    teacher = TeacherRecipe(model=str(tmp_path / "encoder"))
    expert = make_recipe(data={"train": train}, teacher=replace(teacher, ngram_expert=True))
    with pytest.raises(ValueError, match=f"ngram_expert is true, but data.problem_type is {found}"):
        RunPlan(expert, device=torch.device("cpu")).space  # noqa: B018 (a property)
    compared = make_recipe(data={"train": train}, teacher=teacher, baselines=BaselinesRecipe(names=["tfidf"]))
    with pytest.raises(ValueError, match=f"baselines.names is set, but the task is a {found}"):
        RunPlan(compared, device=torch.device("cpu")).space  # noqa: B018 (a property)


def test_student_that_nothing_trains_is_refused() -> None:
    nothing = DistilRecipe(epochs=0)
    for train, epochs in ((GOLD, 0), (None, 3), (TextSet(path="train.csv"), 3)):
        with pytest.raises(ValueError, match=r"random weights; set distil\.epochs"):
            make_recipe(distil=nothing, fine_tune=FineTuneRecipe(epochs=epochs), data={"train": train})
    make_recipe(distil=nothing)


@pytest.mark.parametrize(("fine_tune", "from_scratch"), [(3, 0), (0, 4)])
def test_gold_training_needs_labelled_validation(fine_tune: int, from_scratch: int) -> None:
    trainings = {"fine_tune": FineTuneRecipe(epochs=fine_tune), "from_scratch": FromScratchRecipe(epochs=from_scratch)}
    name = "fine_tune" if fine_tune else "from_scratch"
    plain = TextSet(path="validation.csv")
    with pytest.raises(ValueError, match=rf"data\.validation has no label_column, but {name}\.epochs"):
        make_recipe(**trainings, data={"validation": plain})
    make_recipe(**trainings, data={"validation": GOLD})
    make_recipe(**trainings, data={"validation": plain, "train": TextSet(path="train.csv")})
    make_recipe(fine_tune=FineTuneRecipe(epochs=0), data={"validation": plain})
