"""A run: the stages of a recipe in one folder, each reused, resumed or made anew.

Each method is one stage and can run alone once the stages before it are there.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import Accelerator

from hf_sparse.distillation import student_stages
from hf_sparse.distillation.baseline_stage import require_packages, write_baselines
from hf_sparse.distillation.ensemble import write_ensemble
from hf_sparse.distillation.labelling import has_given_logits, label_texts
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.recipe import Recipe
from hf_sparse.distillation.recipe_checks import has_training
from hf_sparse.distillation.reporting import format_summary, make_report, publish_report, save_student
from hf_sparse.distillation.resources import collect_resources, peak_memory, write_resources
from hf_sparse.distillation.shares import LOGS, new_counting, texts_to_count
from hf_sparse.distillation.stages import Stage
from hf_sparse.distillation.stream import first_texts
from hf_sparse.distillation.teacher import labelling_dtype
from hf_sparse.distillation.teacher_training import fine_tune as fine_tune_teacher
from hf_sparse.distillation.texts import write_text_sets
from hf_sparse.files import disk_full_named, remove_folder, write_json
from hf_sparse.hub.push import format_push, push
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.vocabulary.build import COUNTING_FOLDER, describe

logger = logging.getLogger(__name__)


class DistillationRun(RunPlan):
    """The work of the stages of one recipe.

    Args:
        recipe: What to do.
        accelerator: Device, processes, precision and trackers.

    Raises:
        ValueError: If the number of processes is not the one asked for, or the precision is fp16.
    """

    def __init__(self, recipe: Recipe, *, accelerator: Accelerator) -> None:
        wanted = recipe.num_processes
        if wanted is not None and accelerator.num_processes != wanted:
            raise ValueError(
                f"the recipe asks for num_processes: {wanted}, but {accelerator.num_processes} were launched; on CPUs "
                f"use `accelerate launch --multi_gpu --num_processes {wanted}` with ACCELERATE_USE_CPU=true"
            )
        if accelerator.mixed_precision == "fp16":
            raise ValueError("mixed_precision is fp16, in which small gradients become 0; use bf16")
        require_packages(recipe)
        super().__init__(recipe, device=accelerator.device, mixed_precision=accelerator.mixed_precision)
        self.accelerator = accelerator
        self.folder.mkdir(parents=True, exist_ok=True)
        self._is_main = accelerator.is_main_process

    # --- the stages -------------------------------------------------------------------------------------------------

    def texts(self) -> None:
        """Read all sources into shards; hold validation data out; make further texts."""

        def work(folder: Path) -> None:
            counts = write_text_sets(
                self.recipe.data,
                folder,
                space=self.space,
                seed=self.recipe.seed,
                progress=self._is_main,
                include_train=self.recipe.distil.include_train,
            )
            write_json(folder / "counts.json", counts)

        self._run("texts", lambda: self.texts_stage, work)

    def vocabulary(self) -> None:
        """Count the n-grams of D_train and C and keep the most frequent ones."""

        def work(folder: Path) -> None:
            vocabulary = self._count(folder / COUNTING_FOLDER)
            vocabulary.save(folder)
            write_json(folder / "vocabulary.json", describe(vocabulary))
            remove_folder(folder / COUNTING_FOLDER)

        self._run("vocabulary", lambda: self.vocabulary_stage, work, needs=lambda: [self.texts_stage])

    def _count(self, folder: Path) -> NgramVocabulary:
        recipe = self.recipe.vocabulary
        if recipe.file is not None:
            return NgramVocabulary.load(recipe.file)
        texts, total = texts_to_count(self)
        # Shares of a cluster may have begun.
        place = folder if recipe.memory is not None or folder.exists() else None
        return new_counting(recipe, progress=self._is_main).vocabulary(texts, place, total=total)

    def teacher(self) -> None:
        """Fine-tune an encoder that has no head; a sequence classifier is used as it is."""

        def work(folder: Path) -> None:
            if not self.needs_fine_tuning:
                write_json(folder / "teacher.json", {"model": self.recipe.teacher.model, "fine_tuned": False})
                return
            student_stages.require_labels(self.texts_stage.folder, "train")
            encoder = self.new_encoder(self.recipe.teacher.model)
            dtype = labelling_dtype(self.recipe.label.dtype, self.device)
            texts, labels = student_stages.read_labelled(self.texts_stage.folder, "train", self.space)
            fine_tune_teacher(
                encoder,
                texts,
                labels,
                recipe=self.recipe.teacher,
                problem_type=self.space.problem_type,
                accelerator=self.accelerator,
                folder=folder,
                seed=self.recipe.seed,
                feature_dtype=dtype,
            )
            scores = student_stages.score_teacher(
                encoder, self.texts_stage.folder, "validation", self.space, dtype=dtype
            )
            student_stages.save_teacher(encoder, folder, scores=scores, model=self.recipe.teacher.model)

        self._run("teacher", lambda: self.teacher_stage, work, needs=lambda: [self.texts_stage])

    def label(self) -> None:
        """Write the teacher's logits of every text."""

        def work(folder: Path) -> None:
            given = has_given_logits(self.texts_stage.folder)
            label_texts(
                None if given else self.teacher_encoder(labelling=True),
                self.texts_stage.folder,
                folder,
                num_labels=self.space.num_labels,
                top_k=self.top_k,
                rank=self.accelerator.process_index,
                num_processes=self.accelerator.num_processes,
                progress=self._is_main,
            )

        def needs() -> list[Stage]:
            return [self.texts_stage, self.teacher_stage]

        self._run("label", lambda: self.label_stage, work, needs=needs, on_all_processes=True)

    def ensemble(self) -> None:
        """Train the n-gram expert and write the logits of expert and teacher together."""
        if not self.recipe.teacher.ngram_expert:
            return

        def work(folder: Path) -> None:
            write_ensemble(self, folder, progress=self._is_main)

        needs = lambda: [self.texts_stage, self.vocabulary_stage, self.label_stage]  # noqa: E731
        self._run("ensemble", lambda: self.ensemble_stage, work, needs=needs)

    def distil(self) -> None:
        """Train the student on the teacher's logits of C, what is made of it and, unless told otherwise, D_train."""

        def work(folder: Path) -> None:
            include_train = self.recipe.distil.include_train
            texts, targets = self.texts_stage.folder, self.targets_stage.folder
            shards_read = student_stages.training_shards(texts, targets, ("train",) if include_train else ())
            corpus = student_stages.training_shards(texts, targets, ("corpus", "augmented"))
            shards_read += first_texts(corpus, self.recipe.distil.corpus_texts)
            student_stages.train_student(
                self, folder, self.recipe.distil, shards_read, start=None, accelerator=self.accelerator
            )

        def needs() -> list[Stage]:
            return [self.texts_stage, self.vocabulary_stage, self.targets_stage]

        self._run("distil", lambda: self.distil_stage, work, needs=needs, on_all_processes=True)

    def fine_tune(self) -> None:
        """Train the distilled student on D_train; `evaluate` keeps it only if validation data says so."""
        if not has_training(self.recipe, self.recipe.fine_tune):
            return

        def work(folder: Path) -> None:
            student_stages.require_labels(self.texts_stage.folder, "train")
            shards_read = student_stages.training_shards(
                self.texts_stage.folder, self.targets_stage.folder, ("train",)
            )
            student_stages.train_student(
                self, folder, self.recipe.fine_tune, shards_read, start="distil", accelerator=self.accelerator
            )

        needs = lambda: [self.distil_stage]  # noqa: E731
        self._run("fine_tune", lambda: self.fine_tune_stage, work, needs=needs, on_all_processes=True)

    def from_scratch(self) -> None:
        """Train a student of the same shape on the gold labels of D_train alone."""
        if not has_training(self.recipe, self.recipe.from_scratch):
            return

        def work(folder: Path) -> None:
            student_stages.require_labels(self.texts_stage.folder, "train")
            shards_read = student_stages.training_shards(self.texts_stage.folder, None, ("train",))
            student_stages.train_student(
                self, folder, self.recipe.from_scratch, shards_read, start=None, accelerator=self.accelerator
            )

        needs = lambda: [self.texts_stage, self.vocabulary_stage]  # noqa: E731
        self._run("from_scratch", lambda: self.from_scratch_stage, work, needs=needs, on_all_processes=True)

    def baselines(self) -> None:
        """Train classifiers without a transformer, for comparison."""
        if not self.recipe.baselines.names:
            return

        def work(folder: Path) -> None:
            write_baselines(self, folder, progress=self._is_main)

        self._run("baselines", lambda: self.baselines_stage, work, needs=lambda: [self.texts_stage])

    def evaluate(self) -> None:
        """Choose the student on validation data and compare it with the teacher on the test set."""

        def work(folder: Path) -> None:
            started = time.monotonic()
            report = make_report(self)
            now = {"seconds": round(time.monotonic() - started, 3), "resumed": False, **peak_memory()}
            stages = [self.texts_stage, self.vocabulary_stage, self.teacher_stage, *self.student_stages()[2:]]
            report["resources"] = collect_resources(stages, name="evaluate", now=now)
            write_json(folder / "report.json", report)

        self._run("evaluate", lambda: self.evaluate_stage, work, needs=self.student_stages)
        if self.evaluate_stage.is_done() and self._is_main:
            with disk_full_named(self.folder):
                publish_report(self.evaluate_stage.folder / "report.json", self.folder / "report.json")

    def save(self) -> None:
        """Write the chosen student in the layout of the Hub to `student/`."""
        if not self._is_wanted("save") or not self._is_main:
            return
        self._require([self.evaluate_stage, *self.student_stages()], "save")
        with disk_full_named(self.folder):
            self._say(f"save: {save_student(self)}")

    def push(self) -> None:
        """Push the saved student to the Hub, if the recipe says so."""
        recipe, hub = self.recipe, self.recipe.hub
        if not recipe.push_to_hub or not self._is_wanted("save") or not self._is_main:
            return
        assert hub.model_id is not None, "checked when the recipe was read"
        folder = str(self.folder / "student")
        done = push(folder, hub.model_id, private=hub.private, revision=hub.revision, create_pr=hub.create_pr)
        self._say(f"push: {format_push(done)}")

    def summary(self) -> str | None:
        """Return the short table of the finished report, None if there is none for this recipe yet."""
        if not self.evaluate_stage.is_done():
            return None
        report = json.loads((self.evaluate_stage.folder / "report.json").read_text(encoding="utf-8"))
        return format_summary(report)

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
        started = time.monotonic()
        stage = stage_of()
        if stage.is_done():
            if self._is_main:
                student_stages.remove_training_files(stage.folder)  # which a kill may have left
            self._say(f"{name}: {stage.folder} (there already)")
            return
        self._require(needs(), name)
        resumed = stage.is_begun()
        with disk_full_named(stage.partial):
            if self._is_main:
                stage.open_partial()
            self.accelerator.wait_for_everyone()
            if on_all_processes or self._is_main:
                work(stage.partial)
            self.accelerator.wait_for_everyone()
            if self._is_main:
                remove_folder(stage.partial / LOGS)
                write_resources(stage.partial, seconds=time.monotonic() - started, resumed=resumed)
        if self._is_main:
            # Flushing the result takes long; until it is published, only these spare a killed run the training.
            student_stages.remove_training_files(stage.publish())
        self.accelerator.wait_for_everyone()
        self._say(f"{name}: {stage.folder} ({time.monotonic() - started:.1f} s)")

    def _require(self, stages: list[Stage], name: str) -> None:
        for stage in stages:
            if not stage.is_done():
                raise ValueError(
                    f"stage {name!r} needs the output of stage {stage.name!r}, which is not in {str(stage.folder)!r} "
                    f"for this recipe; run it first (add {stage.name} to stages, or leave stages out)"
                )
            _check_shards(stage.folder)

    def _say(self, message: str) -> None:
        if self._is_main:
            logger.info(message)


def _check_shards(folder: Path) -> None:
    for path in sorted(folder.glob("*.parquet")):
        try:
            pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{str(path)!r} is damaged ({error}); remove the folder {str(folder)!r} and run the same command again"
            ) from error
