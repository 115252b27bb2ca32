"""The page in a real browser where there is one, and its parts without."""

import csv
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from hf_sparse import __version__
from hf_sparse.demo.app import build_app
from hf_sparse.demo.demo import demo
from hf_sparse.demo.space import space_files
from hf_sparse.demo.tried_student import TriedStudent
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import SparseNgramTokenizer
from tests.conftest import ModelFactory
from tests.tiny_task import write_rows

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPORT = {
    "teacher": {"base_model": "org/teacher"},
    "texts_per_second": {"teacher": 100.0, "student": 50_000.0},
    "speed_conditions": {"mean_words": 20.0, "teacher": "torch.float32"},
    "hub": {"examples": [{"text": "a good film", "output": []}]},
}


@pytest.fixture(scope="module")
def folder(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copied = shutil.copytree(student_folder, tmp_path_factory.mktemp("demo") / "my-student")
    (copied / "report.json").write_text(json.dumps(REPORT))
    return copied


def test_answer_says_all(folder: Path) -> None:
    student = TriedStudent(str(folder))
    html = student.answer("not a good film <script>")
    classifier = NgramClassifier.from_pretrained(folder)
    scores = classifier.predict_proba(["not a good film <script>"])[0]
    assert f"<h2 id='label'>{classifier.labels[scores.argmax()]}</h2>" in html
    for label, score in zip(classifier.labels, scores, strict=True):
        assert re.search(rf"{label}</th><td class='number'>{score:.3f}<", html)
    assert "its teacher took 10,000 µs a text of 20 words" in html
    assert "<script>" not in html
    assert "&lt;" in html
    assert "<td>good film</td>" in html
    assert student.examples == [["a good film"]]


def test_every_ngram_is_coloured(folder: Path) -> None:
    student = TriedStudent(str(folder))
    text = "the film was good and bad , a good film ! a bad film was the good and bad film !"
    explained = student.explainer.explain(text)
    assert len(explained.ngrams) > 24
    html = student.answer(text)
    for ngram in explained.ngrams:
        colour = "26, 127, 55" if ngram.contribution > 0 else "207, 34, 46"
        named = re.escape(f'title="{ngram.contribution:+.4f}">{ngram.ngram}</span>')
        assert re.search(rf'<li><span style="[^"]*{colour}[^"]*" {named}', html), ngram
    assert f"All {len(explained.ngrams)} n-grams" in html


def test_long_text_makes_no_long_page(folder: Path) -> None:
    student = TriedStudent(str(folder))
    html = student.answer("the film was good " * 5000)
    assert "The first 5,000 of 20,000 words are shown" in html
    assert len(html) < 1_000_000


def test_teachers_time_of_a_benchmark(student_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(student_folder, tmp_path / "student")
    assert "its teacher" not in TriedStudent(str(tmp_path / "student")).answer("good film")
    cell = {"contestant": "teacher-fp32", "length": 60, "batch_size": 1, "threads": 1, "texts_per_second": 50.0}
    cells = [cell, cell | {"length": 12, "texts_per_second": 100.0}, cell | {"contestant": "tfidf", "length": 1}]
    (tmp_path / "student" / "benchmark.json").write_text(json.dumps({"cells": cells}))
    html = TriedStudent(str(tmp_path / "student")).answer("good film")
    assert "its teacher took 10,000 µs a text of 12 words" in html


@pytest.mark.parametrize("text", ["", "\ud800", "unknownword", "<br />", "a" * 10_000])
def test_any_text_has_an_answer(folder: Path, text: str) -> None:
    html = TriedStudent(str(folder)).answer(text)
    assert "id='label'" in html
    html.encode()


@pytest.mark.parametrize(
    "settings",
    [
        {"sentence_pairs": True},
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression", "num_labels": 1},
    ],
)
def test_other_kinds_of_students(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path, settings: dict[str, Any]
) -> None:
    make_model(**settings).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    student = TriedStudent(str(tmp_path))
    html = student.answer("good film", "bad film" if "sentence_pairs" in settings else None)
    assert "<h2" in html
    build_app(str(tmp_path))


def test_folder_of_no_student(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        demo(str(tmp_path))


def test_space_is_ready() -> None:
    files = space_files("org/my-student", revision="v1", license_name="mit")
    metadata = yaml.safe_load(files["README.md"].split("---\n")[1])
    assert metadata["sdk"] == "gradio"
    assert metadata["models"] == ["org/my-student"]
    assert metadata["license"] == "mit"
    assert metadata["app_file"] in files
    compile(files["app.py"], "app.py", "exec")
    assert "build_app('org/my-student', revision='v1').launch()" in files["app.py"]
    assert f"hf-sparse[demo]=={__version__}" in files["requirements.txt"]
    assert "license" not in yaml.safe_load(space_files("org/my-student")["README.md"].split("---\n")[1])


def test_space_with_its_student() -> None:
    files = space_files("my-student", is_inside=True)
    metadata = yaml.safe_load(files["README.md"].split("---\n")[1])
    assert metadata["title"] == "my-student"
    assert "models" not in metadata
    assert "build_app('student', revision=None).launch()" in files["app.py"]


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    app = build_app(str(folder))
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", share=False)
    yield address
    app.close()


def test_no_file_of_a_visitor_stays(address: str, folder: Path, tmp_path: Path) -> None:
    name = f"texts-{os.getpid()}"
    rows = [{"text": "good film", "id": 1}, {"text": "bad , bad film", "id": 2}]
    file = handle_file(str(write_rows(tmp_path / f"{name}.jsonl", rows)))
    client = Client(address, verbose=False, download_files=str(tmp_path))
    said, _, answers = client.predict(file, "text", api_name="/classify_file")
    assert said == "2 rows classified."
    with Path(answers).open(encoding="utf-8", newline="") as found:
        assert [row["id"] for row in csv.DictReader(found)] == ["1", "2"]
    with pytest.raises(AppError, match="there is no column 'wrong'"):
        client.predict(file, "wrong", api_name="/classify_file")
    assert not list(Path(tempfile.gettempdir()).glob(f"hf-sparse-*/{name}-classified.csv"))
    assert build_app(str(folder)).delete_cache == (3600, 3600)


Open = Callable[[int], Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Open]:
    """Open the page in a window of some width; mistakes in its console fail the test."""
    mistakes: list[str] = []
    pages = []

    def open_page(width: int) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.goto(address)
        page.get_by_role("button", name="Classify", exact=True).wait_for()
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not mistakes


def test_text_in_a_browser(open_page: Open, folder: Path) -> None:
    page = open_page(1100)
    page.get_by_label("Text", exact=True).fill("not a good film")
    page.get_by_role("button", name="Classify", exact=True).click()
    page.wait_for_selector("#label")
    expected = NgramClassifier.from_pretrained(folder).predict(["not a good film"])[0]
    assert page.locator("#label").inner_text() == expected
    assert page.locator("#answer").get_attribute("aria-live") == "polite"
    assert "µs for this text" in page.locator("#time").inner_text()
    ngrams = page.locator("#answer section tbody tr").all_inner_texts()
    assert any("good film" in row for row in ngrams)
    assert page.evaluate("document.documentElement.lang")


def test_phone(open_page: Open) -> None:
    page = open_page(375)
    page.get_by_label("Text", exact=True).fill("a good film " * 30 + "x" * 300)
    page.get_by_role("button", name="Classify", exact=True).click()
    page.wait_for_selector("#label")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.locator("#answer summary").click()
    page.locator("#answer .ngrams li").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_keyboard_alone(open_page: Open) -> None:
    page = open_page(1100)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
    page.keyboard.type("a good film")
    for _ in range(5):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText") == "Classify":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#label")


def test_file_in_a_browser(open_page: Open, tmp_path: Path, folder: Path) -> None:
    rows = [{"text": "good film", "id": 1}, {"text": "bad , bad film", "id": 2}]
    path = write_rows(tmp_path / "texts.jsonl", rows)
    page = open_page(1100)
    page.get_by_role("tab", name="A file").click()
    page.set_input_files("#file input[type=file]", str(path))
    page.get_by_label("Column of the texts").fill("wrong")
    page.locator("#file").get_by_text(".jsonl").first.wait_for()
    page.get_by_role("button", name="Classify the file").click()
    page.get_by_text("there is no column 'wrong'").first.wait_for()
    page.get_by_label("Column of the texts").fill("text")
    page.get_by_role("button", name="Classify the file").click()
    page.get_by_text("2 rows classified").wait_for()
    with page.expect_download() as download:
        page.locator("#result a[download]").first.click()
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    labels = NgramClassifier.from_pretrained(folder).predict([row["text"] for row in rows])
    assert [row["label"] for row in found] == labels
    assert [row["id"] for row in found] == ["1", "2"]
