"""Logits in files: whole, or the largest ones and the weight of the rest."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse.distillation.logits import logits_column, logits_matrix
from hf_sparse.distillation.stream import TextShard, TextStream


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@settings(max_examples=100, deadline=None)
@given(
    num_texts=st.integers(1, 5),
    num_labels=st.integers(1, 40),
    top_k=st.integers(1, 6) | st.none(),
    scale=st.sampled_from([0.0, 1.0, 50.0]),
    seed=st.integers(0, 9),
)
def test_back_from_a_column(num_texts: int, num_labels: int, top_k: int | None, scale: float, seed: int) -> None:
    """The largest are as they were; so is the probability of each, and what is left is shared evenly."""
    logits = np.random.default_rng(seed).normal(0, scale, (num_texts, num_labels)).astype(np.float32)
    found = logits_matrix(pa.chunked_array([logits_column(logits, top_k)]))
    if top_k is None or num_labels <= 2 * top_k:
        np.testing.assert_array_equal(found, logits)
        return
    for ours, theirs, expected in zip(found, logits, softmax(logits), strict=True):
        kept = np.sort(theirs)[-top_k:]
        largest = np.flatnonzero(theirs >= kept[0])
        if len(largest) > top_k:  # a tie at the cut
            continue
        np.testing.assert_array_equal(ours[largest], theirs[largest])
        np.testing.assert_allclose(softmax(ours[None])[0][largest], expected[largest], atol=1e-5)
        others = np.delete(ours, largest)
        assert np.ptp(others) == 0


@pytest.mark.parametrize("top_k", [None, 3])
def test_a_file_is_smaller_and_streams(tmp_path: Path, top_k: int | None) -> None:
    logits = np.random.default_rng(0).normal(0, 5, (300, 1000)).astype(np.float32)
    pq.write_table(pa.table({"text": [str(index) for index in range(300)]}), tmp_path / "texts.parquet")
    pq.write_table(pa.table({"logits": logits_column(logits, top_k)}), tmp_path / "logits.parquet")
    shard = TextShard(texts=tmp_path / "texts.parquet", logits=tmp_path / "logits.parquet")
    stream = TextStream([shard], batch_size=64, seed=0)
    rows = 0
    for batch in stream.batches(first=0, stop=stream.batches_per_epoch):
        assert batch.logits is not None
        assert batch.logits.shape == (len(batch.texts), 1000)
        expected = logits[[int(text) for text in batch.texts]]
        np.testing.assert_array_equal(batch.logits.argmax(axis=1), expected.argmax(axis=1))
        rows += len(batch.texts)
    assert rows == 300
    if top_k is not None:
        assert (tmp_path / "logits.parquet").stat().st_size < logits.nbytes / 20
