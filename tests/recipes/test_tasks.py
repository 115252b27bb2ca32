"""The recipes of the paper's tasks: each is read as it stands and run on a few texts of the same columns."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.recipes.conftest import Launcher, write_recipe
from tests.recipes.kill_driver import ROOT
from tests.tiny_task import make_encoder, make_rows, make_teacher, write_rows

_NOT_TASKS = {"accelerate", "benchmark", "quickstart"}
RECIPES = sorted(path for path in ROOT.glob("recipes/*/*.yaml") if path.parent.name not in _NOT_TASKS)
ENCODERS = {"runs/quickstart/encoder", "FacebookAI/roberta-large"}
TASKS = {
    *("imdb", "sst2", "trec_coarse", "trec_fine", "ag_news", "civil_comments", "wiki_toxic", "qqp", "mrpc", "sick"),
    *("tweet_offensive", "imdb_to_sst2", "sst2_to_imdb", "imdb_private", "imdb_own_teacher"),
}


def test_every_task_has_its_recipe() -> None:
    assert {path.parent.name for path in RECIPES if path.stem == "distill"} == TASKS
    for task in TASKS:
        assert (ROOT / "recipes" / task / "README.md").is_file()


def tiny_texts(text_set: dict[str, Any], labels: list[str], folder: Path, *, seed: int) -> dict[str, Any]:
    """Return a text set with the same columns, in a file of 30 rows."""
    rows = make_rows(30, seed=seed)
    made = []
    for index, row in enumerate(rows):
        new: dict[str, Any] = {text_set.get("text_column", "text"): row["text"]}
        if text_set.get("text_pair_column"):
            new[text_set["text_pair_column"]] = row["text_pair"]
        if text_set.get("label_column"):
            number = index % len(labels)
            threshold = text_set.get("label_threshold")
            value: Any = int(labels[number]) if labels[number].isdigit() else labels[number]
            new[text_set["label_column"]] = value if threshold is None else threshold + 0.2 * (number * 2 - 1)
        made.append(new)
    kept = {key: value for key, value in text_set.items() if key.endswith("_column") or key == "label_threshold"}
    return {"path": str(write_rows(folder / f"{seed}.jsonl", made)), **kept}


def tiny(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a recipe with tiny texts, teacher, vocabulary and student, and all else as it was."""
    data = content["data"]
    labels = [str(value) for value in data.get("labels", {"0": "a", "1": "b"})]
    for seed, name in enumerate(("train", "validation", "calibration", "test")):
        if name in data:
            data[name] = tiny_texts(data[name], labels, folder, seed=seed)
    corpus = data.get("corpus", [])
    data["corpus"] = [tiny_texts(source, labels, folder, seed=9 + index) for index, source in enumerate(corpus)]
    if content["teacher"]["model"] in ENCODERS:
        model = make_encoder(folder / "encoder")
    else:
        model = make_teacher(
            folder / "teacher", labels=list(data.get("labels", {0: "LABEL_0", 1: "LABEL_1"}).values())
        )
    content["teacher"] |= {"model": str(model), "epochs": 1}
    content["output_dir"] = str(folder / "run")
    content["vocabulary"]["num_ngrams"] = 100
    content["student"] |= {"embedding_size": 8, "hidden_sizes": [8]}
    content["evaluate"] = {"speed_seconds": 0.0}
    content["baselines"] = {"names": []}
    for stage in ("distil", "fine_tune", "from_scratch"):
        section = content.setdefault(stage, {})
        section["epochs"] = min(1, section.get("epochs", 1))
    return content


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_runs_on_a_few_texts(path: Path, launch: Launcher, tmp_path: Path) -> None:
    ended = launch("--config", str(path), "--print_config")  # nothing in it is unknown or out of bounds
    assert ended.status == 0, ended.err
    content = tiny(yaml.safe_load(path.read_text(encoding="utf-8")), tmp_path)
    ended = launch("--config", str(write_recipe(content, tmp_path)))
    assert ended.status == 0, ended.err
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert 0 <= report["student"]["accuracy"] <= 1
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
    if path.parent.name == "imdb_private":
        assert "fine_tune" not in report["stages"]


