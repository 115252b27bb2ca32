"""What a recipe must fulfil before a run begins: numbers within bounds, and parts that fit together."""

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hf_sparse.distillation.recipe import Recipe, TrainingRecipe

ABOVE_ZERO: Final = math.ulp(0.0)
BELOW_ONE: Final = 1 - math.ulp(0.5)


def check_bounds(section: str, recipe: object, **bounds: tuple[float, float]) -> None:
    """Check numbers of a part of the recipe against their bounds, both allowed; null is no number.

    Raises:
        ValueError: If one is outside; it is named, with its section.
    """
    for name, (low, high) in bounds.items():
        value = getattr(recipe, name)
        if value is not None and not low <= value <= high:
            first, last = ("above 0" if low == ABOVE_ZERO else f"at least {low}"), ""
            if high != math.inf:
                last = " and below 1" if high == BELOW_ONE else f" and at most {high}"
            raise ValueError(f"{section}.{name}".lstrip(".") + f" is {value}, but must be {first}{last}")


def has_training(recipe: "Recipe", section: "TrainingRecipe") -> bool:
    """Tell whether a training on gold labels is asked for and there are labels."""
    return section.epochs > 0 and recipe.data.has_gold_labels


def check_recipe(recipe: "Recipe") -> None:
    """Check that the trainings of a recipe fit together and to its texts.

    Raises:
        ValueError: If the recipe would train on texts that it keeps private, train nothing, or have nothing to choose
            a student by.
    """
    fine_tunes = has_training(recipe, recipe.fine_tune)
    if not recipe.vocabulary.include_train and (recipe.distil.include_train or fine_tunes):
        reached = "fine_tune.epochs: 0" if fine_tunes else "distil.include_train: false"
        raise ValueError(
            "vocabulary.include_train is false, which keeps the words of D_train private, but the student would be "
            f"trained on D_train after all; set {reached}, or vocabulary.include_train: true"
        )
    if recipe.push_to_hub and recipe.hub.model_id is None:
        raise ValueError("push_to_hub is true, but hub.model_id is null; name the repository, such as me/my-student")
    check_problem_type(recipe, recipe.data.problem_type)
    if recipe.distil.epochs == 0 and not fine_tunes:
        raise ValueError(
            "distil.epochs is 0 and there is no fine-tuning: the student would keep its random weights; set "
            "distil.epochs to at least 1"
        )
    validation = recipe.data.validation
    for section in (recipe.fine_tune, recipe.from_scratch):
        if has_training(recipe, section) and validation is not None and validation.label_column is None:
            raise ValueError(
                f"data.validation has no label_column, but {section.stage_name}.epochs is {section.epochs}: without "
                "labels nothing tells which student is better; name data.validation.label_column, or set "
                f"{section.stage_name}.epochs: 0"
            )


def check_problem_type(recipe: "Recipe", problem_type: str | None) -> None:
    """Check that what only tells labels apart is asked for where each text has one; None is a type not known yet.

    Raises:
        ValueError: If the n-gram expert or a baseline cannot learn the task, or it has nothing to calibrate.
    """
    _check_ngram_expert(recipe, problem_type)
    if recipe.data.calibration is not None and problem_type == "regression":
        raise ValueError(
            "data.calibration names texts, but the task is a regression, which gives no probabilities to fit to them; "
            "set data.calibration: null"
        )
    if recipe.baselines.names and problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"baselines.names is set, but the task is a {problem_type}, and baselines only give one label; "
            "set baselines.names: []"
        )


def _check_ngram_expert(recipe: "Recipe", problem_type: str | None) -> None:
    data = recipe.data
    wrong = None
    if not data.has_gold_labels:
        wrong = "data.train has no labels to train it on"
    elif data.train is not None and data.train.text_pair_column is not None:
        wrong = "the texts are pairs, which it cannot compare"
    elif problem_type not in (None, "single_label_classification"):
        wrong = f"data.problem_type is {problem_type}, and it only tells labels apart"
    elif not recipe.distil.include_train:
        wrong = "distil.include_train is false, and it would bring D_train's labels into the student"
    elif data.validation is not None and data.validation.label_column is None:
        wrong = "data.validation has no labels to weigh it by: name data.validation.label_column"
    if wrong is not None and recipe.teacher.ngram_expert:
        raise ValueError(f"teacher.ngram_expert is true, but {wrong}; set it to false")
