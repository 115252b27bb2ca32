"""Text sets as shards, and the teacher's logits beside them: every text once, in order."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_sparse.distillation import labelling, texts
from hf_sparse.distillation.label_space import LabelSpace
from hf_sparse.distillation.labelling import has_given_logits, label_texts, read_logits
from hf_sparse.distillation.recipe_data import DataRecipe, TextSet
from hf_sparse.distillation.texts import num_texts, read_texts, shards, write_text_sets

SPACE = LabelSpace.from_names(["even", "odd"], problem_type="single_label_classification", origin="a test")


class LengthTeacher:
    """Answers with the length of a text and its last figure; counts how often it is asked for each."""

    def __init__(self, num_labels: int = 2) -> None:
        self.asked: list[str] = []
        self.model = type("Model", (), {"config": type("Config", (), {"num_labels": num_labels})})

    def logits(self, texts: list[str], pairs: list[str] | None = None, *, bar: Any = None) -> Any:
        """Answer."""
        self.asked += texts
        return np.array([[len(text), int(text[-1])] for text in texts], np.float32)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 16 texts in row groups of 4, labelled in parts of 5."""
    monkeypatch.setattr(texts, "SHARD_ROWS", 16)
    monkeypatch.setattr(texts, "GROUP_ROWS", 4)
    monkeypatch.setattr(labelling, "GROUP_ROWS", 4)
    monkeypatch.setattr(labelling, "_PART_TEXTS", 5)


def source(folder: Path, name: str, count: int, **settings: Any) -> TextSet:
    """Write texts `<name> <number>` with their parity as label."""
    rows = [{"text": f"{name} {i}", "text_pair": f"{name} pair {i}", "label": i % 2} for i in range(count)]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return TextSet(path=str(path), **settings)


def write(folder: Path, **data: Any) -> dict[str, int]:
    """Write text sets to `folder / "texts"`."""
    (folder / "texts").mkdir(exist_ok=True)
    return write_text_sets(DataRecipe(**data), folder / "texts", space=SPACE, seed=0, progress=False)


