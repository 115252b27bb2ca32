"""The signatures that are read from source are those of the functions."""

import inspect
import sys
from typing import Any, get_type_hints

import pytest

from hf_sparse.cli import COMMANDS
from hf_sparse.signature import load, stand_in


def hints(function: Any) -> dict[str, Any]:
    return {name: kind for name, kind in get_type_hints(function).items() if name != "return"}


@pytest.mark.parametrize("name", COMMANDS)
def test_signature_is_that_of_the_function(name: str) -> None:
    place = COMMANDS[name].function
    read, real = stand_in(place), load(place)
    assert real.__module__ == place.partition(":")[0]
    assert inspect.getdoc(read) == inspect.getdoc(real)
    assert hints(read) == hints(real)
    ours, theirs = (inspect.signature(function).parameters.values() for function in (read, real))
    assert [(one.name, one.kind, one.default) for one in ours] == [(one.name, one.kind, one.default) for one in theirs]


def test_call_goes_to_the_function() -> None:
    read = stand_in("hf_sparse.completion:completion")
    assert read(shell="fish")["script"].startswith("complete -c hf-sparse")


def test_module_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hf_sparse.hub.push", raising=False)
    stand_in("hf_sparse.hub.push:push")
    assert "hf_sparse.hub.push" not in sys.modules
