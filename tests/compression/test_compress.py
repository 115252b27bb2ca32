"""Folding and quantising against slow oracles, and the whole of `compress`."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor
from transformers import pipeline

from hf_sparse.compression import compress, fold, format_report, quantise
from hf_sparse.compression import compress as compress_function
from hf_sparse.compression.fold import obstacle
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification, SparseNgramTokenizer
from hf_sparse.student.rows_sparse_ngram import unpack_rows
from hf_sparse.vocabulary import count_ngrams

TEXTS = ["the film was good", "a bad , bad film !", "", "unknown", "the the the film and a good bad film"]
LABELS = ["good", "bad", "bad", "good", "so so"]
CORPUS = [*TEXTS, *TEXTS[:3], "a good film", "and a bad film !"]


def new_student(**changes: Any) -> SparseNgramForSequenceClassification:
    """A student with random weights."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "embedding_size": 20, "hidden_sizes": [12], "num_labels": 3, "initializer_range": 1.0}
    return SparseNgramForSequenceClassification(SparseNgramConfig(**(sizes | changes))).eval()


def random_batch(num_rows: int) -> tuple[Tensor, Tensor]:
    """Flat ids of 40 texts, some of them empty."""
    lengths = torch.randint(0, 30, (40,), generator=torch.Generator().manual_seed(1))
    lengths[3] = 0
    ids = torch.randint(1, num_rows, (int(lengths.sum()),), generator=torch.Generator().manual_seed(2))
    return ids, lengths


def logits(model: SparseNgramForSequenceClassification) -> Tensor:
    with torch.no_grad():
        return model.classify(model.pool(*random_batch(model.config.vocab_size)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": "sum", "activation": "tanh"},
        {"hidden_sizes": [12, 7, 5]},
        {"hidden_sizes": []},
        {"block_rows": 37},
        {"vocab_size": 70_000},
    ],
    ids=lambda changes: next(iter(changes), "default"),
)
def test_folding_changes_no_logit(changes: dict[str, Any]) -> None:
    model = new_student(**changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold(model)
    expected = logits(model)
    torch.testing.assert_close(logits(folded), expected, atol=1e-5, rtol=1e-5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    # No dead weights: the layer is gone, and the rows are as wide as it was.
    width = 12 if model.config.hidden_sizes else 3
    assert folded.config.embedding_size == width
    assert folded.config.folded == ("hidden" if model.config.hidden_sizes else "classifier")
    names = set(folded.state_dict())
    assert len([name for name in names if "hidden_layers" in name]) == 2 * max(len(model.config.hidden_sizes) - 1, 0)
    assert any(name.startswith("classifier") for name in names) == bool(model.config.hidden_sizes)
    assert all(not tensor.is_meta for tensor in folded.state_dict().values())
    assert not folded.model.table.blocks[0][0].any()
    assert fold(folded) is folded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "max"}, "max pooling"),
        ({"pooling": "attentive"}, "attentive pooling"),
        ({"sentence_pairs": True}, "pairs"),
        ({"hidden_sizes": [], "num_labels": 21}, "21 labels for 20 columns"),
        ({"table_dtype": "int8"}, "before quantising"),
    ],
)
def test_what_does_not_fold(changes: dict[str, Any], message: str) -> None:
    student = new_student(**changes)
    with pytest.raises(ValueError, match=message):
        fold(student)
    assert (obstacle(student.config) is None) is (changes == {"table_dtype": "int8"})  # whose rows are what forbids it


