"""Measuring contestants in turns: cells of one length, batch size and number of threads.

All contestants of a cell take part in every round, each round beginning with another one, so that a machine that is
slower for a while is slower for all. A round is some warm calls of each, after uncounted ones; the first also has a
cold call, with the processor's caches emptied. Slow contestants are bounded: their batches are handed over in parts,
and what there is no time for is extrapolated and marked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_sparse.benchmark.process import Channel, ContestantError
from hf_sparse.benchmark.statistics import Summary, summarise

INTERNAL_BATCH = 32
MAX_CALLS = 2000
# A slow cell is one cold call and this many warm ones.
_MIN_ROUNDS = 3
_PROBE_TEXTS = 8
_COLD_CALLS = 5


@dataclass(frozen=True, kw_only=True)
class Group:
    """The cells that are measured together: words a text, texts a batch, threads."""

    length: int
    batch_size: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long to measure, in seconds: `seconds` a cell of a fast contestant in all `rounds`, `bound` at most."""

    seconds: float
    bound: float
    rounds: int


@dataclass(frozen=True, kw_only=True)
class CallPlan:
    """How a batch is handed over: whole (`part_size` 0), or in parts of which at most `max_parts` are timed."""

    part_size: int = 0
    max_parts: int = 1

    def is_extrapolated(self, batch_size: int) -> bool:
        """Tell whether some of a batch is not timed."""
        return self.part_size > 0 and self.part_size * self.max_parts < batch_size


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The times of a contestant in a cell, seconds a batch; without `warm` there is a reason why there are none.

    `bound` is how many seconds the cell could take, `derived_from` the batch size that was scaled to this one.
    """

    contestant: str
    length: int
    batch_size: int
    threads: int
    warm: Summary | None = None
    cold: Summary | None = None
    texts_per_second: float | None = None
    is_extrapolated: bool = False
    derived_from: int | None = None
    bound: float | None = None
    reason: str | None = None


@dataclass
class _Turn:
    """A contestant's state within a cell; seconds it has `used`, and that a `call` and a whole `batch` would take."""

    channel: Channel
    plan: CallPlan
    used: float
    call: float
    batch: float
    rounds: list[list[float]] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    reason: str | None = None


def plan_calls(seconds_per_text: float, batch_size: int, *, bound: float, is_slow: bool) -> CallPlan:
    """Return how a batch is handed over so that a cell takes at most `bound` seconds."""
    limit = bound / (1 + _MIN_ROUNDS)
    if seconds_per_text * batch_size <= limit:
        return CallPlan()
    largest = INTERNAL_BATCH if is_slow else 8 * INTERNAL_BATCH
    part_size = min(largest, batch_size, max(1, int(limit / seconds_per_text)))
    return CallPlan(part_size=part_size, max_parts=max(1, int(limit / (part_size * seconds_per_text))))


def measure_group(
    group: Group,
    channels: Mapping[str, Channel],
    *,
    timing: Timing,
    slow: Callable[[str], bool],
    derive: Callable[[str, Group], CellResult | None],
) -> list[CellResult]:
    """Measure the cells of a group.

    Args:
        group: Which texts, batches and threads.
        channels: The contestants by name, in the order of the table.
        timing: How long to measure.
        slow: Tells of a contestant whether it works in internal batches of 32: where a larger batch would take longer
            than the bound, its result is that of a smaller one, scaled.
        derive: Finds the result of a contestant for the largest smaller batch of a group, None if there is none.
    """
    turns: dict[str, _Turn] = {}
    results: dict[str, CellResult] = {}
    for name, channel in channels.items():
        try:
            turn = _begin(group, channel, timing=timing, is_slow=slow(name))
        except ContestantError as error:
            results[name] = _result(name, group, reason=str(error))
            continue
        smaller = derive(name, group) if slow(name) and turn.batch > timing.bound else None
        if smaller is not None and smaller.warm is not None and smaller.batch_size >= INTERNAL_BATCH:
            results[name] = _derived(name, group, smaller, smaller.warm)
        else:
            turns[name] = turn
    for number in range(timing.rounds):
        for name in _rotated(list(turns), number):
            _take_turn(turns[name], group, timing=timing, is_first=number == 0)
    for name, turn in turns.items():
        results[name] = _finish(name, group, turn, timing=timing)
    return [results[name] for name in channels]


