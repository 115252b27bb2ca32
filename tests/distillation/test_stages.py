"""Stages and checkpoints: whole or not there, found again by what they depend on."""

import errno
from pathlib import Path

import pytest
import torch

from hf_sparse.distillation import tensor_folder
from hf_sparse.distillation.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    random_state,
    restore_optimizer,
    restore_random_state,
    save_checkpoint,
)
from hf_sparse.distillation.stages import Stage


def make_stage(run: Path, **inputs: object) -> Stage:
    """Return the stage "label" of a run."""
    return Stage.of("label", run, inputs=inputs)


def test_finished_stage_is_known_by_its_inputs(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, lr=0.1)
    assert not stage.is_done()
    (stage.open_partial() / "output").write_text("first")
    assert not stage.is_done()
    stage.publish()
    assert stage.is_done()
    assert not stage.partial.exists()
    assert make_stage(tmp_path, lr=0.1).is_done()
    assert not make_stage(tmp_path, lr=0.2).is_done()


def test_partial_stage_is_resumed_or_thrown_away(tmp_path: Path) -> None:
    folder = make_stage(tmp_path, lr=0.1).open_partial()
    (folder / "shard").write_text("whole")
    (folder / ".shard.tmp").write_text("ha")
    (folder / ".checkpoints.old").mkdir()
    assert sorted(path.name for path in make_stage(tmp_path, lr=0.1).open_partial().iterdir()) == [
        "shard",
        "stage.json",
    ]
    assert [path.name for path in make_stage(tmp_path, lr=0.2).open_partial().iterdir()] == ["stage.json"]


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"key": null}'])
def test_damaged_manifest_counts_as_no_stage(tmp_path: Path, manifest: str) -> None:
    stage = make_stage(tmp_path, lr=0.1)
    stage.open_partial()
    stage.publish()
    (stage.folder / "stage.json").write_text(manifest)
    assert not stage.is_done()


def test_older_output_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    first, second = make_stage(tmp_path, lr=0.1), make_stage(tmp_path, lr=0.2)
    first.open_partial()
    first.publish()
    (second.open_partial() / "output").write_text("second")
    assert first.is_done()
    second.publish()
    assert (second.folder / "output").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["label"]


def test_checkpoint_comes_back_and_older_ones_go(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    tensors = {"table": torch.arange(6.0).reshape(2, 3).T, "half": torch.ones(2, dtype=torch.bfloat16)}
    for step in (9, 10, 1000):
        save_checkpoint(tmp_path, step=step, tensors=tensors, state={"best": None, "of": step})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001000"]
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1000
    assert found.state == {"best": None, "of": 1000}
    assert all(torch.equal(found.tensors[name], value) for name, value in tensors.items())


def test_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, step=1, tensors={"a": torch.ones(2)}, state={})

    def fill_disk(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_folder, "save_file", fill_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, step=2, tensors={"a": torch.zeros(2)}, state={})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_unfinished_checkpoint_is_ignored(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, step=1, tensors={"a": torch.ones(2)}, state={})
    (tmp_path / ".writing").mkdir()
    (tmp_path / ".writing" / "state.json").write_text('{"step": 2}')
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1


def test_optimiser_and_random_numbers_go_on(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 12)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def train(model: torch.nn.Linear, optimizer: torch.optim.AdamW) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().sum().backward()
            optimizer.step()

    model, optimizer = make()
    train(model, optimizer)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= optimizer_tensors("adam", optimizer) | random_state()
    save_checkpoint(tmp_path, step=3, tensors=tensors, state={})
    train(model, optimizer)

    other, other_optimizer = make()
    found = load_checkpoint(tmp_path)
    assert found is not None
    other.load_state_dict({name: found.tensors[f"model.{name}"] for name in ("weight", "bias")})
    restore_optimizer("adam", other_optimizer, found.tensors)
    torch.randn(7)
    restore_random_state(found.tensors)
    train(other, other_optimizer)
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(other.bias, model.bias)
