"""Statistics against NumPy's, and against plain arithmetic."""

import numpy as np
import pytest

from hf_sparse.benchmark.statistics import ratio, summarise


def test_summary_is_numpys() -> None:
    random = np.random.default_rng(0)
    rounds = [random.exponential(size=size).tolist() for size in (1, 20, 333)]
    found = summarise(rounds)
    calls = np.concatenate([np.array(one) for one in rounds])
    low, median, high, p95, p99 = np.percentile(calls, [25, 50, 75, 95, 99])
    assert (found.median, found.p95, found.p99) == pytest.approx((median, p95, p99))
    assert found.iqr == pytest.approx(high - low)
    assert (found.fastest, found.slowest, found.num_calls) == (calls.min(), calls.max(), 354)
    assert found.rounds == pytest.approx([np.median(one) for one in rounds])


def test_ratio_is_of_rounds_not_of_medians() -> None:
    # A machine that is ten times slower in one round is so for both: the ratio does not see it.
    found = ratio([4.0, 40.0, 8.0], [2.0, 20.0, 1.0])
    assert (found.median, found.lowest, found.highest, found.num_rounds) == (2.0, 2.0, 8.0, 3)
    assert found.iqr == pytest.approx(np.percentile([2, 2, 8], 75) - 2)


def test_ratio_of_a_contestant_that_was_stopped_early() -> None:
    assert ratio([6.0], [2.0, 100.0]).median == 3.0


@pytest.mark.parametrize("rounds", [[], [[]], [[1.0], []]])
def test_no_calls(rounds: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        summarise(rounds)
    with pytest.raises(ValueError, match="at least one round"):
        ratio([], [1.0])
