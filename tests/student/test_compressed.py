"""Students with packed tables or a folded layer, against a slow oracle that unpacks byte by byte."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification
from tests.conftest import PAIR_SHAPES

ModelFactory = Callable[..., SparseNgramForSequenceClassification]
POOLINGS = ("mean", "sum", "max", "attentive")
BAGS = [[5, 6, 5], [], [7], [200, 20, 3, 328, 1], [0, 9, 0], [0]]


def batch_of(bags: list[list[int]], dtype: torch.dtype = torch.int32) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row for bag in bags for row in bag], dtype=dtype)
    return {"input_ids": ids, "lengths": torch.tensor([len(bag) for bag in bags], dtype=torch.int64)}


def fill_packed(model: SparseNgramForSequenceClassification) -> None:
    """Give a packed table random numbers, scales and offsets."""
    random = np.random.default_rng(0)
    width = model.config.embedding_size
    for index, block in enumerate(model.model.table.blocks):
        is_int8 = model.config.table_dtype == "int8"
        numbers = random.integers(0, 256, (block.shape[0], width if is_int8 else width // 2), dtype=np.uint8)
        tail = random.normal(0, 0.1, (block.shape[0], 2)).astype(np.float32 if is_int8 else np.float16)
        rows = np.concatenate([numbers, tail.view(np.uint8)], axis=1)
        if index == 0:
            rows[0] = 0
        block.data.copy_(torch.from_numpy(rows))


def unpacked(block: npt.NDArray[np.uint8], width: int, table_dtype: str) -> npt.NDArray[np.float64]:
    """Unpack rows one number at a time."""
    values = np.zeros((len(block), width))
    for row, stored in enumerate(block):
        if table_dtype == "int8":
            scale, offset = np.frombuffer(stored[width:].tobytes(), "<f4")
            numbers = [int(byte) for byte in stored[:width]]
        else:
            scale, offset = np.frombuffer(stored[width // 2 :].tobytes(), "<f2")
            numbers = [half for byte in stored[: width // 2].tolist() for half in (byte % 16, byte // 16)]
        values[row] = [number * float(scale) + float(offset) for number in numbers]
    return values


def float_twin(model: SparseNgramForSequenceClassification) -> SparseNgramForSequenceClassification:
    """Make a float32 model of the same values as a packed one; test_modeling.py checks such models."""
    settings = model.config.to_dict() | {"table_dtype": "float32"}
    twin = SparseNgramForSequenceClassification(SparseNgramConfig.from_dict(settings)).eval()
    twin.load_state_dict({name: values for name, values in model.state_dict().items() if "blocks" not in name}, False)
    for packed, block in zip(model.model.table.blocks, twin.model.table.blocks, strict=True):
        values = unpacked(packed.numpy(), model.config.embedding_size, model.config.table_dtype)
        block.data.copy_(torch.from_numpy(values))
    return twin


@pytest.fixture(params=["int8", "int4"])
def table_dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("block_rows", [1000, 110])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "unpacking"])
def test_packed_tables_give_what_the_oracle_gives(
    make_model: ModelFactory,
    monkeypatch: pytest.MonkeyPatch,
    table_dtype: str,
    pooling: str,
    block_rows: int,
    kernels: bool,
) -> None:
    model = make_model(pooling=pooling, block_rows=block_rows, table_dtype=table_dtype, embedding_size=10)
    fill_packed(model)
    expected = {len(bags): float_twin(model)(**batch_of(bags)).logits for bags in (BAGS, [[]], [])}
    if not kernels:  # the path of other devices
        monkeypatch.setattr("hf_sparse.student.table_sparse_ngram.has_sum_kernel", lambda ids: False)
    for bags in (BAGS, [[]], []):
        for ids_dtype in (torch.int32, torch.int64):
            logits = model(**batch_of(bags, ids_dtype)).logits
            torch.testing.assert_close(logits, expected[len(bags)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_packed_rows_of_aligned_pairs(make_model: ModelFactory, table_dtype: str, pooling: str) -> None:
    shape = PAIR_SHAPES["aligned"] | {"pooling": pooling, "embedding_size": 10}
    model = make_model(**shape, table_dtype=table_dtype)
    fill_packed(model)
    found, expected = (each(**batch_of(BAGS)).logits for each in (model, float_twin(model)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_pooled_vectors_are_sums_text_by_text(make_model: ModelFactory, table_dtype: str, pooling: str) -> None:
    model = make_model(pooling=pooling, table_dtype=table_dtype)
    fill_packed(model)
    rows = unpacked(model.model.table.blocks[0].numpy(), 8, table_dtype)
    for pooled, bag in zip(model.pool(**batch_of(BAGS)), BAGS, strict=True):
        total = np.zeros(8)
        for row in filter(None, bag):
            total += rows[row]
        count = max(1, sum(row > 0 for row in bag)) if pooling == "mean" else 1
        np.testing.assert_allclose(pooled.numpy(), total / count, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device_name", ["cuda", "mps"])
def test_other_devices_agree(make_model: ModelFactory, table_dtype: str, device_name: str) -> None:
    if not getattr(torch, device_name).is_available():
        pytest.skip(f"no {device_name} device on this machine")
    for pooling in POOLINGS:
        for block_rows in (1000, 110):
            model = make_model(pooling=pooling, table_dtype=table_dtype, block_rows=block_rows)
            fill_packed(model)
            expected = model(**batch_of(BAGS)).logits
            batch = {name: values.to(device_name) for name, values in batch_of(BAGS).items()}
            logits = model.to(device_name)(**batch).logits.cpu()
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [None, "auto", torch.float16, torch.bfloat16, torch.float32])
def test_packed_tables_survive_saving_and_loading_as_any_type(
    make_model: ModelFactory, tmp_path: Path, table_dtype: str, dtype: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model(table_dtype=table_dtype, block_rows=110, folded="hidden", hidden_sizes=[6])
    fill_packed(model)
    model.save_pretrained(tmp_path, max_shard_size="1KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    options = {} if dtype is None else {"dtype": dtype}
    transformers_logger = logging.getLogger("transformers")
    transformers_logger.propagate = True
    with caplog.at_level(logging.WARNING):
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, **options)
    transformers_logger.propagate = False
    assert not [record for record in caplog.records if record.name.startswith("transformers")]
    for name, values in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], values), name
    assert not any(block.requires_grad for block in loaded.model.table.blocks)
    assert torch.equal(loaded(**batch_of(BAGS)).logits, model(**batch_of(BAGS)).logits)
    bare = AutoModel.from_pretrained(tmp_path, **options)
    assert torch.equal(bare(**batch_of(BAGS)).pooler_output, model.model(**batch_of(BAGS)).pooler_output)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float", "double"])
def test_casts_leave_packed_rows_as_they_are(make_model: ModelFactory, table_dtype: str, cast: str) -> None:
    for settings in ({"folded": "hidden"}, {"folded": "classifier", "hidden_sizes": [], "num_labels": 8}, {}):
        model = make_model(table_dtype=table_dtype, **settings)
        fill_packed(model)
        expected = model(**batch_of(BAGS)).logits
        before = model.model.table.blocks[0].clone()
        getattr(model, cast)()
        assert torch.equal(model.model.table.blocks[0], before)
        torch.testing.assert_close(model(**batch_of(BAGS)).logits.float(), expected, rtol=0.05, atol=0.2)


def test_training_mode_trains_the_dense_layers_alone(make_model: ModelFactory, table_dtype: str) -> None:
    model = make_model(table_dtype=table_dtype).train()
    fill_packed(model)
    before = model.model.table.blocks[0].clone()
    optimiser = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    model(**batch_of(BAGS), labels=torch.zeros(len(BAGS), dtype=torch.int64)).loss.backward()
    optimiser.step()
    assert torch.equal(model.model.table.blocks[0], before)
    assert model.classifier.weight.grad is not None


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("folded", ["hidden", "classifier"])
def test_a_folded_layer_is_its_bias_and_activation(make_model: ModelFactory, pooling: str, folded: str) -> None:
    settings: dict[str, Any] = {"hidden_sizes": [5]} if folded == "hidden" else {"hidden_sizes": [], "num_labels": 8}
    model = make_model(pooling=pooling, folded=folded, activation="tanh", **settings)
    bias = torch.linspace(-1, 1, 8)
    model.model.pooled_bias.data.copy_(bias)
    logits = model(**batch_of(BAGS)).logits
    expected = model.pool(**batch_of(BAGS)) + bias
    if folded == "hidden":
        layer = model.model.hidden_layers[0]
        hidden = torch.tanh(torch.tanh(expected) @ layer.weight.T + layer.bias)
        expected = hidden @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(logits, expected)
    names = set(model.state_dict())
    assert ("classifier.weight" in names) == (folded == "hidden")


def test_a_cast_table_is_saved_under_its_name_and_comes_back(make_model: ModelFactory, tmp_path: Path) -> None:
    for name in ("float16", "bfloat16"):
        model = make_model(folded="hidden", hidden_sizes=[])
        model.model.table.to(getattr(torch, name))
        model.save_pretrained(tmp_path / name)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
        assert (loaded.config.table_dtype, loaded.model.table.dtype) == (name, getattr(torch, name))
        for tensor, values in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[tensor], values), tensor
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32, getattr(torch, name)}
        assert torch.equal(loaded(**batch_of(BAGS)).logits, model(**batch_of(BAGS)).logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table_dtype": "int2"}, "table_dtype is 'int2', but must be one of"),
        ({"table_dtype": "int4", "embedding_size": 7}, "int4 rows hold two columns a byte"),
        ({"folded": True}, "folded is True, but must be 'hidden'"),
        ({"folded": "hidden", "pooling": "max"}, "under max pooling"),
        ({"folded": "hidden", "sentence_pairs": True}, "under pairs of texts"),
        ({"folded": "classifier", "hidden_sizes": [4]}, "no layers follow"),
        ({"folded": "classifier", "hidden_sizes": [], "embedding_size": 8}, "for each of the 2 labels"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        SparseNgramConfig(**settings)
    assert "\n" not in str(error.value)