@pytest.mark.parametrize("table_dtype", ["float16", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("block_rows", [37, 1000])
def test_quantised_students_are_close(table_dtype: str, block_rows: int) -> None:
    model = new_student(block_rows=block_rows)
    small = quantise(model, table_dtype)
    assert small.config.table_dtype == table_dtype
    assert model.config.table_dtype == "float32"
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "int8": 2e-2, "int4": 0.3}[table_dtype]
    torch.testing.assert_close(logits(small), logits(model), atol=tolerance, rtol=tolerance)
    assert not torch.equal(logits(small), logits(model))
    first = small.model.table.blocks[0]
    assert not first[0].any()
    bits = {"float16": 320, "bfloat16": 320, "int8": 160 + 64, "int4": 80 + 32}[table_dtype]
    assert first[0].nbytes * 8 == bits


@settings(max_examples=200, deadline=None)
@given(
    rows=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.sampled_from([2, 8, 10])),
        elements=st.floats(-100, 100, width=32),
    ),
    table_dtype=st.sampled_from(["int8", "int4"]),
)
def test_quantised_rows_are_within_half_a_step(rows: np.ndarray, table_dtype: str) -> None:
    """Each number is one of the steps between the least and the greatest of its row, and a nearest one."""
    model = new_student(vocab_size=len(rows) + 1, embedding_size=rows.shape[1])
    with torch.no_grad():
        model.model.table.blocks[0][1:] = torch.from_numpy(rows)
    found = unpack_rows(quantise(model, table_dtype).model.table.blocks[0], rows.shape[1])[1:].numpy()
    step = (rows.max(axis=1) - rows.min(axis=1)) / (255 if table_dtype == "int8" else 15)
    # Scale and offset of int4 rows are in float16, with 11 bits.
    slack = (1e-5 if table_dtype == "int8" else 2e-3) * np.abs(rows).max(axis=1) + 1e-5
    if table_dtype == "int4":
        slack += 15 * step * 1e-3 + 1e-3
    assert (np.abs(found - rows) <= (step / 2 + slack)[:, None]).all()