def test_texts_that_are_null_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = source(tmp_path, "train", 50, label_column="label", text_pair_column="text_pair")
    rows = [{"text": None, "text_pair": ""}, {"text": "a", "text_pair": None}, {"text": "b", "text_pair": "c"}] * 800
    (tmp_path / "gaps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    gaps = TextSet(path=str(tmp_path / "gaps.jsonl"), text_pair_column="text_pair")
    assert write(tmp_path, train=train, corpus=[gaps])["corpus"] == 2400
    assert caplog.messages == [f"{gaps.path!r} (data.corpus) has 2400 texts that are null or empty; they are kept"]


def test_every_text_is_in_one_set(tmp_path: Path) -> None:
    train = source(tmp_path, "train", 50, label_column="label")
    corpus = [source(tmp_path, "first", 40), source(tmp_path, "second", 7)]
    more = {
        name: source(tmp_path, name, count, label_column="label") for name, count in (("calibration", 6), ("test", 5))
    }
    counts = write(tmp_path, train=train, corpus=corpus, validation_size=8, **more)
    assert counts == {"train": 42, "corpus": 47, "augmented": 0, "validation": 8, "calibration": 6, "test": 5}
    folder = tmp_path / "texts"
    found = {name: list(read_texts(folder, name)) for name in counts}
    assert sorted(found["train"] + found["validation"]) == sorted(f"train {i}" for i in range(50))
    assert [found[name] for name in more] == [[f"{name} {i}" for i in range(counts[name])] for name in more]
    assert found["corpus"] == [f"first {i}" for i in range(40)] + [f"second {i}" for i in range(7)]
    assert [pq.read_metadata(path).num_rows for path in shards(folder, "corpus")] == [16, 16, 15]
    for path in shards(folder, "train"):
        table = pq.read_table(path)
        assert [int(text.split()[1]) % 2 for text in table["text"].to_pylist()] == table["label"].to_pylist()
    assert {name: num_texts(folder, name) for name in counts} == counts


def test_validation_from_the_corpus_or_a_source_of_its_own(tmp_path: Path) -> None:
    corpus = [source(tmp_path, "corpus", 60)]
    assert write(tmp_path, corpus=corpus, validation_size=5000)["validation"] == 12
    both = list(read_texts(tmp_path / "texts", "corpus")) + list(read_texts(tmp_path / "texts", "validation"))
    assert sorted(both) == sorted(f"corpus {i}" for i in range(60))
    named = source(tmp_path, "validation", 9)
    counts = write(tmp_path, corpus=corpus, validation=named)
    assert counts == {"train": 0, "corpus": 60, "augmented": 0, "validation": 9, "calibration": 0, "test": 0}
    assert len(shards(tmp_path / "texts", "validation")) == 1


def test_folds_are_parts_of_the_train_texts(tmp_path: Path) -> None:
    train = source(tmp_path, "train", 11, label_column="label")
    folds = []
    for fold in (1, 2, 3):
        counts = write(tmp_path, train=train, fold=fold, num_folds=3)
        folds.append(list(read_texts(tmp_path / "texts", "validation")))
        kept = list(read_texts(tmp_path / "texts", "train"))
        assert sorted(kept + folds[-1]) == sorted(f"train {i}" for i in range(11))
        assert counts["validation"] == len(folds[-1]) in (3, 4)
    assert sorted(sum(folds, [])) == sorted(f"train {i}" for i in range(11))  # noqa: RUF017 (three)


def test_more_folds_than_texts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_folds is 12, but"):
        write(tmp_path, train=source(tmp_path, "train", 11), fold=1, num_folds=12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 4, "num_folds": 3}, "data.fold is 4, but must be at least 1 and at most 3"),
        ({"fold": 1, "num_folds": 1}, "data.num_folds is 1, but must be at least 2"),
        ({"fold": 1, "train": None}, "data.train is null; set data.fold: null"),
        ({"fold": 1, "validation": TextSet(path="b")}, "names other texts; set data.validation: null"),
    ],
)
def test_bad_folds(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataRecipe(**{"train": TextSet(path="a")} | settings)


def test_pairs_are_read_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, train=source(tmp_path, "train", 10, text_pair_column="text_pair"), validation_size=1)
    found = list(read_texts(tmp_path / "texts", "train"))
    assert len(found) == 18
    assert all(
        second == first.replace("train", "train pair") for first, second in zip(found[::2], found[1::2], strict=True)
    )


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"train": 0}, "holds no texts"),
        ({"corpus": 0}, "neither data.train nor a data.corpus"),
        ({"train": 4}, "no validation texts"),
        ({"train": 20, "validation": 0}, "no validation texts"),
    ],
)
def test_too_few_texts(tmp_path: Path, sets: dict[str, int], message: str) -> None:
    named: dict[str, Any] = {}
    for name, count in sets.items():
        source(tmp_path, name, max(count, 1))
        found = TextSet(path=str(tmp_path / f"{name}.jsonl"))
        if count == 0:
            pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / f"{name}.parquet")
            found = TextSet(path=str(tmp_path / f"{name}.parquet"))
        named[name] = [found] if name == "corpus" else found
    with pytest.raises(ValueError, match=message):
        write(tmp_path, **named)


