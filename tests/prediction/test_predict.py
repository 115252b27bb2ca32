"""Files are classified as the student classifies their texts one by one, whatever is read and written."""

import csv
import gzip
import json
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import pipeline

from hf_sparse import cli
from hf_sparse.prediction import predict, readers
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import SparseNgramTextClassificationPipeline, SparseNgramTokenizer
from tests.conftest import LABELS, WORDS, ModelFactory
from tests.texts import ANY_TEXT

RANDOM = np.random.default_rng(0)
TEXTS = [" ".join(RANDOM.choice(WORDS, RANDOM.integers(0, 9))) for _ in range(57)]
FORMATS = ("txt", "jsonl", "csv", "tsv", "parquet")
FIT_FOR_A_LINE = ANY_TEXT.map(lambda text: text.replace("\n", " ").removesuffix("\r"))
QUICK = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_columns(path: Path, columns: dict[str, Sequence[Any]]) -> Path:
    """Write a file, in the format that its name ends with, without the code under test."""
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".txt":
        path.write_bytes("".join(f"{text}\n" for text in columns["text"]).encode())
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(columns)
            writer.writerows(rows)
    return path


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Read a file without the code under test; all values of CSV are strings."""
    if path.suffix == ".parquet":
        table: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        return table
    if path.suffix == ".txt":
        return {"label": path.read_text(encoding="utf-8").split("\n")[:-1]}
    if path.suffix == ".jsonl":
        # Not splitlines(): only a line feed ends a line.
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        return {name: [row[name] for row in rows] for name in rows[0]}
    with path.open(encoding="utf-8", newline="") as file:
        header, *fields = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    return {name: [row[place] for row in fields] for place, name in enumerate(header)}


def save(folder: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, **options: Any) -> Path:
    """Write a student."""
    pipe = SparseNgramTextClassificationPipeline(model=make_model(**options), tokenizer=tokenizer, device="cpu")
    pipe.save_pretrained(folder)
    return folder


def replaced(text: str) -> str:
    """What UTF-8 can hold of a text."""
    return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)


@pytest.fixture(scope="module")
def student(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A student that gives each of its three labels to some of TEXTS."""
    return save(tmp_path_factory.mktemp("predict") / "student", make_model, tokenizer, hidden_sizes=[])


@pytest.fixture(scope="module")
def answers(student: Path) -> tuple[list[str], list[float]]:
    """Labels and scores of TEXTS by the pipeline, text by text."""
    classify = pipeline("text-classification", model=str(student), trust_remote_code=True)
    found = [classify(text)[0] for text in TEXTS]
    return [item["label"] for item in found], [item["score"] for item in found]


@pytest.mark.parametrize("written", FORMATS)
@pytest.mark.parametrize("read", FORMATS)
def test_every_format_to_every_format(
    read: str, written: str, student: Path, answers: tuple[list[str], list[float]], tmp_path: Path
) -> None:
    source = write_columns(tmp_path / f"in.{read}", {"id": list(range(len(TEXTS))), "text": TEXTS})
    target = tmp_path / f"out.{written}"
    assert predict(str(student), input=str(source), output=str(target), batch_size=10) == len(TEXTS)
    found = read_columns(target)
    assert found["label"] == answers[0]
    assert set(answers[0]) == set(LABELS)
    if written != "txt":
        np.testing.assert_allclose(np.array(found["score"], dtype=float), answers[1], atol=1e-6)
        assert found["text"] == TEXTS
        assert list(found) == (["text"] if read == "txt" else ["id", "text"]) + ["label", "score"]
    if written != "txt" and read != "txt":
        assert list(map(str, found["id"])) == list(map(str, range(len(TEXTS))))
        is_number = read in ("jsonl", "parquet") and written in ("jsonl", "parquet")
        assert isinstance(found["id"][0], int if is_number else str)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=7), batch_size=st.integers(1, 4))
