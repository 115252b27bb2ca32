"""Options as people spell them."""

from dataclasses import dataclass, field

import pytest

from hf_sparse.arguments import option_types, spell_out


@dataclass(kw_only=True)
class Inner:
    """Options of a part."""

    is_quick: bool = False


@dataclass(kw_only=True)
class Outer:
    """Options of all."""

    inner_part: Inner | None = None
    names: dict[str, str] = field(default_factory=dict)


def command(folder: str, *, create_pr: bool = False, push_space: bool | str = False, top_k: int | None = None) -> None:
    """Do something."""


def listing(names: list[str] | None = None, *, sizes: list[int] | None = None, quiet: bool = False) -> None:
    """Do something with lists."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("x --create-pr", "--create_pr=true x"),
        ("--create_pr x", "--create_pr=true x"),
        ("--create-pr false x", "--create_pr=false x"),
        ("x --create-pr=no", "--create_pr=no x"),
        ("--create-pr --top-k 3 x", "--create_pr=true --top_k=3 x"),
        ("x --top-k -1", "--top_k=-1 x"),
        ("x --push-space", "--push_space=true x"),
        ("x --push-space org/name", "--push_space=org/name x"),
        ("x --push-space --create-pr", "--push_space=true --create_pr=true x"),
        ("x --top-k", "--top_k x"),  # the parser says what is missing
        ("x --top-k --create-pr", "--top_k --create_pr=true x"),
        ("x --no-such-option 1", "--no-such-option=1 x"),
        ("--help x", "--help x"),
        ("x -h", "-h x"),
        ("x --print_config y", "--print_config x y"),
        ("x - --top_k 1", "--top_k=1 x -"),
    ],
)
def test_spelling(words: str, expected: str) -> None:
    assert spell_out(words.split(), option_types(command)) == expected.split()


def test_lists_may_be_given_one_value_at_a_time() -> None:
    words = ["--names", "a=[1, 2]", "--sizes=3", "--names", "b", "--quiet", "no"]
    assert spell_out(words, option_types(listing)) == ["--quiet=no", '--names=["a=[1, 2]", "b"]', "--sizes=[3]"]
    whole = ["--names=[a]", "--sizes=null"]
    assert spell_out(whole, option_types(listing)) == whole


def test_values_with_signs_and_spaces() -> None:
    words = ["--folder", "-a b", "--top_k="]
    assert spell_out(words, option_types(command)) == ["--folder=-a b", "--top_k="]


def test_places() -> None:
    words = ["--create-pr", "x", "in", "--top-k", "1", "out", "more"]
    found = spell_out(words, option_types(command), by_place=("", "input", "output"))
    assert found == ["--create_pr=true", "--top_k=1", "--input=in", "--output=out", "x", "more"]


def test_options_of_a_dataclass() -> None:
    types = option_types(Outer)
    assert set(types) == {"inner_part", "inner_part.is_quick", "names"}
    found = spell_out(["--inner-part.is-quick", "--names.a-b", "c"], types)
    assert found == ["--inner_part.is_quick=true", "--names.a-b=c"]  # a key of the user's keeps its dash
