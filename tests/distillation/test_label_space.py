"""Labels: what values in the data stand for which id, for every kind of value and task."""

import math
from typing import Any

import pyarrow as pa
import pytest

from hf_sparse.distillation.label_space import LabelSpace, SeenLabels
from hf_sparse.distillation.recipe_data import ProblemType

SINGLE: ProblemType = "single_label_classification"
MULTI: ProblemType = "multi_label_classification"


@pytest.mark.parametrize(
    ("values", "names", "ids"),
    [
        ([2, 0, 1, 0], ("LABEL_0", "LABEL_1", "LABEL_2"), [2, 0, 1, 0]),
        ([3, 1], ("1", "3"), [1, 0]),
        ([4, 1, 2, 3], ("1", "2", "3", "4"), [3, 0, 1, 2]),
        ([2, 10, 1], ("1", "2", "10"), [1, 2, 0]),
        ([1.0, 0.0, 1.0], ("LABEL_0", "LABEL_1"), [1, 0, 1]),
        ([2.0, 1.0], ("1", "2"), [1, 0]),
        ([True, False], ("LABEL_0", "LABEL_1"), [1, 0]),
        (["pos", "neg", "pos"], ("neg", "pos"), [1, 0, 1]),
        (["b", "ä", "B"], ("B", "b", "ä"), [1, 2, 0]),
        ([0.5, 2.5], ("0.5", "2.5"), [0, 1]),
        (["5", "1", "3"], ("1", "3", "5"), [2, 0, 1]),
    ],
)
def test_labels_of_the_data(values: list[Any], names: tuple[str, ...], ids: list[int]) -> None:
    space = LabelSpace.from_data(SeenLabels.of(values), problem_type=SINGLE)
    assert space.names == names
    assert space.encode(pa.array(values), where="data").to_pylist() == ids


@pytest.mark.parametrize("kind", [int, float, bool])
def test_rows_of_zeros_and_ones(kind: type) -> None:
    """As transformers wants the labels of several labels a text."""
    values = [[kind(label) for label in row] for row in ([0, 0, 1], [1, 0, 1], [0, 0, 0])]
    seen = SeenLabels.of(values)
    assert seen.problem_type() == MULTI
    made = LabelSpace.from_data(seen, problem_type=MULTI)
    given = LabelSpace.from_names(["a", "b", "c"], problem_type=MULTI, origin="the teacher")
    assert made.names == ("LABEL_0", "LABEL_1", "LABEL_2")
    for space in (made, given):
        assert space.encode(pa.array(values), where="data").to_pylist() == values
        assert space.encode(pa.array([[2], [0, 2], []]), where="data").to_pylist() == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]
    named = given.encode(pa.array([["a", "a"], ["c"]]), where="data")
    assert named.to_pylist() == [[1, 0, 0], [0, 0, 1]]
    for wrong in ([[0, 0, 1], [1, 0]], [[0, 0, 2]], [[1, 1]]):
        with pytest.raises(ValueError, match="rows of zeros and ones must all be as long as there are labels, 3"):
            given.encode(pa.array(wrong), where="data")


def test_lists_of_zero_and_one_of_two_labels() -> None:
    """A batch of [0, 1] alone is read as all others are, and refused where that is not known."""
    rows = [[0, 1], [1, 0], [0, 0]]
    space = LabelSpace.from_data(SeenLabels.of(rows), problem_type=MULTI)
    assert space.encode(pa.array(rows[:2]), where="data").to_pylist() == rows[:2]
    again = LabelSpace.from_names(space.names, problem_type=MULTI, origin="x").with_meanings(space.meanings())
    assert again.encode(pa.array(rows[:1]), where="data").to_pylist() == rows[:1]
    only = LabelSpace.from_data(SeenLabels.of(rows[:2]), problem_type=MULTI)
    assert only.encode(pa.array(rows[:2]), where="data").to_pylist() == rows[:2]
    ids = LabelSpace.from_data(SeenLabels.of([[0, 1], [1], []]), problem_type=MULTI)
    assert ids.encode(pa.array([[0, 1]]), where="data").to_pylist() == [[1, 1]]
    given = LabelSpace.from_names(["a", "b"], problem_type=MULTI, origin="the teacher")
    assert given.encode(pa.array([[0, 1], [1]]), where="data").to_pylist() == [[1, 1], [0, 1]]
    assert given.encode(pa.array([[0.0, 1.0]]), where="data").to_pylist() == [[0, 1]]
    with pytest.raises(ValueError, match=r"\[0, 1\], which may be a list of two ids or a row"):
        given.encode(pa.array([[0, 1]]), where="data")


def test_an_empty_string_is_no_label() -> None:
    space = LabelSpace.from_data(SeenLabels.of(["a", "", "b"]), problem_type=SINGLE)
    assert space.names == ("a", "b")
    with pytest.raises(ValueError, match="has the label '', which is outside"):
        space.encode(pa.array(["a", ""]), where="data")


