"""The results table says what the committed reports say, and each report comes from a recipe that is there."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_sparse.hub.results import BEGIN, END, insert_results, render_results

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "model_cards"


def write_report(folder: Path, name: str, *, accuracy: float, **changes: Any) -> None:
    """Write a report with the numbers that the table shows."""
    folder.mkdir(exist_ok=True)
    report = {
        "teacher": {"accuracy": 0.9},
        "student": {"accuracy": accuracy},
        "stages": {
            "distil": {"metrics": {"accuracy": accuracy - 0.01}},
            "fine_tune": {"metrics": {"accuracy": accuracy}},
        },
        "calibration": {"validation": {}, "test": {"ece_before": 0.05, "ece_after": 0.015}},
        "baselines": {
            "tfidf": {"test": {"accuracy": 0.7}},
            "nb_lr": {"test": {"accuracy": 0.75}},
        },
    }
    (folder / name).write_text(json.dumps(report | changes), encoding="utf-8")


def test_row_is_the_mean_of_the_seeds(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.8, 0.82, 0.84)):
        name = "report.json" if seed == 0 else f"report-seed-{seed}.json"
        write_report(tmp_path / "task", name, accuracy=accuracy)
    cascade = {"chosen": {"accuracy": 0.91, "share": 0.125}}
    (tmp_path / "task" / "cascade.json").write_text(json.dumps(cascade), encoding="utf-8")
    write_report(tmp_path / "single", "report.json", accuracy=0.8, baselines={})
    single, task = render_results(tmp_path).splitlines()[2:]
    cells = [cell.strip() for cell in task.strip("|").split("|")]
    assert cells == [
        "[task](recipes/task)",
        "90.0",
        "**82.0 ± 2.0**",
        "91.1",
        "81.0 ± 2.0",
        "82.0 ± 2.0",
        "",
        "75.0 (nb_lr)",
        "0.050 → 0.015",
        "91.0 (12.5 %)",
    ]
    assert "**80.0**" in single


def test_table_goes_between_its_marks() -> None:
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert insert_results(readme, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="lacks the marks"):
        insert_results("nothing", "new")


def test_readme_has_the_table_of_the_reports() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert insert_results(readme, render_results(CARDS)) == readme


@pytest.mark.parametrize(
    "path", sorted(CARDS.glob("*/report*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_report_is_of_the_recipe_beside_it(path: Path) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / path.parent.name / "local.yaml").read_text(encoding="utf-8"))
    report = json.loads(path.read_text(encoding="utf-8"))
    used = report["recipe"]
    # Of other seeds only the student is trained anew: a network from scratch is there once.
    newer = (("student", "subwords"), ("fine_tune", "average"))
    sections = ("teacher", "vocabulary", "student", "distil", "fine_tune")
    for section in sections if "seed" in path.stem else (*sections, "from_scratch"):
        for key, value in recipe.get(section, {}).items():
            if (section, key) not in newer:
                assert used[section][key] == value, (section, key)
    # A report of a version without a key was made without what it turns on.
    for section, key in newer:
        assert used[section].get(key, False) == recipe.get(section, {}).get(key, True), (section, key)
    dropout = {"max": 0.0, "auto": None}.get(used["student"]["pooling"], 0.1)
    assert used["distil"]["ngram_dropout"] == recipe.get("distil", {}).get("ngram_dropout", dropout)
    wanted = recipe["data"].get("augmentation", {})
    made = wanted.get("crossed", 0) + wanted.get("fragments", 0)
    assert report["num_texts"].get("augmented", 0) == made or not wanted
    assert (report["num_texts"].get("calibration", 0) > 0) == ("calibration" in recipe["data"])
