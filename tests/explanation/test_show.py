"""Pages and lines: well-formed, nothing of a text becomes markup, the command's forms agree."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_sparse.cli import main
from hf_sparse.explanation import Explanation, NgramContribution, format_explanations
from hf_sparse.explanation.show import label_page, text_page
from tests.tiny_task import write_rows

VOID = {"meta", "hr", "br"}


class Reader(HTMLParser):
    """Reads a page: its text, its elements, and whether each one is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the last one."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep words."""
        if "span" in self._open:
            self.words.append(data)


def make_explanation(words: list[str], *, second: int | None = None) -> Explanation:
    """Return an explanation with some words, each also an n-gram."""
    values = [(-1.0) ** index * (index + 1) for index in range(len(words))]
    ngrams = [NgramContribution(ngram=word, count=1, contribution=v) for word, v in zip(words, values, strict=True)]
    numbers = {"probability": 0.5, "logit": 1.0, "baseline": 0.0, "residual": 0.0}
    pairs = list(zip(words, values, strict=True))
    return Explanation(words=pairs, second=second, label="<b>&", ngrams=ngrams, **numbers)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1), max_size=5))
def test_no_word_becomes_markup(words: list[str]) -> None:
    page = text_page([make_explanation(words, second=min(1, len(words)))], top=10)
    read = Reader(page)
    assert read.words == words
    assert read.tags.count("span") == len(words)
    assert "<b>" not in page


def test_lone_surrogates_can_be_written(tmp_path: Path) -> None:
    page = text_page([make_explanation(["\ud800", "a"])], top=10)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    assert Reader(page).words == ["?", "a"]


def test_page_of_labels() -> None:
    items = [NgramContribution(ngram="a <i>", count=1200, contribution=0.25)]
    page = label_page({"x&y": {"for": items, "against": []}}, num_texts=5000)
    assert "a &lt;i&gt;" in page
    assert "x&amp;y" in page
    assert "1,200" in page
    Reader(page)


def test_command(student_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    arguments = ["explain", str(student_folder), "--text", "the film was good"]
    main([*arguments, "--html", str(page)])
    out = capsys.readouterr().out
    assert "\033" not in out  # no terminal
    main([*arguments, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    strongest = found["texts"][0]["ngrams"][0]
    assert f"{strongest['contribution']:+9.4f}" in out
    assert "good" in Reader(page.read_text(encoding="utf-8")).words
    assert format_explanations(found) + "\n" == out

    data = write_rows(tmp_path / "texts.jsonl", [{"text": "good film"}, {"text": "bad film !"}])
    main(
        [
            "explain",
            str(student_folder),
            "--data",
            str(data),
            "--per_label",
            "2",
            "--html",
            str(page),
            "--format",
            "json",
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert set(found["labels"]) == {"negative", "neutral", "positive"}
    assert all(len(sides["for"]) <= 2 for sides in found["labels"].values())
    assert "positive" in page.read_text(encoding="utf-8")
    main(["explain", str(student_folder), "--data", str(data), "--limit", "1"])
    assert capsys.readouterr().out.count("logit") == 1


def test_colours_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    result = {"top": 5, "texts": [make_explanation(["up", "down"]).as_dict()]}
    lines = format_explanations(result).splitlines()
    assert [line[:5] for line in lines if line.startswith("\033")] == ["\033[32m", "\033[31m"]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in format_explanations(result)