@pytest.mark.parametrize(
    ("names", "mapping"), [(["Odd", "Even"], "0: 'odd', 1: 'even'"), (["none", "even"], "1: 'even'")]
)
def test_labels_numbered_otherwise_are_refused(tmp_path: Path, names: list[str], mapping: str) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = {"text": [str(number) for number in range(20)], "label": [number % 2 for number in range(20)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    train = TextSet(path=str(tmp_path / "rows.parquet"), label_column="label")
    with pytest.raises(ValueError, match=r"data\.train are numbered .*, but a test even, odd; ") as raised:
        write(tmp_path, train=train)
    assert str(raised.value).endswith(f"data.labels: {{{mapping}}}")
    assert write(tmp_path, train=train, labels={"0": "odd", "1": "even"})["train"] == 16
    plain = source(tmp_path, "train", 20, label_column="label")
    assert write(tmp_path, train=plain)["train"] == 16


def test_half_given_logits_are_refused(tmp_path: Path) -> None:
    corpus = [source(tmp_path, "first", 4, logits_path="first.parquet"), source(tmp_path, "second", 4)]
    with pytest.raises(ValueError, match=r"data\.corpus\[1\] has no logits_path"):
        write(tmp_path, corpus=corpus)


def test_labels_every_text_once_and_goes_on(tmp_path: Path) -> None:
    counts = write(tmp_path, train=source(tmp_path, "train", 50), corpus=[source(tmp_path, "corpus", 40)])
    folder = tmp_path / "label"
    folder.mkdir()
    assert not has_given_logits(tmp_path / "texts")
    teachers = [LengthTeacher(), LengthTeacher()]
    for rank, teacher in enumerate(teachers):
        label_texts(teacher, tmp_path / "texts", folder, num_labels=2, rank=rank, num_processes=2, progress=False)  # type: ignore[arg-type]
    assert sorted(teachers[0].asked + teachers[1].asked) == sorted(
        text for name in counts for text in read_texts(tmp_path / "texts", name)
    )
    for name in counts:
        expected = [[len(text), int(text[-1])] for text in read_texts(tmp_path / "texts", name)]
        np.testing.assert_array_equal(read_logits(folder, name).reshape(-1, 2), np.array(expected).reshape(-1, 2))
    (folder / "corpus-00001.parquet").unlink()
    again = LengthTeacher()
    label_texts(again, tmp_path / "texts", folder, num_labels=2, progress=False)  # type: ignore[arg-type]
    assert again.asked == [f"corpus {i}" for i in range(16, 32)]
    assert not list(folder.glob("*.npy"))


def test_other_number_of_outputs_is_refused(tmp_path: Path) -> None:
    write(tmp_path, train=source(tmp_path, "train", 10))
    with pytest.raises(ValueError, match="the teacher has 3 outputs, but the task has 2"):
        label_texts(LengthTeacher(3), tmp_path / "texts", tmp_path, num_labels=2, progress=False)  # type: ignore[arg-type]


def start_labelling(folder: Path, num_processes: int, *, sleep: float) -> list["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "tests.distillation.label_worker", str(folder)]
    root = Path(__file__).parents[2]
    return [
        subprocess.Popen([*command, str(rank), str(num_processes), str(sleep)], cwd=root)
        for rank in range(num_processes)
    ]


@pytest.mark.parametrize(("num_killed", "num_processes"), [(1, 3), (2, 1)])
def test_killed_processes_lose_a_part_each(tmp_path: Path, num_killed: int, num_processes: int) -> None:
    """Others go on, more or fewer: nothing is lost, and no text is asked twice but those of a part in the making."""
    counts = write(tmp_path, train=source(tmp_path, "train", 60), corpus=[source(tmp_path, "corpus", 70)])
    (tmp_path / "label").mkdir()
    asked = tmp_path / "asked"
    running = start_labelling(tmp_path, 2, sleep=0.1)
    end = time.monotonic() + 60
    while not asked.exists() or len(asked.read_text().splitlines()) < 40:
        assert time.monotonic() < end
        time.sleep(0.01)
    for process in running[:num_killed]:
        process.kill()
    assert [process.wait(timeout=60) for process in running] == [-9] * num_killed + [0] * (2 - num_killed)
    assert len(list((tmp_path / "label").glob("*.parquet"))) < len(list((tmp_path / "texts").glob("*.parquet")))
    again = start_labelling(tmp_path, num_processes, sleep=0.0)
    assert [process.wait(timeout=60) for process in again] == [0] * num_processes
    texts_asked = Counter(asked.read_text().splitlines())
    assert set(texts_asked) == {text for name in counts for text in read_texts(tmp_path / "texts", name)}
    assert sum(count - 1 for count in texts_asked.values()) <= 5 * num_killed
    for name in counts:
        expected = [[len(text), int(text[-1])] for text in read_texts(tmp_path / "texts", name)]
        np.testing.assert_array_equal(
            read_logits(tmp_path / "label", name).reshape(-1, 2), np.reshape(expected, (-1, 2))
        )
    assert not list((tmp_path / "label").glob("*.npy"))
