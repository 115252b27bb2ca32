"""Files are classified as the pipeline classifies texts, row by row, whatever they hold."""

import csv
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sparse.prediction import predict
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import SparseNgramTextClassificationPipeline, SparseNgramTokenizer
from tests.conftest import ModelFactory

ROOT = Path(__file__).parents[2]
TEXTS = [
    "good film",
    "a bad , bad film !",
    "",
    "007",
    'say "film"',
    "two\nlines",
    "tab\there",
    "中文 😀",
    "a, b",
    "x\r\ny",
]


@pytest.fixture(scope="module")
def classifier(student_folder: Path) -> NgramClassifier:
    return NgramClassifier.from_pretrained(student_folder)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("source", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("target", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("batch_size", [3, 4096])
def test_every_format_to_every_other(
    student_folder: Path, classifier: NgramClassifier, tmp_path: Path, source: str, target: str, batch_size: int
) -> None:
    rows = [{"number": str(index), "text": text} for index, text in enumerate(TEXTS)]
    given, asked = write(tmp_path / f"in.{source}", rows), tmp_path / f"out.{target}"
    assert predict(str(student_folder), input=str(given), output=str(asked), batch_size=batch_size) == len(TEXTS)
    found = read(asked)
    assert [{"number": row["number"], "text": row["text"]} for row in found] == rows
    assert [row["label"] for row in found] == classifier.predict(TEXTS)
    best = classifier.predict_proba(TEXTS).max(axis=1)
    assert [float(row["score"]) for row in found] == pytest.approx(best.tolist(), rel=1e-7)


def test_as_the_pipeline(
    student_folder: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path
) -> None:
    pipe = SparseNgramTextClassificationPipeline(model=make_model(), tokenizer=tokenizer, device="cpu")
    given, asked = write(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS]), tmp_path / "out.jsonl"
    predict(str(student_folder), input=str(given), output=str(asked), top_k=0, probabilities=True)
    for row, answer in zip(read(asked), pipe(TEXTS, top_k=None), strict=True):
        assert row["label"] == [one["label"] for one in answer]
        assert row["score"] == pytest.approx([one["score"] for one in answer], abs=1e-6)
        for one in answer:
            assert row[f"probability_{one['label']}"] == pytest.approx(one["score"], abs=1e-6)


@given(texts=st.lists(st.text(), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_any_text_goes_through(
    student_folder: Path, classifier: NgramClassifier, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    expected = classifier.predict(texts)
    given = write(folder / "in.jsonl", [{"text": text} for text in texts])
    predict(str(student_folder), input=str(given), output=str(folder / "out.jsonl"), quiet=True)
    found = read(folder / "out.jsonl")
    assert [row["text"] for row in found] == texts
    assert [row["label"] for row in found] == expected
    for kind in ("parquet", "csv"):
        plain = [text.encode("utf-8", "replace").decode() for text in texts]
        given = write(folder / f"in.{kind}", [{"text": text, "more": "1"} for text in plain])
        predict(str(student_folder), input=str(given), output=str(folder / f"out.{kind}"), quiet=True)
        assert [row["text"] for row in read(folder / f"out.{kind}")] == plain
        assert [row["label"] for row in read(folder / f"out.{kind}")] == classifier.predict(plain)


def test_json_keeps_what_it_was_given(student_folder: Path, tmp_path: Path) -> None:
    line = '{"id": 12345678901234567890123, "x": [1.0, null], "text": "\\ud800 film", "y": {"z": "\\u00e9"}}'
    (tmp_path / "in.jsonl").write_text(f"{line}\n\n{line}\n", encoding="utf-8")
    predict(str(student_folder), input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.jsonl"))
    for found in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines():
        assert found.startswith(line[:-1])


def test_lines_of_text(student_folder: Path, classifier: NgramClassifier, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbfgood film\r\n\nbad\xff film\nlast")
    predict(str(student_folder), input=str(tmp_path / "in.txt"), output=str(tmp_path / "out.txt"))
    labels = (tmp_path / "out.txt").read_text().splitlines()
    assert labels == classifier.predict(["good film", "", "bad\ufffd film", "last"])


def test_compressed_files(student_folder: Path, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "in.csv.gz", "wt", newline="") as file:
        file.write("text\r\ngood film\r\n")
    predict(str(student_folder), input=str(tmp_path / "in.csv.gz"), output=str(tmp_path / "out.jsonl.gz"))
    with gzip.open(tmp_path / "out.jsonl.gz", "rt") as file:
        assert json.loads(file.read())["text"] == "good film"


def test_pairs(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    make_model(sentence_pairs=True).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rows = [{"a": "good film", "b": "bad film"}, {"a": "", "b": "film"}]
    given = write(tmp_path / "in.csv", rows)
    columns = {"text_column": "a", "text_pair_column": "b"}
    predict(str(folder), input=str(given), output=str(tmp_path / "out.jsonl"), **columns)  # type: ignore[arg-type]
    expected = NgramClassifier.from_pretrained(folder).predict(*zip(*(row.values() for row in rows), strict=True))
    assert [row["label"] for row in read(tmp_path / "out.jsonl")] == expected
    with pytest.raises(ValueError, match="takes pairs"):
        predict(str(folder), input=str(given), output=str(tmp_path / "x.jsonl"), text_column="a")


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("in.jsonl", '{"text": "a"}\n{"text": \n', {}, "line 2 of"),
        ("in.jsonl", '["a"]\n', {}, "must be a JSON object"),
        ("in.jsonl", '{"body": "a"}\n', {}, "name one of 'body' with --text_column"),
        ("in.jsonl", '{"text": 3}\n', {}, "holds 3, which is no text"),
        ("in.csv", "a,b\n1,2\n", {}, "name one of 'a', 'b'"),
        ("in.csv", "text,b\n1\n", {}, "line 2 of"),
        ("in.csv", "", {}, "is empty"),
        ("in.csv", "text,text\n1,2\n", {}, "two columns 'text'"),
        ("in.csv", "text,label\n1,2\n", {}, "choose a --prefix"),
        ("in.parquet", "no", {}, "cannot be read as Parquet"),
        ("in.doc", "no", {}, "does not end with"),
        ("in.txt", "a\n", {"text_pair_column": "b"}, "txt has one text a line"),
        ("in.csv", "text,b\n1,2\n", {"text_pair_column": "b"}, "takes single texts"),
        ("in.txt", "a\n", {"top_k": -1}, "top_k"),
        ("in.txt", "a\n", {"batch_size": 0}, "batch_size"),
        ("in.txt", "a\n", {"calibrated": True}, "temperature"),
    ],
)
def test_mistakes_leave_the_old_file(
    student_folder: Path, tmp_path: Path, name: str, content: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(ValueError, match=message):
        predict(str(student_folder), input=str(tmp_path / name), output=str(tmp_path / "out.jsonl"), **options)
    assert {path.name for path in tmp_path.iterdir()} == {name, "out.jsonl"}
    assert (tmp_path / "out.jsonl").read_text() == "old"


def test_prefix_makes_room(student_folder: Path, tmp_path: Path) -> None:
    given = write(tmp_path / "in.csv", [{"text": "good", "label": "mine"}])
    predict(str(student_folder), input=str(given), output=str(tmp_path / "out.csv"), prefix="student_")
    assert list(read(tmp_path / "out.csv")[0]) == ["text", "label", "student_label", "student_score"]
    predict(str(student_folder), input=str(given), output=str(tmp_path / "out.csv"), keep_columns=False)
    assert list(read(tmp_path / "out.csv")[0]) == ["label", "score"]


@pytest.fixture
def command(student_folder: Path) -> Callable[..., "subprocess.Popen[bytes]"]:
    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        words = [sys.executable, "-m", "hf_sparse", "predict", str(student_folder), *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(words, env=environment, **pipes)

    return start


def test_standard_input_to_standard_output(
    command: Callable[..., "subprocess.Popen[bytes]"], classifier: NgramClassifier
) -> None:
    out, err = command().communicate(b"good film\nbad film\n", timeout=120)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["label"] for row in rows] == classifier.predict(["good film", "bad film"])
    assert not err


def test_reader_that_has_seen_enough(command: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("good film\n" * 200_000)
    process = command(str(tmp_path / "in.txt"))
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"good film" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) in (0, -signal.SIGPIPE)
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_kill_leaves_the_old_file(command: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in.fifo")
    (tmp_path / "out.jsonl").write_text("old")
    process = command(str(tmp_path / "in.fifo"), str(tmp_path / "out.jsonl"), "--input_format=txt", "--batch_size=10")
    with (tmp_path / "in.fifo").open("wb", buffering=0) as file:
        file.write(b"good film\n" * 1000)
        waited = time.monotonic() + 60
        while not any(path.name.endswith(".tmp") for path in tmp_path.iterdir()):
            assert time.monotonic() < waited
            time.sleep(0.05)
        process.kill()
        process.communicate()
    assert (tmp_path / "out.jsonl").read_text() == "old"


def test_torch_is_not_imported(student_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("good film\n")
    program = (
        "import sys\nfrom hf_sparse import cli\n"
        f"cli.main(['predict', {str(student_folder)!r}, {str(tmp_path / 'in.txt')!r}, {str(tmp_path / 'o.txt')!r}])\n"
        "large = {'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported: {large}' if large else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_damaged_student(student_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(student_folder, tmp_path / "student")
    (folder / "vocabulary.safetensors").write_bytes(b"")
    (tmp_path / "in.txt").write_text("a\n")
    with pytest.raises((ValueError, OSError)):
        predict(str(folder), input=str(tmp_path / "in.txt"), output=str(tmp_path / "out.txt"))
    assert not (tmp_path / "out.txt").exists()


def test_progress_goes_to_stderr_only(
    student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("a\n" * 10)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    predict(str(student_folder), input=str(tmp_path / "in.txt"), output=str(tmp_path / "out.txt"), batch_size=2)
    assert not capsys.readouterr().out
