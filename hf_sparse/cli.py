"""The command `hf-sparse`: one subcommand for each thing that can be done with a student.

Only the chosen subcommand is imported, so that `--help` answers at once. Its options are the arguments of a Python
function, read from its signature and docstring. Results go to stdout, progress and mistakes to stderr; a mistake of
the user's is one line and exit code 2.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import takewhile
from typing import Any, Final


@dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand.

    What it does, the function that does it, how its result is shown (None: it has none), and whether what the function
    cannot do without is given by place or, where a `--config` may hold it, by name. The options `also_by_place` may
    follow by place too.
    """

    summary: str
    function: str
    extra: str | None = None
    shown_by: str | None = None
    by_place: bool = True
    also_by_place: tuple[str, ...] = ()


COMMANDS: Final = {
    "predict": Command(
        summary="classify a file, or standard input",
        function="hf_sparse.prediction:predict",
        extra="predict",
        also_by_place=("input", "output"),
    ),
    "evaluate": Command(
        summary="score a student, and its teacher, on labelled texts",
        function="hf_sparse.evaluation.evaluate:evaluate",
        extra="train",
        shown_by="hf_sparse.evaluation.evaluate:format_evaluation",
    ),
    "compress": Command(
        summary="make a student smaller and faster: prune, fold, quantise",
        function="hf_sparse.compression:compress",
        extra="train",
        shown_by="hf_sparse.compression:format_report",
    ),
    "explain": Command(
        summary="say which n-grams an answer, or a label, rests on",
        function="hf_sparse.explanation:explain",
        extra="train",
        shown_by="hf_sparse.explanation:format_explanations",
    ),
    "vocabulary": Command(
        summary="count the n-grams of a corpus of any size",
        function="hf_sparse.vocabulary.build:build_vocabulary",
        extra="train",
        shown_by="hf_sparse.vocabulary.build:format_report",
    ),
    "plan": Command(
        summary="say what a recipe will take before it starts",
        function="hf_sparse.planning.plan:plan",
        extra="train",
        shown_by="hf_sparse.planning.plan:format_plan",
    ),
    "sweep": Command(
        summary="train a recipe under many settings and compare them",
        function="hf_sparse.sweeps.sweep:sweep",
        extra="train",
        shown_by="hf_sparse.sweeps.sweep:format_sweep",
    ),
    "calibrate": Command(
        summary="fit a student's temperature and thresholds on labelled texts",
        function="hf_sparse.evaluation.calibrate:calibrate_student",
        extra="train",
        shown_by="hf_sparse.evaluation.calibrate:format_calibration",
    ),
    "cascade": Command(
        summary="hand the texts that a student is least sure of over to its teacher",
        function="hf_sparse.evaluation.cascade:cascade",
        extra="train",
        shown_by="hf_sparse.evaluation.cascade:format_cascade",
    ),
    "serve": Command(
        summary="answer requests over HTTP",
        function="hf_sparse.serving:serve",
        extra="serve",
    ),
    "bench": Command(
        summary="measure a student against its teacher and others",
        function="hf_sparse.benchmark.bench:bench",
        extra="bench",
        shown_by="hf_sparse.benchmark.tables:format_summary",
        by_place=False,
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; without arguments those of the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        from hf_sparse import __version__

        print(__version__)
        return
    name = words[0]
    if name not in COMMANDS:
        _fail(f"there is no command {name!r}; the commands are {', '.join(COMMANDS)}")
    try:
        _run(name, COMMANDS[name], words[1:])
    except (ValueError, OSError, ImportError) as error:
        _fail(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run(name: str, command: Command, words: list[str]) -> None:
    if command.extra is not None:
        from hf_sparse.extras import require_extra

        require_extra(command.extra)
    from jsonargparse import auto_cli

    function = _import(command.function)
    as_json = "--json" in words
    words = _with_names([word for word in words if word != "--json"], command.also_by_place)
    result = auto_cli(function, args=words, as_positional=command.by_place, prog=f"hf-sparse {name}")
    if command.shown_by is not None:
        print(json.dumps(result) if as_json else _import(command.shown_by)(result))


def _with_names(words: list[str], options: tuple[str, ...]) -> list[str]:
    """Put their names to options that stand behind the first word without them."""
    given = list(takewhile(lambda word: word == "-" or not word.startswith("-"), words[1 : 1 + len(options)]))
    named = [f"--{option}={word}" for option, word in zip(options, given, strict=False)]
    return [*words[:1], *named, *words[1 + len(given) :]]


def _import(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _help() -> str:
    lines = [f"  {name:<12}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: hf-sparse COMMAND [options]",
            "",
            "Text classifiers that answer in microseconds.",
            "",
            *lines,
            "",
            "hf-sparse COMMAND --help has the options of a command; --json prints its result as JSON.",
        ]
    )


def _fail(message: str) -> None:
    print(f"hf-sparse: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)
