"""Running the contestants: prepare, start cold, load, measure in turns, answer."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from hf_sparse.benchmark.contestants import Contestant, baseline
from hf_sparse.benchmark.harness import CellResult, Group, measure_group
from hf_sparse.benchmark.journal import Journal
from hf_sparse.benchmark.process import ContestantError, ContestantProcess
from hf_sparse.benchmark.session import Materials, Measured, Run, Settings

logger = logging.getLogger(__name__)


def run_benchmark(
    contestants: Sequence[Contestant],
    materials: Materials,
    settings: Settings,
    *,
    journal: Journal,
    folder: Path,
    commit: str | None,
) -> Measured:
    """Measure contestants; what the journal already holds is not measured again.

    Args:
        contestants: Who takes part, in the order of the table.
        materials: The texts.
        settings: The cells.
        journal: Where results are kept.
        folder: Where contestants keep what they have prepared.
        commit: Of the code; results of another one are not taken over.
    """
    run = Run(materials, settings, journal=journal, folder=folder, commit=commit)
    measured = Measured(contestants=list(contestants), labels=materials.labels)
    measured.baseline = _measure_baseline(run, settings)
    _prepare_all(run, measured, settings)
    groups = [
        Group(length=length, batch_size=batch_size, threads=threads)
        for threads in settings.threads
        for length in settings.lengths
        for batch_size in sorted(settings.batch_sizes)
    ]
    able = [one for one in contestants if one.name not in measured.reasons]
    with tqdm(total=len(groups) * len(able), unit="cell", desc="measuring", file=sys.stderr) as bar:
        for threads in settings.threads:
            ours = [group for group in groups if group.threads == threads]
            _measure_threads(run, measured, able, ours, settings=settings, journal=journal, bar=bar)
    return measured


def _measure_baseline(run: Run, settings: Settings) -> dict[str, Any]:
    one = baseline()
    stored = run.stored_start(one, settings.threads[0])
    if stored is not None:
        return stored
    try:
        run.prepare(one)
        process = run.start(one, settings.threads[0])
        try:
            return run.load(one, process, settings.threads[0])
        finally:
            process.stop()
    except ContestantError as error:
        logger.warning("the baseline process failed: %s", error)
        return {}


def _prepare_all(run: Run, measured: Measured, settings: Settings) -> None:
    """Train and compile; then start those with files once from disk, while no other process maps these files."""
    for one in tqdm(measured.contestants, desc="preparing", unit="contestant", file=sys.stderr, leave=False):
        if one.missing is not None:
            measured.reasons[one.name] = one.missing
            continue
        try:
            seconds = run.prepare(one)
        except ContestantError as error:
            measured.reasons[one.name] = str(error)
            logger.warning("%s does not take part: %s", one.name, error)
            continue
        measured.starts[one.name] = {"prepare": {"seconds": seconds}} if seconds is not None else {}
    able = [one for one in measured.contestants if one.name not in measured.reasons]
    for one in tqdm(
        able if settings.from_disk else [], desc="cold starts", unit="contestant", file=sys.stderr, leave=False
    ):
        if not (one.files or one.is_prepared):
            continue
        try:
            measured.starts[one.name]["cold"] = run.start_cold(one)
        except ContestantError as error:
            measured.reasons[one.name] = str(error)
            logger.warning("%s does not take part: %s", one.name, error)


@contextmanager
def _running(
    run: Run, measured: Measured, able: Sequence[Contestant], threads: int
) -> Iterator[dict[str, ContestantProcess]]:
    """Start and load contestants one after the other; those that fail become blank."""
    processes: dict[str, ContestantProcess] = {}
    try:
        for one in tqdm(able, desc=f"loading, threads: {threads}", unit="contestant", file=sys.stderr, leave=False):
            if one.name in measured.reasons:
                continue
            try:
                processes[one.name] = run.start(one, threads)
                measured.starts[one.name][f"threads_{threads}"] = run.load(one, processes[one.name], threads)
            except ContestantError as error:
                measured.reasons[one.name] = str(error)
                logger.warning("%s does not take part: %s", one.name, error)
                if one.name in processes:
                    processes.pop(one.name).stop()
        yield processes
    finally:
        for process in processes.values():
            process.stop()


def _measure_threads(
    run: Run,
    measured: Measured,
    able: Sequence[Contestant],
    groups: Sequence[Group],
    *,
    settings: Settings,
    journal: Journal,
    bar: Any,
) -> None:
    """Measure all cells of one number of threads, and the answers where that is the first."""
    threads = groups[0].threads
    answers = [one for one in able if one.has_weights] if threads == settings.threads[0] else []
    needed = _unfinished(run, measured, able, groups, answers)
    by_name = {one.name: one for one in able}
    found: dict[tuple[str, Group], CellResult] = {}
    with _running(run, measured, needed, threads) as processes:
        for group in groups:
            bar.set_postfix_str(f"{group.length} words, batch {group.batch_size}, threads {threads}")
            stored_cells = {one.name: run.stored_cell(one, group) for one in able}
            channels = {name: one for name, one in processes.items() if stored_cells[name] is None}
            results = measure_group(
                group,
                channels,
                timing=settings.timing,
                slow=lambda name: by_name[name].is_slow,
                derive=partial(_largest_below, found),
            )
            # What failed may go well next time.
            for result in (one for one in results if one.warm is not None):
                journal.add("cell", run.cell_key(by_name[result.contestant], group), asdict(result))
            cells = [cell for cell in (*stored_cells.values(), *results) if cell is not None]
            found |= {(cell.contestant, group): cell for cell in cells}
            measured.cells += cells
            bar.update(len(able))
        if threads == settings.threads[0]:
            measured.roofline = run.roofline(able)
        _answer_all(run, measured, processes, answers)


def _unfinished(
    run: Run,
    measured: Measured,
    able: Sequence[Contestant],
    groups: Sequence[Group],
    answering: Sequence[Contestant],
) -> list[Contestant]:
    """Return the contestants that have something left to do; note how the others started, when they did."""
    threads = groups[0].threads
    needed = []
    for one in able:
        stored = run.stored_start(one, threads)
        if one.name not in measured.reasons and stored is not None:
            measured.starts[one.name][f"threads_{threads}"] = stored
        is_answered = one not in answering or run.stored_answers(one) is not None
        if not is_answered or any(run.stored_cell(one, group) is None for group in groups):
            needed.append(one)
    return needed


def _answer_all(
    run: Run, measured: Measured, processes: dict[str, ContestantProcess], answering: Sequence[Contestant]
) -> None:
    for one in tqdm(answering, desc="answering", unit="contestant", file=sys.stderr, leave=False):
        stored = run.stored_answers(one)
        if stored is not None:
            measured.answers[one.name] = stored
        elif one.name in processes:
            try:
                measured.answers[one.name] = run.answer(one, processes[one.name])
            except ContestantError as error:
                logger.warning("%s gave no answers: %s", one.name, error)


def _largest_below(found: dict[tuple[str, Group], CellResult], name: str, wanted: Group) -> CellResult | None:
    """Return a contestant's cell of the largest smaller batch, at the same length and threads."""
    smaller = [
        group
        for contestant, group in found
        if contestant == name
        and (group.length, group.threads) == (wanted.length, wanted.threads)
        and group.batch_size < wanted.batch_size
    ]
    if not smaller:
        return None
    return found[name, max(smaller, key=lambda group: group.batch_size)]
