"""The plan of a run: its stages, and the key of each, made from everything it depends on.

A stage's key holds the recipe's part that matters to it and the keys of the stages it reads, so changing the recipe
redoes exactly what the change reaches.
"""

import dataclasses
import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import hf_sparse
from hf_sparse.distillation.label_space import LabelSpace, SeenLabels
from hf_sparse.distillation.recipe import Recipe, TrainingRecipe
from hf_sparse.distillation.recipe_checks import check_problem_type, has_training
from hf_sparse.distillation.recipe_data import ProblemType
from hf_sparse.distillation.sources import class_names, source_fingerprint
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
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.vocabulary.word_tokenizer import read_tokenizer

# Settings that change how long a run takes, what a card says, or (the expert) another stage, but not the output of
# the stage whose section they are in.
_WITHOUT_EFFECT = {"checkpoint_minutes", "base_model", "memory", "ngram_expert", "ngram_expert_c"}


class RunPlan:
    """The stages of one recipe on one device.

    Args:
        recipe: What to do.
        device: Where the teacher runs; its precision depends on it.
        mixed_precision: Precision in which teacher and student are trained ("no", "bf16", ...).
    """

    def __init__(self, recipe: Recipe, *, device: torch.device, mixed_precision: str = "no") -> None:
        self.recipe = recipe
        self.device = device
        self.mixed_precision = mixed_precision
        self.folder = Path(recipe.output_dir)

    @cached_property
    def teacher_card(self) -> TeacherCard:
        """What the teacher's config says."""
        return read_teacher_card(self.recipe.teacher)

    @cached_property
    def space(self) -> LabelSpace:
        """The labels of the task: those of the recipe, of the teacher, or of D_train where the teacher has no head."""
        space = self._find_space()
        check_problem_type(self.recipe, space.problem_type)
        return space

    def _find_space(self) -> LabelSpace:
        data, card = self.recipe.data, self.teacher_card
        problem_type = data.problem_type or card.problem_type
        if card.names is not None and problem_type is None:
            problem_type = "single_label_classification"
        if problem_type == "regression":
            return _regression()
        if card.names is not None and problem_type is not None:
            if data.labels is not None:
                return LabelSpace.from_recipe(data.labels, problem_type=problem_type, names=card.names)
            origin = f"the labels of teacher {self.recipe.teacher.model!r}"
            return LabelSpace.from_names(card.names, problem_type=problem_type, origin=origin)
        return self._space_of_data(problem_type)

    def _space_of_data(self, problem_type: ProblemType | None) -> LabelSpace:
        """Return the labels for a teacher without a head, on which it is fine-tuned."""
        data = self.recipe.data
        if data.train is None or data.train.label_column is None:
            raise ValueError(
                f"teacher {self.recipe.teacher.model!r} has no classification head and data.train names no "
                "label_column; name one to fine-tune the head on, or a teacher that is a sequence classifier"
            )
        if data.labels is not None and problem_type is not None:
            return LabelSpace.from_recipe(data.labels, problem_type=problem_type, names=None)
        seen = SeenLabels.of(labels_of(data.train))
        if problem_type is None:
            problem_type = seen.problem_type(are_named=data.labels is not None)
        if problem_type == "regression":
            return _regression()
        if data.labels is not None:
            return LabelSpace.from_recipe(data.labels, problem_type=problem_type, names=None)
        names = class_names(data.train)
        if names is not None:
            origin = f"the class names of {data.train.path!r}"
            return LabelSpace.from_names(names, problem_type=problem_type, origin=origin, integers_are_ids=True)
        return LabelSpace.from_data(seen, problem_type=problem_type)

    @property
    def student_seed(self) -> int:
        """Seed of the student's trainings."""
        seed = self.recipe.student.seed
        return self.recipe.seed if seed is None else seed

    @cached_property
    def texts_stage(self) -> Stage:
        """Reads the texts, and makes further ones of them."""
        data = self.recipe.data
        inputs: dict[str, Any] = {"texts": self._given_texts.key}
        if not data.augmentation.is_off:
            inputs |= {"augmentation": data.augmentation, "include_train": self.recipe.distil.include_train}
        if data.calibration is not None:
            inputs["calibration"] = source_fingerprint(data.calibration)
        return self._given_texts if len(inputs) == 1 else self._stage("texts", inputs)

    @cached_property
    def _given_texts(self) -> Stage:
        """The texts of the sources, on which teacher, vocabulary and whatever else does not distil depend."""
        data = self.recipe.data
        sources = {
            "train": data.train and source_fingerprint(data.train),
            "corpus": [source_fingerprint(source) for source in data.corpus],
            "validation": data.validation and source_fingerprint(data.validation),
            "test": data.test and source_fingerprint(data.test),
        }
        space = dataclasses.asdict(self.space)
        del space["advice"]  # of error messages only
        if space["are_rows"] is None:  # as in keys of earlier versions
            del space["are_rows"]
        inputs = {"sources": sources, "space": space, "held_out": data.validation_size}
        if data.fold is not None:
            inputs["held_out"] = f"part {data.fold} of {data.num_folds}"
        return self._stage("texts", inputs | {"seed": self.recipe.seed})

    @cached_property
    def vocabulary_stage(self) -> Stage:
        """Counts the n-grams, or takes those of a file."""
        recipe = self.recipe.vocabulary
        if recipe.file is not None:
            return self._stage("vocabulary", {"file": NgramVocabulary.load(recipe.file).sha256})
        tokenizer = read_tokenizer(recipe.word_rule)
        inputs = {"texts": self._given_texts.key, "recipe": recipe}
        # The rule is only the tokenizer's name; what that name stands for may change.
        return self._stage("vocabulary", inputs | {"tokenizer": tokenizer and hashlib.sha256(tokenizer).hexdigest()})

    @cached_property
    def teacher_stage(self) -> Stage:
        """Fine-tunes the teacher, if it has no head."""
        inputs: dict[str, Any] = {"identity": self.teacher_card.identity}
        recipe = self.recipe.teacher
        if self.needs_fine_tuning:
            inputs |= {"texts": self._given_texts.key, "recipe": recipe, "seed": self.recipe.seed}
            inputs |= {"mixed_precision": self.mixed_precision, "batches": "by length", "attention_dropout": False}
            inputs |= self._unit
            if recipe.fine_tune == "head":
                inputs["feature_dtype"] = str(labelling_dtype(self.recipe.label.dtype, self.device))
        return self._stage("teacher", inputs)

    @cached_property
    def label_stage(self) -> Stage:
        """Labels all texts."""
        inputs = {"texts": self.texts_stage.key, "teacher": self.teacher_stage.key, "recipe": self.recipe.label}
        dtype = str(labelling_dtype(self.recipe.label.dtype, self.device))
        return self._stage("label", inputs | {"max_length": self.recipe.teacher.max_length, "dtype": dtype})

    @cached_property
    def ensemble_stage(self) -> Stage:
        """Adds the n-gram expert to the teacher."""
        inputs = {"label": self.label_stage.key, "vocabulary": self.vocabulary_stage.key, "seed": self.recipe.seed}
        return self._stage("ensemble", inputs | {"regularisation": self.recipe.teacher.ngram_expert_c})

    @property
    def targets_stage(self) -> Stage:
        """Whose logits the student is distilled from: those of the teacher, or of teacher and n-gram expert."""
        return self.ensemble_stage if self.recipe.teacher.ngram_expert else self.label_stage

    @cached_property
    def distil_stage(self) -> Stage:
        """Distils the student."""
        return self._training_stage("distil", self.recipe.distil, label=self.targets_stage.key)

    @cached_property
    def fine_tune_stage(self) -> Stage:
        """Fine-tunes the student."""
        return self._training_stage("fine_tune", self.recipe.fine_tune, distil=self.distil_stage.key)

    @cached_property
    def from_scratch_stage(self) -> Stage:
        """Trains a student without a teacher."""
        return self._training_stage("from_scratch", self.recipe.from_scratch, texts=self._given_texts.key)

    @cached_property
    def baselines_stage(self) -> Stage:
        """Trains what the student is compared with."""
        recipe = self.recipe.baselines
        encoder = (recipe.encoder or self.teacher_card.identity) if "model2vec" in recipe.names else None
        return self._stage("baselines", {"texts": self._given_texts.key, "names": recipe.names, "encoder": encoder})

    @cached_property
    def evaluate_stage(self) -> Stage:
        """Writes the report."""
        students = [self.distil_stage.key, self.fine_tune_stage.key, self.from_scratch_stage.key]
        if self.recipe.baselines.names:
            students.append(self.baselines_stage.key)
        inputs = {"students": students, "recipe": self.recipe.evaluate, "base_model": self.recipe.teacher.base_model}
        inputs["parts"] = ["calibration"]  # what a report has now and older ones lack
        return self._stage("evaluate", inputs)

    @property
    def top_k(self) -> int | None:
        """How many logits of a text are kept; None where all are."""
        return self.recipe.label.top_k if self.space.problem_type == "single_label_classification" else None

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
        if self.recipe.teacher.ngram_expert:
            stages.insert(3, self.ensemble_stage)
        if has_training(self.recipe, self.recipe.fine_tune):
            stages.append(self.fine_tune_stage)
        if has_training(self.recipe, self.recipe.from_scratch):
            stages.append(self.from_scratch_stage)
        if self.recipe.baselines.names:
            stages.append(self.baselines_stage)
        return stages

    def _stage(self, name: str, inputs: dict[str, Any]) -> Stage:
        plain = {key: _plain(value) for key, value in inputs.items()}
        return Stage.of(name, self.folder, inputs=plain | {"version": hf_sparse.__version__})

    def _training_stage(self, name: str, recipe: TrainingRecipe, **keys: str) -> Stage:
        inputs = {"vocabulary": self.vocabulary_stage.key, "student": self.recipe.student, "recipe": recipe}
        inputs |= {"seed": self.student_seed, "mixed_precision": self.mixed_precision} | self._unit
        return self._stage(name, inputs | keys)

    @property
    def _unit(self) -> dict[str, str]:
        return {"scores": "standardised"} if self.space.problem_type == "regression" else {}


def _regression() -> LabelSpace:
    return LabelSpace.from_names(["score"], problem_type="regression", origin="a regression")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: item for key, item in dataclasses.asdict(value).items() if key not in _WITHOUT_EFFECT}
    return value
