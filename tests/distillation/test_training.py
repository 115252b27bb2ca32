"""The training step against plain autograd, and a training that is interrupted against one that is not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from hf_sparse.distillation import training as training_module
from hf_sparse.distillation.batches import StudentBatch
from hf_sparse.distillation.stream import TextStream
from hf_sparse.distillation.student_step import StudentStep
from hf_sparse.distillation.training import BEST, StudentTrainer
from hf_sparse.student import SparseNgramForSequenceClassification
from tests.conftest import PAIR_SHAPES
from tests.distillation.letters import ROWS, make_model, make_spellings, make_streams, make_trainer


def make_batch(seed: int, num_texts: int = 4) -> StudentBatch:
    """Return four texts, or pairs of them, that share some n-grams."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([4, 1, 9, 0])
    return StudentBatch(
        ids=torch.randint(1, ROWS // 4, (14,), generator=generator, dtype=torch.int32),
        lengths=lengths,
        logits=torch.randn(num_texts, 3, generator=generator),
        labels=None,
        num_in_batch=num_texts,
    )


class _Shared:
    """What rows share by their spellings, as dense tensors that autograd sees; plain row-wise Adagrad."""

    def __init__(self, model: SparseNgramForSequenceClassification) -> None:
        spellings = make_spellings()
        self._table = model.model.table
        self._matrix = torch.zeros(ROWS, spellings.num_parts)
        for index, row in enumerate(spellings.rows.tolist()):
            self._matrix[row, spellings.parts[3 * index : 3 * index + 3]] = 3**-0.5
        self._parts = torch.zeros(spellings.num_parts, model.config.embedding_size, requires_grad=True)
        self._square_sum = torch.zeros(spellings.num_parts)

    def of_blocks(self) -> tuple[torch.Tensor, ...]:
        """Return what is added to each block."""
        return (self._matrix @ self._parts).split([len(block) for block in self._table.blocks])

    @contextmanager
    def added(self) -> Iterator[None]:
        """Put sums in the place of the blocks; gradients of both parts arrive."""
        blocks = self._table.blocks
        sums = [block + values for block, values in zip(blocks, self.of_blocks(), strict=True)]
        self._table.blocks = None
        self._table.__dict__["blocks"] = sums
        try:
            yield
        finally:
            del self._table.__dict__["blocks"]
            self._table.blocks = blocks

    @torch.no_grad()
    def step(self) -> None:
        if self._parts.grad is not None:
            self._square_sum += self._parts.grad.square().mean(1)
            self._parts -= 0.1 * self._parts.grad / (self._square_sum.sqrt() + 1e-8)[:, None]
            self._parts.grad = None


SHAPES = [{}, {"block_rows": 17}, *PAIR_SHAPES.values()]


@pytest.mark.parametrize("subwords", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pooling", ["mean", "sum", "max", "max as on a GPU", "attentive"])
def test_steps_equal_plain_autograd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str, shape: dict[str, Any], subwords: bool
) -> None:
    if pooling == "max as on a GPU":
        pooling = "max"
        monkeypatch.setattr(StudentStep, "_has_kernel", False)
    model, oracle = (make_model(pooling=pooling, **shape) for _ in range(2))
    trainer = make_trainer(tmp_path / "run", model, lr=0.1, head_lr=0.01, subwords=subwords)
    table = oracle.model.table.blocks
    shared = _Shared(oracle) if subwords else None
    head = torch.optim.AdamW(
        [p for n, p in oracle.named_parameters() if "blocks" not in n], lr=0.01, weight_decay=0.01
    )
    square_sums = [torch.zeros(len(block)) for block in table]
    for seed in range(4):
        batch = make_batch(seed, num_texts=2 if "sentence_pairs" in shape else 4)
        bags = oracle.model.split_bags(batch.ids, batch.lengths)
        trainer._step.take([replace(batch, **bags._asdict())], lr_scale=1.0)
        oracle.zero_grad()
        assert batch.logits is not None
        with nullcontext() if shared is None else shared.added():
            logits = oracle.classify(oracle.pool(batch.ids, batch.lengths))
        F.kl_div(logits.log_softmax(-1), batch.logits.softmax(-1), reduction="batchmean").backward()
        head.step()
        with torch.no_grad():
            for block, square_sum in zip(table, square_sums, strict=True):
                if block.grad is not None:
                    square_sum += block.grad.square().mean(1)
                    block -= 0.1 * block.grad / (square_sum.sqrt() + 1e-8)[:, None]
        if shared is not None:
            shared.step()
    if shared is not None:
        with torch.no_grad():
            for block, values in zip(table, shared.of_blocks(), strict=True):
                block += values
        with trainer._step.folded():
            weights = {name: value.clone() for name, value in model.named_parameters()}
        own = list(trainer.model.named_parameters())
        assert any(not torch.equal(weights[name], value) for name, value in own)
    else:
        weights = dict(model.named_parameters())
    for (name, found), expected in zip(weights.items(), oracle.parameters(), strict=True):
        torch.testing.assert_close(found.detach(), expected.detach(), atol=2e-5, rtol=1e-4, msg=name)


@pytest.fixture
def streams(tmp_path: Path) -> tuple[TextStream, TextStream]:
    """Texts to train on and to validate by."""
    return make_streams(tmp_path)


def test_training_learns_and_keeps_the_best(tmp_path: Path, streams: tuple[TextStream, TextStream]) -> None:
    trainer = make_trainer(tmp_path / "run", make_model(), epochs=15, ngram_dropout=0.1, lr=0.2, head_lr=0.02)
    best = trainer.fit(*streams)
    assert best.primary == 1.0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert min(losses) == pytest.approx(best.loss)
    assert losses[0] > 5 * best.loss
    assert trainer.evaluate(trainer.held_out(streams[1])).loss == pytest.approx(best.loss)


def metrics(folder: Path) -> list[dict[str, float]]:
    """Return the lines of `metrics.jsonl` without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    times = ("time", "seconds", "seconds_waited")
    return [{name: value for name, value in line.items() if name not in times} for line in lines]


def test_trackers_count_on_from_earlier_trainings(
    tmp_path: Path, streams: tuple[TextStream, TextStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[int, str]] = []
    monkeypatch.setattr(Accelerator, "log", lambda self, values, step: logged.extend((step, name) for name in values))
    for name, before in (("first", 0), ("second.partial", 24)):
        make_trainer(tmp_path / name, make_model(), steps_before=before).fit(*streams)
    assert {name.partition("/")[0] for _, name in logged} == {"first", "second"}
    steps = [step for step, _ in logged]
    assert steps == sorted(steps)
    assert (24, "first/loss") in logged
    assert (48, "second/loss") in logged
    assert [line["step"] for line in metrics(tmp_path / "second.partial")][-1] == 24


@pytest.mark.parametrize("subwords", [False, True])
@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "lazy_adam"])
def test_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path,
    streams: tuple[TextStream, TextStream],
    monkeypatch: pytest.MonkeyPatch,
    optimizer: str,
    subwords: bool,
) -> None:
    settings: dict[str, Any] = {"optimizer": optimizer, "ngram_dropout": 0.2, "checkpoint_minutes": 0.0}
    settings |= {"subwords": subwords, "averages": subwords}
    monkeypatch.setattr(training_module, "_LOG_EVERY", 7)
    whole = make_model(hidden_dropout=0.3)
    torch.manual_seed(5)
    expected = make_trainer(tmp_path / "whole", whole, **settings).fit(*streams)

    class KilledError(Exception):
        pass

    steps = 0
    take = StudentStep.take

    def take_or_die(self: StudentStep, parts: list[StudentBatch], *, lr_scale: float) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps in (5, 14):
            raise KilledError
        return take(self, parts, lr_scale=lr_scale)

    monkeypatch.setattr(StudentStep, "take", take_or_die)
    model = make_model(hidden_dropout=0.3)
    for attempt in range(3):
        torch.manual_seed(5 if attempt == 0 else 1000 + attempt)
        model = make_model(hidden_dropout=0.3)
        if attempt == 0:
            torch.manual_seed(5)
        try:
            found = make_trainer(tmp_path / "killed", model, **settings).fit(*streams)
        except KilledError:
            continue
    assert steps == 3 * streams[0].batches_per_epoch + 2
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert found == expected
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_best_weights_on_disk_are_the_last_and_those_of_the_checkpoint(
    tmp_path: Path, streams: tuple[TextStream, TextStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the only checkpoint after the fourth batch, from which a killed training goes on."""
    settings: dict[str, Any] = {"evals_per_epoch": 8, "lr": 0.01}
    trained, resumed = make_model(), make_model()
    expected = make_trainer(tmp_path / "whole", trained, **settings).fit(*streams)
    steps: list[int] = []
    kept: list[list[int]] = []

    def is_agreed(trainer: StudentTrainer, wish: bool) -> bool:
        steps.append(len(steps) + 1)
        kept.append(sorted(int(path.name[5:]) for path in (tmp_path / "killed" / BEST).glob("step-*")))
        if len(steps) == 20:
            raise KeyboardInterrupt
        return steps[-1] == 4

    monkeypatch.setattr(StudentTrainer, "_is_agreed", is_agreed)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "killed", make_model(), **settings).fit(*streams)
    assert kept == [[step] for step in range(1, 5)] + [[4, step] for step in range(5, 21)]
    assert make_trainer(tmp_path / "killed", resumed, **settings).fit(*streams) == expected
    for one, other in zip(resumed.parameters(), trained.parameters(), strict=True):
        assert torch.equal(one, other)


