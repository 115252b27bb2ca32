"""What the labels of a task are: the problem type, the names of the labels, and the way from raw values to ids."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from hf_sparse.distillation.recipe_data import ProblemType

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class SeenLabels:
    """The labels that occur in data.

    Attributes:
        values: The distinct ones; those within lists one by one, Booleans and whole floats as the integers they are.
        lists: Whether a text has a list of them.
        floats: Whether there are floats.
        width: Length of the lists, if they are rows of zeros and ones that say of each label whether a text has it.
    """

    values: frozenset[object]
    lists: bool
    floats: bool
    width: int | None = None

    @classmethod
    def of(cls, labels: Iterable[object]) -> "SeenLabels":
        """Collect the labels of texts; None, NaN and empty strings are no labels."""
        values: set[object] = set()
        floats = marked = False
        widths: set[int] = set()
        for label in labels:
            several = [label]
            if isinstance(label, list):
                several = label
                widths.add(len(label))
                marked |= _is_marked(label)
            floats |= any(isinstance(value, float) for value in several)
            values.update(map(_whole_number, several))
        real = {value for value in values - {None, ""} if value == value}  # NaN equals nothing
        # As ids, lists of two would give both labels to every text.
        marked |= real == {0, 1} and widths == {2}
        width = min(widths) if marked and len(widths) == 1 and real <= {0, 1} else None
        return cls(values=frozenset(real), lists=bool(widths), floats=floats, width=width)

    def problem_type(self, *, are_named: bool = False) -> ProblemType:
        """Tell what task the labels belong to: lists are multi-label, fractions a regression.

        Args:
            are_named: Whether the recipe maps them to names, so that they are no scores.

        Raises:
            ValueError: If all are whole numbers written as floats, or numbers with fractions written as strings: those
                may be classes or scores.
        """
        if self.lists:
            return "multi_label_classification"
        if not are_named and self.floats and all(isinstance(value, int | float) for value in self.values):
            if any(isinstance(value, float) for value in self.values):
                return "regression"
            raise ValueError(
                f"the labels of data.train are whole numbers written as floats ({self._shown()}), which may be "
                "classes or scores; set data.problem_type to single_label_classification or regression"
            )
        if not are_named and self._spell_fractions():
            raise ValueError(
                f"the labels of data.train are numbers written as strings ({self._shown()}), as of a file of scores "
                "in which some are missing; remove rows without a score, write the others as numbers, or set "
                "data.problem_type to single_label_classification or regression"
            )
        return "single_label_classification"

    def _spell_fractions(self) -> bool:
        """Tell whether all are numbers, some of them as strings and some fractions."""
        try:
            numbers = [float(str(value)) for value in self.values]
        except ValueError:
            return False
        has_strings = any(isinstance(value, str) for value in self.values)
        return has_strings and any(math.isfinite(number) and not number.is_integer() for number in numbers)

    def _shown(self) -> str:
        return _first_of(sorted(map(str, self.values)))


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """The labels of a task.

    Attributes:
        problem_type: Single-label, multi-label or regression.
        names: Names of the C labels in the order of their ids; one name for regression.
        values: For each string in the data the id it stands for.
        numbers: For each integer in the data the id it stands for; None if integers may be names as well as ids.
        origin: Where the names come from, for error messages.
        are_rows: Of two labels: whether [0, 1] is a row that says of each label whether a text has it, and no list of
            ids; None if that is not known.
        advice: What to do about a value that is none of them, for error messages.
    """

    problem_type: ProblemType
    names: tuple[str, ...]
    values: dict[str, int]
    numbers: dict[int, int] | None
    origin: str
    are_rows: bool | None = None
    advice: str = "map the values to names in data.labels"

    @classmethod
    def from_recipe(
        cls, labels: Mapping[int | str, str], *, problem_type: ProblemType, names: Sequence[str] | None
    ) -> "LabelSpace":
        """Make the space that the recipe's mapping from values to names describes.

        Args:
            labels: From raw value to name.
            problem_type: Of the task.
            names: The teacher's names, if it has a head; the recipe's must be among them.

        Raises:
            ValueError: If a name is not one of the teacher's.
        """
        known = list(names) if names is not None else list(dict.fromkeys(labels.values()))
        for value, name in labels.items():
            if name not in known:
                raise ValueError(
                    f"data.labels maps {value!r} to {name!r}, which is not a label of the teacher "
                    f"({', '.join(map(repr, known))})"
                )
        values = {str(value): known.index(name) for value, name in labels.items()}
        return cls(
            problem_type=problem_type,
            names=tuple(known),
            values=values,
            numbers=_numbers_among(values),
            origin="data.labels",
        )

    @classmethod
    def from_names(
        cls, names: Sequence[str], *, problem_type: ProblemType, origin: str, integers_are_ids: bool = False
    ) -> "LabelSpace":
        """Make the space of given names; in the data a label is then its name or its id.

        Where names are numbers themselves, a string is a name and nothing else, and an integer is refused unless it
        means the same label as a name and as an id, or is known to be an id.
        """
        values = {name: index for index, name in enumerate(names)}
        numbers: dict[int, int] | None = {index: index for index in range(len(names))}
        named = _numbers_among(values)
        if not named:
            values = {str(index): index for index in range(len(names))} | values
        elif not integers_are_ids and any(number != index for number, index in named.items()):
            numbers = None
        return cls(problem_type=problem_type, names=tuple(names), values=values, numbers=numbers, origin=origin)

    @classmethod
    def from_data(cls, seen: SeenLabels, *, problem_type: ProblemType) -> "LabelSpace":
        """Make the space of the labels that occur: integers 0 to C-1 without a gap as LABEL_0, ..., others by value.

        Raises:
            ValueError: If fewer than two occur (one for multi-label), or a negative one.
        """
        if seen.width is not None:
            names = [f"LABEL_{index}" for index in range(seen.width)]
            space = cls.from_names(names, problem_type=problem_type, origin="the labels of data.train")
            return replace(space, are_rows=True if seen.width == 2 else None)
        if len(seen.values) < (1 if problem_type == "multi_label_classification" else 2):
            raise ValueError(
                f"the labels of data.train are {sorted(map(str, seen.values))}, but a classifier needs two at least; "
                "correct data.train.label_column, or set data.problem_type"
            )
        integers = sorted(value for value in seen.values if isinstance(value, int))
        if integers and integers[0] < 0:
            raise ValueError(
                f"data.train has the label {integers[0]}, which often stands for no label; remove such rows, or name "
                "all labels in data.labels"
            )
        origin = "the labels of data.train"
        if len(integers) == len(seen.values):
            if integers == list(range(len(integers))):
                names = [f"LABEL_{index}" for index in integers]
                space = cls.from_names(names, problem_type=problem_type, origin=origin)
                return replace(space, are_rows=False if seen.lists and len(names) == 2 else None)
            ordered = [str(value) for value in integers]
        else:
            ordered = sorted({str(value) for value in seen.values})
        values = {name: index for index, name in enumerate(ordered)}
        return cls(
            problem_type=problem_type,
            names=tuple(ordered),
            values=values,
            # Of two files one may have numbers where the other, which has words too, has them as strings.
            numbers=_numbers_among(values) | {number: values[str(number)] for number in integers},
            origin=origin,
        )

    def meanings(self) -> dict[str, Any]:
        """Return what the data's values stand for, for a JSON file: names by `strings` and `integers`, `are_rows`."""
        integers = {str(number): self.names[index] for number, index in (self.numbers or {}).items()}
        strings = {value: self.names[index] for value, index in self.values.items()}
        return {"strings": strings, "integers": integers, "are_rows": self.are_rows}

    def with_meanings(self, meanings: Mapping[str, Any]) -> "LabelSpace":
        """Return the space of the same names in which the data's values stand for what `meanings` says.

        A name stands for itself, unless it is told otherwise. Integers are what they were in the data, never ids.
        """
        place = {name: index for index, name in enumerate(self.names)}
        strings = {value: place[name] for value, name in meanings["strings"].items() if name in place}
        integers = {int(value): place[name] for value, name in meanings["integers"].items() if name in place}
        are_rows = meanings.get("are_rows")
        return replace(self, values=place | strings, numbers=integers or self.numbers, are_rows=are_rows)

    @property
    def num_labels(self) -> int:
        """Number of outputs C of a model for this task."""
        return 1 if self.problem_type == "regression" else len(self.names)

    def encode(self, labels: pa.Array, *, where: str) -> pa.Array:
        """Turn a column of raw labels into ids (int64), multi-hot lists or numbers (float32).

        Raises:
            ValueError: If a value is not one of the labels; it is named.
        """
        if self.problem_type == "regression":
            return _numbers(labels, where=where)
        if self.problem_type == "multi_label_classification":
            return self._encode_multi_hot(labels, where=where)
        return pa.array([self._id(value, where=where) for value in labels.to_pylist()], pa.int64())

    def _encode_multi_hot(self, labels: pa.Array, *, where: str) -> pa.Array:
        hot = np.zeros((len(labels), self.num_labels), np.float32)
        lists = labels.to_pylist()
        for values in lists:
            if not isinstance(values, list):
                raise ValueError(f"{where!r} has label {values!r}; a multi-label task needs a list of labels a text")
        marked = self._row_among(lists, where=where)
        if marked is None:
            for row, values in enumerate(lists):
                hot[row, [self._id(value, where=where) for value in values]] = 1.0
        else:
            if any(len(values) != self.num_labels or not {*values} <= {0, 1} for values in lists):
                raise ValueError(
                    f"{where!r} has the labels {marked!r}: rows of zeros and ones must all be as long as there are "
                    f"labels, {self.num_labels} ({self._known()}), and a list of labels has each once"
                )
            hot[:] = lists
        return pa.FixedSizeListArray.from_arrays(hot.reshape(-1), self.num_labels).cast(pa.list_(pa.float32()))

    def _row_among(self, lists: list[list[object]], *, where: str) -> list[object] | None:
        """Return a list that is a row of zeros and ones, as all others then are; None if they are lists of labels."""
        marked = next((values for values in lists if _is_marked(values)), None)
        may_be_rows = self.num_labels == 2 and bool(lists) and all(map(_names_both, lists))
        if marked is not None or not may_be_rows:
            return marked
        if self.are_rows is None:
            raise ValueError(
                f"{where!r} has the label {lists[0]!r}, which may be a list of two ids or a row that says of each of "
                "two labels whether the text has it; write the names of the labels, or rows of floats or Booleans"
            )
        return lists[0] if self.are_rows else None

    def _id(self, value: object, *, where: str) -> int:
        if isinstance(value, list) and self.problem_type == "single_label_classification":
            raise ValueError(
                f"{where!r} has the label {value!r}, which is outside {self.origin} ({self._known()}); for lists of "
                "labels set data.problem_type to multi_label_classification"
            )
        found = self._find(value)
        if found is None:
            raise ValueError(
                f"{where!r} has the label {value!r}, which is outside {self.origin} ({self._known()}); "
                f"correct the data, or {self.advice}"
            )
        return found

    def _find(self, value: object) -> int | None:
        if isinstance(value, bool):
            # Readers turn the words true and false into Booleans; they may be names.
            for word in (str(value), str(value).lower()):
                if word in self.values:
                    return self.values[word]
        value = _whole_number(value)
        if not isinstance(value, int):
            return self.values.get(str(value)) if value is not None else None
        if self.numbers is None:
            raise ValueError(
                f"the label {value} is ambiguous, because {self.origin} ({self._known()}) are numbers themselves: it "
                f"may be a name or an id; {self.advice}"
            )
        return self.numbers.get(value)

    def _known(self) -> str:
        return _first_of(list(map(repr, self.values)))


