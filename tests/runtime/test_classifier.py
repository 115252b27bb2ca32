"""The runtime against the model in torch, and its manners."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse.runtime import NgramClassifier
from hf_sparse.runtime.classifier import _batches
from hf_sparse.runtime.pooling import MODES, ids_pooler
from hf_sparse.runtime.rows import BITS, FORMATS, TAILS
from hf_sparse.runtime.weights import map_file, map_weights
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification, SparseNgramTokenizer
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.vocabulary import count_ngrams
from tests.conftest import PAIR_SHAPES
from tests.texts import ANY_TEXT

TEXTS = ["the film was good", "a bad , bad film !", "", "unknown", "the the the film and a good bad film", "Fin É…"]
CORPUS = [*TEXTS, *TEXTS[:3], "a good film", "and a bad film !", "fin é..."]


def save_student(folder: Path, word_rule: str = "words", **settings: Any) -> SparseNgramForSequenceClassification:
    """Write a student with random weights."""
    vocabulary = count_ngrams(CORPUS, num_ngrams=200, word_rule=word_rule, progress=False)
    torch.manual_seed(0)
    config = SparseNgramConfig(
        vocab_size=vocabulary.num_rows,
        vocabulary_sha256=vocabulary.sha256,
        initializer_range=1.0,
        **{"embedding_size": 12, "num_labels": 3, **settings},
    )
    model = SparseNgramForSequenceClassification(config).eval()
    model.model.mark_words(torch.from_numpy(vocabulary.is_word))
    model.save_pretrained(folder)
    SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    save_student(folder, id2label={0: "bad", 1: "so so", 2: "good"})
    return folder


def torch_logits(folder: Path, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
    """Logits (B, C) by way of the tokenizer and torch."""
    model = SparseNgramForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = SparseNgramTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(texts, pairs, padding=True, return_tensors="pt")).logits.float().numpy()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling": "sum", "hidden_sizes": [5, 4], "activation": "tanh"},
        {"pooling": "max", "hidden_sizes": []},
        {"block_rows": 7},
        {"embedding_size": 75},
        {"word_rule": "sklearn"},
    ],
    ids=lambda settings: next(iter(settings), "default"),
)
def test_logits_are_those_of_torch(tmp_path: Path, settings: dict[str, Any]) -> None:
    save_student(tmp_path, **settings)
    logits = NgramClassifier.from_pretrained(tmp_path).predict_logits(TEXTS)
    np.testing.assert_allclose(logits, torch_logits(tmp_path, TEXTS), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_tables(tmp_path: Path, dtype: str) -> None:
    model = save_student(tmp_path)
    model.model.table.to(getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "table_dtype": dtype}))
    logits = NgramClassifier.from_pretrained(tmp_path).predict_logits(TEXTS)
    model.model.table.float()
    tokens = SparseNgramTokenizer.from_pretrained(tmp_path)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(**tokens).logits.numpy(), atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("width", [1, 2, 10, 64, 150])
def test_pooled_rows_are_those_of_numpy(dtype: str, mode: str, width: int) -> None:
    """Every row format, with scale and offset, and numbers below the normal range of float16."""
    width += width % 2 if dtype == "int4" else 0
    generator = np.random.default_rng(width)
    values, packed = _rows(dtype, width, generator)
    lengths = np.array([3, 0, 1, 40], dtype=np.int64)
    ids = generator.integers(0, 50, size=int(lengths.sum())).astype(np.int32)
    blocks = [packed[:30].copy(), packed[30:].copy()]
    table = (np.array([block.ctypes.data for block in blocks]), 30, packed.shape[1], width)
    pooled = ids_pooler(FORMATS[dtype], MODES[mode])(ids, lengths, table)
    reduce = {"mean": np.mean, "sum": np.sum, "max": np.max}[mode]
    parts = np.split(values[ids], np.cumsum(lengths)[:-1])
    expected = [reduce(part, axis=0) if len(part) else np.zeros(width) for part in parts]
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6 * np.abs(values).max() * lengths.max())


def _rows(dtype: str, width: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return 50 rows as float64 numbers and as the bytes that stand for them."""
    if dtype in ("int8", "int4"):
        numbers = generator.integers(0, 1 << BITS[dtype], size=(50, width)).astype(np.uint8)
        scaling = generator.normal(size=(50, 2)).astype(np.float32 if dtype == "int8" else np.float16)
        values = numbers * scaling[:, :1].astype(np.float64) + scaling[:, 1:].astype(np.float64)
        columns = numbers if dtype == "int8" else numbers[:, 0::2] | numbers[:, 1::2] << 4
        packed = np.concatenate((columns, scaling.view(np.uint8)), axis=1)
    else:
        tensor = torch.from_numpy(generator.normal(size=(50, width)) * 10.0 ** generator.integers(-8, 2, (50, 1)))
        tensor = tensor.to(getattr(torch, dtype))
        values = tensor.double().numpy()
        packed = tensor.view(torch.uint8).numpy().reshape(50, -1)
    assert packed.shape[1] == width * BITS[dtype] // 8 + TAILS[dtype]
    return values, packed


