"""A student whose files say what cannot be is refused before a compiled loop sees it."""

import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_sparse.hub.info import info
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import SparseNgramForSequenceClassification
from hf_sparse.student.configuration_sparse_ngram import MOST_BLOCKS, SparseNgramConfig

TABLE = "model.table.blocks.0"


@pytest.fixture
def student(student_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(student_folder, tmp_path / "student"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"block_rows": 0}, "block_rows"),
        ({"block_rows": -1}, "block_rows"),
        ({"block_rows": True}, "block_rows"),
        ({"embedding_size": "8"}, "embedding_size"),
        ({"embedding_size": 10**9}, "must have 329 rows of 4000000000 bytes"),
        ({"hidden_sizes": 6}, "hidden_sizes"),
        ({"hidden_sizes": [-6]}, "hidden_sizes"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"pooling": ["mean"]}, "pooling"),
        ({"activation": "exec"}, "activation"),
        ({"sentence_pairs": 1}, "sentence_pairs"),
        ({"pair_bags": "none"}, "pair_bags"),
        ({"alignment_size": -1}, "alignment_size"),
        ({"alignment_size": 0.5}, "alignment_size"),
        ({"folded": "both"}, "folded"),
        ({"id2label": {"0": "a"}}, "names 1 labels"),
        ({"id2label": {"x": "a", "y": "b", "z": "c"}}, "id2label"),
        ({"id2label": ["a", "b", "c"]}, "id2label"),
        ({"calibration_temperature": 0}, "calibration_temperature"),
        ({"calibration_temperature": math.inf}, "calibration_temperature"),
        ({"calibration_temperature": "1"}, "calibration_temperature"),
        ({"format_version": 3}, "format version 3"),
        ({"model_type": "bert"}, "'bert'"),
        ({"block_rows": None, "pooling": None}, "block_rows"),
    ],
    ids=str,
)
def test_values_that_cannot_be(student: Path, changes: dict[str, Any], named: str) -> None:
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=named):
        NgramClassifier.from_pretrained(student)


def test_config_that_lacks_something(student: Path) -> None:
    config = json.loads((student / "config.json").read_text())
    del config["pooling"], config["activation"]
    (student / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks pooling, activation"):
        NgramClassifier.from_pretrained(student)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", ["[" * 200_000, "[1]", "{", "\xff"])
def test_files_that_are_no_objects(student: Path, name: str, content: str) -> None:
    (student / name).write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=name):
        NgramClassifier.from_pretrained(student)
    if name == "config.json":
        with pytest.raises(ValueError, match=name):
            info(str(student))


def change_header(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    change(header)
    new = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.update(dtype="I32"),
        lambda table: table.update(dtype="U8", shape=[329, 32]),
        lambda table: table.update(shape=[329 * 8]),
        lambda table: table.update(shape=[8, 329]),
        lambda table: table.update(shape=[-329, -8]),
        lambda table: table.update(shape=[2**62, 2**62]),
        lambda table: table.update(data_offsets=["0", "1"]),
    ],
)
def test_table_that_is_none(student: Path, change: Callable[[dict[str, Any]], object]) -> None:
    change_header(student / "model.safetensors", lambda header: change(header[TABLE]))
    with pytest.raises(ValueError, match=r"model\.table\.blocks\.0|model\.safetensors|another student"):
        NgramClassifier.from_pretrained(student)
    with pytest.raises((ValueError, RuntimeError)):
        SparseNgramForSequenceClassification.from_pretrained(student)


def test_weights_that_torch_cannot_read(student: Path) -> None:
    (student / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"cannot be read.*download or save them again"):
        SparseNgramForSequenceClassification.from_pretrained(student)


def test_table_of_a_million_blocks() -> None:
    SparseNgramConfig(vocab_size=MOST_BLOCKS, block_rows=1)
    with pytest.raises(ValueError, match="block_rows is 1, which cuts"):
        SparseNgramConfig(vocab_size=MOST_BLOCKS + 1, block_rows=1)
