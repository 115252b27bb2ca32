"""The part of a recipe that names the texts."""

import math
from dataclasses import dataclass, field
from typing import Literal

from hf_sparse.distillation.recipe_checks import check_bounds

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


@dataclass(kw_only=True)
class TextSet:
    """A set of texts: local Parquet, CSV, TSV, JSON Lines or plain text files, or a data set on the Hub.

    Attributes:
        path: File, glob pattern or folder; otherwise the id of a data set on the Hub.
        name: Configuration of a Hub data set.
        split: Split of a Hub data set.
        revision: Revision of a Hub data set.
        streaming: Stream a Hub data set instead of downloading it first.
        text_column: Column of the text.
        text_pair_column: Column of the second text of a pair.
        label_column: Column of the label: an integer, a string, a list of those (multi-label) or a number
            (regression).
        label_threshold: Where the label is a number, such as the share of annotators who say so: it becomes 1 from
            here on, 0 below.
        logits_path: Parquet file(s) with the teacher's logits of these texts in the same row order (columns
            `logit_0`, `logit_1`, ... or one list column `logits`); the teacher is then not asked again.
        limit: Use only the first so many rows.
    """

    path: str
    name: str | None = None
    split: str | None = None
    revision: str | None = None
    streaming: bool = False
    text_column: str = "text"
    text_pair_column: str | None = None
    label_column: str | None = None
    label_threshold: float | None = None
    logits_path: str | None = None
    limit: int | None = None


@dataclass(kw_only=True)
class Augmentation:
    """Texts made of those of D_train and C, for the teacher to label and the student to be distilled on.

    Attributes:
        crossed: How many that begin as one text does and go on as another does behind two words of both.
        fragments: How many runs of two to eight words. For both, null is twice as many as there are texts, at most
            150,000, where there are 1,000 to 1,000,000 texts of no more than 64 words on average, without partners or
            given logits, and otherwise 0.
        train_weight: How many times each text of D_train counts beside those of C; 0 leaves it out, and so does
            `distil.include_train: false`.
    """

    crossed: int | None = None
    fragments: int | None = None
    train_weight: int = 1

    def __post_init__(self) -> None:
        bounds = dict.fromkeys(("crossed", "fragments", "train_weight"), (0, math.inf))
        check_bounds("data.augmentation", self, **bounds)

    @property
    def is_off(self) -> bool:
        """Whether nothing is to be made, whatever the texts are."""
        return self.crossed == 0 and self.fragments == 0


@dataclass(kw_only=True)
class DataRecipe:
    """The texts of a run.

    Attributes:
        train: D_train, the labelled texts; may be left out when a fine-tuned teacher is distilled on a corpus alone.
        corpus: C, texts without labels that the teacher labels.
        validation: Texts on which checkpoints and stages are chosen; null holds `validation_size` out of `train`
            (out of the corpus where there is no `train`).
        calibration: Labelled texts, neither trained on nor test texts, which are like those that the student will
            meet, where those of validation are not: its temperature, and the thresholds of labels and of
            `hf-sparse cascade`, are fitted on them; null fits them on the validation texts.
        test: Texts that only the report sees.
        validation_size: Number of texts held out when `validation` is null; at most a fifth is taken.
        fold: Of cross-validation, from 1 to `num_folds`: which part of `train` is held out, in place of
            `validation_size` texts; the parts are random, and each text is in one.
        num_folds: Number of those parts.
        augmentation: Texts made of those of `train` and `corpus`.
        problem_type: What the labels are; null takes it from the teacher's config, or from D_train when the teacher
            has no head (lists are multi-label, fractions a regression).
        labels: Names of the labels, from the value in the label column to the name, in the order of their ids
            (`{1: world, 2: sports}`); null takes the teacher's names, or those in the data when it has no head.
    """

    train: TextSet | None = None
    corpus: list[TextSet] = field(default_factory=list)
    validation: TextSet | None = None
    calibration: TextSet | None = None
    test: TextSet | None = None
    validation_size: int = 5000
    fold: int | None = None
    num_folds: int = 5
    augmentation: Augmentation = field(default_factory=Augmentation)
    problem_type: ProblemType | None = None
    labels: dict[int | str, str] | None = None

    def __post_init__(self) -> None:
        check_bounds("data", self, validation_size=(0, math.inf), num_folds=(2, math.inf), fold=(1, self.num_folds))
        if self.fold is not None and (self.train is None or self.validation is not None):
            wrong = "data.train is null" if self.train is None else "data.validation names other texts"
            raise ValueError(
                f"data.fold is {self.fold}, which holds a part of data.train out, but {wrong}; set "
                + ("data.fold: null" if self.train is None else "data.validation: null")
            )
        if self.calibration is not None and self.calibration.label_column is None:
            raise ValueError(
                "data.calibration has no label_column, but probabilities are fitted to labels; name "
                "data.calibration.label_column, or set data.calibration: null"
            )
        for name, text_set in self.text_sets().items():
            check_bounds(f"data.{name}", text_set, limit=(1, math.inf))
        self._check_augmentation()
        if self.labels is not None:  # YAML reads 0 as a number; written out again it is the same key
            self.labels = {str(value): name for value, name in self.labels.items()}

    def _check_augmentation(self) -> None:
        sources = self.text_sets().values()
        if not any(source.text_pair_column or source.logits_path for source in sources):
            return
        for name in ("crossed", "fragments"):
            number = getattr(self.augmentation, name)
            if number and any(source.text_pair_column for source in sources):
                raise ValueError(
                    f"data.augmentation.{name} is {number}, but the texts are pairs, of which nothing is made; set it "
                    "to 0 (recipes/sentence_pairs.py makes pairs of pairs)"
                )
            setattr(self.augmentation, name, number or 0)

    def text_sets(self) -> dict[str, TextSet]:
        """Return the text sets that the recipe names, by their key below `data`."""
        named = {
            "train": self.train,
            "validation": self.validation,
            "calibration": self.calibration,
            "test": self.test,
        }
        named |= {f"corpus[{index}]": source for index, source in enumerate(self.corpus)}
        return {name: source for name, source in named.items() if source is not None}

    @property
    def has_gold_labels(self) -> bool:
        """Whether D_train has labels."""
        return self.train is not None and self.train.label_column is not None