def test_what_does_not_quantise() -> None:
    with pytest.raises(ValueError, match="'int3'"):
        quantise(new_student(), "int3")
    with pytest.raises(ValueError, match="even number of columns, got 21"):
        quantise(new_student(embedding_size=21), "int4")
    with pytest.raises(ValueError, match="int8 already"):
        quantise(quantise(new_student(), "int8"), "int4")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student, with texts and labels beside it."""
    folder = tmp_path_factory.mktemp("compress") / "student"
    vocabulary = count_ngrams(CORPUS, num_ngrams=200, progress=False)
    model = new_student(
        vocab_size=vocabulary.num_rows,
        vocabulary_sha256=vocabulary.sha256,
        id2label={0: "bad", 1: "so so", 2: "good"},
        label2id={"bad": 0, "so so": 1, "good": 2},
    )
    model.save_pretrained(folder)
    SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(folder)
    (folder / "README.md").write_text("# A student\n")
    rows = [json.dumps({"text": text, "label": label}) for text, label in zip(TEXTS, LABELS, strict=True)]
    (folder.parent / "texts.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("changes", [{"pooling": "max"}, {"sentence_pairs": True}])
def test_what_does_not_fold_is_made_small_without(
    student: Path, tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(student, tmp_path / "student")
    vocabulary = SparseNgramTokenizer.from_pretrained(student).vocabulary
    model = new_student(vocab_size=vocabulary.num_rows, vocabulary_sha256=vocabulary.sha256, **changes)
    model.save_pretrained(tmp_path / "student")
    report = compress(str(tmp_path / "student"), str(tmp_path / "small"))
    assert [step["name"] for step in report["steps"]] == ["student", "int8"]
    assert "folds into its table" in caplog.text
    if "sentence_pairs" in changes:
        with pytest.raises(ValueError, match="one of pairs of texts; leave data out"):
            compress(str(tmp_path / "student"), str(tmp_path / "other"), data=str(student.parent / "texts.jsonl"))


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "small"
    assert not list(tmp_path.glob("*.partial"))


def piped(folder: Path) -> list[str]:
    """Labels by way of the pipeline."""
    classify = pipeline("text-classification", model=str(folder), trust_remote_code=True)
    return [answer["label"] for answer in classify(TEXTS)]


def test_compress_writes_a_student(student: Path, output: Path) -> None:
    """Fold and int8: loads by every way in, with the same answers as its report says."""
    data = str(student.parent / "texts.jsonl")
    report = compress(str(student), str(output), data=data)
    assert json.loads((output / "compression.json").read_text()) == report
    before, folded, small = report["steps"]
    assert [step["name"] for step in report["steps"]] == ["student", "fold", "int8"]
    assert before["agreement"] == folded["agreement"] == 1.0
    assert before["num_bytes"] > folded["num_bytes"] > small["num_bytes"]
    written = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    assert abs(written - small["num_bytes"]) < 2000
    found = [
        answer["label"] for answer in pipeline("text-classification", model=str(output), trust_remote_code=True)(TEXTS)
    ]
    assert found == NgramClassifier.from_pretrained(output).predict(TEXTS)
    original = [
        answer["label"]
        for answer in pipeline("text-classification", model=str(student), trust_remote_code=True)(TEXTS)
    ]
    assert small["accuracy"] == np.mean([a == b for a, b in zip(found, LABELS, strict=True)])
    assert small["agreement"] == np.mean([a == b for a, b in zip(found, original, strict=True)])
    assert SparseNgramTokenizer.from_pretrained(output).vocabulary.counts is None
    assert "## Compression" in (output / "README.md").read_text()
    assert (output / "modeling_sparse_ngram.py").is_file()
    assert "int8" in format_report(report)


def test_runtime_reads_what_compress_writes(student: Path, tmp_path: Path) -> None:
    """All row types, folded and not: the runtime and torch agree."""
    for index, (table_dtype, folds) in enumerate(
        (d, f) for d in ("float16", "bfloat16", "int8", "int4") for f in (0, 1)
    ):
        folder = tmp_path / str(index)
        compress(str(student), str(folder), table_dtype=table_dtype, fold=bool(folds))
        model = SparseNgramForSequenceClassification.from_pretrained(folder).eval()
        batch = SparseNgramTokenizer.from_pretrained(folder).extract(TEXTS)
        with torch.no_grad():
            expected = model.classify(model.pool(torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths)))
        # Half-precision sums are rounded by torch, not by the runtime.
        tolerance = {"float16": 5e-3, "bfloat16": 5e-2}.get(table_dtype, 1e-4)
        found = NgramClassifier.from_pretrained(folder).predict_logits(TEXTS)
        np.testing.assert_allclose(found, expected.float().numpy(), atol=tolerance, rtol=tolerance)


def test_existing_output_is_kept(student: Path, output: Path) -> None:
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="say overwrite"):
        compress(str(student), str(output))
    assert (output / "mine.txt").read_text() == "mine"
    compress(str(student), str(output), overwrite=True)
    assert not (output / "mine.txt").exists()
    assert NgramClassifier.from_pretrained(output).predict(["the film"])


def test_failure_leaves_the_last_good_output(student: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compress(str(student), str(output), table_dtype="float16")
    good = (output / "model.safetensors").read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SparseNgramTokenizer, "save_pretrained", fail)
        with pytest.raises(OSError, match="No space"):
            compress(str(student), str(output), overwrite=True)
    assert (output / "model.safetensors").read_bytes() == good
    compress(str(student), str(output), overwrite=True)
    assert (output / "model.safetensors").read_bytes() != good


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "nowhere"}, FileNotFoundError, "nowhere is not the folder of a student"),
        ({"table_dtype": "int3"}, ValueError, "'int3'"),
        ({"keep_ngrams": 5, "target_size": "1MB"}, ValueError, "not both"),
        ({"data": "no.parquet"}, ValueError, r"no\.parquet"),
        ({"prune_by": "luck", "keep_ngrams": 5}, ValueError, "'luck'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_named(
    student: Path, output: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compress_function(**({"model": str(student), "output": str(output)} | arguments))
    assert not output.exists()


def test_labels_must_be_the_student_s(student: Path, output: Path) -> None:
    data = output.with_suffix(".jsonl")
    data.write_text('{"text": "a", "label": "awful"}\n')
    with pytest.raises(ValueError, match=r"label 'awful', which is outside the labels .*'so so'"):
        compress(str(student), str(output), data=str(data))
    data.write_text('{"text": "the film", "label": 2}\n{"text": "a", "label": 0}\n')
    assert compress(str(student), str(output), data=str(data))["steps"][0]["accuracy"] is not None


def test_vocabulary_of_another_student(student: Path, output: Path) -> None:
    other = output.with_name("other")
    shutil.copytree(student, other)
    count_ngrams(["something else"], num_ngrams=10, progress=False).save(other)
    with pytest.raises(ValueError, match="another"):
        compress(str(other), str(output))
