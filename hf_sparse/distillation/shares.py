"""Stages in shares: what one of many tasks does of the counting or the labelling, beside the others or after them.

A share writes files of its own into the stage's partial folder, each whole or not there, and leaves alone what is
there. So tasks may be killed, run twice and in any order; `recipes/distill.py` does what is missing and publishes the
stage. `recipes/cluster.py` hands shares to datatrove's executors (this machine, Slurm, Ray), which call them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from jsonargparse import auto_cli

from hf_sparse.distillation.labelling import has_given_logits, label_texts
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.recipe import Recipe, VocabularyRecipe
from hf_sparse.distillation.stages import Stage
from hf_sparse.distillation.texts import num_texts, read_shard, shards
from hf_sparse.vocabulary.build import COUNTING_FOLDER
from hf_sparse.vocabulary.counting import Counting
from hf_sparse.vocabulary.parts import NamedTexts

# In a partial folder: what the executors write.
LOGS: Final = "cluster"

StageInShares = Literal["vocabulary", "label"]


def read_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read the YAML file of a recipe.

    Args:
        path: Of the file.
        overrides: What to change in it, as words of a command line: `--distil.epochs`, `6`, ...

    Raises:
        ValueError: There is no such file.
        jsonargparse.ArgumentError: It is not a recipe.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path!r}: there is no such file; name the recipe that recipes/distill.py would be given")
    recipe: Recipe = auto_cli(Recipe, as_positional=False, args=["--config", path, *overrides], exit_on_error=False)
    return recipe


def new_counting(recipe: VocabularyRecipe, *, progress: bool) -> Counting:
    """Return the counting of a recipe."""
    return Counting(
        num_ngrams=recipe.num_ngrams,
        max_n=recipe.max_n,
        min_documents=recipe.min_documents,
        word_rule=recipe.word_rule,
        clean=recipe.clean,
        memory=recipe.memory,
        progress=progress,
    )


def texts_to_count(plan: RunPlan) -> tuple[list[NamedTexts], int]:
    """Return the shards of texts whose n-grams are counted, and the number of their texts.

    Raises:
        ValueError: If there are none.
    """
    include_train, folder = plan.recipe.vocabulary.include_train, plan.texts_stage.folder
    sets = ("train", "corpus") if include_train else ("corpus",)
    total = sum(num_texts(folder, text_set) for text_set in sets)
    if not total:
        raise ValueError(
            f"there are no texts to count in data.{' and data.'.join(sets)}; add some, or set "
            f"vocabulary.include_train to {'false' if include_train else 'true'}"
        )
    files = [path for text_set in sets for path in shards(folder, text_set)]
    return [NamedTexts(name=path.stem, read=lambda path=path: read_shard(path)) for path in files], total  # type: ignore[misc]


def stage_of(plan: RunPlan, name: StageInShares) -> Stage:
    """Return a stage, for which what it needs is there.

    Raises:
        ValueError: If something is missing, or there is nothing to share out.
    """
    needed = [plan.texts_stage] if name == "vocabulary" else [plan.texts_stage, plan.teacher_stage]
    for stage in needed:
        if not stage.is_done():
            names = ", ".join(each.name for each in needed)
            raise ValueError(
                f"stage {name!r} needs the output of stage {stage.name!r}, which is not in {str(stage.folder)!r} for "
                f"this recipe; run recipes/distill.py with --stages '[{names}]' first"
            )
    if name == "vocabulary" and plan.recipe.vocabulary.file is not None:
        raise ValueError(f"vocabulary.file is {plan.recipe.vocabulary.file!r}: there is nothing to count")
    return plan.vocabulary_stage if name == "vocabulary" else plan.label_stage


def steps_of(stage: StageInShares, max_n: int) -> list[str]:
    """Return the steps of a stage, each of which needs the ones before; a step `merge-n` is one task."""
    if stage == "label":
        return ["label"]
    return ["read", *(step for n in range(2, max_n + 1) for step in (f"merge-{n - 1}", f"count-{n}"))]


@dataclass(frozen=True, kw_only=True)
class Share:
    """A step of a stage, as a step of a datatrove pipeline.

    Attributes:
        recipe: The recipe.
        step: One of `steps_of`.
        mixed_precision: Precision with which the run trains.
    """

    recipe: Recipe
    step: str
    mixed_precision: str = "no"

    def __call__(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Do the share of one of `world_size` tasks."""
        plan = new_plan(self.recipe, mixed_precision=self.mixed_precision)
        name: StageInShares = "label" if self.step == "label" else "vocabulary"
        stage = stage_of(plan, name)
        if stage.is_done():
            return data
        if not stage.is_begun():
            raise ValueError(f"{str(stage.partial)!r} is not of this recipe any more; run recipes/cluster.py again")
        if name == "label":
            _label(plan, stage.partial, rank=rank, num_processes=world_size)
        else:
            self._count(plan, stage.partial / COUNTING_FOLDER, rank=rank, num_shares=world_size)
        return data

    def _count(self, plan: RunPlan, folder: Path, *, rank: int, num_shares: int) -> None:
        counting = new_counting(self.recipe.vocabulary, progress=rank == 0)
        texts, _ = texts_to_count(plan)
        kind, _, number = self.step.partition("-")
        if kind == "read":
            counting.read(texts[rank::num_shares], folder)
        elif kind == "merge":
            counting.merge(texts, folder, n=int(number))
        else:
            counting.count_share(texts, folder, n=int(number), rank=rank, num_shares=num_shares)


def new_plan(recipe: Recipe, *, mixed_precision: str) -> RunPlan:
    """Return the plan of a recipe on the device of this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return RunPlan(recipe, device=device, mixed_precision=mixed_precision)


def _label(plan: RunPlan, folder: Path, *, rank: int, num_processes: int) -> None:
    given = has_given_logits(plan.texts_stage.folder)
    label_texts(
        None if given else plan.teacher_encoder(labelling=True),
        plan.texts_stage.folder,
        folder,
        num_labels=plan.space.num_labels,
        top_k=plan.top_k,
        rank=rank,
        num_processes=num_processes,
        progress=rank == 0,
    )
