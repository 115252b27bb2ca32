"""Reading texts: every kind of file gives the same rows, and a bad one is named."""

import csv
import gzip
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.sources import class_names, local_files, read_rows, source_fingerprint

# What readers like to change: missing-value words, numbers, quotes, line ends, commas, tabs, nothing at all.
TEXTS = ["NA", "007", "1e5", "a, b", 'she said "so"', "two\nlines", "a\ttab", "", "null", "True", "é 字", " padded "]
LABELS = [index % 3 for index in range(len(TEXTS))]


def write(path: Path, texts: list[str], labels: Sequence[object]) -> Path:
    """Write a file of the kind that its name says."""
    rows = [{"id": index, "text": text, "label": label} for index, (text, label) in enumerate(zip(texts, labels))]  # noqa: B905
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text", "label"], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: object, **settings: Any) -> dict[str, list[Any]]:
    """Return the columns of a source."""
    table = pa.concat_tables(read_rows(TextSet(path=str(path), **settings)), promote_options="default")
    return {name: table[name].to_pylist() for name in table.column_names}


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows.{suffix}", TEXTS, LABELS)
    assert read(path, label_column="label") == {"text": TEXTS, "label": LABELS}


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_text_that_looks_like_numbers_stays_text(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows.{suffix}", ["007", "1.50", "1e5"], [0, 1, 0])
    assert read(path)["text"] == ["007", "1.50", "1e5"]


def test_two_columns_of_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", ["a", "b"], [1, 2])
    assert read(path, text_pair_column="label") == {"text": ["a", "b"], "text_pair": ["1", "2"]}


def test_folder_and_pattern_are_sorted(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    write(tmp_path / "2.jsonl", ["c"], [0])
    write(tmp_path / "1.csv", ["b"], [0])
    write(tmp_path / "inner" / "0.parquet", ["d"], [0])
    (tmp_path / "notes.txt").write_text("not data")
    assert read(tmp_path)["text"] == ["b", "c", "d"]
    assert read(tmp_path / "*.*")["text"] == ["b", "c"]
    assert read(tmp_path / "**" / "*.parquet")["text"] == ["d"]


def test_null_text_is_empty(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet")["text"] == ["a", ""]


def test_dictionary_and_number_columns_become_texts(tmp_path: Path) -> None:
    columns = {"text": pa.array(["a", "b", "a"]).dictionary_encode(), "number": [1, 2, 3]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", text_pair_column="number")["text_pair"] == ["1", "2", "3"]
    assert read(tmp_path / "rows.parquet")["text"] == ["a", "b", "a"]


def test_texts_and_numbers_in_one_column_of_json_are_strings(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"text": "who", "label": "HUM"}\n{"text": 3, "label": 1}\n{"text": null, "label": "1"}\n')
    table = pa.concat_tables(read_rows(TextSet(path=str(path), label_column="label")))
    assert table.to_pydict() == {"text": ["who", "3", ""], "label": ["HUM", "1", "1"]}
    path.write_text('{"text": "who"}\n{"text": [3]}\n')
    with pytest.raises(ValueError, match=r"column 'text' of .* holds \[3\] beside texts"):
        list(read_rows(TextSet(path=str(path))))


def test_quotes_of_tsv_files(tmp_path: Path) -> None:
    path = tmp_path / "texts.tsv"
    for content, expected in (
        ('"not closed\ta\nsecond\tb\nthird"\tc\n', ['"not closed', "second", 'third"']),
        ('"closed"\ta\n"with ""quotes"""\tb\n', ["closed", 'with "quotes"']),
        ('"two\nlines"\ta\nsecond\tb\n', ["two\nlines", "second"]),
    ):
        path.write_text("text\tlabel\n" + content)
        table = pa.concat_tables(read_rows(TextSet(path=str(path), label_column="label")))
        assert table["text"].to_pylist() == expected


def test_rows_of_csv_may_end_with_a_separator(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text,source\nwho are you,web,\nwhat is it,mail,\n")
    table = pa.concat_tables(read_rows(TextSet(path=str(path))))
    assert table["text"].to_pylist() == ["who are you", "what is it"]
    for row in ("a,b,c\n", "a,b\nc,d,e\n"):
        path.write_text("text,source\n" + row)
        with pytest.raises(ValueError, match="fields"):
            list(read_rows(TextSet(path=str(path))))


@pytest.mark.parametrize("limit", [1, 7, 1024, 1500, 9999])
def test_limit(tmp_path: Path, limit: int) -> None:
    write(tmp_path / "1.parquet", [str(index) for index in range(1100)], [0] * 1100)
    write(tmp_path / "2.parquet", [str(index) for index in range(1100, 2000)], [0] * 900)
    found = [
        text for table in read_rows(TextSet(path=str(tmp_path), limit=limit)) for text in table["text"].to_pylist()
    ]
    assert found == [str(index) for index in range(min(limit, 2000))]


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one(tmp_path: Path, limit: int) -> None:
    """As `hf-sparse evaluate --limit` would hand it over; recipes have named their text set before."""
    path = write(tmp_path / "rows.csv", ["a", "b"], [0, 1])
    with pytest.raises(ValueError, match=f"^limit is {limit}, but must be at least 1"):
        list(read_rows(TextSet(path=str(path), limit=limit)))


def test_numbers_become_labels_at_a_threshold(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    scores = [0.0, 0.49, 0.5, 1.0, None, float("nan")]
    pq.write_table(pa.table({"text": list("abcdef"), "score": pa.array(scores, pa.float32())}), path)
    settings = {"label_column": "score", "label_threshold": 0.5}
    assert read(path, **settings)["label"] == [0, 0, 1, 1, None, None]
    keys = [
        source_fingerprint(TextSet(path=str(path), label_column="score", label_threshold=threshold))
        for threshold in (None, 0.4, 0.5)
    ]
    assert keys[0] != keys[1] != keys[2]
    with pytest.raises(ValueError, match="label_threshold but no label_column"):
        read(path, label_threshold=0.5)
    with pytest.raises(ValueError, match=r"'text' .* has a label_threshold, but is not of numbers"):
        read(path, label_column="text", label_threshold=0.5)


@pytest.mark.parametrize("form", ["list", "columns"])
def test_logits_of_the_teacher(tmp_path: Path, form: str) -> None:
    write(tmp_path / "rows.csv", [str(index) for index in range(1500)], [0] * 1500)
    logits = np.random.default_rng(0).normal(size=(1500, 11)).astype(np.float32)
    columns: dict[str, Any] = {f"logit_{index}": logits[:, index] for index in range(11)}
    columns = {"logits": logits.tolist()} if form == "list" else columns
    pq.write_table(pa.table(columns), tmp_path / "logits.parquet")
    found = read(tmp_path / "rows.csv", logits_path=str(tmp_path / "logits.parquet"))
    np.testing.assert_array_equal(np.array(found["logits"], np.float32), logits)
    limited = read(tmp_path / "rows.csv", logits_path=str(tmp_path / "logits.parquet"), limit=3)
    np.testing.assert_array_equal(np.array(limited["logits"], np.float32), logits[:3])


def test_logits_are_read_in_step_with_the_texts(tmp_path: Path) -> None:
    """Files of any length beside texts of any length, and nothing is read before its text is."""
    write(tmp_path / "rows.csv", [str(index) for index in range(5000)], [0] * 5000)
    logits = np.random.default_rng(0).normal(size=(5000, 2))
    folder = tmp_path / "logits"
    folder.mkdir()
    for index, part in enumerate(np.split(logits, [1, 700, 3100])):
        columns = {"logits": part.tolist()} if index % 2 else {"logit_1": part[:, 1], "logit_0": part[:, 0]}
        pq.write_table(pa.table(columns), folder / f"{index}.parquet")
    found = read(tmp_path / "rows.csv", logits_path=str(folder))
    np.testing.assert_array_equal(np.array(found["logits"], np.float32), logits.astype(np.float32))

    pq.write_table(pa.table({"logits": [[1.0, math.nan]] * 1900}), folder / "3.parquet")
    tables = read_rows(TextSet(path=str(tmp_path / "rows.csv"), logits_path=str(folder)))
    assert next(tables).num_rows == 1024
    with pytest.raises(ValueError, match="not all finite numbers"):
        list(tables)


@pytest.mark.parametrize("count", [3, 5])
def test_other_number_of_logits_is_refused(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "rows.csv", list("abcd"), [0] * 4)
    pq.write_table(pa.table({"logits": [[1.0, 2.0]] * count}), tmp_path / "logits.parquet")
    with pytest.raises(ValueError, match=f"has {count} rows of logits"):
        read(path, logits_path=str(tmp_path / "logits.parquet"))


def test_logits_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", ["a"], [0])
    with pytest.raises(ValueError, match=r"nothing\.parquet' does not exist"):
        read(path, logits_path=str(tmp_path / "nothing.parquet"))
    pq.write_table(pa.table({"scores": [1.0]}), tmp_path / "scores.parquet")
    with pytest.raises(ValueError, match="neither a column 'logits'"):
        read(path, logits_path=str(tmp_path / "scores.parquet"))


@pytest.mark.parametrize("names", [("logit_1", "logit_2"), ("logit_0", "logit_2"), ("logit_00", "logit_1")])
def test_logits_with_a_gap_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = write(tmp_path / "rows.csv", ["a"], [0])
    pq.write_table(pa.table({"id": [7], **{name: [1.0] for name in names}}), tmp_path / "logits.parquet")
    with pytest.raises(ValueError, match=f"has the columns {', '.join(names)}, but .*logit_0 to logit_1"):
        read(path, logits_path=str(tmp_path / "logits.parquet"))


@pytest.mark.parametrize(
    "columns", [{"logits": [[1.0, math.nan]]}, {"logits": [None]}, {"logit_0": [1.0], "logit_1": [None]}]
)
def test_logits_that_are_no_numbers_name_their_file(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = write(tmp_path / "rows.csv", ["a"], [0])
    table = pa.table(
        {
            name: pa.array(v, pa.list_(pa.float64()) if name == "logits" else pa.float64())
            for name, v in columns.items()
        }
    )
    pq.write_table(table, tmp_path / "logits.parquet")
    with pytest.raises(ValueError, match=r"logits\.parquet' are not all finite numbers; correct the file"):
        read(path, logits_path=str(tmp_path / "logits.parquet"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv"])
def test_empty_file_says_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    with pytest.raises(ValueError, match=rf"{name}' .*holds no texts; "):
        read(path)


def test_class_names_of_a_data_set(tmp_path: Path) -> None:
    names = ["World", "Sports"]
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=names),
            "labels": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    rows = {"text": ["a", "b"], "label": [1, 0], "labels": [[0, 1], []]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    path = str(tmp_path / "rows.parquet")
    assert class_names(TextSet(path=path, label_column="label")) == names
    assert class_names(TextSet(path=path, label_column="labels")) == names
    assert class_names(TextSet(path=path, label_column="text")) is None
    assert class_names(TextSet(path=path)) is None
    plain = write(tmp_path / "plain.parquet", ["a"], [0])
    assert class_names(TextSet(path=str(plain), label_column="label")) is None
    assert class_names(TextSet(path=str(write(tmp_path / "r.csv", ["a"], [0])), label_column="label")) is None


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_missing_column_is_named(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"rows.{suffix}", ["a"], [0])
    with pytest.raises(
        ValueError, match=r"rows\.\w+' has no column 'body' for text_column; its columns are 'id', 'text'"
    ):
        read(path, text_column="body")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.parquet", b"PAR1 not really PAR1"),
        ("rows.parquet", b""),
        ("rows.csv", b""),
        ("rows.csv", b"text,label\n\xff\xfe\x00bad,1\n"),
        ("rows.jsonl", b""),
        ("rows.jsonl", b'{"text": "a"}\n{"text": '),
        ("rows.jsonl", b"nonsense\n"),
        ("rows.csv.gz", gzip.compress(b"text\na\n", mtime=0)),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read(path)


def test_column_without_texts_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [[1], [2]]}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"column 'text' .* holds no texts"):
        read(tmp_path / "rows.parquet")


def test_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no"):
        local_files(str(tmp_path))
    with pytest.raises(ValueError, match="does not exist"):
        read(tmp_path / "nothing")


def test_fingerprint_follows_content_and_columns_only(tmp_path: Path) -> None:
    first = write(tmp_path / "first.csv", ["a"], [0])
    other_kind = shutil.copy(first, tmp_path / "first.tsv")
    assert source_fingerprint(TextSet(path=str(first))) != source_fingerprint(TextSet(path=str(other_kind)))
    second = write(tmp_path / "second.csv", ["a"], [0])
    assert source_fingerprint(TextSet(path=str(first))) == source_fingerprint(TextSet(path=str(second)))
    different = source_fingerprint(TextSet(path=str(first), label_column="label"))
    assert different != source_fingerprint(TextSet(path=str(first)))
    write(second, ["b"], [0])
    assert source_fingerprint(TextSet(path=str(first))) != source_fingerprint(TextSet(path=str(second)))


def test_hub_data_set_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    source = TextSet(path="org/texts", split="train")
    unknown = source_fingerprint(source)
    references = tmp_path / "datasets--org--texts" / "refs"
    references.mkdir(parents=True)
    found = []
    for commit in ("a" * 40, "b" * 40):
        (references / "main").write_text(commit)
        found.append(source_fingerprint(source))
    assert unknown not in found
    assert found[0] != found[1]
    pinned = TextSet(path="org/texts", split="train", revision="a" * 40)
    assert source_fingerprint(pinned) == found[0]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (['["a", "b"]', "[]"], [["a", "b"], []]),
        (["['a', 'b']", "['c']"], [["a", "b"], ["c"]]),
        (["[1, 0]", "[0, 0]"], [[1, 0], [0, 0]]),
        (["[sic]", "['a']"], ["[sic]", "['a']"]),
        (["[1, 'a']", "[[1]]"], ["[1, 'a']", "[[1]]"]),
        (["[[1]]", "[[0]]"], ["[[1]]", "[[0]]"]),
        (["['a']", ""], [["a"], None]),
        (["", ""], ["", ""]),
        (["[" * 2000, "['a']"], ["[" * 2000, "['a']"]),
    ],
)
def test_lists_of_labels_in_csv(tmp_path: Path, labels: list[str], expected: list[object]) -> None:
    path = write(tmp_path / "rows.csv", ["x", "y"], labels)
    assert read(path, label_column="label")["label"] == expected
