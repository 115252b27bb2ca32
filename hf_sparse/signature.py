"""The signature of a function, read from the source of its module, which needs torch where help needs a moment."""

import ast
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "hf_sparse"


def load(place: str) -> Callable[..., Any]:
    """Import what `module:name` names."""
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def stand_in(place: str) -> Callable[..., Any]:
    """Return a function with the parameters and the docstring of another, which is imported when this one is called.

    Args:
        place: `module:name` of a function of this package, as its `def` stands there; its annotations and defaults
            may name what that module, or another one of the package, imports from elsewhere or assigns. A class is
            imported at once.
    """
    module, _, name = place.partition(":")
    function = next((node for node in _parse(module) if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if function is None:
        return load(place)
    # A function without a module is none to jsonargparse, which imports the package of one that has it.
    made = ModuleType(f"signature_of_{name}")
    sys.modules[made.__name__] = made
    made.__dict__["load"] = load
    function.returns = None
    function.body = [function.body[0], *ast.parse(f"return load({place!r})(**locals())").body]
    lines = [*_definitions(module, _names(function.args)), function]
    exec(compile(ast.fix_missing_locations(ast.Module(lines, [])), f"<{place}>", "exec"), made.__dict__)
    found: Callable[..., Any] = made.__dict__[name]
    return found


def _parse(module: str) -> list[ast.stmt]:
    path = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")).body


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _definitions(module: str, names: set[str]) -> Iterator[ast.stmt]:
    """Yield what gives names their values at the top of a module."""
    for node in _parse(module):
        match node:
            case ast.ImportFrom(module=str(source), names=aliases):
                wanted = [alias for alias in aliases if alias.name in names]
                if source.partition(".")[0] == _PACKAGE:
                    yield from _definitions(source, {alias.name for alias in wanted}) if wanted else ()
                elif wanted:
                    yield ast.ImportFrom(source, wanted, 0)
            case (
                ast.Assign(targets=[ast.Name(id=name) as target], value=value)
                | ast.AnnAssign(target=ast.Name(id=name) as target, value=ast.expr() as value)
            ) if name in names:
                yield from _definitions(module, _names(value))
                yield ast.Assign([target], value)
