"""What the README shows works."""

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

import jsonargparse
import pytest

from hf_sparse.cli import COMMANDS
from hf_sparse.compression import compress
from hf_sparse.distillation.recipe import Recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, student_folder: Path, tmp_path: Path) -> None:
    assert "runs/quickstart/student" in code
    if "student-int8" in code:
        compress(str(student_folder), str(tmp_path / "int8"))
        code = code.replace("runs/quickstart/student-int8", str(tmp_path / "int8"))
    lines = code.replace("runs/quickstart/student", str(student_folder)).splitlines()
    exec("\n".join(line for line in lines if "push_to_hub" not in line), {})


def test_the_recipe_is_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = blocks("yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["distill.py", "--config", str(path)])
    found = jsonargparse.auto_cli(Recipe, as_positional=False)
    assert found.output_dir == "runs/mine"
    assert found.data.corpus[0].text_column == "body"


def test_commands_have_the_options_it_names() -> None:
    commands = re.findall(r"^hf-sparse (\w+) (.*)$", "\n".join(blocks("bash")), flags=re.MULTILINE)
    assert commands
    for name, rest in commands:
        module, _, function = COMMANDS[name].function.partition(":")
        parameters = inspect.signature(getattr(import_module(module), function)).parameters
        assert set(re.findall(r"--(\w+)", rest)) <= {*parameters, "config", "format"}


def test_files_and_verbs_it_names_are_there() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    verbs = (ROOT / "Makefile").read_text(encoding="utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for verb in re.findall(r"(?:^|`)make ([a-z-]+)", README + contributing, flags=re.MULTILINE):
        assert f"\n{verb}:" in verbs, verb
    for path in re.findall(r"recipes/[\w./-]+\.(?:py|yaml)", README):
        assert (ROOT / path).exists(), path