def _begin(group: Group, channel: Channel, *, timing: Timing, is_slow: bool) -> _Turn:
    """Find out how long a text takes, from one text and then, if there is time for it, from a few."""
    used = 0.0
    seconds_per_text = 0.0
    for texts in (1, min(_PROBE_TEXTS, group.batch_size)):
        if texts * seconds_per_text > timing.bound / _PROBE_TEXTS:
            break
        reply = channel.ask("probe", timeout=_patience(timing), length=group.length, texts=texts)
        seconds_per_text = reply["seconds"] / texts
        used += reply["seconds"]
    plan = plan_calls(seconds_per_text, group.batch_size, bound=timing.bound, is_slow=is_slow)
    timed = plan.part_size * plan.max_parts if plan.is_extrapolated(group.batch_size) else group.batch_size
    batch = seconds_per_text * group.batch_size
    return _Turn(channel=channel, plan=plan, used=used, call=seconds_per_text * timed, batch=batch)


def _take_turn(turn: _Turn, group: Group, *, timing: Timing, is_first: bool) -> None:
    if turn.reason is not None or (turn.rounds and turn.used + turn.call > timing.bound):
        return
    seconds = timing.seconds / timing.rounds
    is_cold = is_first or (len(turn.cold) < _COLD_CALLS and turn.call < seconds)
    try:
        reply = turn.channel.ask(
            "measure",
            timeout=_patience(timing),
            length=group.length,
            batch_size=group.batch_size,
            seconds=seconds,
            max_calls=MAX_CALLS,
            part_size=turn.plan.part_size,
            max_parts=turn.plan.max_parts,
            cold=is_cold,
        )
    except ContestantError as error:
        turn.reason = str(error)
        return
    turn.rounds.append(reply["call_seconds"])
    if reply["cold_seconds"] is not None:
        turn.cold.append(reply["cold_seconds"])
    turn.used += reply["spent_seconds"]


def _finish(name: str, group: Group, turn: _Turn, *, timing: Timing) -> CellResult:
    if turn.reason is not None or not turn.rounds:
        return _result(name, group, reason=turn.reason or "not measured")
    warm = summarise(turn.rounds)
    return _result(
        name,
        group,
        warm=warm,
        cold=summarise([turn.cold]) if turn.cold else None,
        texts_per_second=group.batch_size / warm.median,
        is_extrapolated=turn.plan.is_extrapolated(group.batch_size),
        bound=timing.bound,
    )


def _derived(name: str, group: Group, source: CellResult, warm: Summary) -> CellResult:
    """Scale the result of a smaller batch up to a batch that there is no time for."""
    factor = group.batch_size / source.batch_size
    return _result(
        name,
        group,
        warm=_scale(warm, factor),
        cold=None if source.cold is None else _scale(source.cold, factor),
        texts_per_second=source.texts_per_second,
        is_extrapolated=True,
        derived_from=source.derived_from or source.batch_size,
        bound=source.bound,
    )


def _result(name: str, group: Group, **fields: Any) -> CellResult:
    return CellResult(
        contestant=name, length=group.length, batch_size=group.batch_size, threads=group.threads, **fields
    )


def _scale(summary: Summary, factor: float) -> Summary:
    return Summary(
        median=summary.median * factor,
        p95=summary.p95 * factor,
        p99=summary.p99 * factor,
        iqr=summary.iqr * factor,
        fastest=summary.fastest * factor,
        slowest=summary.slowest * factor,
        num_calls=summary.num_calls,
        rounds=tuple(value * factor for value in summary.rounds),
    )


def _rotated(names: Sequence[str], number: int) -> list[str]:
    """Return names in the order of a round: each round begins with the next one."""
    shift = number % len(names) if names else 0
    return [*names[shift:], *names[:shift]]


def _patience(timing: Timing) -> float:
    """Return how long an answer may take before a contestant is given up."""
    return 10 * timing.bound + 120
