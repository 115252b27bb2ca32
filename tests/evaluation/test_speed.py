"""Throughput, with a clock that contestants turn themselves."""

from collections.abc import Callable, Sequence

import pytest

from hf_sparse.evaluation import speed
from hf_sparse.evaluation.speed import measure_throughput


class Clock:
    """Stands in for the module `time`: time passes only when a contestant works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def perf_counter(self) -> float:
        """Return the time."""
        return self.now

    def contestant(self, name: str, *seconds: float) -> Callable[[Sequence[str]], object]:
        """Return a function that takes so many seconds a call, in turns."""
        calls = 0

        def classify(texts: Sequence[str]) -> None:
            nonlocal calls
            self.order.append(name)
            self.now += seconds[calls % len(seconds)]
            calls += 1

        return classify


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the module."""
    made = Clock()
    monkeypatch.setattr(speed, "time", made)
    return made


def test_rates_of_contestants_in_turns(clock: Clock) -> None:
    contestants = {"slow": clock.contestant("slow", 2.0), "quick": clock.contestant("quick", 0.01)}
    found = measure_throughput(contestants, ["text"] * 50, seconds=5)
    assert found["slow"].median == pytest.approx(25)
    assert found["quick"].median == pytest.approx(5000)
    # A warm-up and a trial each; then in turns, the quick one often enough to last.
    assert clock.order == ["slow"] * 2 + ["quick"] * 2 + (["slow"] + ["quick"] * 10) * 3


def test_goes_on_until_the_time_is_spent(clock: Clock) -> None:
    found = measure_throughput({"only": clock.contestant("only", 1.0)}, ["text"], seconds=20)
    assert len(clock.order) == 22
    assert found["only"].median == 1.0


def test_median_and_range(clock: Clock) -> None:
    # Warm-up and trial take 9 and 1 s, the rounds 1, 2 and 4.
    found = measure_throughput({"only": clock.contestant("only", 9.0, 1.0, 1.0, 2.0, 4.0)}, ["t"] * 4, seconds=0)
    assert (found["only"].median, found["only"].slowest, found["only"].fastest) == (2.0, 1.0, 4.0)
