"""A run: the stages of a recipe in one folder, each reused, resumed or made anew.

Each method is one stage and can run alone once the stages before it are there. What a stage depends on is in its key
(see `stages`), so changing the recipe redoes exactly what the change reaches.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

import hf_sparse
from hf_sparse.distillation import student_stages
from hf_sparse.distillation.label_space import LabelSpace
from hf_sparse.distillation.labelling import has_given_logits, label_texts
from hf_sparse.distillation.recipe import Recipe, TrainingRecipe
from hf_sparse.distillation.reporting import format_summary, make_report, publish_report, save_student
from hf_sparse.distillation.sources import source_fingerprint
from hf_sparse.distillation.stages import Stage, write_json
from hf_sparse.distillation.teacher import (
    TeacherCard,
    TeacherEncoder,
    labelling_dtype,
    load_classifier,
    load_tokenizer,
    read_teacher_card,
)
from hf_sparse.distillation.teacher_training import fine_tune as fine_tune_teacher
from hf_sparse.distillation.texts import labels_of, read_texts, write_text_sets
from hf_sparse.vocabulary import count_ngrams

logger = logging.getLogger(__name__)

# Settings that change how long a run takes, but not what comes out.
_WITHOUT_EFFECT = {"checkpoint_minutes"}


class DistillationRun:
    """The stages of one recipe.

    Args:
        recipe: What to do.
        accelerator: Device, processes, precision and trackers.

    Raises:
        ValueError: If the number of processes is not the one asked for.
    """

    def __init__(self, recipe: Recipe, *, accelerator: Accelerator) -> None:
        wanted = recipe.num_processes
        if wanted is not None and accelerator.num_processes != wanted:
            raise ValueError(
                f"the recipe asks for num_processes: {wanted}, but {accelerator.num_processes} were launched; on CPUs "
                f"use `accelerate launch --multi_gpu --num_processes {wanted}` with ACCELERATE_USE_CPU=true"
            )
        self.recipe = recipe
        self.accelerator = accelerator
        self.folder = Path(recipe.output_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._is_main = accelerator.is_main_process

    # --- what the stages are keyed by -------------------------------------------------------------------------------

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
    def _texts_stage(self) -> Stage:
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
    def _vocabulary_stage(self) -> Stage:
        return self._stage("vocabulary", {"texts": self._texts_stage.key, "recipe": self.recipe.vocabulary})

    @cached_property
    def _teacher_stage(self) -> Stage:
        inputs: dict[str, Any] = {"identity": self.teacher_card.identity}
        if self.needs_fine_tuning:
            inputs |= {"texts": self._texts_stage.key, "recipe": self.recipe.teacher, "seed": self.recipe.seed}
        return self._stage("teacher", inputs)

    @cached_property
    def _label_stage(self) -> Stage:
        inputs = {"texts": self._texts_stage.key, "teacher": self._teacher_stage.key, "recipe": self.recipe.label}
        dtype = str(labelling_dtype(self.recipe.label.dtype, self.accelerator.device))
        return self._stage("label", inputs | {"max_length": self.recipe.teacher.max_length, "dtype": dtype})

    @cached_property
    def _distil_stage(self) -> Stage:
        return self._training_stage("distil", self.recipe.distil, label=self._label_stage.key)

    @cached_property
    def _fine_tune_stage(self) -> Stage:
        return self._training_stage("fine_tune", self.recipe.fine_tune, distil=self._distil_stage.key)

    @cached_property
    def _from_scratch_stage(self) -> Stage:
        return self._training_stage("from_scratch", self.recipe.from_scratch, texts=self._texts_stage.key)

    @cached_property
    def _evaluate_stage(self) -> Stage:
        students = [self._distil_stage.key, self._fine_tune_stage.key, self._from_scratch_stage.key]
        return self._stage("evaluate", {"students": students, "recipe": self.recipe.evaluate})

    @property
    def needs_fine_tuning(self) -> bool:
        """Whether the teacher has no head yet."""
        return self.teacher_card.names is None

    # --- the stages -------------------------------------------------------------------------------------------------

    def texts(self) -> None:
        """Read all sources into shards; hold validation data out."""

        def work(folder: Path) -> None:
            counts = write_text_sets(
                self.recipe.data, folder, space=self.space, seed=self.recipe.seed, progress=self._is_main
            )
            write_json(folder / "counts.json", counts)

        self._run("texts", lambda: self._texts_stage, work)

    def vocabulary(self) -> None:
        """Count the n-grams of D_train and C and keep the most frequent ones."""

        def work(folder: Path) -> None:
            recipe = self.recipe.vocabulary
            sets = ("train", "corpus") if recipe.include_train else ("corpus",)
            count_ngrams(
                (text for text_set in sets for text in read_texts(self._texts_stage.folder, text_set)),
                num_ngrams=recipe.num_ngrams,
                max_n=recipe.max_n,
                min_documents=recipe.min_documents,
                word_rule=recipe.word_rule,
                clean=recipe.clean,
                progress=self._is_main,
            ).save(folder)

        self._run("vocabulary", lambda: self._vocabulary_stage, work, needs=lambda: [self._texts_stage])

    def teacher(self) -> None:
        """Fine-tune an encoder that has no head; a sequence classifier is used as it is."""

        def work(folder: Path) -> None:
            if not self.needs_fine_tuning:
                write_json(folder / "teacher.json", {"model": self.recipe.teacher.model, "fine_tuned": False})
                return
            student_stages.require_labels(self._texts_stage.folder, "train")
            # Features for a head need no gradients, so they are computed in the precision of labelling.
            frozen = self.recipe.teacher.fine_tune == "head"
            dtype = labelling_dtype(self.recipe.label.dtype if frozen else "float32", self.accelerator.device)
            encoder = self._new_encoder(self.recipe.teacher.model, dtype=dtype)
            texts, labels = student_stages.read_labelled(self._texts_stage.folder, "train", self.space)
            fine_tune_teacher(
                encoder,
                texts,
                labels,
                recipe=self.recipe.teacher,
                problem_type=self.space.problem_type,
                accelerator=self.accelerator,
                folder=folder,
                seed=self.recipe.seed,
            )
            scores = student_stages.score_teacher(encoder, self._texts_stage.folder, "validation", self.space)
            student_stages.save_teacher(encoder, folder, scores=scores, model=self.recipe.teacher.model)

        self._run("teacher", lambda: self._teacher_stage, work, needs=lambda: [self._texts_stage])

    def label(self) -> None:
        """Write the teacher's logits of every text."""

        def work(folder: Path) -> None:
            given = has_given_logits(self._texts_stage.folder)
            label_texts(
                None if given else self.teacher_encoder(labelling=True),
                self._texts_stage.folder,
                folder,
                num_labels=self.space.num_labels,
                rank=self.accelerator.process_index,
                num_processes=self.accelerator.num_processes,
                progress=self._is_main,
            )

        def needs() -> list[Stage]:
            return [self._texts_stage, self._teacher_stage]

        self._run("label", lambda: self._label_stage, work, needs=needs, on_all_processes=True)

    def distil(self) -> None:
        """Train the student on the teacher's logits of C and, unless told otherwise, D_train."""

        def work(folder: Path) -> None:
            include_train = self.recipe.distil.include_train
            shards_read = student_stages.training_shards(
                self._texts_stage.folder,
                self._label_stage.folder,
                ("train", "corpus") if include_train else ("corpus",),
            )
            student_stages.train_student(self, folder, self.recipe.distil, shards_read, start=None)

        def needs() -> list[Stage]:
            return [self._texts_stage, self._vocabulary_stage, self._label_stage]

        self._run("distil", lambda: self._distil_stage, work, needs=needs)

    def fine_tune(self) -> None:
        """Train the distilled student on D_train; `evaluate` keeps it only if validation data says so."""
        if not self._has_training(self.recipe.fine_tune):
            return

        def work(folder: Path) -> None:
            student_stages.require_labels(self._texts_stage.folder, "train")
            shards_read = student_stages.training_shards(
                self._texts_stage.folder, self._label_stage.folder, ("train",)
            )
            start = self._distil_stage.folder
            student_stages.train_student(self, folder, self.recipe.fine_tune, shards_read, start=start)

        self._run("fine_tune", lambda: self._fine_tune_stage, work, needs=lambda: [self._distil_stage])

    def from_scratch(self) -> None:
        """Train a student of the same shape on the gold labels of D_train alone."""
        if not self._has_training(self.recipe.from_scratch):
            return

        def work(folder: Path) -> None:
            student_stages.require_labels(self._texts_stage.folder, "train")
            shards_read = student_stages.training_shards(self._texts_stage.folder, None, ("train",))
            student_stages.train_student(self, folder, self.recipe.from_scratch, shards_read, start=None)

        needs = lambda: [self._texts_stage, self._vocabulary_stage]  # noqa: E731
        self._run("from_scratch", lambda: self._from_scratch_stage, work, needs=needs)

    def evaluate(self) -> None:
        """Choose the student on validation data and compare it with the teacher on the test set."""

        def work(folder: Path) -> None:
            write_json(folder / "report.json", make_report(self))

        self._run("evaluate", lambda: self._evaluate_stage, work, needs=self._students)
        if self._evaluate_stage.is_done() and self._is_main:
            publish_report(self._evaluate_stage.folder / "report.json", self.folder / "report.json")

    def save(self) -> None:
        """Write the chosen student in the layout of the Hub to `student/`."""
        if not self._is_wanted("save") or not self._is_main:
            return
        self._require([self._evaluate_stage, *self._students()], "save")
        self._say(f"save: {save_student(self)}")

    def summary(self) -> str | None:
        """Return the short table of the finished report, None if there is none for this recipe yet."""
        if not self._evaluate_stage.is_done():
            return None
        report = json.loads((self._evaluate_stage.folder / "report.json").read_text(encoding="utf-8"))
        return format_summary(report)

    # --- what stages share ------------------------------------------------------------------------------------------

    def stage_folder(self, name: str) -> Path:
        """Return the folder of a finished stage."""
        return self.folder / name

    def is_current(self, name: str) -> bool:
        """Tell whether the student of a training stage belongs to this recipe and is there."""
        return any(stage.name == name and stage.is_done() for stage in self._students())

    def evaluated_key(self) -> str:
        """Return the key of the report, on which the saved student depends."""
        return self._evaluate_stage.key

    def teacher_encoder(self, *, labelling: bool) -> TeacherEncoder:
        """Load the finished teacher, in the precision of labelling or in float32."""
        path = str(self._teacher_stage.folder) if self.needs_fine_tuning else self.recipe.teacher.model
        dtype = labelling_dtype(self.recipe.label.dtype if labelling else "float32", self.accelerator.device)
        return self._new_encoder(path, dtype=dtype)

    def _new_encoder(self, model: str, *, dtype: torch.dtype = torch.float32) -> TeacherEncoder:
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
            device=self.accelerator.device,
            dtype=dtype,
        )

    def _students(self) -> list[Stage]:
        stages = [self._texts_stage, self._vocabulary_stage, self._label_stage, self._distil_stage]
        if self._has_training(self.recipe.fine_tune):
            stages.append(self._fine_tune_stage)
        if self._has_training(self.recipe.from_scratch):
            stages.append(self._from_scratch_stage)
        return stages

    def _has_training(self, recipe: TrainingRecipe) -> bool:
        train = self.recipe.data.train
        return recipe.epochs > 0 and train is not None and train.label_column is not None

    def _stage(self, name: str, inputs: dict[str, Any]) -> Stage:
        plain = {key: _plain(value) for key, value in inputs.items()}
        return Stage.of(name, self.folder, inputs=plain | {"version": hf_sparse.__version__})

    def _training_stage(self, name: str, recipe: TrainingRecipe, **keys: str) -> Stage:
        inputs = {"vocabulary": self._vocabulary_stage.key, "student": self.recipe.student, "recipe": recipe}
        return self._stage(name, inputs | {"seed": self.recipe.seed} | keys)

    def _is_wanted(self, name: str) -> bool:
        return self.recipe.stages is None or name in self.recipe.stages

    def _run(
        self,
        name: str,
        stage_of: Callable[[], Stage],
        work: Callable[[Path], None],
        *,
        needs: Callable[[], list[Stage]] = list,
        on_all_processes: bool = False,
    ) -> None:
        if not self._is_wanted(name):
            return
        stage = stage_of()
        if stage.is_done():
            self._say(f"{name}: {stage.folder} (there already)")
            return
        self._require(needs(), name)
        started = time.monotonic()
        if self._is_main:
            stage.open_partial()
        self.accelerator.wait_for_everyone()
        if on_all_processes or self._is_main:
            work(stage.partial)
        self.accelerator.wait_for_everyone()
        if self._is_main:
            stage.publish()
        self.accelerator.wait_for_everyone()
        self._say(f"{name}: {stage.folder} ({time.monotonic() - started:.1f} s)")

    def _require(self, stages: list[Stage], name: str) -> None:
        for stage in stages:
            if not stage.is_done():
                raise ValueError(
                    f"stage {name!r} needs the output of stage {stage.name!r}, which is not in {str(stage.folder)!r} "
                    f"for this recipe; run it first (add {stage.name} to stages, or leave stages out)"
                )

    def _say(self, message: str) -> None:
        if self._is_main:
            logger.info(message)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: item for key, item in dataclasses.asdict(value).items() if key not in _WITHOUT_EFFECT}
    return value
