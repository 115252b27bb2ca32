"""A run of the benchmark: starts the contestants, asks them, and keeps every answer in the journal."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hf_sparse.benchmark.contestants import Contestant, read_config, row_bytes
from hf_sparse.benchmark.environments import EnvironmentMissingError, python_of
from hf_sparse.benchmark.harness import CellResult, Group, Timing
from hf_sparse.benchmark.journal import Journal, digest
from hf_sparse.benchmark.process import ContestantError, ContestantProcess, pinned_processors, thread_variables
from hf_sparse.benchmark.statistics import Summary

logger = logging.getLogger(__name__)

# Training a peer may take minutes, and so may the compilation of its kernels.
_PREPARE_SECONDS = 3600.0
_LOAD_SECONDS = 900.0
# The texts that a contestant's first call and its memory are measured with.
_LOAD_LENGTH = 235
_ROOFLINE_TEXTS = 2048


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which cells are measured, and for how long; times in seconds."""

    lengths: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    threads: tuple[int, ...]
    timing: Timing
    answer_seconds: float
    from_disk: bool


@dataclass(frozen=True, kw_only=True)
class Materials:
    """The texts: files of the pools by length, the file of texts to answer with their labels, hashes of both."""

    pools: dict[int, Path]
    described: dict[int, dict[str, float]]
    answers: Path
    labels: tuple[str, ...] | None
    pool_keys: dict[int, str]
    answers_key: str


@dataclass(kw_only=True)
class Measured:
    """What a run has found: cells, and by contestant how it started, what it answered and why it is blank."""

    contestants: list[Contestant]
    cells: list[CellResult] = field(default_factory=list)
    starts: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    answers: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    roofline: dict[str, Any] | None = None