def test_numbers_beside_words_in_another_file() -> None:
    space = LabelSpace.from_data(SeenLabels.of(["0", "1", "other"]), problem_type=SINGLE)
    assert space.encode(pa.array([1, 0]), where="data").to_pylist() == [1, 0]
    assert space.encode(pa.array(["other", "0"]), where="data").to_pylist() == [2, 0]


def test_teachers_labels_by_name_or_id() -> None:
    space = LabelSpace.from_names(["sport", "trade"], problem_type=SINGLE, origin="the teacher")
    assert space.encode(pa.array(["trade", "0", "sport"]), where="data").to_pylist() == [1, 0, 0]
    assert space.encode(pa.array([1, 0]), where="data").to_pylist() == [1, 0]


@pytest.mark.parametrize("names", [["1", "2", "3", "4", "5"], ["1", "0"], ["2.0", "1.0"], ["none", "7"]])
def test_names_that_are_numbers_are_names_only(names: list[str]) -> None:
    space = LabelSpace.from_names(names, problem_type=SINGLE, origin="the labels of teacher 't'")
    assert space.encode(pa.array(names), where="data").to_pylist() == list(range(len(names)))
    for number in (0, 1, 2.0, 7, True):
        with pytest.raises(ValueError, match=r"ambiguous, because the labels of teacher 't' .*data\.labels"):
            space.encode(pa.array([number]), where="data")
    with pytest.raises(ValueError, match="outside"):
        space.encode(pa.array(["9"]), where="data")
    ids = LabelSpace.from_names(names, problem_type=SINGLE, origin="features", integers_are_ids=True)
    assert ids.encode(pa.array([1, 0]), where="data").to_pylist() == [1, 0]


def test_strings_are_no_ids_where_names_are_numbers() -> None:
    space = LabelSpace.from_names(["1", "2", "3"], problem_type=SINGLE, origin="the teacher")
    with pytest.raises(ValueError, match="'0', which is outside"):
        space.encode(pa.array(["0"]), where="data")


def test_names_that_are_their_own_ids_are_not_ambiguous() -> None:
    space = LabelSpace.from_names(["0", "1", "2"], problem_type=SINGLE, origin="the teacher")
    assert space.encode(pa.array([2, 0]), where="data").to_pylist() == [2, 0]
    assert space.encode(pa.array(["2", "0"]), where="data").to_pylist() == [2, 0]


def test_booleans_are_names_first() -> None:
    # What a CSV reader makes of the words True and False.
    space = LabelSpace.from_names(["True", "False"], problem_type=SINGLE, origin="the teacher")
    assert space.encode(pa.array([True, False]), where="data").to_pylist() == [0, 1]
    space = LabelSpace.from_recipe({"true": "yes", "false": "no"}, problem_type=SINGLE, names=["no", "yes"])
    assert space.encode(pa.array([True, False]), where="data").to_pylist() == [1, 0]


def test_recipe_keys_may_be_integers() -> None:
    space = LabelSpace.from_recipe({1: "1", 2: "2"}, problem_type=SINGLE, names=["2", "1"])
    assert space.encode(pa.array([1, 2, 1.0]), where="data").to_pylist() == [1, 0, 1]
    assert space.encode(pa.array(["1", "2"]), where="data").to_pylist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", "b"], SINGLE),
        ([0, 1], SINGLE),
        ([True, False], SINGLE),
        (["0.0", "1", "nan"], SINGLE),
        (["0.5", "none"], SINGLE),
        ([0.5, 1.0], "regression"),
        ([0.25, None, math.nan], "regression"),
        ([[], ["a"]], MULTI),
        ([[0, 1], [2]], MULTI),
    ],
)
def test_labels_tell_the_task(values: list[Any], expected: str) -> None:
    assert SeenLabels.of(values).problem_type() == expected


@pytest.mark.parametrize("values", [[1.0, 2.0], [5.0, math.nan]])
def test_whole_floats_may_be_classes_or_scores(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"set data\.problem_type to single_label_classification or regression"):
        SeenLabels.of(values).problem_type()
    assert SeenLabels.of(values).problem_type(are_named=True) == SINGLE


@pytest.mark.parametrize("values", [["0.0", "1.5", ""], ["0.5", "1.5"], ["nan", "2.5"], [0.5, "1.0"]])
def test_scores_among_strings_are_no_classes(values: list[Any]) -> None:
    """As a CSV reader gives them where a cell is empty."""
    message = r"written as strings \(.*\d\.\d.*; remove rows without a score, .* or set data\.problem_type to"
    with pytest.raises(ValueError, match=message):
        SeenLabels.of(values).problem_type()
    assert SeenLabels.of(values).problem_type(are_named=True) == SINGLE


