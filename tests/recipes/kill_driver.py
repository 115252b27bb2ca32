"""Runs recipes/distill.py many times from one warm process, and kills runs at chosen moments.

Importing torch and transformers takes longer than a tiny run. So this process imports them once, starts no threads,
and forks a child for each command on its standard input, one line of JSON each (see `Command`). The child runs the
script as `python recipes/distill.py` would and ends by its exit status or by SIGKILL; the answer on the standard
output is one line with the status. What is patched to kill is patched in the child alone, so the product needs no
hook for it.
"""

import importlib
import json
import os
import resource
import runpy
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, TypedDict

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "distill.py"
PACKAGE = "hf_sparse.distillation"


class Command(TypedDict):
    """What a child is to do.

    Attributes:
        arguments: Of the script.
        output: File that its standard output and error go to, `.out` and `.err` appended.
        settings: Constants to set, by `module.NAME` below hf_sparse.distillation, so that tiny data has many shards.
        kill: Name of one of `MOMENTS`, or empty.
        file_size: Bytes that no file may exceed, 0 for no limit.
    """

    arguments: list[str]
    output: str
    settings: dict[str, int]
    kill: str
    file_size: int


def die(*_: object) -> NoReturn:
    """End this process as `kill -9` does."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def module(name: str) -> Any:
    """Import a module of the distillation package."""
    return importlib.import_module(f"{PACKAGE}.{name}")


def after(name: str, function: str, *, call: int = 1, when: Callable[..., bool] = lambda *_: True) -> None:
    """Kill after a function of a module was called so many times with arguments for which `when` holds."""
    owner = module(name)
    original = getattr(owner, function)
    calls = 0

    def patched(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        result = original(*args, **kwargs)
        calls += when(*args)
        if calls == call:
            die()
        return result

    setattr(owner, function, patched)


def amid_file(name: str, function: str, *, call: int = 1, folder: str = "") -> None:
    """Kill when a function `(content, path)` of a module has written half of its file, in such a folder."""
    amid_file_of(module(name), function, call=call, folder=folder)


def amid_file_of(owner: Any, function: str, *, call: int, folder: str = "") -> None:
    """Kill when a function `(content, path)` of an object has written half of its file, in such a folder."""
    original = getattr(owner, function)
    calls = 0

    def patched(content: Any, path: Path, **kwargs: Any) -> None:
        nonlocal calls
        original(content, path, **kwargs)
        calls += not folder or folder in Path(path).parts
        if calls == call:
            os.truncate(path, Path(path).stat().st_size // 2)
            die()

    setattr(owner, function, patched)


def amid_checkpoint(folder: str, *, call: int) -> None:
    """Kill when half of the tensors of a checkpoint, or of the best weights, are written."""
    # Of the two files of a student's checkpoint the tensors are the second.
    amid_file("tensor_folder", "save_file", call=call, folder=folder)


def amid_parquet(name: str, *, call: int) -> None:
    """Kill when a module has written half of a Parquet file."""
    owner = module(name)
    # A copy, because pyarrow.parquet itself belongs to everyone.
    owner.pq = SimpleNamespace(**vars(owner.pq))
    amid_file_of(owner.pq, "write_table", call=call)


def amid_vocabulary() -> None:
    """Kill when half of the vocabulary's file is written."""
    # The counting has these files from there, without torch.
    vocabulary = importlib.import_module("hf_sparse.runtime.student_files").NgramVocabulary
    owner = sys.modules[vocabulary.__module__]
    original = owner.serialise

    def patched(vocabulary: object) -> Any:
        yield next(iter(original(vocabulary)))
        die()

    owner.serialise = patched


def between_renames(name: str) -> None:
    """Kill in `replace_folder`, when the old folder is out of the way and the new one not yet in its place."""
    original = Path.rename

    def patched(self: Path, target: Path) -> Path:
        result = original(self, target)
        if Path(target).name == f".{name}.old":
            die()
        return result

    Path.rename = patched  # type: ignore[method-assign]


