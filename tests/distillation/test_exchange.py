"""Several processes that train one student, against one process that trains it alone."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_sparse.distillation.exchange import Exchange, Traffic, column_ranges, table_mode
from hf_sparse.student import SparseNgramForSequenceClassification
from tests.conftest import PAIR_SHAPES

ROOT = Path(__file__).parents[2]
RECIPE = {"epochs": 3, "ngram_dropout": 0.3, "max_grad_norm": 0.5, "lr": 0.1, "head_lr": 0.02}

Cases = dict[str, dict[str, Any]]
Found = dict[str, dict[str, Any]]


def case(mode: str = "split", *, batch_size: int = 8, folder: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return a training; 60 texts leave a last batch of 4, which is less than a text for each part of a process."""
    names = ("pooling", "block_rows", "embedding_size", "sentence_pairs", "pair_bags", "alignment_size")
    shape = {name: changes.pop(name) for name in names if name in changes}
    stop_after = changes.pop("stop_after", None)
    found = {"mode": mode, "batch_size": batch_size, "student": shape, "recipe": RECIPE | changes}
    return found | ({"folder": folder} if folder else {}) | ({"stop_after": stop_after} if stop_after else {})


def run(folder: Path, cases: Cases, *, num_processes: int) -> Found:
    """Train the cases in processes of their own."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    environment |= {"WORLD_SIZE": str(num_processes), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.distillation.exchange_worker", str(folder), json.dumps(cases)]
    for name, one in cases.items():
        for rank in range(num_processes):
            (folder / one.get("folder", name) / f"texts-{rank}").mkdir(parents=True, exist_ok=True)
    processes = []
    for rank in range(num_processes):
        variables = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if num_processes > 1 else {})
        if num_processes == 1:
            for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
                variables.pop(name)
        processes.append(subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-3000:]
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in cases}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return SparseNgramForSequenceClassification.from_pretrained(folder).state_dict()


def assert_equal(found: Found, expected: Found, *, tolerance: float = 1e-5) -> None:
    assert len(found["losses"]) == len(expected["losses"]) > 20
    torch.testing.assert_close(
        torch.tensor(found["losses"]), torch.tensor(expected["losses"]), atol=tolerance, rtol=0.0
    )
    assert found["loss"] == pytest.approx(expected["loss"], abs=tolerance)
    assert found["primary"] == expected["primary"]


SHAPES: dict[str, dict[str, Any]] = {
    "mean": {},
    "sum": {"pooling": "sum", "block_rows": 17},
    "adam": {"optimizer": "lazy_adam", "lr": 0.02, "block_rows": 23},
    "five": {"embedding_size": 5},
    "subwords": {"subwords": True, "averages": True, "block_rows": 17},
    "maximum": {"pooling": "max", "block_rows": 17},
    "maximum of adam": {"pooling": "max", "subwords": True, "optimizer": "lazy_adam", "lr": 0.02},
    "pairs": PAIR_SHAPES["overlap"],
    "aligned": {"subwords": True, **PAIR_SHAPES["aligned"]},
    "aligned sums": {"pooling": "sum", **PAIR_SHAPES["aligned"]},
    "aligned maxima": {"pooling": "max", "subwords": True, **PAIR_SHAPES["aligned"]},
    "subwords of adam": {"subwords": True, "optimizer": "lazy_adam", "lr": 0.02, "pooling": "sum"},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Found]:
    """The trainings of one process."""
    folder = tmp_path_factory.mktemp("alone")
    cases = {name: case(**shape) for name, shape in SHAPES.items()}
    cases |= {"parts": case(accumulation_steps=2), "single": case(batch_size=1, epochs=1)}
    cases |= {"parts of maxima": case(accumulation_steps=2, pooling="max", block_rows=17)}
    return folder, run(folder, cases, num_processes=1)


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_train_as_one_does(alone: tuple[Path, Found], tmp_path: Path, num_processes: int) -> None:
    """Same batches: the same losses, scores and weights, however the table is held and the batch is cut."""
    folder, expected = alone
    cases = {
        f"{mode}-{name}": case(mode, **shape) for mode in ("split", "replicated") for name, shape in SHAPES.items()
    }
    cases |= {"split-parts": case(accumulation_steps=2), "split-single": case(batch_size=1, epochs=1)}
    cases |= {"replicated-parts of maxima": case("replicated", accumulation_steps=2, pooling="max", block_rows=17)}
    found = run(tmp_path, cases, num_processes=num_processes)
    for name in cases:
        reference = name.partition("-")[2]
        assert_equal(found[name], expected[reference])
        theirs = weights(folder / reference)
        for weight, value in weights(tmp_path / name).items():
            torch.testing.assert_close(value, theirs[weight], atol=1e-4, rtol=0.0, msg=f"{name}: {weight}")
    lines = [json.loads(line) for line in (tmp_path / "split-mean/metrics.jsonl").read_text().splitlines()]
    assert all(line["bytes_sent"] > 0 for line in lines if "loss" in line)


def test_parts_of_a_batch_give_the_same_training(alone: tuple[Path, Found]) -> None:
    assert_equal(alone[1]["parts"], alone[1]["mean"])
    assert_equal(alone[1]["parts of maxima"], alone[1]["maximum"])


def test_training_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """Two processes begin, three go on, one ends; as if two had done it all. Two that are stopped: bit for bit."""
    settings = {
        name: case(optimizer=name, subwords=True, checkpoint_minutes=0.0, lr=0.02)
        for name in ("rowwise_adagrad", "lazy_adam")
    }

    def cases(kind: str, *, folder: str | None = None, stop_after: int | None = None) -> Cases:
        changes = {} if stop_after is None else {"stop_after": stop_after}
        return {f"{kind}-{name}": one | {"folder": f"{folder or kind}-{name}"} | changes
                for name, one in settings.items()}  # fmt: skip

    first = cases("whole") | cases("first", folder="moved", stop_after=5) | cases("again", stop_after=11)
    whole = run(tmp_path, first, num_processes=2)
    run(tmp_path, cases("second", folder="moved", stop_after=7), num_processes=3)
    again = run(tmp_path, cases("again"), num_processes=2)
    moved = run(tmp_path, cases("moved"), num_processes=1)
    for name in settings:
        expected, steps = whole[f"whole-{name}"], len(whole[f"whole-{name}"]["losses"])
        assert again[f"again-{name}"]["losses"] == expected["losses"][11:]
        assert again[f"again-{name}"]["loss"] == expected["loss"]
        assert len(moved[f"moved-{name}"]["losses"]) == steps - 5 - 7
        assert moved[f"moved-{name}"]["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        student = weights(tmp_path / f"whole-{name}")
        for weight, value in weights(tmp_path / f"again-{name}").items():
            assert torch.equal(value, student[weight]), weight
        for weight, value in weights(tmp_path / f"moved-{name}").items():
            torch.testing.assert_close(value, student[weight], atol=1e-4, rtol=0.0, msg=weight)
        folder = tmp_path / f"moved-{name}"
        lines = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert sorted(lines) == lines
        assert not list(folder.glob("split*"))


@pytest.mark.parametrize(("width", "num_processes"), [(1, 1), (7, 3), (100, 8), (3, 5)])
def test_columns_are_shared_out(width: int, num_processes: int) -> None:
    ranges = column_ranges(width, num_processes)
    assert [column for start, stop in ranges for column in range(start, stop)] == list(range(width))
    assert max(stop - start for start, stop in ranges) - min(stop - start for start, stop in ranges) <= 1


def test_how_a_table_is_held() -> None:
    assert table_mode(16, 2, by_column=True) == "split"
    assert table_mode(15, 2, by_column=True) == "replicated"
    assert table_mode(15, 2, by_column=True, wanted="split") == "split"
    assert table_mode(1000, 2, by_column=True, wanted="replicated") == "replicated"
    assert table_mode(64, 1, by_column=False) == "split"
    with pytest.raises(ValueError, match="attentive pooling trains on one"):
        table_mode(64, 2, by_column=False)
    with pytest.raises(ValueError, match="3 columns, too few to split"):
        table_mode(3, 4, by_column=True, wanted="split")


def test_one_process_sends_and_copies_nothing() -> None:
    exchange = Exchange(4, mode="split")
    ids, lengths, vectors = torch.arange(5), torch.tensor([2, 3]), torch.ones(2, 4)
    gathered = exchange.gather(ids, lengths)
    assert gathered.ids is ids
    assert gathered.lengths is lengths
    for method in (exchange.to_texts, exchange.to_columns):
        assert method(vectors, gathered.num_texts) is vectors
    assert exchange.add(vectors) is vectors
    assert exchange.gather_rows(vectors) is vectors
    assert exchange.take_traffic() == Traffic()
