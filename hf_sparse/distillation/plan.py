"""The plan of a run: its stages, and the key of each, made from everything it depends on.

A stage's key holds the recipe's part that matters to it and the keys of the stages it reads, so changing the recipe
redoes exactly what the change reaches.
"""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import hf_sparse
from hf_sparse.distillation.label_space import LabelSpace
from hf_sparse.distillation.recipe import Recipe, TrainingRecipe
from hf_sparse.distillation.sources import source_fingerprint
from hf_sparse.distillation.stages import Stage
from hf_sparse.distillation.teacher import (
    TeacherCard,
    TeacherEncoder,
    labelling_dtype,
    load_classifier,
    load_tokenizer,
    read_teacher_card,
)
from hf_sparse.distillation.texts import labels_of

# Settings that change how long a run takes, but not what comes out.
_WITHOUT_EFFECT = {"checkpoint_minutes"}


class RunPlan:
    """The stages of one recipe on one device.

    Args:
        recipe: What to do.
        device: Where the teacher runs; its precision depends on it.
    """

    def __init__(self, recipe: Recipe, *, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.folder = Path(recipe.output_dir)

    @cached_property
    def teacher_card(self) -> TeacherCard:
        """What the teacher's config says."""
        return read_teacher_card(self.recipe.teacher)

    @cached_property
    def space(self) -> LabelSpace:
        """The labels of the task."""
        data, card = self.recipe.data, self.teacher_card
        problem_type = data.problem_type or card.problem_type or "single_label_classification"
        if problem_type == "regression":
            return LabelSpace.from_names(["score"], problem_type=problem_type, origin="a regression")
        if data.labels is not None:
            return LabelSpace.from_recipe(data.labels, problem_type=problem_type, names=card.names)
        if card.names is not None:
            origin = f"the labels of teacher {self.recipe.teacher.model!r}"
            return LabelSpace.from_names(card.names, problem_type=problem_type, origin=origin)
        if data.train is None or data.train.label_column is None:
            raise ValueError(
                f"teacher {self.recipe.teacher.model!r} has no classification head and data.train names no "
                "label_column; name one to fine-tune the head on, or a teacher that is a sequence classifier"
            )
        return LabelSpace.from_data(labels_of(data.train), problem_type=problem_type)

    @cached_property
    def texts_stage(self) -> Stage:
        """Reads the texts."""
        data = self.recipe.data
        sources = {
            "train": data.train and source_fingerprint(data.train),
            "corpus": [source_fingerprint(source) for source in data.corpus],
            "validation": data.validation and source_fingerprint(data.validation),
            "test": data.test and source_fingerprint(data.test),
        }
        inputs = {"sources": sources, "space": dataclasses.asdict(self.space), "held_out": data.validation_size}
        return self._stage("texts", inputs | {"seed": self.recipe.seed})

    @cached_property
    def vocabulary_stage(self) -> Stage:
        """Counts the n-grams."""
        return self._stage("vocabulary", {"texts": self.texts_stage.key, "recipe": self.recipe.vocabulary})

    @cached_property
    def teacher_stage(self) -> Stage:
        """Fine-tunes the teacher, if it has no head."""
        inputs: dict[str, Any] = {"identity": self.teacher_card.identity}
        if self.needs_fine_tuning:
            inputs |= {"texts": self.texts_stage.key, "recipe": self.recipe.teacher, "seed": self.recipe.seed}
        return self._stage("teacher", inputs)

    @cached_property
    def label_stage(self) -> Stage:
        """Labels all texts."""
        inputs = {"texts": self.texts_stage.key, "teacher": self.teacher_stage.key, "recipe": self.recipe.label}
        dtype = str(labelling_dtype(self.recipe.label.dtype, self.device))
        return self._stage("label", inputs | {"max_length": self.recipe.teacher.max_length, "dtype": dtype})

    @cached_property
    def distil_stage(self) -> Stage:
        """Distils the student."""
        return self._training_stage("distil", self.recipe.distil, label=self.label_stage.key)

    @cached_property
    def fine_tune_stage(self) -> Stage:
        """Fine-tunes the student."""
        return self._training_stage("fine_tune", self.recipe.fine_tune, distil=self.distil_stage.key)

    @cached_property
    def from_scratch_stage(self) -> Stage:
        """Trains a student without a teacher."""
        return self._training_stage("from_scratch", self.recipe.from_scratch, texts=self.texts_stage.key)

    @cached_property
    def evaluate_stage(self) -> Stage:
        """Writes the report."""
        students = [self.distil_stage.key, self.fine_tune_stage.key, self.from_scratch_stage.key]
        inputs = {"students": students, "recipe": self.recipe.evaluate, "base_model": self.recipe.teacher.base_model}
        return self._stage("evaluate", inputs)

    @property
    def needs_fine_tuning(self) -> bool:
        """Whether the teacher has no head yet."""
        return self.teacher_card.names is None

    def teacher_encoder(self, *, labelling: bool) -> TeacherEncoder:
        """Load the finished teacher, in the precision of labelling or in float32."""
        path = str(self.teacher_stage.folder) if self.needs_fine_tuning else self.recipe.teacher.model
        dtype = labelling_dtype(self.recipe.label.dtype if labelling else "float32", self.device)
        return self.new_encoder(path, dtype=dtype)

    def new_encoder(self, model: str, *, dtype: torch.dtype = torch.float32) -> TeacherEncoder:
        """Load a teacher from a folder or the Hub, with a new head if it has none."""
        recipe = dataclasses.replace(self.recipe.teacher, model=model)
        options: dict[str, Any] = {}
        if self.needs_fine_tuning:
            names = self.space.names
            options = {
                "num_labels": self.space.num_labels,
                "problem_type": self.space.problem_type,
                "id2label": dict(enumerate(names)),
                "label2id": {name: index for index, name in enumerate(names)},
            }
            torch.manual_seed(self.recipe.seed)
        return TeacherEncoder(
            load_classifier(recipe, **options),
            load_tokenizer(recipe),
            max_length=recipe.max_length,
            tokens_per_batch=self.recipe.label.tokens_per_batch,
            device=self.device,
            dtype=dtype,
        )

    def stage_folder(self, name: str) -> Path:
        """Return the folder of a finished stage."""
        return self.folder / name

    def is_current(self, name: str) -> bool:
        """Tell whether the student of a training stage belongs to this recipe and is there."""
        return any(stage.name == name and stage.is_done() for stage in self.student_stages())

    def evaluated_key(self) -> str:
        """Return the key of the report, on which the saved student depends."""
        return self.evaluate_stage.key

    def student_stages(self) -> list[Stage]:
        """Return what must be there before students can be compared."""
        stages = [self.texts_stage, self.vocabulary_stage, self.label_stage, self.distil_stage]
        if self.has_training(self.recipe.fine_tune):
            stages.append(self.fine_tune_stage)
        if self.has_training(self.recipe.from_scratch):
            stages.append(self.from_scratch_stage)
        return stages

    def has_training(self, recipe: TrainingRecipe) -> bool:
        """Tell whether a training on gold labels is asked for and there are labels."""
        train = self.recipe.data.train
        return recipe.epochs > 0 and train is not None and train.label_column is not None

    def _stage(self, name: str, inputs: dict[str, Any]) -> Stage:
        plain = {key: _plain(value) for key, value in inputs.items()}
        return Stage.of(name, self.folder, inputs=plain | {"version": hf_sparse.__version__})

    def _training_stage(self, name: str, recipe: TrainingRecipe, **keys: str) -> Stage:
        inputs = {"vocabulary": self.vocabulary_stage.key, "student": self.recipe.student, "recipe": recipe}
        return self._stage(name, inputs | {"seed": self.recipe.seed} | keys)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: item for key, item in dataclasses.asdict(value).items() if key not in _WITHOUT_EFFECT}
    return value
