"""Taking turns, bounding and extrapolating, with contestants whose times are known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_sparse.benchmark.harness import CallPlan, CellResult, Group, Timing, measure_group, plan_calls
from tests.benchmark.conftest import FakeChannel

TIMING = Timing(seconds=0.4, bound=8.0, rounds=4)


def measure(channels: list[FakeChannel], group: Group, **settings: Any) -> dict[str, CellResult]:
    defaults: dict[str, Any] = {"timing": TIMING, "slow": lambda name: False, "derive": lambda name, group: None}
    results = measure_group(group, {one.name: one for one in channels}, **(defaults | settings))
    assert [one.contestant for one in results] == [one.name for one in channels]
    return {one.contestant: one for one in results}


def test_turns_rotate() -> None:
    log: list[tuple[str, str]] = []
    channels = [FakeChannel(name, 1e-4, log) for name in "abc"]
    found = measure(channels, Group(length=60, batch_size=10, threads=1))
    turns = "".join(name for name, do in log if do == "measure")
    assert turns == "abcbcacababc"
    assert [one["cold"] for one in channels[0].measured] == [True] * 4
    warm = found["a"].warm
    assert warm is not None
    assert (warm.median, warm.num_calls, len(warm.rounds)) == (pytest.approx(1e-3), 4 * 100, 4)
    assert found["a"].texts_per_second == pytest.approx(10_000)
    assert found["a"].cold is not None
    assert found["a"].cold.median == pytest.approx(2e-3)
    assert not found["a"].is_extrapolated


def test_slow_contestant_is_bounded() -> None:
    channel = FakeChannel("slow", 0.02, [])
    found = measure([channel], Group(length=60, batch_size=256, threads=1), slow=lambda name: True)["slow"]
    # A quarter of the bound is 2 s: three parts of 32 texts, 1.92 s; a cold call and warm ones until 8 s are used.
    assert [(one["part_size"], one["max_parts"]) for one in channel.measured] == [(32, 3)] * len(channel.measured)
    assert [one["cold"] for one in channel.measured] == [True, *[False] * (len(channel.measured) - 1)]
    assert len(channel.measured) == 4
    assert found.is_extrapolated
    assert found.warm is not None
    assert found.warm.median == pytest.approx(256 * 0.02)


def test_stops_at_the_bound() -> None:
    channel = FakeChannel("slow", 5.0, [])
    found = measure([channel], Group(length=60, batch_size=1, threads=1), slow=lambda name: True)["slow"]
    assert len(channel.measured) == 1
    assert not found.is_extrapolated
    assert found.warm is not None


def test_long_batches_are_derived() -> None:
    channel = FakeChannel("slow", 0.1, [])
    small = measure([channel], Group(length=60, batch_size=32, threads=1), slow=lambda name: True)["slow"]
    large = measure(
        [channel],
        Group(length=60, batch_size=256, threads=1),
        slow=lambda name: True,
        derive=lambda name, group: small,
    )["slow"]
    assert large.is_extrapolated
    assert large.derived_from == 32
    assert large.warm is not None
    assert large.warm.median == pytest.approx(25.6)
    assert large.warm.rounds == pytest.approx([25.6] * len(large.warm.rounds))
    assert large.texts_per_second == pytest.approx(10)


def test_single_texts_do_not_stand_for_batches() -> None:
    channel = FakeChannel("slow", 0.1, [])
    single = measure([channel], Group(length=60, batch_size=1, threads=1), slow=lambda name: True)["slow"]
    channel.measured.clear()
    group = Group(length=60, batch_size=256, threads=1)
    large = measure([channel], group, slow=lambda name: True, derive=lambda name, group: single)["slow"]
    assert {(one["part_size"], one["max_parts"]) for one in channel.measured} == {(20, 1)}
    assert large.is_extrapolated
    assert large.derived_from is None


@pytest.mark.parametrize("fails", ["probe", "measure"])
def test_failure_is_a_blank_cell(fails: str) -> None:
    channels = [FakeChannel("good", 1e-4, []), FakeChannel("bad", 1e-4, [], fails=fails)]
    found = measure(channels, Group(length=60, batch_size=1, threads=1))
    assert found["bad"].warm is None
    assert found["bad"].reason == "it fell over"
    assert found["good"].warm is not None


@given(st.floats(1e-7, 100), st.integers(1, 5000), st.floats(1, 100), st.booleans())
def test_plan_keeps_the_bound(seconds: float, batch_size: int, bound: float, is_slow: bool) -> None:
    plan = plan_calls(seconds, batch_size, bound=bound, is_slow=is_slow)
    timed = min(batch_size, plan.part_size * plan.max_parts or batch_size)
    assert timed >= 1
    # Four such calls fit, unless a single text takes too long already.
    assert timed == 1 or 4 * timed * seconds <= bound * 1.001
    assert plan.is_extrapolated(batch_size) == (timed < batch_size)
    if is_slow:
        assert plan.part_size <= 32


def test_whole_batches() -> None:
    assert not CallPlan().is_extrapolated(4096)
    assert not CallPlan(part_size=32, max_parts=8).is_extrapolated(256)
    assert CallPlan(part_size=32, max_parts=7).is_extrapolated(256)