@example(texts=["\ud800\udc00", "\udc00\ud800 a"], batch_size=1)
@QUICK
def test_any_text_comes_through(
    texts: list[str], batch_size: int, student: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = [json.loads(json.dumps(text)) for text in texts]  # two surrogates side by side are one character in JSON
    folder = tmp_path_factory.mktemp("any")
    steps = ("in.jsonl", "a.jsonl", "b.csv", "c.parquet", "d.tsv", "e.csv", "f.parquet", "g.jsonl")
    write_columns(folder / steps[0], {"text": texts})
    classifier = NgramClassifier.from_pretrained(student)
    for number, (source, target) in enumerate(pairwise(steps)):
        predict(
            str(student),
            input=str(folder / source),
            output=str(folder / target),
            batch_size=batch_size,
            prefix=f"{number}_",
        )
        found = read_columns(folder / target)
        expected = texts if target == "a.jsonl" else list(map(replaced, texts))
        assert found["text"] == expected, target
        # A lone surrogate splits words, the sign that replaces it is a word without a row: answers are the same.
        seen = texts if source in steps[:2] else expected
        assert found[f"{number}_label"] == [classifier.predict([text])[0] for text in seen]


@given(texts=st.lists(FIT_FOR_A_LINE.map(replaced), max_size=9), is_ended=st.booleans())
@QUICK
def test_a_line_of_txt_is_a_text(
    texts: list[str], is_ended: bool, student: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    joined = "\n".join(texts) + "\n" * (is_ended and bool(texts))
    (folder / "in.txt").write_bytes(joined.encode())
    # A mark of byte order, and a line without an end, are none of the texts.
    lines = joined.removeprefix("\ufeff").split("\n")
    expected = [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
    count = predict(str(student), input=str(folder / "in.txt"), output=str(folder / "out.parquet"), batch_size=2)
    assert count == len(expected)
    assert pq.read_table(folder / "out.parquet")["text"].to_pylist() == expected


@pytest.mark.parametrize("parser", ["orjson", "json"])
def test_json_lines_are_kept_as_they_are(
    parser: str, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "quick_json", __import__(parser))
    lines = [
        '{"id": 123456789012345678901234567890, "x": 1.0, "text": "a good film"}',
        ' {"text":"\\ud800 good\\u0000", "y": [1, {"z": null}], "%s": "%d"} ',
        "",
        '{"x": NaN, "text": null}\r',
        '{"text": "é"}',
    ]
    (tmp_path / "in.jsonl").write_text("\ufeff" + "\n".join(lines), encoding="utf-8", newline="")
    assert predict(str(student), input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.jsonl")) == 4
    found = (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    full = [line.strip() for line in lines if line]
    assert [line[: len(before) - 1] for line, before in zip(found, full, strict=True)] == [x[:-1] for x in full]
    labels = NgramClassifier.from_pretrained(student).predict(["a good film", "\ud800 good\x00", "", "é"])
    assert [json.loads(line)["label"] for line in found] == labels
    with pytest.raises(ValueError, match=r"the first rows have not.*write jsonl"):
        predict(str(student), input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.csv"), batch_size=1)
    assert predict(str(student), input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.csv")) == 4
    assert read_columns(tmp_path / "out.csv")["id"][0] == "123456789012345678901234567890"
    assert read_columns(tmp_path / "out.csv")["y"] == ["", '[1, {"z": null}]', "", ""]


def test_parquet_keeps_types_and_csv_text(student: Path, tmp_path: Path) -> None:
    table = pa.table(
        {
            "when": pa.array([0, 1000], pa.timestamp("ms")),
            "text": pa.array(["a", None]).dictionary_encode(),
            "cost": pa.array([float("nan"), 0.1], pa.float32()),
            "tags": [["x"], None],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    for name in ("out.parquet", "out.jsonl"):
        predict(str(student), input=str(tmp_path / "in.parquet"), output=str(tmp_path / name), batch_size=1)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["when"].type == table["when"].type
    assert found["cost"].type == pa.float32()
    assert found["tags"].to_pylist() == [["x"], None]
    assert found["score"].type == pa.float32()
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["when"] for row in rows] == ["1970-01-01T00:00:00", "1970-01-01T00:00:01"]
    assert [row["cost"] for row in rows] == [None, pytest.approx(0.1)]
    assert rows[1]["text"] is None
    source = tmp_path / "in.csv"
    source.write_bytes(b'\xef\xbb\xbfcode,text\r\n007,"two\r\nlines, ""quoted"""\r\n\r\nNA,nul\x00\r\n')
    predict(str(student), input=str(source), output=str(tmp_path / "out.csv"))
    columns = read_columns(tmp_path / "out.csv")
    assert (columns["code"], columns["text"]) == (["007", "NA"], ['two\r\nlines, "quoted"', "nul\x00"])


def test_parquet_refuses_what_it_would_change(student: Path, tmp_path: Path) -> None:
    for first, second, message in [(1, 1.5, "double, but int64"), (1, "x", "first rows"), (2, 2**70, "'n'")]:
        write_columns(tmp_path / "in.jsonl", {"text": ["a", "b"], "n": [first, second]})
        with pytest.raises(ValueError, match=message):
            predict(
                str(student),
                input=str(tmp_path / "in.jsonl"),
                output=str(tmp_path / "out.parquet"),
                batch_size=1,
            )
        assert not (tmp_path / "out.parquet").exists()
    write_columns(tmp_path / "in.jsonl", {"text": ["a", "b"], "n": [1.5, 2], "m": [["x"], []]})
    predict(str(student), input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.parquet"), batch_size=1)
    assert read_columns(tmp_path / "out.parquet")["n"] == [1.5, 2.0]


def test_scores_are_those_of_the_runtime_to_the_last_bit(student: Path, tmp_path: Path) -> None:
    source = write_columns(tmp_path / "in.jsonl", {"text": TEXTS})
    expected = NgramClassifier.from_pretrained(student).predict_proba(TEXTS)
    for suffix in ("jsonl", "csv", "parquet"):
        target = tmp_path / f"out.{suffix}"
        predict(str(student), input=str(source), output=str(target), probabilities=True, top_k=2, prefix="p %")
        found = read_columns(target)
        columns = [np.array(found[f"p %probability_{name}"], dtype=np.float32) for name in LABELS]
        np.testing.assert_array_equal(np.stack(columns, axis=1), expected)
        labels, scores = (
            [json.loads(value) if suffix == "csv" else value for value in found[f"p %{name}"]]
            for name in ("label", "score")
        )
        order = np.argsort(-expected, axis=1, kind="stable")[:, :2]
        assert labels == [[LABELS[index] for index in row] for row in order]
        np.testing.assert_array_equal(np.array(scores, np.float32), np.take_along_axis(expected, order, axis=1))


def test_several_labels_a_text(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    options = {"problem_type": "multi_label_classification", "label_thresholds": [0.5, 0.5, 0.6]}
    student = save(
        tmp_path / "student", make_model, tokenizer, calibration_temperature=2.0, hidden_sizes=[], **options
    )
    classifier = NgramClassifier.from_pretrained(student)
    expected, scores = classifier.predict(TEXTS), classifier.predict_proba(TEXTS, calibrated=True)
    assert {len(labels) for labels in expected} >= {0, 1, 2}
    source = write_columns(tmp_path / "in.csv", {"text": TEXTS})
    for name in ("out.parquet", "out.jsonl"):
        # A text without labels, alone in its batch, says nothing of the type that lists of labels have.
        predict(str(student), input=str(source), output=str(tmp_path / name), calibrated=True, batch_size=1)
        found = read_columns(tmp_path / name)
        assert found["label"] == expected
        for row, labels, values in zip(scores, expected, found["score"], strict=True):
            # The sums of a batch of one are not added up in the order of those of many.
            np.testing.assert_allclose(values, [row[LABELS.index(label)] for label in labels], rtol=1e-5)
    predict(str(student), input=str(source), output=str(tmp_path / "out.txt"))
    assert read_columns(tmp_path / "out.txt")["label"] == ["\t".join(labels) for labels in expected]
    predict(str(student), input=str(source), output=str(tmp_path / "all.jsonl"), top_k=0)
    assert all(sorted(labels) == sorted(LABELS) for labels in read_columns(tmp_path / "all.jsonl")["label"])


def test_regression_of_pairs(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    student = save(
        tmp_path / "student", make_model, tokenizer, problem_type="regression", num_labels=1, sentence_pairs=True
    )
    others = TEXTS[::-1]
    expected = NgramClassifier.from_pretrained(student).predict_proba(TEXTS, others)[:, 0]
    for suffix in ("jsonl", "csv", "parquet"):
        source = write_columns(tmp_path / f"in.{suffix}", {"other": others, "text": TEXTS})
        target = tmp_path / f"out.{suffix}"
        predict(str(student), input=str(source), output=str(target), text_pair_column="other", batch_size=8)
        found = read_columns(target)
        assert list(found) == ["other", "text", "score"]
        np.testing.assert_array_equal(np.array(found["score"], dtype=np.float32), expected)
    with pytest.raises(ValueError, match="takes pairs: name their text_pair_column"):
        predict(str(student), input=str(source), output=str(target))
    with pytest.raises(ValueError, match="its only answer is a score"):
        predict(str(student), input=str(source), output=str(target), text_pair_column="other", top_k=1)


@pytest.mark.parametrize("suffix", FORMATS)
def test_nothing_gives_nothing(suffix: str, student: Path, tmp_path: Path) -> None:
    source = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), source)
    else:
        source.write_text("text\n" if suffix in ("csv", "tsv") else "")
    for written in FORMATS:
        target = tmp_path / f"out.{written}"
        assert predict(str(student), input=str(source), output=str(target)) == 0
        columns = ["label", "score"] if suffix == "jsonl" else ["text", "label", "score"]
        if written == "parquet":
            assert pq.read_table(target).column_names == columns
        else:
            expected = {"csv": ",".join(columns) + "\n", "tsv": "\t".join(columns) + "\n"}
            assert target.read_text() == expected.get(written, "")


def test_gzip(student: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress(b"a good film\nbad\n") + gzip.compress(b"and more"))
    predict(str(student), input=str(tmp_path / "in.txt.gz"), output=str(tmp_path / "out.csv.gz"))
    lines = gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode().splitlines()
    assert [line.split(",")[0] for line in lines] == ["text", "a good film", "bad", "and more"]


@pytest.mark.parametrize("kept", ["half", "nothing", "middle"])
def test_broken_gzip_is_named(student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: str) -> None:
    whole = gzip.compress(("text\n" + "\n".join(map(str, RANDOM.random(2000)))).encode())
    middle = len(whole) // 2
    broken = {"half": whole[:middle], "nothing": b"text\ngood\n", "middle": whole[:50] + b"\xff" * 50 + whole[100:]}
    (tmp_path / "in.csv.gz").write_bytes(broken[kept])
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", str(student), str(tmp_path / "in.csv.gz"), str(tmp_path / "out.jsonl")])
    assert end.value.code == 2
    assert f"{tmp_path / 'in.csv.gz'} cannot be read as gzip: " in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_what_is_not_utf8_is_counted(student: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in.txt").write_bytes("good\ufffd\n".encode() + b"caf\xe9\nb\xff\xffd\n")
    with caplog.at_level(logging.WARNING):
        predict(str(student), input=str(tmp_path / "in.txt"), output=str(tmp_path / "out.jsonl"))
    assert caplog.messages == ["3 places that are not UTF-8 were read as U+FFFD"]
    assert read_columns(tmp_path / "out.jsonl")["text"] == ["good\ufffd", "caf\ufffd", "b\ufffd\ufffdd"]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("in.jsonl", '{"text": "a"}\n\n{"text": "b"\n', {}, r"line 3 of .*in.jsonl: this is no JSON: .*character 13"),
        ("in.jsonl", '{"text": "a"}\n["text"]\n', {}, "line 2 of .*must be a JSON object, this is a list"),
        ("in.jsonl", '{"text": "a"}\n{"texts": "a"}\n', {}, "line 2 of .*no column 'text'; name one of 'texts'"),
        ("in.jsonl", '{"text": 5}\n', {}, "line 1 of .*column 'text' holds 5, which is no text"),
        ("in.jsonl", '{"text": "\xe9"}\n'.encode("latin-1"), {}, "line 1 of .*utf-8"),
        ("in.jsonl", "[" * 100_000 + "\n", {}, "line 1 of"),
        ("in.jsonl", '{"text": "a"}\n{"text": "a", "score": 1}\n', {}, "a column 'score' already; choose a --prefix"),
        ("in.csv", "body,id\na,1\n", {}, "no column 'text'; name one of 'body', 'id' with --text_column"),
        ("in.csv", "text,id\na,1\nb\n", {}, "line 3 of .* has 1 fields, but the header has 2"),
        ("in.csv", 'text,id\n"a,1\n', {}, "line 2 of .*unexpected end of data"),
        ("in.csv", "text,label\na,1\n", {}, "a column 'label' already"),
        ("in.csv", "text,text\na,1\n", {}, "two columns 'text'"),
        ("in.csv", "", {}, "is empty: its first line must name the columns"),
        ("in.csv", "text\na\n", {"text_pair_column": "b"}, "takes single texts, no pairs"),
        ("in.txt", "a\n", {"text_pair_column": "b"}, "txt has one text a line and no pairs"),
        ("in.txt", "a\n", {"calibrated": True}, "no calibration_temperature"),
        ("in.txt", "a\n", {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ("in.txt", "a\n", {"top_k": -1}, "top_k is a number of labels"),
        ("in.text", "a\n", {}, "does not end with .*--input_format"),
        ("in.parquet", "a\n", {}, "cannot be read as Parquet"),
        ("in.txt", "a\n", {"output": "-", "output_format": "parquet"}, "not as '-'"),
    ],
)
def test_mistakes(
    name: str, content: str | bytes, options: dict[str, Any], message: str, student: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "out.jsonl").write_text("old")
    chosen = {"input": str(tmp_path / name), "output": str(tmp_path / "out.jsonl"), **options}
    with pytest.raises(ValueError, match=message):
        predict(str(student), **chosen)
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_columns_of_the_input_may_be_left_out(student: Path, tmp_path: Path) -> None:
    numbers = pa.table({"label": [b"\xff"], "text": ["a"]})
    pq.write_table(numbers, tmp_path / "in.parquet")
    options = {"input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "out.jsonl")}
    with pytest.raises(ValueError, match=r"column 'label': .*bytes, which JSON and CSV cannot"):
        predict(str(student), prefix="a_", **options)
    predict(str(student), keep_columns=False, **options)
    assert list(read_columns(tmp_path / "out.jsonl")) == ["label", "score"]
    with pytest.raises(ValueError, match=r"column 'label' of .* holds binary, not texts"):
        predict(str(student), text_column="label", keep_columns=False, **options)


def test_long_texts_end_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_BATCH_BYTES", 1000)
    write_columns(tmp_path / "in.txt", {"text": ["x" * 100] * 1000})
    options: dict[str, Any] = {"text_column": "text", "text_pair_column": None, "keep_columns": True}
    reader = readers.Reader(str(tmp_path / "in.txt"), "txt", batch_size=500, **options)
    shares, sizes = zip(*[(reader.share, len(rows.texts)) for rows in reader], strict=True)
    assert sum(sizes) == 1000
    assert max(sizes) <= 64
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1.0


def test_command_takes_files_by_place(student: Path, tmp_path: Path, capsysbinary: Any) -> None:
    source = write_columns(tmp_path / "in.csv", {"body": TEXTS[:3]})
    arguments = ["predict", str(student), str(source)]
    cli.main([*arguments, str(tmp_path / "out.txt"), "--text_column", "body"])
    cli.main([*arguments, "--output_format", "txt", "--text_column=body"])
    cli.main([*arguments, "-", "--text_column", "body", "--output_format", "txt"])
    expected = NgramClassifier.from_pretrained(student).predict(TEXTS[:3])
    assert read_columns(tmp_path / "out.txt")["label"] == expected
    shown = capsysbinary.readouterr()
    assert shown.out.decode().split() == expected * 2
    assert not shown.err