def load_script(name: str) -> ModuleType:
    """Import a script of the recipes."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / "recipes" / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script("sentences.py")
    text = "I didn't like it.<br /><br />\"Well made!\" she said.  It's OK? Yes."
    assert list(script.sentences(text)) == ["I didn't like it.", '"Well made!"', "she said.", "It's OK?", "Yes."]
    quoted = 'He said (and "meant it!") that. (He left.) "Go." Now.'
    assert list(script.sentences(quoted)) == ['He said (and "meant it!")', "that.", "(He left.)", '"Go."', "Now."]
    assert script.tokenized("I didn't like it, OK?") == "i did n't like it , ok ?"
    pq.write_table(pa.table({"text": [text, text, "One two three four."]}), tmp_path / "in.parquet")
    output = tmp_path / "made" / "out.parquet"
    monkeypatch.setattr("sys.argv", ["sentences.py", str(tmp_path / "in.parquet"), "--output", str(output)])
    script.main()
    assert sorted(pq.read_table(output)["text"].to_pylist()) == ["I didn't like it.", "One two three four."]


def test_pairs_of_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script("sentence_pairs.py")
    pairs = [("a red cat", "the red cat"), ("a blue sky", "one blue sky"), ("a red cat", "one red cat")]
    made = script.make_pairs(pairs, neighbours=2)
    assert len(set(made)) == len(made)
    assert not set(made) & set(pairs)
    assert ("the red cat", "a red cat") in made
    texts = sorted({text for pair in pairs for text in pair})
    # As one text at a time finds them.
    vectors = script.TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit_transform(texts).toarray()
    for number, found in enumerate(script.nearest(texts, count=2)):
        likeness = np.delete(vectors @ vectors[number], number)
        assert number not in found
        np.testing.assert_allclose((vectors @ vectors[number])[found], np.sort(likeness)[::-1][:2])
    columns = {"text": [first for first, _ in pairs], "text_pair": [second for _, second in pairs]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    pq.write_table(pa.table({"text": ["the red cat"], "text_pair": ["a red cat"]}), tmp_path / "test.parquet")
    arguments = [str(tmp_path / "train.parquet"), "--output", str(tmp_path / "out.parquet"), "--neighbours", "2"]
    monkeypatch.setattr("sys.argv", ["x", *arguments, "--without", str(tmp_path / "test.parquet")])
    script.main()
    table = pq.read_table(tmp_path / "out.parquet")
    found = list(zip(table["text"].to_pylist(), table["text_pair"].to_pylist(), strict=True))
    assert found == [pair for pair in made if pair not in {("the red cat", "a red cat"), ("a red cat", "the red cat")}]


def test_few_texts_have_fewer_neighbours(tmp_path: Path) -> None:
    script = load_script("sentence_pairs.py")
    assert script.nearest(["a b c", "d e f"], count=12) == [[1], [0]]
    assert script.make_pairs([("a b c", "d e f")], neighbours=12) == [("d e f", "a b c")]


BAD_CALLS = [
    ("sentence_pairs.py", "text,text_pair\nx y,x y\n", [], "gives no pairs"),
    ("sentence_pairs.py", "text\nx y\n", [], "no column 'text_pair'"),
    ("sentence_pairs.py", "text,text_pair\nx y,z\n", ["--neighbours", "-1"], "--neighbours -1"),
    ("sentences.py", "other\nx y\n", [], "no column 'text'"),
    ("sentences.py", "text\nOne two three.\n", ["--limit", "0"], "--limit 0"),
]


@pytest.mark.parametrize(("name", "content", "options", "message"), BAD_CALLS)
def test_bad_calls_of_scripts(tmp_path: Path, name: str, content: str, options: list[str], message: str) -> None:
    (tmp_path / "in.csv").write_text(content, encoding="utf-8")
    command = [sys.executable, str(ROOT / "recipes" / name), str(tmp_path / "in.csv")]
    ended = subprocess.run(
        [*command, "--output", str(tmp_path / "out"), *options], capture_output=True, text=True, check=False
    )
    assert ended.returncode
    assert "Traceback" not in ended.stderr
    assert message in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", ["0", "1", "2"])
def test_some_sentences_are_held_out_and_some_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    pq.write_table(pa.table({"text": ["a b", "c d", None]}), tmp_path / "train.parquet")
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "train.parquet"), str(tmp_path / "out"), "--share", share])
    with pytest.raises(ValueError, match="some must be held out, some kept"):
        load_script("sst2/prepare.py").main()
    assert not (tmp_path / "out").exists()


def test_phrases_are_held_out_by_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script("sst2/prepare.py")
    random = np.random.default_rng(0)
    words = [f"w{index}" for index in range(40)]
    sentences = [" ".join(random.choice(words, 8)) for _ in range(50)]
    phrases = sentences + [" ".join(sentence.split()[2:size]) for sentence in sentences for size in (3, 5, 7)]
    found = script.Sentences(phrases)
    assert found.all == sorted(set(sentences))
    for phrase in phrases:
        expected = {sentence for sentence in sentences if f" {phrase} " in f" {sentence} "}
        assert set(found.containing(phrase)) == expected
    pq.write_table(pa.table({"text": phrases, "label": list(range(len(phrases)))}), tmp_path / "train.parquet")
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "train.parquet"), str(tmp_path / "out"), "--share", "0.2"])
    script.main()
    train, validation = (
        pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist() for name in ("train", "validation")
    )
    assert sorted(row["label"] for row in train + validation) == list(range(len(phrases)))
    held_out = {row["text"] for row in validation} & set(sentences)
    assert len(held_out) == 10
    for row in validation:
        assert held_out.issuperset(found.containing(row["text"]))
    for row in train:
        assert not held_out.issuperset(found.containing(row["text"]))


def test_scripts_explain_themselves(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sentences.py", "sentence_pairs.py", "sst2/prepare.py"):
        monkeypatch.setattr("sys.argv", [name, "--help"])
        with pytest.raises(SystemExit):
            load_script(name).main()
        assert "python recipes/" in capsys.readouterr().out