def amid_removal(name: str) -> None:
    """Kill when the first file of the folder of checkpoints is removed."""
    original = shutil.rmtree

    def rmtree(folder: Path, **options: Any) -> None:
        files = [file for file in sorted(Path(folder).rglob("*")) if file.is_file()]
        if name in Path(folder).name and files:
            files[0].unlink()
            die()
        original(folder, **options)

    module("student_stages").shutil = SimpleNamespace(**vars(shutil) | {"rmtree": rmtree})


MOMENTS: dict[str, Callable[[], None]] = {
    "texts: after the second shard": lambda: after("texts", "_write_shard", call=2),
    "texts: amid the third shard": lambda: amid_parquet("texts", call=3),
    "vocabulary: amid its file": amid_vocabulary,
    "teacher: amid the second chunk of features": lambda: amid_file("teacher_training", "save_file", call=2),
    "teacher: after the second checkpoint": lambda: after("teacher_training", "save_checkpoint", call=2),
    "teacher: amid the second checkpoint": lambda: amid_checkpoint("checkpoints", call=2),
    "teacher: before it is scored": lambda: after("student_stages", "read_labelled", call=2),
    "teacher: before it is published": lambda: after("run", "write_resources"),
    "label: after the first shard": lambda: after("labelling", "write_logits"),
    "label: after the first part of the second shard": lambda: after("labelling", "whole_file", call=4),
    "label: amid the third shard": lambda: amid_parquet("labelling", call=3),
    "student: after the third checkpoint": lambda: after("training", "save_checkpoint", call=3),
    "student: amid the fourth checkpoint": lambda: amid_checkpoint("checkpoints", call=8),
    "student: amid the second best weights": lambda: amid_checkpoint("best", call=2),
    "student: amid the removal of checkpoints": lambda: amid_removal("checkpoints"),
    "student: before it is published": lambda: after("run", "write_resources"),
    "student: after it is published": lambda: after("stages", "replace_folder"),
    "evaluate: after the report is made": lambda: after("run", "make_report"),
    "evaluate: before the report is copied": lambda: after("stages", "replace_folder", when=_is_report),
    "save: after the model is written": lambda: after("reporting", "write_card"),
    "save: before the marker": lambda: after("reporting", "replace_folder"),
    "distil: between the two renames": lambda: between_renames("distil"),
    "save: between the two renames": lambda: between_renames("student"),
}


def _is_report(source: Path, *_: object) -> bool:
    return Path(source).name == "evaluate.partial"


def run(command: Command) -> NoReturn:
    """Be the child: run the script and exit as it does."""
    for suffix, descriptor in ((".out", 1), (".err", 2)):
        os.dup2(os.open(command["output"] + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    for path, value in command["settings"].items():
        setattr(module(path.rpartition(".")[0]), path.rpartition(".")[2], value)
    if command["kill"]:
        MOMENTS[command["kill"]]()
    if command["file_size"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (command["file_size"], resource.RLIM_INFINITY))
    sys.argv = [str(SCRIPT), *command["arguments"]]
    status = 0
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def warm_up() -> None:
    """Import what a run imports, and compile (or read from numba's cache) the kernel, in this process."""
    runpy.run_path(str(SCRIPT), run_name="imported")
    from hf_sparse.student import SparseNgramTokenizer
    from hf_sparse.vocabulary import count_ngrams

    SparseNgramTokenizer(vocabulary=count_ngrams(["a b"], num_ngrams=2, progress=False)).extract(["a b c"])


def main() -> None:
    """Answer commands until the input ends."""
    warm_up()
    # Children have the descriptors 1 and 2 for themselves.
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        command: Command = json.loads(line)
        child = os.fork()
        if child == 0:
            run(command)
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()


if __name__ == "__main__":
    main()
