"""Weights, config and vocabulary that do not belong together are refused, by torch and by the runtime."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from hf_sparse.compression import compress
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import (
    SparseNgramForSequenceClassification,
    SparseNgramTextClassificationPipeline,
    SparseNgramTokenizer,
)
from tests.conftest import ModelFactory

NEW_SEED = 7
KINDS: list[dict[str, Any]] = [{}, {"block_rows": 5}, {"pooling": "max"}, {"sentence_pairs": True}]


def save(folder: Path, model: SparseNgramForSequenceClassification, tokenizer: SparseNgramTokenizer) -> Path:
    SparseNgramTextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu").save_pretrained(folder)
    return folder


def changed(model: SparseNgramForSequenceClassification) -> SparseNgramForSequenceClassification:
    """Return another student of the same shape."""
    torch.manual_seed(NEW_SEED)
    other = SparseNgramForSequenceClassification(model.config)
    return other.eval()


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_weights_of_another_student(
    tmp_path: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, settings: dict[str, Any]
) -> None:
    model = make_model(**settings)
    one, two = save(tmp_path / "one", model, tokenizer), save(tmp_path / "two", changed(model), tokenizer)
    NgramClassifier.from_pretrained(one)
    shutil.copy(two / "model.safetensors", one / "model.safetensors")
    for auto in (AutoModel, AutoModelForSequenceClassification):
        with pytest.raises(ValueError, match="belong to another student"):
            auto.from_pretrained(one, trust_remote_code=True)
    with pytest.raises(ValueError, match="belong to another student"):
        NgramClassifier.from_pretrained(one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_fingerprint_of_torch_is_that_of_the_runtime(
    tmp_path: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, dtype: torch.dtype
) -> None:
    folder = save(tmp_path, make_model(block_rows=5).to(dtype), tokenizer)
    assert json.loads((folder / "config.json").read_text())["weights_fingerprint"]
    NgramClassifier.from_pretrained(folder)
    for other in (None, torch.float16, torch.float32):
        kwargs = {} if other is None else {"dtype": other}
        SparseNgramForSequenceClassification.from_pretrained(folder, **kwargs)


def test_compressed_students_have_their_own(student_folder: Path, tmp_path: Path) -> None:
    found = set()
    for table_dtype in ("float16", "int8", "int4"):
        folder = tmp_path / table_dtype
        compress(str(student_folder), str(folder), table_dtype=table_dtype)
        found.add(json.loads((folder / "config.json").read_text())["weights_fingerprint"])
        NgramClassifier.from_pretrained(folder)
        SparseNgramForSequenceClassification.from_pretrained(folder)
    assert len(found) == 3
    assert None not in found


def test_trained_student_is_saved_with_a_new_one(student_folder: Path, tmp_path: Path) -> None:
    model = SparseNgramForSequenceClassification.from_pretrained(student_folder)
    before = model.config.weights_fingerprint
    with torch.no_grad():
        model.model.table.blocks[0][1] += 1
    model.save_pretrained(tmp_path)
    assert SparseNgramForSequenceClassification.from_pretrained(tmp_path).config.weights_fingerprint != before


def test_config_of_before_has_none(student_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(student_folder, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    del config["weights_fingerprint"]
    (folder / "config.json").write_text(json.dumps(config))
    SparseNgramForSequenceClassification.from_pretrained(folder)
    NgramClassifier.from_pretrained(folder)


def test_shard_that_the_index_names_elsewhere(student_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(student_folder, tmp_path / "student")
    (folder / "model.safetensors").rename(tmp_path / "stolen.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"model.table.blocks.0": "../stolen.safetensors"}}))
    with pytest.raises(ValueError, match=r"\.\./stolen\.safetensors"):
        NgramClassifier.from_pretrained(folder)
    index.write_text(json.dumps({"weight_map": {"model.table.blocks.0": "model-00001-of-00001.safetensors"}}))
    with pytest.raises(FileNotFoundError, match="model-00001"):
        NgramClassifier.from_pretrained(folder)
    index.write_text("[1]")
    with pytest.raises(ValueError, match="not the index of weights"):
        NgramClassifier.from_pretrained(folder)


@pytest.mark.parametrize("size", [10**10, 2**63, 99])
def test_header_that_is_too_large(student_folder: Path, tmp_path: Path, size: int) -> None:
    folder = shutil.copytree(student_folder, tmp_path / "student")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(size.to_bytes(8, "little") + b"{}")
        if size == 10**10:
            file.truncate(10**10 + 8)  # a hole: no disk, and it must not become memory
    with pytest.raises(ValueError, match="not a safetensors file"):
        NgramClassifier.from_pretrained(folder)


@pytest.mark.parametrize("header", ["[]", '{"a": 1}', '{"a": {"dtype": "F32"}}'])
def test_header_that_is_no_header(student_folder: Path, tmp_path: Path, header: str) -> None:
    folder = shutil.copytree(student_folder, tmp_path / "student")
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0" * 8)
    with pytest.raises(ValueError, match="not a safetensors file"):
        NgramClassifier.from_pretrained(folder)
