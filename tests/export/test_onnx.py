"""ONNX Runtime gives the probabilities of torch, for every kind of student."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse import cli
from hf_sparse.compression import compress
from hf_sparse.export import OnnxClassifier, export
from hf_sparse.export.graph import StudentGraph
from hf_sparse.runtime import NgramClassifier
from hf_sparse.runtime.weights import map_weights
from hf_sparse.student import SparseNgramForSequenceClassification, SparseNgramTokenizer
from tests.conftest import PAIR_SHAPES, ModelFactory

TEXTS = ["a good film", "", "not a good film , not at all !", "unknownword", "the film was good " * 20, "中文 film"]
KINDS: list[dict[str, Any]] = [
    {},
    {"pooling": "sum"},
    {"pooling": "max"},
    {"pooling": "attentive"},
    {"block_rows": 90},
    {"hidden_sizes": []},
    {"hidden_sizes": [5, 4], "activation": "tanh"},
    {"problem_type": "multi_label_classification"},
    {"problem_type": "regression", "num_labels": 1},
    {"sentence_pairs": True},
    {"sentence_pairs": True, "pair_bags": "overlap"},
    {"sentence_pairs": True, "pair_bags": "overlap", "pooling": "max"},
    {"sentence_pairs": True, "pair_bags": "overlap", "pooling": "attentive"},
    PAIR_SHAPES["aligned"],
    PAIR_SHAPES["aligned"] | {"pooling": "max", "block_rows": 90},
]


def torch_probabilities(folder: Path, texts: list[str], pairs: list[str] | None) -> Any:
    model = SparseNgramForSequenceClassification.from_pretrained(folder).eval()
    batch = SparseNgramTokenizer.from_pretrained(folder).extract(texts, pairs)
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(batch.ids), lengths=torch.from_numpy(batch.lengths)).logits.float()
    if model.config.problem_type == "regression":
        return logits.numpy()
    several = model.config.problem_type == "multi_label_classification"
    return (logits.sigmoid() if several else logits.softmax(1)).numpy()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_equal_to_torch(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path, kind: dict[str, Any]
) -> None:
    make_model(**kind).save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    described = export(str(tmp_path / "student"), str(tmp_path / "onnx"))
    assert described["difference"] < 1e-5
    pairs = TEXTS[::-1] if kind.get("sentence_pairs") else None
    found = OnnxClassifier(tmp_path / "onnx").predict_proba(TEXTS, pairs)
    np.testing.assert_allclose(found, torch_probabilities(tmp_path / "student", TEXTS, pairs), atol=1e-5)
    onnx.checker.check_model(str(tmp_path / "onnx" / "model.onnx"), full_check=True)


@pytest.mark.parametrize(
    ("table_dtype", "tolerance"), [("int8", 1e-5), ("int4", 1e-5), ("float16", 1e-2), ("bfloat16", 5e-2)]
)
@pytest.mark.parametrize("fold", [True, False])
def test_compressed_students(
    student_folder: Path, tmp_path: Path, table_dtype: str, tolerance: float, fold: bool
) -> None:
    student = tmp_path / "small"
    compress(str(student_folder), str(student), table_dtype=table_dtype, fold=fold)
    export(str(student), str(tmp_path / "onnx"))
    found = OnnxClassifier(tmp_path / "onnx").predict_proba(TEXTS)
    np.testing.assert_allclose(found, torch_probabilities(student, TEXTS, None), atol=tolerance)


def test_packed_rows_stay_packed(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    make_model(embedding_size=256, hidden_sizes=[]).save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    sizes = {}
    for table_dtype in ("float32", "int8", "int4"):
        compress(str(tmp_path / "student"), str(tmp_path / table_dtype), table_dtype=table_dtype, fold=False)
        sizes[table_dtype] = export(str(tmp_path / table_dtype), str(tmp_path / f"{table_dtype}-onnx"))["bytes"]
    assert sizes["int8"] < 0.35 * sizes["float32"]
    assert sizes["int4"] < 0.65 * sizes["int8"]


@pytest.fixture(scope="module")
def exported(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "student"
    export(str(student_folder), str(folder))
    return folder


@given(texts=st.lists(st.text(), min_size=1, max_size=6))
@settings(deadline=None, max_examples=50)
def test_any_text(exported: Path, student_folder: Path, texts: list[str]) -> None:
    classifier = NgramClassifier.from_pretrained(student_folder)
    found = OnnxClassifier(exported).predict_proba(texts)
    np.testing.assert_allclose(found, classifier.predict_proba(texts), atol=1e-5)


def test_ids_of_the_tokenizer_are_its_inputs(exported: Path, student_folder: Path) -> None:
    described = json.loads((exported / "onnx.json").read_text())
    tokenizer = SparseNgramTokenizer.from_pretrained(student_folder)
    batch = tokenizer(TEXTS, padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {name: batch[name] for name in described["inputs"]})
    np.testing.assert_allclose(found, torch_probabilities(student_folder, TEXTS, None), atol=1e-5)
    assert described["labels"] == NgramClassifier.from_pretrained(student_folder).labels


@pytest.mark.parametrize("table_dtype", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("kind", [{"block_rows": 90}, PAIR_SHAPES["aligned"] | {"block_rows": 90}], ids=str)
def test_large_tables_lie_beside(
    make_model: ModelFactory,
    tokenizer: SparseNgramTokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: dict[str, Any],
    table_dtype: str,
) -> None:
    """A protobuf holds no tensor of 2 GiB, so the table must never be in one; it is written some rows at a time."""
    make_model(**kind).save_pretrained(tmp_path / "float32")
    tokenizer.save_pretrained(tmp_path / "float32")
    if table_dtype != "float32":
        compress(str(tmp_path / "float32"), str(tmp_path / table_dtype), table_dtype=table_dtype, fold=False)
    student, pairs = tmp_path / table_dtype, TEXTS[::-1] if kind.get("sentence_pairs") else None
    export(str(student), str(tmp_path / "whole"))
    monkeypatch.setattr("hf_sparse.export.initializers._EXTERNAL_ABOVE", 100)
    monkeypatch.setattr("hf_sparse.export.initializers._EXTERNAL_SMALLEST", 64)
    monkeypatch.setattr("hf_sparse.export.initializers._BYTES_AT_ONCE", 100)
    described = export(str(student), str(tmp_path / "onnx"))
    assert described["bytes"] == sum(file.stat().st_size for file in (tmp_path / "onnx").glob("model.onnx*"))
    found = OnnxClassifier(tmp_path / "onnx").predict_proba(TEXTS, pairs)
    np.testing.assert_array_equal(found, OnnxClassifier(tmp_path / "whole").predict_proba(TEXTS, pairs))
    np.testing.assert_allclose(found, torch_probabilities(student, TEXTS, pairs), atol=5e-2)
    onnx.checker.check_model(str(tmp_path / "onnx" / "model.onnx"), full_check=True)


def test_the_protobuf_of_a_large_table_is_small(
    make_model: ModelFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_sparse.export.initializers._EXTERNAL_ABOVE", 100_000)
    make_model(embedding_size=4096).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    proto = StudentGraph(config, map_weights(tmp_path)).save(tmp_path / "model.onnx")
    assert proto.ByteSize() == (tmp_path / "model.onnx").stat().st_size < 10_000
    assert (tmp_path / "model.onnx.data").stat().st_size > 4 * 4096 * config["vocab_size"]
    assert not list(tmp_path.glob(".*.tmp"))


def test_mistakes(student_folder: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileExistsError, match="say overwrite"):
        export(str(student_folder), str(exported))
    export(str(student_folder), str(exported), overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        export(str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match="hf-sparse export"):
        OnnxClassifier(tmp_path)
    with pytest.raises(ValueError, match="single texts"):
        OnnxClassifier(exported).predict_proba(["a"], ["b"])
    monkeypatch.setattr("hf_sparse.export.convert._difference", lambda *folders: float("nan"))
    with pytest.raises(ValueError, match="answers differently"):
        export(str(student_folder), str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_command(student_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["export", str(student_folder), str(tmp_path / "onnx")])
    assert "input_ids to logits, probabilities" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "onnx")
