"""Batches: every text once an epoch, in an order that a restart finds again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_sparse.distillation import stream as stream_module
from hf_sparse.distillation.batches import prefetch
from hf_sparse.distillation.stream import TextShard, TextStream, first_texts


@pytest.fixture
def shards(tmp_path: Path) -> list[TextShard]:
    """Three shards in row groups of 4; the last one has no labels."""
    found: list[int] = []
    first = 0
    for number, rows in enumerate((10, 9, 13)):
        numbers = list(range(first, first + rows))
        first += rows
        columns = {"text": [f"text {index}" for index in numbers]}
        if number < 2:
            columns["label"] = [index % 3 for index in numbers]  # type: ignore[misc]
        texts, logits = tmp_path / f"texts-{number}.parquet", tmp_path / f"logits-{number}.parquet"
        pq.write_table(pa.table(columns), texts, row_group_size=4)
        values = pa.array([[float(index), -float(index)] for index in numbers], pa.list_(pa.float32()))
        pq.write_table(pa.table({"logits": values}), logits, row_group_size=4)
        found.append(TextShard(texts=texts, logits=logits))
    return found


def read(stream: TextStream, first: int, stop: int) -> list[tuple[list[int], int]]:
    return [(batch.numbers.tolist(), batch.epoch) for batch in stream.batches(first=first, stop=stop)]


@pytest.mark.parametrize("window", [1, 2, 5, 96])
@pytest.mark.parametrize("batch_size", [1, 5, 32, 100])
@pytest.mark.parametrize("seed", [None, 3])
def test_every_text_once_an_epoch(
    shards: list[TextShard], monkeypatch: pytest.MonkeyPatch, window: int, batch_size: int, seed: int | None
) -> None:
    monkeypatch.setattr(stream_module, "WINDOW_GROUPS", window)
    stream = TextStream(shards, batch_size=batch_size, seed=seed)
    batches = read(stream, 0, 2 * stream.batches_per_epoch)
    assert {len(numbers) for numbers, _ in batches} <= {batch_size, 32 % batch_size, 32}
    for epoch in range(2):
        assert sorted(sum((numbers for numbers, found in batches if found == epoch), [])) == list(range(32))  # noqa: RUF017


@pytest.mark.parametrize("window", [1, 2, 5, 96])
def test_a_restart_finds_the_rest(shards: list[TextShard], monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(stream_module, "WINDOW_GROUPS", window)
    stream = TextStream(shards, batch_size=5, seed=1)
    stop = 3 * stream.batches_per_epoch
    whole = read(stream, 0, stop)
    for first in range(stop):
        assert read(stream, first, stop) == whole[first:]


def test_seed_and_epoch_change_the_order(shards: list[TextShard]) -> None:
    orders = {
        tuple(read(TextStream(shards, batch_size=32, seed=seed), epoch, epoch + 1)[0][0])
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_rows_keep_their_logits_and_labels(shards: list[TextShard]) -> None:
    for batch in TextStream(shards, batch_size=7, seed=2).batches(first=0, stop=5):
        assert batch.texts == [f"text {number}" for number in batch.numbers]
        assert batch.logits is not None
        assert np.array_equal(batch.logits, np.stack([batch.numbers, -batch.numbers], axis=1).astype(np.float32))
        if batch.labels is not None:
            expected = [None if number >= 19 else number % 3 for number in batch.numbers.tolist()]
            assert batch.labels == expected


def test_without_a_seed_the_order_is_that_of_the_files(shards: list[TextShard]) -> None:
    batches = read(TextStream(shards, batch_size=10, seed=None), 0, 4)
    assert sum((numbers for numbers, _ in batches), []) == list(range(32))  # noqa: RUF017


@pytest.mark.parametrize("num_texts", [1, 4, 10, 11, 19, 31, 32, 50])
def test_first_texts(shards: list[TextShard], num_texts: int) -> None:
    stream = TextStream(first_texts(shards, num_texts), batch_size=5, seed=None)
    assert stream.num_texts == min(num_texts, 32)
    batches = list(stream.batches(first=0, stop=stream.batches_per_epoch))
    numbers = list(range(min(num_texts, 32)))
    assert [number for batch in batches for number in batch.numbers.tolist()] == numbers
    assert [text for batch in batches for text in batch.texts] == [f"text {number}" for number in numbers]
    logits = [row[0] for batch in batches if batch.logits is not None for row in batch.logits.tolist()]
    assert logits == numbers
    assert first_texts(shards, None) == shards


def test_prefetch_keeps_order_and_raises_errors() -> None:
    def numbers() -> Iterator[int]:
        yield from range(20)
        raise RuntimeError("worn out")

    found: list[int] = []
    with pytest.raises(RuntimeError, match="worn out"):
        found.extend(prefetch(numbers(), depth=2))
    assert found == list(range(20))


def test_prefetch_can_be_left_early() -> None:
    items = prefetch(iter(range(1_000_000)), depth=2)
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
