"""The words of a command as its parser wants them, from the spellings that people use.

`--create-pr` is `--create_pr`, an option that is true or false needs no value, what is given by place may stand behind
options, and a list may be given one value at a time.
"""

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

# Words after an option that is true or false which belong to it; YAML's.
_TRUTHS: Final = ("true", "false", "yes", "no")
# What the parser adds, none of which takes the next word.
_ALONE: Final = ("-h", "--help", "--print_config")


def option_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a function's parameters, or of a dataclass's fields, by their names as options.

    Those of a dataclass in it are `outer.inner`.
    """
    types: dict[str, Any] = {}
    for name, kind in get_type_hints(function).items():
        types[name] = kind
        for part in (kind, *get_args(kind)):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                types |= {f"{name}.{inner}": inner_kind for inner, inner_kind in option_types(part).items()}
    return types


def spell_out(words: Sequence[str], types: Mapping[str, Any], *, by_place: Sequence[str] = ()) -> list[str]:
    """Return words with every option as `--name=value`, followed by what is given by place.

    Args:
        words: Of a command, its name left out.
        types: Of its options, as `option_types` gives them.
        by_place: Options that the words by place stand for, one after the other; an empty name leaves a word in its
            place.
    """
    options: list[str] = []
    places: list[str] = []
    lists: dict[str, list[str]] = {}
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if word == "-" or not word.startswith("-"):
            places.append(word)
            continue
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if name in types or f"--{name}" in _ALONE:
            option = f"--{name}"
        kind = types.get(name, str)
        if not equals and option not in _ALONE:
            if rest and _is_value(rest[0], kind):
                equals, value = "=", rest.popleft()
            elif _is_switch(kind):
                equals, value = "=", "true"
        item = _item(kind)
        if equals and item is not None and value != "null" and not value.startswith("["):
            lists.setdefault(option, []).append(value if item in (int, float) else json.dumps(value))
        else:
            options.append(f"{option}{equals}{value}")
    options += (f"{option}=[{', '.join(values)}]" for option, values in lists.items())
    named = [f"--{name}={word}" for name, word in zip(by_place, places, strict=False) if name]
    left = [word for index, word in enumerate(places) if index >= len(by_place) or not by_place[index]]
    return [*options, *named, *left]


def _is_value(word: str, kind: Any) -> bool:
    """Whether a word is the value of the option before it."""
    if kind is bool:
        return word.lower() in _TRUTHS
    return not word.startswith("--") and word != "-h"


def _is_switch(kind: Any) -> bool:
    return kind is bool or bool in get_args(kind)


def _item(kind: Any) -> Any:
    """Return what the lists hold that an option takes; None if it takes none."""
    kinds = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
    return None if str in kinds else next((get_args(each)[0] for each in kinds if get_origin(each) is list), None)