class Run:
    """The state of a benchmark while it runs."""

    def __init__(
        self, materials: Materials, settings: Settings, *, journal: Journal, folder: Path, commit: str | None
    ) -> None:
        """Keep the settings; nothing is started yet."""
        self._materials, self._settings, self._journal = materials, settings, journal
        self._folder = folder.resolve()
        # Not the bound: cells that had more time are as good, so a run may follow that measures more of them.
        self._session = digest(commit, _kernel_sources(), settings.timing.seconds, settings.timing.rounds)
        self._load_length = min(materials.pools, key=lambda length: abs(length - _LOAD_LENGTH))
        self._load_key = digest(self._session, materials.pool_keys[self._load_length])

    def start(self, contestant: Contestant, threads: int) -> ContestantProcess:
        """Start the process of a contestant.

        Raises:
            ContestantError: If its environment cannot be made.
        """
        python = sys.executable
        if contestant.environment is not None:
            try:
                python = python_of(contestant.environment, folder=self._folder / "environments")
            except EnvironmentMissingError as error:
                raise ContestantError(str(error)) from error
        folder = self.artifacts(contestant)
        folder.mkdir(parents=True, exist_ok=True)
        own_files = (str(folder),) if contestant.is_prepared else contestant.files
        spec = {
            "module": str(contestant.path),
            "class": contestant.peer,
            "options": contestant.options,
            "threads": threads,
            "hidden": contestant.hidden,
            "packages": contestant.packages,
            "files": own_files,
            "folder": str(folder),
            "processors": pinned_processors(threads),
            "texts": {str(length): str(path) for length, path in self._materials.pools.items()},
        }
        return ContestantProcess(
            python, spec, environment=self._variables(threads), log=self._folder / f"{contestant.name}.log"
        )

    def artifacts(self, contestant: Contestant) -> Path:
        """Return the folder of what a contestant has prepared; another one when its code has changed."""
        source = contestant.path.read_text(encoding="utf-8")
        return self._folder / "artifacts" / f"{contestant.name}-{digest(contestant.options, source)}"

    def prepare(self, contestant: Contestant) -> float | None:
        """Have a contestant train or compile what it needs, in a process of its own; return the seconds it took."""
        if not (contestant.is_prepared or contestant.is_compiled):
            return None
        key = digest(contestant.key, _kernel_sources() if contestant.is_compiled else None)
        record = self._journal.find("prepare", key)
        if record is None:
            reply = self._once(contestant, "prepare", timeout=_PREPARE_SECONDS)
            record = {"contestant": contestant.name, **reply}
            self._journal.add("prepare", key, record)
        return float(record["seconds"])

    def start_cold(self, contestant: Contestant) -> dict[str, Any]:
        """Return how a contestant starts when its files are not in memory."""
        key = digest("cold", contestant.key, self._load_key)
        record = self._journal.find("start", key)
        if record is None:
            threads = self._settings.threads[0]
            arguments = {"length": self._load_length, "from_disk": True}
            record = self._once(contestant, "load", timeout=_LOAD_SECONDS, threads=threads, **arguments)
            self._journal.add("start", key, record)
        return record

    def load(self, contestant: Contestant, process: ContestantProcess, threads: int) -> dict[str, Any]:
        """Load a contestant whose files are in memory, and return how it started the first time that it did."""
        reply = process.ask("load", timeout=_LOAD_SECONDS, length=self._load_length, from_disk=False)
        key = digest("warm", contestant.key, threads, self._load_key)
        record = self._journal.find("start", key)
        if record is None:
            self._journal.add("start", key, reply)
            record = reply
        return record

    def stored_start(self, contestant: Contestant, threads: int) -> dict[str, Any] | None:
        """Return how a contestant started in an earlier part of this benchmark."""
        return self._journal.find("start", digest("warm", contestant.key, threads, self._load_key))

    def cell_key(self, contestant: Contestant, group: Group) -> str:
        """Return the key of a cell in the journal."""
        return digest(contestant.key, asdict(group), self._session, self._materials.pool_keys[group.length])

    def stored_cell(self, contestant: Contestant, group: Group) -> CellResult | None:
        """Return the result of a cell, if it was measured before."""
        record = self._journal.find("cell", self.cell_key(contestant, group))
        return None if record is None else read_cell(record)

    def stored_answers(self, contestant: Contestant) -> list[str] | None:
        """Return a contestant's labels, if it gave them before."""
        record = self._journal.find("answers", self._answers_key(contestant))
        return None if record is None else list(record["labels"])

    def answer(self, contestant: Contestant, process: ContestantProcess) -> list[str]:
        """Return a contestant's labels of the first texts, of as many as there is time for."""
        record = process.ask(
            "answer",
            timeout=10 * self._settings.answer_seconds + 120,
            file=str(self._materials.answers),
            seconds=self._settings.answer_seconds,
            batch_size=32 if contestant.is_slow else 256,
        )
        self._journal.add("answers", self._answers_key(contestant), record)
        return list(record["labels"])

    def _answers_key(self, contestant: Contestant) -> str:
        return digest(contestant.key, self._session, self._materials.answers_key, self._settings.answer_seconds)

    def roofline(self, contestants: Sequence[Contestant]) -> dict[str, Any] | None:
        """Measure what memory allows, in a process of its own; None where no student's runtime takes part."""
        forms = {one.name: Path(one.options["model"]) for one in contestants if one.peer == "Runtime"}
        if not forms:
            return None
        spec = {
            "vocabulary": str(next(iter(forms.values()))),
            "texts": str(self._materials.pools[self._load_length]),
            "num_texts": _ROOFLINE_TEXTS,
            "row_bytes": {name: row_bytes(read_config(folder)) for name, folder in forms.items()},
            "processors": pinned_processors(1),
        }
        key = digest("roofline", spec, self._load_key)
        record = self._journal.find("roofline", key)
        if record is None:
            path = self._folder / "roofline.json"
            path.write_text(json.dumps(spec), encoding="utf-8")
            command = [sys.executable, "-m", "hf_sparse.benchmark.roofline", str(path)]
            variables = os.environ | self._variables(1)
            try:
                done = subprocess.run(command, env=variables, check=True, capture_output=True, text=True, timeout=900)
            except subprocess.SubprocessError as error:
                logger.warning("the roofline was not measured: %s", (getattr(error, "stderr", "") or error))
                return None
            record = json.loads(done.stdout.splitlines()[-1])
            self._journal.add("roofline", key, record)
        return record

    def _variables(self, threads: int) -> dict[str, str]:
        variables = thread_variables(threads)
        variables["NUMBA_CACHE_DIR"] = str(self._folder / "numba" / _kernel_sources())
        variables["HF_MODULES_CACHE"] = str(self._folder / "modules")
        variables["PYTHONPATH"] = os.pathsep.join(
            [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        return variables

    def _once(self, contestant: Contestant, do: str, *, timeout: float, threads: int = 1, **arguments: Any) -> Any:
        process = self.start(contestant, threads)
        try:
            return process.ask(do, timeout=timeout, **arguments)
        finally:
            process.stop()


def read_cell(record: dict[str, Any]) -> CellResult:
    """Return the cell that `asdict` has made a record of."""
    summaries = {
        name: None if record[name] is None else Summary(**(record[name] | {"rounds": tuple(record[name]["rounds"])}))
        for name in ("warm", "cold")
    }
    return CellResult(**(record | summaries))


@cache
def _kernel_sources() -> str:
    """Return a hash of the code whose compiled form is cached."""
    folder = Path(__file__).parents[1]
    files = sorted([*(folder / "runtime").glob("*.py"), *(folder / "student").glob("*.py")])
    return digest([(path.name, path.read_text(encoding="utf-8")) for path in files])
