"""Labels in files mean to the commands on a student what they meant in the recipe that made it."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_sparse import cli
from hf_sparse.compression import compress
from hf_sparse.evaluation.calibrate import calibrate_student
from hf_sparse.evaluation.evaluate import evaluate
from tests.recipes.conftest import recipe, write_recipe
from tests.tiny_task import make_encoder, make_rows, make_teacher, write_rows

# Ids are those of the names in this order; the numbers of the files are others.
MAPPED = {"sport": 2, "trade": 0, "music": 1}
FROM_ONE = {"sport": 1, "trade": 2, "music": 3}


def make_run(folder: Path, numbers: dict[str, int], **changes: Any) -> tuple[Path, Path, dict[str, Any]]:
    """Return a student that was distilled on numbered labels, its test texts, and its report."""
    for name, count, seed in (("train", 120, 1), ("corpus", 70, 2), ("test", 40, 3)):
        rows = make_rows(count, seed=seed)
        write_rows(folder / f"{name}.jsonl", [row | {"label": numbers[row["label"]]} for row in rows])
    path = write_recipe(recipe(folder, folder / "run", **changes), folder)
    cli.main(["distill", "--config", str(path)])
    student = folder / "run" / "student"
    return student, folder / "test.jsonl", json.loads((student / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=["mapped", "from one"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run whose recipe maps numbers to names, and one whose labels are just not counted from zero."""
    folder = tmp_path_factory.mktemp("labels")
    if request.param == "mapped":
        make_teacher(folder / "teacher")
        names = {str(number): name for name, number in MAPPED.items()}
        return make_run(folder, MAPPED, data__labels=names)
    make_encoder(folder / "teacher")
    return make_run(folder, FROM_ONE, teacher__epochs=1)


def test_commands_read_them_alike(made: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    student, test, report = made
    found = evaluate(str(student), data=str(test))["student"]["accuracy"]
    assert found == pytest.approx(report["student"]["accuracy"])
    small = compress(str(student), str(tmp_path / "small"), data=str(test))
    assert small["steps"][0]["accuracy"] == pytest.approx(report["student"]["accuracy"])
    # A compressed student still knows.
    found = evaluate(str(tmp_path / "small"), data=str(test))["student"]["accuracy"]
    assert found == pytest.approx(small["steps"][-1]["accuracy"])


def test_names_go_on_being_names(made: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    student, test, report = made
    rows = [json.loads(line) for line in test.read_text(encoding="utf-8").splitlines()]
    meanings = report["label_values"]["integers"]
    named = write_rows(tmp_path / "named.jsonl", [row | {"label": meanings[str(row["label"])]} for row in rows])
    assert evaluate(str(student), data=str(named))["student"]["accuracy"] == report["student"]["accuracy"]
    unknown = write_rows(tmp_path / "unknown.jsonl", [rows[0] | {"label": 7}])
    with pytest.raises(ValueError, match="label 7, which is outside the labels of"):
        evaluate(str(student), data=str(unknown))


def test_a_new_calibration_is_in_report_and_card(made: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    student, test, report = made
    result = calibrate_student(str(student), data=str(test))
    told = json.loads((student / "report.json").read_text(encoding="utf-8"))
    assert told["calibration"]["temperature"] == result["temperature"]
    assert {name: value for name, value in told.items() if name != "calibration"} == {
        name: value for name, value in report.items() if name != "calibration"
    }
    card = (student / "README.md").read_text(encoding="utf-8")
    assert f"divides logits by {result['temperature']:.3f}, fitted on test.jsonl." in card
