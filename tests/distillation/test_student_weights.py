"""Students made, saved and loaded block by block or by columns: the same weights every way."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from hf_sparse.distillation.exchange import Exchange, column_ranges
from hf_sparse.distillation.student_weights import (
    create_student,
    default_block_rows,
    initial_block,
    load_student,
    new_student,
    save_student,
)
from hf_sparse.student import SparseNgramConfig

# Rows of more than one seed, several blocks, a last one that is short.
CONFIG = {"vocab_size": 10_001, "embedding_size": 10, "block_rows": 4_500, "hidden_sizes": [7], "num_labels": 3}


@pytest.fixture
def config() -> SparseNgramConfig:
    return SparseNgramConfig(**CONFIG)


def test_initial_values(config: SparseNgramConfig) -> None:
    model = new_student(config, seed=3)
    blocks = model.model.table.blocks
    assert [len(block) for block in blocks] == [4_500, 4_500, 1_001]
    table = torch.cat(list(blocks)).detach()
    assert not table[0].any()
    assert float(table[1:].std()) == pytest.approx(config.initializer_range, rel=0.02)
    assert float(table.mean()) == pytest.approx(0.0, abs=1e-3)
    assert len(table[1:].unique(dim=0)) == 10_000
    assert float(model.classifier.weight.detach().abs().max()) <= 7**-0.5
    again = new_student(config, seed=3).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert not torch.equal(new_student(config, seed=4).model.table.blocks[2], blocks[2])


@pytest.mark.parametrize("num_processes", [2, 3])
def test_columns_are_those_of_the_whole(config: SparseNgramConfig, tmp_path: Path, num_processes: int) -> None:
    whole = new_student(config, seed=0)
    whole.save_pretrained(tmp_path, max_shard_size="200KB")
    for columns in column_ranges(10, num_processes):
        for part in (new_student(config, seed=0, columns=columns), load_student(tmp_path, columns=columns)):
            for name, value in part.state_dict().items():
                expected = whole.state_dict()[name]
                assert torch.equal(value, expected[:, slice(*columns)] if ".blocks." in name else expected)


def test_files_without_a_model_in_memory(config: SparseNgramConfig, tmp_path: Path) -> None:
    """Blocks that go straight into files make the student that fits into memory."""
    create_student(config, tmp_path / "student", seed=5)
    names = sorted(path.name for path in (tmp_path / "student").glob("model*.safetensors"))
    assert names == [f"model-0000{number}-of-00004.safetensors" for number in (1, 2, 3, 4)]
    index = json.loads((tmp_path / "student/model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_parameters": 100_010 + 77 + 24, "total_size": 4 * (100_010 + 77 + 24)}
    expected = new_student(config, seed=5).state_dict()
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", trust_remote_code=True)
    assert found.state_dict().keys() == expected.keys()
    for name, value in found.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_saved_by_one_process_loads_as_ever(config: SparseNgramConfig, tmp_path: Path) -> None:
    model = new_student(config, seed=1)
    save_student(model, tmp_path, weights={}, exchange=Exchange(10, mode="split"))
    for name, value in load_student(tmp_path).state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_size_of_blocks() -> None:
    assert default_block_rows(64) == default_block_rows(128) == 1 << 20
    assert default_block_rows(1000) == 1 << 17
    assert default_block_rows(1 << 40) == 1
    config = SparseNgramConfig(vocab_size=30, embedding_size=3, block_rows=8)
    block = initial_block(config, 3, seed=0, columns=(1, 3))
    assert block.shape == (6, 2)
