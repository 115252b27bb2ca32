"""The command `hf-sparse`: one subcommand for each thing that can be done with a student.

Its options are the arguments of a Python function, whose signature and docstring are read without importing its
module: help, completion and mistakes answer at once. Results go to stdout, progress and mistakes to stderr. Exit
codes: 0; 2 for a mistake in the call, said in one line; 1 where the Hub, the network or the disk failed; 130 if
interrupted.
"""

import json
import os
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from hf_sparse.signature import load, stand_in


@dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand.

    Attributes:
        summary: What it does.
        function: The function that does it, in the module that defines it, or the dataclass that its options fill.
        extra: The extra of the package that it needs.
        then: What takes that dataclass.
        shown_by: How its result is shown; None: it has none, or writes it itself.
        by_place: Whether what the function cannot do without is given by place or, where a `--config` may hold it, by
            name.
        also_by_place: Options that may follow by place too.
    """

    summary: str
    function: str
    extra: str
    then: str | None = None
    shown_by: str | None = None
    by_place: bool = True
    also_by_place: tuple[str, ...] = ()


COMMANDS: Final = {
    "distill": Command(
        summary="make a student of a teacher by a recipe, on this machine",
        function="hf_sparse.distillation.recipe:Recipe",
        then="hf_sparse.distillation.distill:distill",
        extra="train",
        by_place=False,
    ),
    "label": Command(
        summary="let a recipe's teacher label its texts, and no more",
        function="hf_sparse.distillation.recipe:Recipe",
        then="hf_sparse.distillation.distill:label",
        extra="train",
        by_place=False,
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
    "predict": Command(
        summary="classify a file, or standard input",
        function="hf_sparse.prediction.predict:predict",
        extra="predict",
        also_by_place=("input", "output"),
    ),
    "evaluate": Command(
        summary="score a student, and its teacher, on labelled texts",
        function="hf_sparse.evaluation.evaluate:evaluate",
        extra="train",
        shown_by="hf_sparse.evaluation.evaluate:format_evaluation",
    ),
    "explain": Command(
        summary="say which n-grams an answer, or a label, rests on",
        function="hf_sparse.explanation.explain:explain",
        extra="train",
        shown_by="hf_sparse.explanation.show:format_explanations",
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
    "compress": Command(
        summary="make a student smaller and faster: prune, fold, quantise",
        function="hf_sparse.compression.compress:compress",
        extra="train",
        shown_by="hf_sparse.compression.compress:format_report",
    ),
    "export": Command(
        summary="write a student as ONNX, ids in and probabilities out",
        function="hf_sparse.export.convert:export",
        extra="onnx",
        shown_by="hf_sparse.export.convert:format_export",
    ),
    "bench": Command(
        summary="measure a student against its teacher and others",
        function="hf_sparse.benchmark.bench:bench",
        extra="bench",
        shown_by="hf_sparse.benchmark.tables:format_summary",
        by_place=False,
        also_by_place=("student",),
    ),
    "serve": Command(
        summary="answer requests over HTTP",
        function="hf_sparse.serving.serve:serve",
        extra="serve",
    ),
    "demo": Command(
        summary="serve a page to try a student, or push it as a Space",
        function="hf_sparse.demo.demo:demo",
        extra="demo",
        shown_by="hf_sparse.demo.demo:format_demo",
    ),
    "info": Command(
        summary="say what a student is, and whether it is whole",
        function="hf_sparse.hub.info:info",
        extra="train",
        shown_by="hf_sparse.hub.info:format_info",
    ),
    "card": Command(
        summary="write a student's model card from its report and benchmark",
        function="hf_sparse.hub.card:card",
        extra="train",
        shown_by="hf_sparse.hub.card:format_card",
    ),
    "push": Command(
        summary="push a student to the Hub in one commit, if it is whole",
        function="hf_sparse.hub.push:push",
        extra="train",
        shown_by="hf_sparse.hub.push:format_push",
    ),
    "completion": Command(
        summary="print the completion of these commands for a shell",
        function="hf_sparse.completion:completion",
        extra="predict",
        shown_by="hf_sparse.completion:format_completion",
    ),
}

_MISTAKES: Final = (
    ValueError,
    ArgumentError,  # of a recipe
    ImportError,  # of an extra
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; without arguments those of the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        _print(_help())
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        from hf_sparse import __version__

        _print(__version__)
        return
    name = words[0]
    if name not in COMMANDS:
        _fail(f"there is no command {name!r}; the commands are {', '.join(COMMANDS)}")
    try:
        _run(name, COMMANDS[name], words[1:])
    except _MISTAKES as error:
        _fail(" ".join(str(error).split()) if isinstance(error, ArgumentError) else str(error) or type(error).__name__)
    except OSError as error:
        _fail(str(error) or type(error).__name__, code=1)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run(name: str, command: Command, words: list[str]) -> None:
    from hf_sparse.extras import require_extra

    # Help needs the parser alone, which every extra has.
    if not {"-h", "--help"} & set(words) or find_spec("jsonargparse") is None:
        require_extra(command.extra)
    from jsonargparse import auto_cli

    from hf_sparse.arguments import option_types, spell_out

    function = stand_in(command.function)
    words, as_json = _without_format(words)
    # What the function cannot do without stays by place.
    first = ("",) * command.by_place
    words = spell_out(words, option_types(function), by_place=(*first, *command.also_by_place))
    more = None if command.shown_by is None else "--format json prints the result as JSON."
    result = auto_cli(function, args=words, as_positional=command.by_place, prog=f"hf-sparse {name}", epilog=more)
    if command.then is not None:
        result = load(command.then)(result)
    if command.shown_by is not None:
        _print(json.dumps(result) if as_json else load(command.shown_by)(result))


def _without_format(words: list[str]) -> tuple[list[str], bool]:
    """Take `--format json` or `--format text` out of the words of a command; tell whether it is JSON."""
    chosen = "text"
    left: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--format" or word.startswith("--format="):
            chosen = word.partition("=")[2] or next(rest, "")
        else:
            left.append(word)
    if chosen not in ("text", "json"):
        raise ValueError(f"--format is {chosen!r}, but must be text or json")
    return left, chosen == "json"


def _print(text: str) -> None:
    """Print a result; whoever reads it may have seen enough, as `head` has."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The interpreter flushes what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None  # as a shell says of a command that SIGPIPE ended


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
            "hf-sparse COMMAND --help has the options of a command; --format json prints its result as JSON.",
            "--create-pr is --create_pr, an option that is true or false needs no value, and a list may be given one",
            "value at a time.",
        ]
    )


def _fail(message: str, *, code: int = 2) -> None:
    print(f"hf-sparse: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)
