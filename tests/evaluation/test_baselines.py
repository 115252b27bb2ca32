"""Baselines learn what can be learned, and read any text and any pair."""

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_sparse.evaluation.baselines import TrainingTexts, missing_packages, plain_text, trained
from tests.tiny_task import NAMES, make_rows


def make_texts(count: int, *, seed: int) -> tuple[list[str], np.ndarray]:
    """Return texts of three subjects and their ids."""
    rows = make_rows(count, seed=seed)
    return [plain_text(row["text"]) for row in rows], np.array([NAMES.index(row["label"]) for row in rows])


@pytest.mark.parametrize("name", ["tfidf", "nb_lr", "fasttext"])
def test_baseline_learns(name: str) -> None:
    if name == "fasttext" and find_spec("fasttext") is None:
        pytest.skip("fasttext is not installed")
    texts, labels = make_texts(200, seed=0)
    order = np.argsort(labels, kind="stable")  # sorted by label, as some data sets are
    texts, labels = [texts[index] for index in order], labels[order]
    others, expected = make_texts(100, seed=1)
    training = TrainingTexts(texts=texts, labels=labels, num_labels=4, encoder="")
    found = {}
    for setting, classify in trained(name, training):  # type: ignore[arg-type]
        scores = classify([*others, ""])
        assert scores.shape == (101, 4)
        found[tuple(setting.values())] = (scores[:100].argmax(1) == expected).mean()
    assert len(found) > 2
    assert max(found.values()) > 0.85  # of texts, some of which have no word of their subject


def test_majority() -> None:
    training = TrainingTexts(texts=["a"] * 5, labels=np.array([2, 2, 0, 1, 2]), num_labels=3, encoder="")
    [(setting, classify)] = trained("majority", training)
    assert setting == {}
    assert classify(["x", "y"]).argmax(1).tolist() == [2, 2]


def test_words_of_texts_and_pairs() -> None:
    assert plain_text("Don't <br />STOP, now!") == "don ' t stop , now !"
    assert plain_text("A dog", "a cat") == "1_a 1_dog 2_a 2_cat both_a only_dog only_cat"


@given(st.text(), st.none() | st.text())
def test_any_text_has_words_without_line_ends(text: str, pair: str | None) -> None:
    found = plain_text(text, pair)
    assert found == " ".join(found.split())


def test_missing_packages_are_those_of_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_sparse.evaluation.baselines.find_spec", lambda name: None)
    assert missing_packages(["tfidf", "nb_lr", "majority"]) == []
    assert missing_packages(["fasttext", "tfidf", "model2vec"]) == ["fasttext", "model2vec"]
