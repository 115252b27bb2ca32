"""The teacher's vectors as a second target: read, kept, met."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from hf_sparse.distillation import texts as texts_module
from hf_sparse.distillation.hidden_states import (
    HiddenMap,
    HiddenReader,
    has_hidden,
    hidden_column,
    hidden_matrix,
    size_and_variance,
)
from hf_sparse.distillation.labelling import label_texts, read_logits
from tests.distillation.test_teacher import make_loaded
from tests.tiny_task import make_rows


def vectors_of(encoder: Any, text: str) -> np.ndarray:
    """Return the teacher's pooled vector of one text, from its own output."""
    single = encoder.tokenizer([text], truncation=True, max_length=32, return_tensors="pt")
    with torch.inference_mode():
        found: np.ndarray = encoder.model.base_model(**single).pooler_output[0].numpy()
    return found


def test_vectors_stand_behind_the_logits(teacher_folder: Path) -> None:
    texts = [row["text"] for row in make_rows(20, seed=5)]
    encoder = make_loaded(teacher_folder)
    logits = encoder.logits(texts)
    expected = np.stack([vectors_of(encoder, text) for text in texts])
    whole = encoder.answers(texts, hidden_size=1000)
    np.testing.assert_array_equal(whole[:, :3], logits)
    np.testing.assert_allclose(whole[:, 3:], expected, atol=1e-5)
    projected = encoder.answers(texts, hidden_size=5)[:, 3:]
    assert projected.shape == (20, 5)
    matrix = np.linalg.lstsq(expected, projected, rcond=None)[0]
    np.testing.assert_allclose(expected @ matrix, projected, atol=1e-3)  # linear
    np.testing.assert_array_equal(projected, make_loaded(teacher_folder).answers(texts, hidden_size=5)[:, 3:])


def test_projections_leave_distances_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(400, 2))
    model.config = type("Config", (), {"num_labels": 2})()  # type: ignore[assignment]
    vectors = torch.randn(30, 400, generator=torch.Generator().manual_seed(0))
    reader = HiddenReader(model, 256)  # type: ignore[arg-type]
    with reader.reading():
        model(vectors)
    projected = reader.take(30)
    assert projected is not None
    torch.testing.assert_close(torch.cdist(projected, projected), torch.cdist(vectors, vectors), rtol=0.25, atol=0.1)


@pytest.mark.parametrize("shape", [(4, 7, 6), (3, 6)])
def test_a_layer_that_reads_something_else_than_texts_has_no_vectors(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(6, 2))
    model.config = type("Config", (), {"num_labels": 2})()  # type: ignore[assignment]
    reader = HiddenReader(model, 6)  # type: ignore[arg-type]
    with reader.reading():
        model(torch.zeros(shape))
    assert reader.take(4) is None
    model.config.num_labels = 3  # no such layer
    without = HiddenReader(model, 6)  # type: ignore[arg-type]
    with without.reading():
        model(torch.zeros(4, 6))
    assert without.take(4) is None


def test_columns_hold_half_precision(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    vectors[3, 2] = 1e9
    path = tmp_path / "answers.parquet"
    pq.write_table(pa.table({"hidden": hidden_column(vectors)}), path, row_group_size=4)
    column = pq.read_table(path)["hidden"]
    expected = np.clip(vectors, -65504, 65504).astype(np.float16)
    np.testing.assert_array_equal(hidden_matrix(column), expected)
    np.testing.assert_array_equal(hidden_matrix(column.slice(3, 5)), expected[3:8])
    np.testing.assert_array_equal(hidden_matrix(column.take(pa.array([8, 0, 4]))), expected[[8, 0, 4]])
    assert hidden_matrix(column.slice(9)).shape == (0, 4)
    assert size_and_variance(path) == (4, pytest.approx(expected.astype(np.float64).var(axis=0).mean()))


def test_loss_does_not_depend_on_the_scale_of_the_vectors() -> None:
    encoded, hidden = torch.randn(8, 5), torch.randn(8, 3)
    first, second = (HiddenMap(5, 3, weight=2.0, variance=variance, seed=1) for variance in (1.0, 100.0))
    with torch.no_grad():
        second.weight *= 10
    assert float(second.loss(encoded, 10 * hidden)) == pytest.approx(float(first.loss(encoded, hidden)), rel=1e-5)
    expected = 2.0 * ((encoded @ first.weight.T + first.bias - hidden) ** 2).mean()
    assert float(first.loss(encoded, hidden)) == pytest.approx(float(expected))


def test_labels_keep_vectors(teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "GROUP_ROWS", 4)
    encoder = make_loaded(teacher_folder)
    texts = [row["text"] for row in make_rows(10, seed=5)]
    for folder in ("texts", "label", "plain"):
        (tmp_path / folder).mkdir()
    pq.write_table(pa.table({"text": texts}), tmp_path / "texts" / "train-00000.parquet")
    settings: dict[str, Any] = {"num_labels": 3, "progress": False}
    label_texts(encoder, tmp_path / "texts", tmp_path / "label", hidden_size=6, **settings)
    label_texts(encoder, tmp_path / "texts", tmp_path / "plain", **settings)
    path = tmp_path / "label" / "train-00000.parquet"
    answers = encoder.answers(texts, hidden_size=6)
    np.testing.assert_array_equal(hidden_matrix(pq.read_table(path)["hidden"]), answers[:, 3:].astype(np.float16))
    np.testing.assert_array_equal(read_logits(tmp_path / "label", "train"), answers[:, :3])
    assert has_hidden(path)
    assert not has_hidden(tmp_path / "plain" / path.name)
