"""Medians, percentiles and spreads of measured times, and ratios of contestants that ran in turns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A set of times in seconds: `iqr` is the distance of the quartiles, `rounds` the median of each round."""

    median: float
    p95: float
    p99: float
    iqr: float
    fastest: float
    slowest: float
    num_calls: int
    rounds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times slower one contestant is than another: the median over rounds, and their quartile distance."""

    median: float
    iqr: float
    lowest: float
    highest: float
    num_rounds: int


def summarise(rounds: Sequence[Sequence[float]]) -> Summary:
    """Return the statistics of all calls of some rounds, each of at least one call.

    Percentiles are those of NumPy (linear interpolation); with fewer than 100 calls the 99th is hardly more than the
    slowest, so `num_calls` belongs beside it.

    Raises:
        ValueError: If there is no round, or one without calls.
    """
    if not rounds or not all(rounds):
        raise ValueError("a summary needs at least one round, and at least one call in each")
    calls = np.concatenate([np.asarray(calls, dtype=np.float64) for calls in rounds])
    low, median, high, p95, p99 = np.percentile(calls, [25, 50, 75, 95, 99]).tolist()
    return Summary(
        median=median,
        p95=p95,
        p99=p99,
        iqr=high - low,
        fastest=float(calls.min()),
        slowest=float(calls.max()),
        num_calls=int(calls.size),
        rounds=tuple(float(np.median(calls)) for calls in rounds),
    )


def ratio(slower: Sequence[float], faster: Sequence[float]) -> Ratio:
    """Return the ratio of two contestants from the medians of their rounds.

    Rounds are compared one by one, since a machine that is slow for a while is slow for both; a contestant that was
    stopped early is compared by its own rounds.

    Raises:
        ValueError: If one of them has no rounds.
    """
    count = min(len(slower), len(faster))
    if not count:
        raise ValueError("a ratio needs at least one round of both contestants")
    ratios = np.asarray(slower[:count], dtype=np.float64) / np.asarray(faster[:count], dtype=np.float64)
    low, median, high = np.percentile(ratios, [25, 50, 75]).tolist()
    return Ratio(
        median=median, iqr=high - low, lowest=float(ratios.min()), highest=float(ratios.max()), num_rounds=count
    )
