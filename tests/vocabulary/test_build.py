"""The command `hf-sparse vocabulary`: any source, any interruption, one vocabulary."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_sparse import cli
from hf_sparse.files import only_process
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.vocabulary import counting, parts
from hf_sparse.vocabulary.build import build_vocabulary
from hf_sparse.vocabulary.counting import count_ngrams
from hf_sparse.vocabulary.shelf import Shelf

TEXTS = [f"the film number {index % 7} was {word} , and the end was {word} !" for index in range(40)
         for word in ("good", "bad", "long")]  # fmt: skip


def write(folder: Path, kind: str) -> dict[str, Any]:
    """Write the texts in a kind of file; return the arguments that name it."""
    if kind == "parquet":
        for index, half in enumerate((TEXTS[:50], TEXTS[50:])):
            pq.write_table(pa.table({"body": half}), folder / f"{index}.parquet")
        return {"texts": str(folder), "text_column": "body"}
    if kind == "pairs":
        pq.write_table(pa.table({"text": TEXTS[::2], "other": TEXTS[1::2]}), folder / "pairs.parquet")
        return {"texts": str(folder / "pairs.parquet"), "text_pair_column": "other"}
    if kind == "jsonl":
        (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        return {"texts": str(folder / "*.jsonl")}
    (folder / "a.txt").write_text("".join(text + "\n" for text in TEXTS))
    return {"texts": str(folder / "a.txt")}


@pytest.mark.parametrize("memory", [None, "1GB"])
@pytest.mark.parametrize("kind", ["parquet", "pairs", "jsonl", "txt"])
def test_same_vocabulary_from_any_source(tmp_path: Path, kind: str, memory: str | None) -> None:
    (tmp_path / "texts").mkdir()
    arguments = write(tmp_path / "texts", kind)
    report = build_vocabulary(output=str(tmp_path / "out"), num_ngrams=60, memory=memory, **arguments)
    expected = count_ngrams(TEXTS, num_ngrams=60, min_documents=2, progress=False)
    found = NgramVocabulary.load(tmp_path / "out")
    assert found.sha256 == expected.sha256 == report["sha256"]
    assert report["smallest_count"] == expected.counts.min()
    lengths = [len(found.ngram_words(row)) for row in range(1, found.num_rows)]
    assert report["ngrams_by_length"] == [lengths.count(n) for n in (1, 2, 3, 4)]
    assert json.loads((tmp_path / "out/vocabulary.json").read_text()) == report
    assert {path.name for path in tmp_path.iterdir()} == {"texts", "out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"vocabulary.json", "vocabulary.safetensors"}


def test_interrupted_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_PART_CHARACTERS", 1000)
    monkeypatch.setattr(parts, "_BATCH_CHARACTERS", 1000)
    arguments = write(tmp_path, "jsonl") | {"output": str(tmp_path / "out"), "num_ngrams": 50, "threads": 1}
    put, written = Shelf.put, []

    def put_or_stop(shelf: Shelf, group: str, arrays: Any) -> None:
        if len(written) == 9:
            written.append(group)
            raise KeyboardInterrupt
        written.append(group)
        put(shelf, group, arrays)

    monkeypatch.setattr(Shelf, "put", put_or_stop)
    with pytest.raises(KeyboardInterrupt):
        build_vocabulary(**arguments)
    assert not (tmp_path / "out").exists()
    first = written[:9]
    build_vocabulary(**arguments)
    assert set(first).isdisjoint(written[10:])
    expected = count_ngrams(TEXTS, num_ngrams=50, min_documents=2, progress=False)
    assert NgramVocabulary.load(tmp_path / "out").sha256 == expected.sha256
    assert not (tmp_path / "out.partial").exists()


def test_output_that_exists_stays(tmp_path: Path) -> None:
    arguments = write(tmp_path, "txt") | {"output": str(tmp_path / "out")}
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(FileExistsError, match="--overwrite true"):
        build_vocabulary(**arguments)
    assert (tmp_path / "out/mine").exists()
    build_vocabulary(**arguments, overwrite=True)
    assert not (tmp_path / "out/mine").exists()


def test_only_one_process_writes_an_output(tmp_path: Path) -> None:
    arguments = write(tmp_path, "txt") | {"output": str(tmp_path / "out")}
    with only_process(tmp_path / "out.partial"), pytest.raises(ValueError, match=r"at work in '.*out\.partial'"):
        build_vocabulary(**arguments)
    assert not (tmp_path / "out").exists()
    build_vocabulary(**arguments)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"vocabulary.json", "vocabulary.safetensors"}


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path, "txt")["texts"]
    cli.main(["vocabulary", source, str(tmp_path / "out"), "--num_ngrams", "40", "--memory", "null"])
    shown = capsys.readouterr()
    assert shown.out.startswith("40 n-grams (words: ")
    assert "reading" in shown.err
    for arguments, message in [
        (["nowhere.txt", str(tmp_path / "x")], "'nowhere.txt' does not exist"),
        ([source, str(tmp_path / "x"), "--memory", "much"], "such as 50MB"),
        ([source, str(tmp_path / "x"), "--num_ngrams", "0"], "num_ngrams must be at least 1"),
    ]:
        with pytest.raises(SystemExit) as end:
            cli.main(["vocabulary", *arguments])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
