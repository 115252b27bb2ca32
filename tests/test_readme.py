"""What the README shows works."""

import inspect
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import jsonargparse
import pytest

from hf_sparse import cli, signature
from hf_sparse.arguments import option_types
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


COMMAND_LINES = re.findall(r"(?:^|\| |`|\()hf-sparse ([a-z]+ [^`\n]+?)(?:`|\)\"|$)", README, flags=re.MULTILINE)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_are_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(place: str) -> Any:
        if inspect.isclass(signature_load(place)):
            return signature_load(place)
        return lambda *args, **options: calls.append((place, options)) or ""

    signature_load = signature.load
    monkeypatch.setattr(signature, "load", load)
    monkeypatch.setattr(cli, "load", load)
    monkeypatch.chdir(ROOT)
    call, _, comment = line.partition("  #")
    words = shlex.split(call.partition(" | ")[0])
    cli.main(words)
    command = cli.COMMANDS[words[0]]
    assert calls[0][0] == (command.then or command.function)
    # What a comment says can be added.
    types = option_types(signature.stand_in(command.function))
    assert {name.replace("-", "_") for name in re.findall(r"--([\w-]+)", comment)} <= set(types)


def test_there_are_command_lines() -> None:
    assert {line.split()[0] for line in COMMAND_LINES} >= set(cli.COMMANDS) - {"label"}


def test_scripts_have_the_options_it_names() -> None:
    lines = re.findall(r"^.*recipes/distill\.py (.*)$", "\n".join(blocks("bash")), flags=re.MULTILINE)
    assert lines
    for line in lines:
        assert set(re.findall(r"--([\w.-]+)", line)) <= {"config", *option_types(Recipe)}


def test_files_and_verbs_it_names_are_there() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    verbs = (ROOT / "Makefile").read_text(encoding="utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for verb in re.findall(r"(?:^|`)make ([a-z-]+)", README + contributing, flags=re.MULTILINE):
        assert f"\n{verb}:" in verbs, verb
    for path in re.findall(r"recipes/[\w./-]+\.(?:py|yaml)", README):
        assert (ROOT / path).exists(), path
