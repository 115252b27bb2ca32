"""The command `hf-sparse sweep`: train a recipe's student under many settings and compare them on validation data.

Texts, vocabulary, teacher and labels are made once and linked into the folder of each training; test sets are never
scored. What has been scored is in `sweep.json` at once, so that a sweep that was killed goes on where it stopped.
"""

import json
import os
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from accelerate import Accelerator
from tqdm.auto import tqdm

from hf_sparse.distillation import student_stages
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.recipe import Recipe
from hf_sparse.distillation.recipe_checks import has_training
from hf_sparse.distillation.run import DistillationRun
from hf_sparse.distillation.shares import read_recipe
from hf_sparse.distillation.stages import Stage
from hf_sparse.distillation.texts import num_texts
from hf_sparse.evaluation.metrics import PRIMARY_METRIC
from hf_sparse.extras import require_extra
from hf_sparse.files import fingerprint, only_process, remove_folder, write_json
from hf_sparse.sweeps.plots import plot_study
from hf_sparse.sweeps.reading import Reader, read_in_part
from hf_sparse.sweeps.scoring import Scorer
from hf_sparse.sweeps.studies import READING_STUDIES, STUDIES, Setting, Study, study_of
from hf_sparse.sweeps.summary import format_sweep

__all__ = ["format_sweep", "sweep"]

StudyName = Literal["pooling", "depth", "width", "corpus", "temperature", "initialisation", "ngrams", "pruning"]

_SHARED: Final = ("texts", "vocabulary", "teacher", "label", "ensemble")
_SET_BY_SWEEP: Final = ("output_dir", "stages", "trackers", "seed", "student.seed", "data.fold", "data.num_folds")
_BASE: Final = Setting(name="base", changes={})


def sweep(
    recipe: str,
    *,
    study: list[StudyName] | None = None,
    vary: list[str] | None = None,
    seeds: int = 3,
    folds: int | None = None,
    overrides: list[str] | None = None,
    mixed_precision: Literal["no", "bf16"] = "no",
    output: str | None = None,
) -> dict[str, Any]:
    """Train the student of a recipe under several settings and compare them on validation data.

    Args:
        recipe: The YAML file that `recipes/distill.py` would be given; stages of a run in its output_dir are reused.
        study: Which studies. Of the paper: pooling, depth, width (n-grams against columns at equal parameters), ngrams
            (length of n-grams at inference), pruning; and corpus, temperature, initialisation.
        vary: More studies, each a key of the recipe and its values, such as `distil.lr=[0.02, 0.05]`.
        seeds: Trainings of each setting, all on the same texts and teacher.
        folds: Cross-validation, for where labels are few: D_train falls into so many parts, each part in turn is what
            students of all settings and seeds, and a teacher trained without it, are scored on. data.validation is not
            read. A corpus cut from D_train holds the words of all parts, though not their labels.
        overrides: Changes of the recipe for all settings, such as `distil.epochs=2`.
        mixed_precision: Precision of the trainings.
        output: Folder for sweep.json and the plots; null is `sweep` in the recipe's output_dir (with folds `sweep-N`).

    Returns:
        What `sweep.json` holds: the metric, the teacher's scores, and for each study its points with the metric of all
        trainings and the means of all scores: metrics, `agreement` with and `divergence` from the teacher, and `ece`,
        the calibration error with temperatures fitted on every other text.

    Raises:
        ValueError: There is nothing to vary, a setting is no recipe, the validation texts have no labels, or another
            process is at work in the folder.
    """
    require_extra("bench")
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}, but must be at least 1")
    if folds is not None and folds < 2:
        raise ValueError(f"folds is {folds}, but must be at least 2, or null for the recipe's validation texts")
    changes = [_as_override(change) for change in overrides or []]
    changes += ["--data.calibration", "null"]  # nothing is calibrated
    if folds is not None:
        changes += ["--data.validation", "null", "--data.test", "null", "--data.num_folds", str(folds)]
    varied = [study_of(each) for each in vary or []]
    _check_keys([key for key, _ in varied])
    studies = {name: STUDIES[name] for name in study or [] if name in STUDIES} | dict(varied)
    reading: list[str] = [name for name in study or [] if name in READING_STUDIES]
    if not studies and not reading:
        raise ValueError(f"there is nothing to vary; name a study ({', '.join((*STUDIES, *READING_STUDIES))}) or vary")
    base = read_recipe(recipe, changes)
    name = "sweep" if folds is None else f"sweep-{folds}"
    folder = Path(output) if output is not None else Path(base.output_dir) / name
    work = _Sweep(recipe, changes, base, folder, seeds=seeds, folds=folds, mixed_precision=mixed_precision)
    work.check(studies)
    with only_process(folder):
        work.prepare()
        work.run(studies, reading)
    return work.report