@pytest.mark.parametrize("word_rule", ["words", "sklearn"])
@pytest.mark.parametrize("pooling", MODES)
@pytest.mark.parametrize("kind", PAIR_SHAPES)
def test_pairs(tmp_path: Path, kind: str, pooling: str, word_rule: str) -> None:
    save_student(tmp_path, word_rule, pooling=pooling, **PAIR_SHAPES[kind])
    classifier = NgramClassifier.from_pretrained(tmp_path)
    partners = TEXTS[::-1]
    expected = torch_logits(tmp_path, TEXTS, partners)
    np.testing.assert_allclose(classifier.predict_logits(TEXTS, partners), expected, atol=1e-5)
    with pytest.raises(ValueError, match="give text_pairs"):
        classifier.predict(TEXTS)
    with pytest.raises(ValueError, match="6 texts, but 5 text_pairs"):
        classifier.predict(TEXTS, partners[1:])


def test_problem_types(tmp_path: Path) -> None:
    save_student(tmp_path / "one", id2label={0: "bad", 1: "so so", 2: "good"})
    save_student(tmp_path / "many", problem_type="multi_label_classification")
    save_student(tmp_path / "value", problem_type="regression", num_labels=1)
    one, many, value = (NgramClassifier.from_pretrained(tmp_path / name) for name in ("one", "many", "value"))
    logits = torch.from_numpy(torch_logits(tmp_path / "one", TEXTS))
    np.testing.assert_allclose(one.predict_proba(TEXTS), logits.softmax(1), atol=1e-6)
    assert one.predict(TEXTS) == [one.labels[index] for index in logits.argmax(1)]
    assert one.labels == ["bad", "so so", "good"]
    logits = torch.from_numpy(torch_logits(tmp_path / "many", TEXTS))
    np.testing.assert_allclose(many.predict_proba(TEXTS), logits.sigmoid(), atol=1e-6)
    assert many.predict(TEXTS) == [[f"LABEL_{i}" for i in range(3) if row[i] > 0] for row in logits]
    np.testing.assert_allclose(value.predict_proba(TEXTS), torch_logits(tmp_path / "value", TEXTS), atol=1e-6)
    with pytest.raises(ValueError, match="predict_proba"):
        value.predict(TEXTS)


def test_every_container_of_texts(student: Path) -> None:
    classifier = NgramClassifier.from_pretrained(student)
    many = TEXTS * 300
    expected = classifier.predict_logits(many)
    arrow = pa.array(many)

    def stream() -> Iterator[str]:
        yield from many

    for texts in (tuple(many), stream(), arrow, pa.chunked_array([arrow[:700], arrow[700:]]), np.array(many)):
        np.testing.assert_allclose(classifier.predict_logits(texts), expected, atol=1e-6)
    np.testing.assert_allclose(expected[: len(TEXTS)], classifier.predict_logits(TEXTS), atol=1e-6)
    assert classifier.predict_proba([]).shape == (0, 3)
    assert classifier.predict([]) == []


def test_streams_are_not_read_ahead(student: Path) -> None:
    """A stream longer than memory is consumed batch by batch, also by several threads."""
    classifier = NgramClassifier.from_pretrained(student, num_threads=2)
    read = 0

    def stream() -> Iterator[str]:
        nonlocal read
        for read in range(1, 100_001):  # noqa: B007
            yield "the film"

    next(classifier._run(_batches(stream())))
    assert 0 < read < 10_000


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(ANY_TEXT, max_size=6))
def test_any_text_has_the_label_of_its_ngrams(texts: list[str]) -> None:
    """Text to label at once is extraction, then pooling."""
    vocabulary = count_ngrams(CORPUS, num_ngrams=200, progress=False)
    table = np.random.default_rng(0).normal(size=(vocabulary.num_rows, 4)).astype(np.float32)
    classifier = _linear(vocabulary, table)
    batch = SparseNgramTokenizer(vocabulary=vocabulary).extract(texts)
    parts = np.split(table[batch.ids], np.cumsum(batch.lengths)[:-1]) if texts else []
    expected = np.array([part.mean(axis=0) if len(part) else np.zeros(4) for part in parts]).reshape(-1, 4)
    np.testing.assert_allclose(classifier.predict_logits(texts), expected, atol=1e-5)