def test_negative_integer_is_no_class() -> None:
    with pytest.raises(ValueError, match=r"label -1, .*data\.labels"):
        LabelSpace.from_data(SeenLabels.of([0, 1, -1]), problem_type=SINGLE)
    space = LabelSpace.from_recipe({"-1": "bad", "1": "good"}, problem_type=SINGLE, names=None)
    assert space.encode(pa.array([1, -1]), where="data").to_pylist() == [1, 0]


def test_list_where_one_label_is_expected_names_the_way_out() -> None:
    space = LabelSpace.from_names(["a", "b"], problem_type=SINGLE, origin="the teacher")
    with pytest.raises(ValueError, match=r"set data\.problem_type to multi_label_classification"):
        space.encode(pa.array([["a"]]), where="data")


def test_recipe_maps_values_to_the_teachers_names() -> None:
    labels = {"neg": "LABEL_0", "pos": "LABEL_1", "4": "LABEL_1"}
    space = LabelSpace.from_recipe(labels, problem_type=SINGLE, names=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert space.num_labels == 3
    assert space.encode(pa.array(["pos", "neg", "4"]), where="data").to_pylist() == [1, 0, 1]
    with pytest.raises(ValueError, match=r"'good'.*'LABEL_0', 'LABEL_1'"):
        LabelSpace.from_recipe({"pos": "good"}, problem_type=SINGLE, names=["LABEL_0", "LABEL_1"])


def test_recipe_names_labels_of_an_encoder_in_its_order() -> None:
    space = LabelSpace.from_recipe({"2": "sport", "1": "world", "3": "sport"}, problem_type=SINGLE, names=None)
    assert space.names == ("sport", "world")
    assert space.encode(pa.array([1, 3]), where="data").to_pylist() == [1, 0]


@pytest.mark.parametrize("value", ["weather", None, math.nan, 7, -1, ["sport"]])
def test_value_outside_is_named(value: object) -> None:
    space = LabelSpace.from_names(["sport", "trade"], problem_type=SINGLE, origin="the labels of teacher 't'")
    with pytest.raises(ValueError, match=r"'news.csv' has the label .* outside the labels of teacher 't'") as raised:
        space.encode(pa.array([value]), where="news.csv")
    assert repr(value) in str(raised.value)
    assert "'sport'" in str(raised.value)


@pytest.mark.parametrize(("num_labels", "end"), [(20, r"\d'?\)"), (21, r"\d'?, \.\.\.\)")])
def test_the_first_of_many_labels_are_named(num_labels: int, end: str) -> None:
    space = LabelSpace.from_data(SeenLabels.of([f"a{index}" for index in range(num_labels)]), problem_type=SINGLE)
    with pytest.raises(ValueError, match=f"'a0', .*{end}; correct the data"):
        space.encode(pa.array(["b"]), where="data")
    with pytest.raises(ValueError, match=rf"\(0, 1, .*{end}, which may be"):
        SeenLabels.of([float(index) for index in range(num_labels)]).problem_type()


def test_several_labels_a_text() -> None:
    values = [["b", "a"], [], ["c"]]
    space = LabelSpace.from_data(SeenLabels.of(values), problem_type=MULTI)
    assert space.names == ("a", "b", "c")
    assert space.encode(pa.array(values), where="data").to_pylist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match=r"'a'.*list of labels"):
        space.encode(pa.array(["a"]), where="data")
    with pytest.raises(ValueError, match="'d'"):
        space.encode(pa.array([["a", "d"]]), where="data")


def test_numbers() -> None:
    space = LabelSpace.from_names(["score"], problem_type="regression", origin="a regression")
    assert space.num_labels == 1
    assert space.encode(pa.array([1, 2.5]), where="data").to_pylist() == [1.0, 2.5]
    assert space.encode(pa.array(["1.5"]), where="data").to_pylist() == [1.5]


@pytest.mark.parametrize("values", [["much"], [None, 1.0], [math.inf], [[1.0]]])
def test_what_is_no_number_is_refused(values: list[Any]) -> None:
    space = LabelSpace.from_names(["score"], problem_type="regression", origin="a regression")
    with pytest.raises(ValueError, match=r"'data\.csv' has a"):
        space.encode(pa.array(values), where="data.csv")


def test_the_cell_without_a_number_is_named() -> None:
    space = LabelSpace.from_names(["score"], problem_type="regression", origin="a regression")
    with pytest.raises(
        ValueError, match=r"'data\.csv' has a label that is not a number: .*'a lot'.*; remove such rows"
    ):
        space.encode(pa.array(["1.5", "a lot"]), where="data.csv")


@pytest.mark.parametrize("values", [[], [None], ["one"], [0, 0]])
def test_fewer_than_two_labels_are_refused(values: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"data\.train\.label_column"):
        LabelSpace.from_data(SeenLabels.of(values), problem_type=SINGLE)
