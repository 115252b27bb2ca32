"""What a run took: seconds of its stages and peak memory, added up honestly."""

from pathlib import Path

import pytest

from hf_sparse.distillation.resources import collect_resources, peak_memory, write_resources
from hf_sparse.distillation.stages import Stage


def make_stage(run: Path, name: str, *, seconds: float, resumed: bool = False) -> Stage:
    """Publish a stage that took so long."""
    stage = Stage.of(name, run, inputs={})
    write_resources(stage.open_partial(), seconds=seconds, resumed=resumed)
    stage.publish()
    return stage


def test_sums_and_peaks(tmp_path: Path) -> None:
    stages = [make_stage(tmp_path, "texts", seconds=1.5), make_stage(tmp_path, "label", seconds=20.25)]
    now = {"seconds": 3.0, "resumed": False, "peak_memory_bytes": 1 << 60}
    found = collect_resources(stages, name="evaluate", now=now)
    assert found["seconds"] == {"texts": 1.5, "label": 20.25, "evaluate": 3.0}
    assert found["total_seconds"] == 24.75
    assert found["peak_memory_bytes"] == 1 << 60
    assert collect_resources(stages, name="evaluate", now=now | {"peak_memory_bytes": 1})["peak_memory_bytes"] > 1


def test_time_of_a_resumed_stage_is_not_known(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, "label", seconds=2.0, resumed=True)
    now = {"seconds": 3.0, "resumed": False, **peak_memory()}
    found = collect_resources([stage], name="evaluate", now=now)
    assert found["seconds"] == {"label": None, "evaluate": 3.0}
    assert found["total_seconds"] is None


def test_peak_memory_is_that_of_the_process() -> None:
    before = peak_memory()["peak_memory_bytes"]
    block = bytearray(before + 50_000_000)
    block[::4096] = b"x" * len(block[::4096])
    assert len(block) <= peak_memory()["peak_memory_bytes"] < 10 * len(block)


@pytest.mark.parametrize("begun", [True, False])
def test_stage_knows_whether_it_was_begun(tmp_path: Path, begun: bool) -> None:
    stage = Stage.of("label", tmp_path, inputs={"lr": 1})
    if begun:
        stage.open_partial()
    assert stage.is_begun() == begun
    assert not Stage.of("label", tmp_path, inputs={"lr": 2}).is_begun()
