"""Texts per second of several classifiers on the same texts, from raw strings to labels.

The contestants run in turns, so that a machine that gets slower or faster meanwhile is fair to all; the first round
warms up and is not counted.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hf_sparse.evaluation.labelled_texts import LabelledTexts, Student
from hf_sparse.runtime import NgramClassifier
from hf_sparse.runtime.pooling import MODES

_TEXTS: Final = 4096
_SECONDS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Texts per second: the median over rounds, the slowest and the fastest round."""

    median: float
    slowest: float
    fastest: float


def measure_throughput(
    contestants: Mapping[str, Callable[[Sequence[str]], object]],
    texts: Sequence[str],
    *,
    seconds: float,
    min_rounds: int = 3,
) -> dict[str, Throughput]:
    """Time contestants in turns until each had `seconds` or more, at least `min_rounds` rounds.

    A fast contestant repeats the texts within a round until the round lasts a tenth of a second.

    Args:
        contestants: For each name a function that classifies texts.
        texts: What they classify.
        seconds: Time for the slowest contestant, warm-up left out.
        min_rounds: Counted rounds at least.
    """
    repeats = {}
    for name, classify in contestants.items():
        classify(texts)
        repeats[name] = max(1, round(0.1 / _seconds(classify, texts, 1)))
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    spent = 0.0
    while len(next(iter(rates.values()))) < min_rounds or spent < seconds:
        times = {name: _seconds(classify, texts, repeats[name]) for name, classify in contestants.items()}
        for name, duration in times.items():
            rates[name].append(len(texts) * repeats[name] / duration)
        spent += max(times.values())
    return {
        name: Throughput(median=statistics.median(values), slowest=min(values), fastest=max(values))
        for name, values in rates.items()
    }


def runtime_speed(student: Student, texts: LabelledTexts, *, num_threads: int = 1) -> float | None:
    """Return the texts a second of the runtime, None where it does not serve the student."""
    if student.model.config.pooling not in MODES:
        return None
    classifier = NgramClassifier.from_pretrained(student.folder, num_threads=num_threads)
    sample = texts.texts[:_TEXTS]
    pairs = None if texts.text_pairs is None else texts.text_pairs[:_TEXTS]
    rates = measure_throughput(
        {"student": lambda some: classifier.predict_proba(some, pairs)}, sample, seconds=_SECONDS
    )
    return rates["student"].median


def _seconds(classify: Callable[[Sequence[str]], object], texts: Sequence[str], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        classify(texts)
    return time.perf_counter() - start