@dataclass(frozen=True, kw_only=True)
class _Training:
    """A setting, a seed, and the part of D_train that is held out."""

    setting: Setting
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        setting = fingerprint(self.setting.changes)[:12] if self.setting.changes else "base"
        fold = "" if self.fold is None else f"-fold-{self.fold}"
        return f"{setting}{fold}-seed-{self.seed}"

    @property
    def label(self) -> str:
        """As the progress bar shows it."""
        fold = "" if self.fold is None else f"fold {self.fold}, "
        return f"{self.setting.name}, {fold}seed {self.seed}"


class _Sweep:
    """The trainings of a sweep, and what they found."""

    def __init__(
        self,
        path: str,
        changes: list[str],
        base: Recipe,
        folder: Path,
        *,
        seeds: int,
        folds: int | None,
        mixed_precision: str,
    ) -> None:
        self._path, self._changes, self._base, self._folder = path, changes, base, folder
        first = base.seed if base.student.seed is None else base.student.seed
        self._seeds = range(first, first + seeds)
        self._folds: Sequence[int | None] = [None] if folds is None else range(1, folds + 1)
        self._accelerator = Accelerator(mixed_precision=mixed_precision)
        self._file = folder / "sweep.json"
        self._metric = ""
        self.report: dict[str, Any] = {}

    def check(self, studies: dict[str, Study]) -> None:
        """Refuse settings that are no recipe, before anything is made; those of a corpus are known when it is read."""
        for name, study in studies.items():
            for setting in study.settings(self._base, 1) if name != "corpus" else []:
                self._recipe(self._trainings(setting)[0])

    def prepare(self) -> None:
        """Make what all trainings of a fold share, and read what an earlier sweep has found."""
        teachers = []
        for first in self._trainings(_BASE)[:: len(self._seeds)]:
            run = self._new_run(first)
            self._metric = PRIMARY_METRIC[run.space.problem_type]
            for name in _SHARED:
                getattr(run, name)()
            student_stages.require_labels(run.texts_stage.folder, "validation")
            self._corpus = num_texts(run.texts_stage.folder, "corpus")
            teachers.append(Scorer(run).teacher())
        self.report = {"recipe": self._path, "metric": self._metric, "folds": len(self._folds)}
        self.report |= {"teacher": _means(teachers), "scores": _read_scores(self._file), "studies": {}}

    def run(self, studies: dict[str, Study], reading: list[str]) -> None:
        """Train all settings of all studies, and read in part with the students of the recipe itself."""
        settings = {name: study.settings(self._base, self._corpus) for name, study in studies.items()}
        trainings = [
            training
            for setting in [*([_BASE] if reading else []), *sum(settings.values(), [])]  # noqa: RUF017 (few settings)
            for training in self._trainings(setting)
        ]
        with tqdm(trainings, desc="sweep", unit="training") as bar:
            for number, training in enumerate(bar):
                bar.set_postfix_str(training.label)
                self._train(training, reading)
                following = trainings[number + 1 : number + 2]
                if not following or following[0].setting != training.setting:
                    self._remove(training.setting)
        for name, study in studies.items():
            self._add(name, study.title, study.is_logarithmic, self._trained_points(settings[name]))
        for name in reading:
            shape = READING_STUDIES[name]
            self._add(name, shape.title, shape.is_logarithmic, self._read_points(name))

    def _train(self, training: _Training, reading: list[str]) -> None:
        """Train and score a student, unless that has been done."""
        key = _student_key(self._plan(training))
        known = self.report["scores"].get(key, {})
        missing = [name for name in reading if name not in known.get("reading", {})]
        if known and (training.setting.changes or not missing):
            return
        run = self._new_run(training)
        for name in (*_SHARED, "distil", "fine_tune"):
            getattr(run, name)()
        found = known or {"chosen": student_stages.choose_student(run), "stages": Scorer(run).students()}
        if not training.setting.changes and missing:
            reader = Reader(run)
            parts = {name: read_in_part(reader, name, READING_STUDIES[name]) for name in missing}
            found["reading"] = known.get("reading", {}) | parts
        self.report["scores"][key] = found
        write_json(self._file, self.report)

    def _trainings(self, setting: Setting) -> list[_Training]:
        return [_Training(setting=setting, seed=seed, fold=fold) for fold in self._folds for seed in self._seeds]

    def _recipe(self, training: _Training) -> Recipe:
        folder = self._folder / "runs" / training.name
        words = [*self._changes, *training.setting.overrides, "--student.seed", str(training.seed)]
        words += [] if training.fold is None else ["--data.fold", str(training.fold)]
        return read_recipe(self._path, [*words, "--output_dir", str(folder), "--stages", "null", "--trackers", "[]"])

    def _plan(self, training: _Training) -> RunPlan:
        """Return the plan of a training, which makes no folder."""
        accelerator = self._accelerator
        return RunPlan(self._recipe(training), device=accelerator.device, mixed_precision=accelerator.mixed_precision)

    def _new_run(self, training: _Training) -> DistillationRun:
        """Return the run of a training, with the stages it shares with others linked into its folder."""
        run = DistillationRun(self._recipe(training), accelerator=self._accelerator)
        places = [Path(self._base.output_dir), *sorted((self._folder / "runs").glob("*"))]
        for stage in _shared_stages(run):
            _link(stage, places)
        return run

    def _remove(self, setting: Setting) -> None:
        """Remove the folders of a setting: of the students only the scores are of use."""
        for training in self._trainings(setting):
            if setting.changes or training.seed != self._seeds[0]:
                remove_folder(self._folder / "runs" / training.name)

    def _trained_points(self, settings: Sequence[Setting]) -> list[dict[str, Any]]:
        points = []
        for setting in settings:
            found = [self._found(training) for training in self._trainings(setting)]
            chosen = [each["stages"][each["chosen"]] for each in found]
            point = {"series": "student", "name": setting.name, "value": setting.value, "changes": setting.changes}
            stages = [{name: scores[self._metric] for name, scores in each["stages"].items()} for each in found]
            scores = [each[self._metric] for each in chosen]
            points.append(point | {"scores": scores, "means": _means(chosen), "stages": stages})
        return points

    def _read_points(self, name: str) -> list[dict[str, Any]]:
        found = [self._found(training)["reading"][name] for training in self._trainings(_BASE)]
        points = []
        for rows in zip(*found, strict=True):
            row = rows[0]
            point = {"series": row["series"], "name": f"{row['value']:g}", "value": row["value"]}
            scores = [each["metrics"][self._metric] for each in rows]
            points.append(point | {"ngrams": row["ngrams"], "scores": scores})
        return points

    def _found(self, training: _Training) -> dict[str, Any]:
        found: dict[str, Any] = self.report["scores"][_student_key(self._plan(training))]
        return found

    def _add(self, name: str, title: str, is_logarithmic: bool, points: list[dict[str, Any]]) -> None:
        study = {"title": title, "is_logarithmic": is_logarithmic, "points": points}
        self.report["studies"][name] = study
        write_json(self._file, self.report)
        teacher = self.report["teacher"][self._metric]
        plot_study(study, self._folder / f"{name}.png", metric=self._metric, teacher=teacher)


