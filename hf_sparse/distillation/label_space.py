"""What the labels of a task are: the problem type, the names of the labels, and the way from raw values to ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from hf_sparse.distillation.recipe import ProblemType


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """The labels of a task.

    Attributes:
        problem_type: Single-label, multi-label or regression.
        names: Names of the C labels in the order of their ids; one name for regression.
        values: For each raw value in the data (as a string) the id it stands for.
        origin: Where the names come from, for error messages.
    """

    problem_type: ProblemType
    names: tuple[str, ...]
    values: dict[str, int]
    origin: str

    @classmethod
    def from_recipe(
        cls, labels: dict[str, str], *, problem_type: ProblemType, names: Sequence[str] | None
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
        values = {value: known.index(name) for value, name in labels.items()}
        return cls(problem_type=problem_type, names=tuple(known), values=values, origin="data.labels")

    @classmethod
    def from_names(cls, names: Sequence[str], *, problem_type: ProblemType, origin: str) -> "LabelSpace":
        """Make the space of given names; in the data a label is then its name or its id."""
        values = {str(index): index for index in range(len(names))} | {name: i for i, name in enumerate(names)}
        return cls(problem_type=problem_type, names=tuple(names), values=values, origin=origin)

    @classmethod
    def from_data(cls, labels: Iterable[object], *, problem_type: ProblemType) -> "LabelSpace":
        """Make the space of the labels that occur: strings sorted, or integers from 0 to the largest.

        Raises:
            ValueError: If fewer than two occur (one for multi-label).
        """
        seen: set[object] = set()
        for label in labels:
            seen.update(map(_whole_number, label if isinstance(label, list) else [label]))
        seen.discard(None)
        if len(seen) < (1 if problem_type == "multi_label_classification" else 2):
            raise ValueError(
                f"the labels of data.train are {sorted(map(str, seen))}, but a classifier needs two at least; correct "
                "data.train.label_column, or set data.problem_type"
            )
        if all(isinstance(label, int) for label in seen):
            names = [f"LABEL_{index}" for index in range(max((int(str(i)) for i in seen), default=-1) + 1)]
        else:
            names = sorted(str(label) for label in seen)
        return cls.from_names(names, problem_type=problem_type, origin="the labels of data.train")

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
        for row, values in enumerate(labels.to_pylist()):
            if not isinstance(values, list):
                raise ValueError(f"{where!r} has label {values!r}; a multi-label task needs a list of labels a text")
            hot[row, [self._id(value, where=where) for value in values]] = 1.0
        return pa.FixedSizeListArray.from_arrays(hot.reshape(-1), self.num_labels).cast(pa.list_(pa.float32()))

    def _id(self, value: object, *, where: str) -> int:
        found = self.values.get(str(_whole_number(value)))
        if found is None:
            known = ", ".join(map(repr, list(self.values)[:20]))
            raise ValueError(
                f"{where!r} has the label {value!r}, which is outside {self.origin} ({known}); "
                "correct the data or map it in data.labels"
            )
        return found


def _whole_number(value: object) -> object:
    """Return a Boolean or a whole float as the integer that it is, anything else as it is."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def _numbers(labels: pa.Array, *, where: str) -> pa.Array:
    try:
        numbers = labels.cast(pa.float32())
    except pa.ArrowException as error:
        raise ValueError(f"{where!r} has a label that is not a number: {error}") from error
    if not np.isfinite(numbers.to_numpy(zero_copy_only=False).astype(np.float32)).all():
        raise ValueError(f"{where!r} has a row without a finite number as its label; remove such rows")
    return numbers