def _linear(vocabulary: NgramVocabulary, table: np.ndarray) -> NgramClassifier:
    """Return a classifier whose logits are the mean of its rows."""
    width = table.shape[1]
    config = {"embedding_size": width, "block_rows": 1 << 20, "pooling": "mean", "hidden_sizes": []}
    config |= {"activation": "relu", "sentence_pairs": False, "folded": "classifier"}
    weights = {"model.table.blocks.0": table, "model.pooled_bias": np.zeros(width, dtype=np.float32)}
    return NgramClassifier(config=config, vocabulary=vocabulary, weights=weights)


def test_threads_share_a_classifier(student: Path) -> None:
    """Calls from several threads at once, each spread over several threads, answer as one call alone."""
    classifier = NgramClassifier.from_pretrained(student, num_threads=3)
    texts = [f"{text} {index % 7}" for index, text in enumerate(TEXTS * 200)]
    expected = NgramClassifier.from_pretrained(student).predict_logits(texts)
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(classifier.predict_logits(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_allclose(result, expected, atol=1e-6)  # BLAS rounds by the size of the batch


def test_runtime_needs_neither_torch_nor_transformers(student: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'tokenizers', 'pyarrow', 'pandas'): sys.modules[name] = None\n"
        "from hf_sparse.runtime import NgramClassifier\n"
        "print(NgramClassifier.from_pretrained(sys.argv[1]).predict(['the film was good']))"
    )
    command = [sys.executable, "-c", code, str(student)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == str(NgramClassifier.from_pretrained(student).predict(["the film was good"]))


def test_weights_are_mapped(student: Path) -> None:
    weights = map_weights(student)
    model = SparseNgramForSequenceClassification.from_pretrained(student)
    assert set(weights) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())
        assert not weights[name].flags.owndata
        assert not weights[name].flags.writeable


def test_shards(tmp_path: Path) -> None:
    model = save_student(tmp_path, block_rows=7)
    expected = NgramClassifier.from_pretrained(tmp_path).predict_logits(TEXTS)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="1KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    np.testing.assert_array_equal(NgramClassifier.from_pretrained(tmp_path).predict_logits(TEXTS), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "type 'bert'"),
        ({"format_version": 3}, "format version 3"),
        ({"table_dtype": "int3"}, "'int3'"),
        ({"table_dtype": "int8"}, "rows of 20 bytes"),
        ({"pooling": "attentive"}, "AutoModelForSequenceClassification"),
        ({"embedding_size": 13}, "rows of 52 bytes"),
        ({"hidden_sizes": [12, 12]}, "hidden_layers.1"),
        ({"folded": "hidden"}, "pooled_bias"),
        ({"vocabulary_sha256": "0" * 64}, "one student"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_students_that_it_cannot_serve(student: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = tmp_path / "student"
    shutil.copytree(student, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        NgramClassifier.from_pretrained(folder)


def test_broken_files(student: Path, tmp_path: Path) -> None:
    whole = (student / "model.safetensors").read_bytes()
    file = tmp_path / "model.safetensors"
    for content in (b"", whole[:4], whole[:100], whole[:-1], b"\xff" * 100, whole.replace(b'"F32"', b'"F99"')):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=str(file)):
            map_file(file)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        NgramClassifier.from_pretrained(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        map_weights(tmp_path)


def test_what_is_no_text(student: Path) -> None:
    classifier = NgramClassifier.from_pretrained(student)
    with pytest.raises(TypeError, match="put it into a list"):
        classifier.predict("the film")
    with pytest.raises(TypeError, match="NoneType None"):
        classifier.predict(["the film", None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="no text_pairs"):
        classifier.predict(TEXTS, TEXTS)
    with pytest.raises(ValueError, match="num_threads"):
        NgramClassifier.from_pretrained(student, num_threads=0)
