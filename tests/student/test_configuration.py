"""The configuration: its defaults, its checks, its way through a file."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from hf_sparse.student import SparseNgramConfig


def test_hidden_sizes_default_to_the_width_of_the_table() -> None:
    assert SparseNgramConfig(embedding_size=64).hidden_sizes == [64]
    assert SparseNgramConfig(hidden_sizes=[]).hidden_sizes == []


def test_older_code_refuses_students_that_align() -> None:
    assert SparseNgramConfig().format_version == 1
    assert SparseNgramConfig(sentence_pairs=True, pair_bags="overlap", alignment_size=8).format_version == 2


def test_blocks_cover_the_rows_in_order() -> None:
    assert SparseNgramConfig(vocab_size=10, block_rows=4).block_sizes == [4, 4, 2]
    assert SparseNgramConfig(vocab_size=8, block_rows=4).block_sizes == [4, 4]
    assert SparseNgramConfig(vocab_size=3, block_rows=4).block_sizes == [3]


def test_a_saved_config_comes_back_equal(tmp_path: Path) -> None:
    config = SparseNgramConfig(
        vocab_size=11,
        pooling="max",
        hidden_sizes=[5, 3],
        sentence_pairs=True,
        id2label={0: "no", 1: "yes", 2: "maybe"},
        label2id={"no": 0, "yes": 1, "maybe": 2},
        problem_type="multi_label_classification",
        calibration_temperature=1.5,
        label_thresholds=[0.5, 0.25, 1],
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, SparseNgramConfig)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.num_labels == 3
    assert loaded.calibration_temperature == 1.5
    assert loaded.label_thresholds == [0.5, 0.25, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"embedding_size": -1}, "embedding_size is -1"),
        ({"block_rows": 2.5}, "block_rows is 2.5"),
        ({"hidden_sizes": [8, 0]}, r"hidden_sizes is \[8, 0\]"),
        ({"pooling": "median"}, "pooling is 'median', but must be one of"),
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"ngram_dropout": 1.0}, "ngram_dropout is 1.0"),
        ({"hidden_dropout": -0.1}, "hidden_dropout is -0.1"),
        ({"initializer_range": -1.0}, "initializer_range is -1.0"),
        (
            {"alignment_size": 8, "embedding_size": 8},
            "alignment_size is 8, but must be a whole number from 0 to below",
        ),
        ({"alignment_size": 2}, "alignment_size is 2, but words are aligned of sentence pairs"),
        ({"alignment_size": 2, "sentence_pairs": True}, "pair_bags to 'overlap', or alignment_size to 0"),
        ({"pad_token_id": 1}, "pad_token_id is 1"),
        ({"calibration_temperature": 0.0}, "calibration_temperature is 0.0, but must be a finite number above 0"),
        ({"calibration_temperature": float("inf")}, "calibration_temperature is inf"),
        ({"calibration_temperature": float("nan")}, "calibration_temperature is nan"),
        ({"calibration_temperature": "1"}, "calibration_temperature is '1'"),
        ({"label_thresholds": [0.5, 1.5]}, r"label_thresholds is \[0.5, 1.5\]"),
        ({"label_thresholds": [0.5, float("nan")]}, r"label_thresholds is \[0.5, nan\]"),
        ({"label_thresholds": [0.5]}, "label_thresholds has 1 numbers, but there are 2 labels"),
        ({"format_version": 99}, "format_version is 99"),
    ],
)
def test_a_value_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseNgramConfig(**settings)