def _as_override(change: str) -> str:
    key, separator, _ = change.partition("=")
    if not key or not separator:
        raise ValueError(f"overrides has {change!r}, but must have KEY=VALUE, such as distil.epochs=2")
    return f"--{change}"


def _check_keys(keys: list[str]) -> None:
    for key in keys:
        if key in _SET_BY_SWEEP or key.startswith(("data.validation", "data.calibration", "data.test")):
            raise ValueError(
                f"vary has {key!r}, by which settings would not be scored on the same texts with the same seeds; vary "
                "another key, or name texts and seeds in the recipe, overrides, seeds or folds"
            )
        if keys.count(key) > 1:
            raise ValueError(f"vary has {key!r} twice; give all its values in one list")


def _shared_stages(run: RunPlan) -> list[Stage]:
    stages = [run.texts_stage, run.vocabulary_stage, run.teacher_stage, run.label_stage]
    return [*stages, run.ensemble_stage] if run.recipe.teacher.ngram_expert else stages


def _student_key(run: RunPlan) -> str:
    """Return a key of everything that a student's scores depend on."""
    keys = [run.distil_stage.key]
    return fingerprint([*keys, run.fine_tune_stage.key] if has_training(run.recipe, run.recipe.fine_tune) else keys)


def _means(found: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each score over trainings, or over teachers; None where one of them has none."""
    means: dict[str, float | None] = {}
    for name in found[0]:
        values = [value for each in found if (value := each[name]) is not None]
        means[name] = statistics.fmean(values) if len(values) == len(found) else None
    return means


def _read_scores(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["scores"]
        return {key: each for key, each in found.items() if "stages" in each}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _link(stage: Stage, places: Sequence[Path]) -> None:
    """Link the output of a stage from one of other runs that have made the same, if it is not there."""
    if stage.is_done():
        return
    for place in places:
        made = Stage(name=stage.name, run_dir=place, key=stage.key)
        if place != stage.run_dir and made.is_done():
            remove_folder(stage.partial)
            # Files of finished stages are never written to: a link is as good as a copy.
            shutil.copytree(made.folder, stage.partial, copy_function=_link_file)
            stage.publish()
            return


def _link_file(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
    return target