def _first_of(values: Sequence[str]) -> str:
    return ", ".join([*values[:_SHOWN], *(["..."] if len(values) > _SHOWN else [])])


def _is_marked(labels: list[object]) -> bool:
    """Tell whether a list says of each label, by zero or one, whether a text has it: a list of ids has each once."""
    if not all(isinstance(label, int | float) for label in labels):
        return False
    numbers = set(map(_whole_number, labels))
    are_no_ids = len(labels) > 1 and numbers <= {0, 1} and any(isinstance(label, float | bool) for label in labels)
    return len(numbers) < len(labels) or are_no_ids


def _names_both(labels: list[object]) -> bool:
    """Tell whether a list is [0, 1] or [1, 0]."""
    return len(labels) == 2 and set(map(_whole_number, labels)) == {0, 1}


def _whole_number(value: object) -> object:
    """Return a Boolean or a whole float as the integer that it is, anything else as it is."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def _numbers_among(values: Mapping[str, int]) -> dict[int, int]:
    """Return the ids of those strings that are whole numbers, by that number."""
    found = {}
    for value, index in values.items():
        try:
            number = float(value)
        except ValueError:
            continue
        if number.is_integer():
            found[int(number)] = index
    return found


def _numbers(labels: pa.Array, *, where: str) -> pa.Array:
    try:
        numbers = labels.cast(pa.float32())
    except pa.ArrowException as error:
        raise ValueError(f"{where!r} has a label that is not a number: {error}; remove such rows") from error
    if not np.isfinite(numbers.to_numpy(zero_copy_only=False).astype(np.float32)).all():
        raise ValueError(f"{where!r} has a row without a finite number as its label; remove such rows")
    return numbers
