"""The studies that a sweep knows, and the settings of each.

Most are those of Ye et al. (NAACL 2022): pooling (table 5), depth, number of n-grams against width (table 8), length
of n-grams at inference (table 10), pruning (figure 5). The last two need no training: a trained student reads less.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hf_sparse.distillation.recipe import Recipe

_CORPUS_SHARES: Final = (1 / 64, 1 / 16, 1 / 4, 1.0)
_WIDTH_FACTORS: Final = (1 / 4, 1 / 2, 1, 2, 4)
_TEMPERATURES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
_NAIVE_BAYES_SCALES: Final = (0.2, 0.5, 1.0, 2.0)
_SHARES_OF_ROWS: Final = (1.0, 0.5, 0.25, 0.1, 0.05, 0.03, 0.01)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of a study that is trained.

    Attributes:
        name: As in the table and below the plot.
        changes: What to change in the recipe, by dotted key.
        value: Its place on the axis; None where settings are names.
    """

    name: str
    changes: dict[str, Any]
    value: float | None = None

    @property
    def overrides(self) -> list[str]:
        """The changes as words of a command line."""
        words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.changes.items()}
        return [word for key, value in words.items() for word in (f"--{key}", value)]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that trains a student for each setting.

    Attributes:
        title: What is varied, for the table and the axis.
        settings: From the recipe and the number of texts of its corpus to the settings.
        is_logarithmic: Whether the axis is.
    """

    title: str
    settings: Callable[[Recipe, int], list[Setting]]
    is_logarithmic: bool = False


@dataclass(frozen=True, kw_only=True)
class ReadingStudy:
    """A study of what a trained student reads.

    Attributes:
        title: What is varied.
        series: Criteria, one curve each.
        points: Values on the axis, given the words of the longest n-gram.
        is_logarithmic: Whether the axis is.
    """

    title: str
    series: tuple[str, ...]
    points: Callable[[int], tuple[float, ...]]
    is_logarithmic: bool = False


def _pooling(recipe: Recipe, corpus: int) -> list[Setting]:
    return [Setting(name=name, changes={"student.pooling": name}) for name in ("mean", "sum", "max", "attentive")]


def _depth(recipe: Recipe, corpus: int) -> list[Setting]:
    sizes = recipe.student.hidden_sizes
    width = sizes[0] if sizes else recipe.student.embedding_size
    return [
        Setting(name=f"{depth}", value=depth, changes={"student.hidden_sizes": [width] * depth}) for depth in range(4)
    ]


def _width(recipe: Recipe, corpus: int) -> list[Setting]:
    rows, width = recipe.vocabulary.num_ngrams, recipe.student.embedding_size
    sizes = recipe.student.hidden_sizes
    found = []
    for factor in _WIDTH_FACTORS:
        columns = round(width / factor)
        if columns < 1:
            continue
        changes = {
            "vocabulary.num_ngrams": round(rows * factor),
            "student.embedding_size": columns,
            # The layers after the table stay as they are: only the table is compared.
            "student.hidden_sizes": [width] if sizes is None else sizes,
        }
        found.append(Setting(name=f"{round(rows * factor):,} x {columns}", value=rows * factor, changes=changes))
    return found


def _corpus(recipe: Recipe, corpus: int) -> list[Setting]:
    if not corpus:
        raise ValueError("the study corpus varies how many texts of data.corpus are read, but it has none; name some")
    numbers = sorted({max(1, round(corpus * share)) for share in _CORPUS_SHARES})
    return [Setting(name=f"{number:,}", value=number, changes={"distil.corpus_texts": number}) for number in numbers]


def _temperature(recipe: Recipe, corpus: int) -> list[Setting]:
    return [Setting(name=f"{value:g}", value=value, changes={"distil.temperature": value}) for value in _TEMPERATURES]


def _initialisation(recipe: Recipe, corpus: int) -> list[Setting]:
    naive_bayes = [
        Setting(
            name=f"naive Bayes, {scale:g}",
            changes={"student.initial_rows": "naive_bayes", "student.naive_bayes_scale": scale},
        )
        for scale in _NAIVE_BAYES_SCALES
    ]
    return [Setting(name="random", changes={"student.initial_rows": "random"}), *naive_bayes]


STUDIES: Final[dict[str, Study]] = {
    "pooling": Study(title="pooling", settings=_pooling),
    "depth": Study(title="hidden layers", settings=_depth),
    "width": Study(title="n-grams x columns of the table", settings=_width, is_logarithmic=True),
    "corpus": Study(title="unlabelled texts", settings=_corpus, is_logarithmic=True),
    "temperature": Study(title="temperature", settings=_temperature, is_logarithmic=True),
    "initialisation": Study(title="first rows of the table", settings=_initialisation),
}

READING_STUDIES: Final[dict[str, ReadingStudy]] = {
    "ngrams": ReadingStudy(
        title="words of the longest n-gram that is read",
        series=("length",),
        points=lambda max_n: tuple(range(1, max_n + 1)),
    ),
    "pruning": ReadingStudy(
        title="share of the n-grams that is kept",
        series=("frequency", "norm"),
        points=lambda max_n: _SHARES_OF_ROWS,
        is_logarithmic=True,
    ),
}


def study_of(vary: str) -> tuple[str, Study]:
    """Return the study of one key, given as `KEY=[VALUE, ...]`, and its name, the key.

    Raises:
        ValueError: It is not a key and a JSON list of at least two values.
    """
    key, _, values = vary.partition("=")
    try:
        found = json.loads(values)
    except ValueError:
        found = None
    if not key or not isinstance(found, list) or len(found) < 2:
        raise ValueError(
            f"vary is {vary!r}, but must be a key of the recipe and a JSON list of at least two values, such as "
            "distil.lr=[0.02, 0.05]"
        )
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)

    def settings(recipe: Recipe, corpus: int) -> list[Setting]:
        return [
            Setting(name=json.dumps(value).strip('"'), value=value if are_numbers else None, changes={key: value})
            for value in found
        ]

    return key, Study(title=key, settings=settings)
