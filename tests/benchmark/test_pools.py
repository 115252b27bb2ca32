"""Reading texts, and making texts of a length."""

import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_sparse.benchmark.texts import LabelledTexts, describe_pool, make_pool, read_texts, shuffle

NAMES = ["negative", "positive"]
TEXTS = ["a  good<br />film !", "bad"]


def write(path: Path) -> Path:
    rows = [{"body": text, "stars": label} for text, label in zip(TEXTS, (1, 0), strict=True)]
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".csv":
            path.write_text(
                "body,stars\n" + "".join(f"{row['body']},{row['stars']}\n" for row in rows), encoding="utf-8"
            )
        case ".txt":
            path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_kinds_of_files(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"texts.{kind}")
    found = read_texts(str(path), text_column="body", label_column="stars", label_names=NAMES)
    assert found.texts == tuple(TEXTS)
    assert found.labels == ("positive", "negative")
    assert read_texts(str(path), text_column="body", label_column=None, label_names=NAMES).labels is None


def test_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.txt")
    assert read_texts(str(path), text_column="any", label_column=None, label_names=NAMES).texts == tuple(TEXTS)


def test_pattern(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    found = read_texts(f"{tmp_path}/*.txt", text_column="text", label_column=None, label_names=NAMES)
    assert found.texts == ("a", "b")


@pytest.mark.parametrize(
    ("name", "column", "label", "message"),
    [
        ("missing.parquet", "body", None, "there is no file"),
        ("texts.xml", "body", None, "has to be a .parquet"),
        ("texts.jsonl", "text", None, "no column 'text'"),
        ("texts.jsonl", "body", "body", "neither one of the student's labels"),
        ("empty.txt", "body", None, "holds no texts"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, column: str, label: str | None, message: str) -> None:
    write(tmp_path / "texts.jsonl")
    (tmp_path / "texts.xml").write_text("<x/>", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_texts(str(tmp_path / name), text_column=column, label_column=label, label_names=NAMES)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any), st.integers(1, 60), st.integers(0, 5))
def test_pool_is_made_of_the_texts(counts: list[int], length: int, seed: int) -> None:
    texts = [" ".join(f"{text}.{place}" for place in range(count)) for text, count in enumerate(counts)]
    pool = make_pool(texts, length=length, size=20, seed=seed)
    assert len(pool) == 20
    assert pool == make_pool(texts, length=length, size=20, seed=seed)
    for made in pool:
        # Whole texts one after the other, the last one up to some word.
        words = [tuple(map(int, word.split("."))) for word in made.split()]
        assert words[0][1] == 0
        for (text, place), (following, next_place) in pairwise(words):
            if place + 1 < counts[text]:
                assert (following, next_place) == (text, place + 1)
            else:
                assert next_place == 0


def test_lengths_spread_around_the_target() -> None:
    texts = [" ".join(["word"] * count) for count in (50, 80, 100, 150, 400)]
    pool = make_pool(texts, length=1000, size=2000, seed=0)
    found = describe_pool(pool)
    assert found["mean_words"] == pytest.approx(1000, rel=0.05)
    assert found["fewest_words"] < 700
    assert 1500 < found["most_words"] < 2500
    assert found["texts"] == 2000


def test_white_space_is_kept() -> None:
    assert set(make_pool(["a  b\tc"], length=3, size=5, seed=0)) == {"a  b\tc"}


def test_shuffle() -> None:
    given_order = LabelledTexts(texts=tuple(map(str, range(50))), labels=tuple("-" * 25 + "+" * 25))
    found = shuffle(given_order, seed=0)
    assert found.labels is not None
    assert sorted(zip(found.texts, found.labels, strict=True)) == sorted(
        zip(given_order.texts, given_order.labels or (), strict=True)
    )
    assert len(set(found.labels[:10])) == 2
    assert shuffle(LabelledTexts(texts=("a", "b"), labels=None), seed=1).labels is None


def test_no_words() -> None:
    with pytest.raises(ValueError, match="has a word"):
        make_pool([" ", ""], length=3, size=5, seed=0)