def test_torn_line_of_metrics_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"time": 17', encoding="utf-8")
    training_module._truncate_metrics(path, 2)
    assert path.read_text(encoding="utf-8") == '{"step": 1}\n{"step": 2}\n'
    path.write_text('{"step": 1}\n{"step": 2}\n{"ti', encoding="utf-8")
    training_module._truncate_metrics(path, 9)
    assert path.read_text(encoding="utf-8") == '{"step": 1}\n{"step": 2}\n'


def test_average_of_first_and_trained_weights_is_the_best_on_validation_texts(
    tmp_path: Path, streams: tuple[TextStream, TextStream]
) -> None:
    """A training that goes too far, from weights that are good already, is taken back in part."""
    first = make_model()
    make_trainer(tmp_path / "first", first, epochs=10, lr=0.2, head_lr=0.02).fit(*streams)
    shares = set()
    for name, lr in (("further", 0.05), ("too-far", 3.0)):
        trained, averaged = make_model(), make_model()
        for model in (trained, averaged):
            model.load_state_dict(first.state_dict())
        settings: dict[str, Any] = {"epochs": 1, "evals_per_epoch": 1, "gold_weight": 1.0, "lr": lr}
        make_trainer(tmp_path / f"{name}-trained", trained, **settings).fit(*streams)
        best = make_trainer(tmp_path / name, averaged, averages=True, **settings).fit(*streams)
        found = {}
        for share in (0.25, 0.5, 0.75, 1.0):
            oracle = make_model()
            weights = zip(first.state_dict().items(), trained.state_dict().values(), strict=True)
            oracle.load_state_dict({key: (1 - share) * one + share * other for (key, one), other in weights})
            judge = make_trainer(tmp_path / f"{name}-{share}", oracle, **settings)
            found[share] = judge.evaluate(judge.held_out(streams[1]))
            if share == best.share:
                for weight, expected in zip(averaged.parameters(), oracle.parameters(), strict=True):
                    torch.testing.assert_close(weight.detach(), expected.detach())
        assert best.share == max(found, key=lambda share: found[share].rank(by_loss=False))
        assert best.loss == pytest.approx(found[best.share].loss, rel=1e-4)
        shares.add(best.share)
    assert len(shares) == 2


def test_loss_that_is_not_finite_stops_with_the_way_out(
    tmp_path: Path, streams: tuple[TextStream, TextStream]
) -> None:
    trainer = make_trainer(tmp_path / "run", make_model(), lr=1e30, head_lr=1e30)
    with pytest.raises(ValueError, match=r"lower run\.lr or run\.head_lr"):
        trainer.fit(*streams)
