"""Texts made of others: all that can be made, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_sparse.distillation import augmentation
from hf_sparse.distillation import texts as texts_module
from hf_sparse.distillation.augmentation import (
    WordPool,
    crossed_texts,
    make_texts,
    numbers_to_make,
    runs_of_words,
)
from hf_sparse.distillation.label_space import LabelSpace
from hf_sparse.distillation.recipe_data import Augmentation, DataRecipe, TextSet
from hf_sparse.distillation.texts import num_texts, read_texts, write_text_sets
from tests.tiny_task import NAMES, make_rows, write_rows

TEXTS = ("who is the first man", "what was the first car", "why  is the sky blue")


def all_crossed(texts: Sequence[str]) -> set[str]:
    """Return all that can be crossed of texts, whatever its length."""
    whole = [text.split() for text in texts]
    return {
        " ".join(first[:cut] + second[start:])
        for first in whole
        for second in whole
        for cut in range(1, len(first) - 1)
        for start in range(1, len(second) - 1)
        if first[cut : cut + 2] == second[start : start + 2]
    } - {" ".join(words) for words in whole}


def all_runs(texts: Sequence[str]) -> set[str]:
    """Return all runs of 2 to 8 words that are no whole text."""
    whole = [text.split() for text in texts]
    return {
        " ".join(words[start : start + size])
        for words in whole
        for size in range(2, min(8, len(words) - 1) + 1)
        for start in range(len(words) - size + 1)
    }


def made(recipe: Augmentation, train: Sequence[str], corpus: Sequence[str]) -> list[str]:
    """Return what is made of short texts."""
    numbers = numbers_to_make(recipe, num_texts=len(train) + len(corpus), words=8.0)
    return [text for table in make_texts(recipe, numbers, train, corpus) for text in table["text"].to_pylist()]


def test_crossed_texts_are_all_that_there_are() -> None:
    pool = WordPool(TEXTS)
    assert "what was the first man" in all_crossed(TEXTS)
    found = crossed_texts(pool, range(3), 1000)
    assert sorted(found) == sorted(all_crossed(TEXTS))
    assert crossed_texts(pool, range(3), 1000) == found
    few = crossed_texts(pool, range(3), 2)
    assert len(few) == 2
    assert set(few) < set(found)
    assert set(crossed_texts(pool, [0, 2], 1000)) == all_crossed([TEXTS[0], TEXTS[2]])


def test_runs_of_words_are_all_that_there_are() -> None:
    texts = ["one two  three four five six seven eight nine ten", "eleven twelve", "thirteen", ""]
    pool = WordPool(texts)
    found = runs_of_words(pool, range(4), 1000)
    assert sorted(found) == sorted(all_runs(texts))
    assert runs_of_words(pool, range(4), 1000) == found
    assert runs_of_words(pool, range(4), 3) == found[:3]
    assert not runs_of_words(pool, [1, 2, 3], 10)


@given(st.lists(st.text(alphabet="ab \n\u00a0\ud800é", max_size=24), max_size=6))
def test_any_texts(texts: list[str]) -> None:
    pool = WordPool(texts)
    assert set(crossed_texts(pool, range(len(texts)), 40)) <= all_crossed(texts)
    assert set(runs_of_words(pool, range(len(texts)), 40)) <= all_runs(texts)


def test_a_text_that_counts_more_is_drawn_more() -> None:
    train, corpus = ["a b c x y d e f"], [f"{word} b c x y {word} e f" for word in "mnopqrstuvw"]

    def share(weight: int) -> float:
        found = made(Augmentation(crossed=8, fragments=0, train_weight=weight), train, corpus)
        return sum(text.startswith("a ") or " d " in text for text in found) / len(found)

    assert share(0) == 0
    assert share(1) < share(100)
    assert share(100) > 0.8


def test_numbers_left_open() -> None:
    open_, asked = Augmentation(), Augmentation(crossed=7, fragments=0)
    for count, number in ((1_000, 2_000), (75_001, 150_000), (1_000_000, 150_000)):
        assert numbers_to_make(open_, num_texts=count, words=64.0) == {"crossed": number, "fragments": number}
    none = {"crossed": 0, "fragments": 0}
    for count, words in ((999, 10.0), (1_000_001, 10.0), (5_000, 64.1)):
        assert numbers_to_make(open_, num_texts=count, words=words) == none
        assert numbers_to_make(asked, num_texts=count, words=words) == none | {"crossed": 7}
    assert Augmentation(crossed=0, fragments=0).is_off
    assert not open_.is_off
    assert not asked.is_off


def test_texts_without_blanks_give_none_unless_some_are_asked_for() -> None:
    texts = [f"見{number}" for number in range(1_200)]
    assert made(Augmentation(), texts, []) == []
    with pytest.raises(ValueError, match=r"data.augmentation.crossed is 5, but nothing can be made of the 1200 texts"):
        made(Augmentation(crossed=5, fragments=0), texts, [])
    with pytest.raises(ValueError, match="of the 0 texts"):
        made(Augmentation(crossed=0, fragments=5), [], [])


def test_defaults_make_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "_DEFAULT_NUMBER", 30)
    train = [row["text"] for row in make_rows(600, seed=0)]
    corpus = [row["text"] for row in make_rows(400, seed=1)]
    found = made(Augmentation(), train, corpus)
    assert len(found) == 60
    assert made(Augmentation(crossed=30, fragments=0), train, corpus) == found[:30]
    assert made(Augmentation(), train[:599], corpus) == []


@pytest.mark.parametrize("include_train", [True, False])
def test_no_text_is_made_of_validation_or_test_texts(tmp_path: Path, include_train: bool) -> None:
    for name in ("train", "corpus", "test"):
        rows = [
            {"text": " ".join(f"{name}{10 * index + place}" for place in range(10)), "label": NAMES[index % 3]}
            for index in range(60)
        ]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    sets = {name: TextSet(path=str(tmp_path / f"{name}.jsonl"), label_column="label") for name in ("train", "test")}
    data = DataRecipe(
        **sets,
        corpus=[TextSet(path=str(tmp_path / "corpus.jsonl"))],
        augmentation=Augmentation(crossed=0, fragments=5_000),
    )
    space = LabelSpace.from_names(list(NAMES), problem_type="single_label_classification", origin="a test")
    (tmp_path / "texts").mkdir()
    counts = write_text_sets(
        data, tmp_path / "texts", space=space, seed=0, progress=False, include_train=include_train
    )
    assert counts["validation"] == 12
    allowed = [*(read_texts(tmp_path / "texts", "train") if include_train else ())]
    allowed += read_texts(tmp_path / "texts", "corpus")
    found = list(read_texts(tmp_path / "texts", "augmented"))
    assert counts["augmented"] == num_texts(tmp_path / "texts", "augmented") == len(found)
    assert set(found) == all_runs(allowed)


def test_pairs_and_given_logits_are_left_alone() -> None:
    pairs = TextSet(path="x", text_pair_column="other")
    assert DataRecipe(corpus=[pairs]).augmentation.is_off
    with pytest.raises(ValueError, match=r"data.augmentation.fragments is 3, but the texts are pairs"):
        DataRecipe(corpus=[pairs], augmentation=Augmentation(fragments=3))
    given_logits = TextSet(path="x", logits_path="y")
    assert DataRecipe(corpus=[given_logits]).augmentation.is_off
    asked = DataRecipe(corpus=[given_logits], augmentation=Augmentation(crossed=3)).augmentation
    assert (asked.crossed, asked.fragments) == (3, 0)
    with pytest.raises(ValueError, match=r"data.augmentation.crossed is -1"):
        Augmentation(crossed=-1)


@pytest.mark.parametrize(("words", "expected"), [(6, 60), (64, 60), (65, 0)])
def test_defaults_look_at_the_length_of_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: int, expected: int
) -> None:
    monkeypatch.setattr(augmentation, "_DEFAULT_NUMBER", 30)
    random = Random(0)
    rows = [{"text": " \n".join(str(random.randrange(9)) for _ in range(words))} for _ in range(1_300)]
    source = TextSet(path=str(write_rows(tmp_path / "corpus.jsonl", rows)))
    space = LabelSpace.from_names(list(NAMES), problem_type="single_label_classification", origin="a test")

    def count(folder: Path, limit: int) -> int:
        folder.mkdir()
        data = DataRecipe(corpus=[source], validation_size=200, augmentation=Augmentation())
        monkeypatch.setattr(texts_module, "POOL_TEXTS", limit)
        monkeypatch.setattr(augmentation, "POOL_TEXTS", limit)
        return write_text_sets(data, folder, space=space, seed=0, progress=False)["augmented"]

    assert count(tmp_path / "few", 1_100) == expected
    assert count(tmp_path / "many", 1_099) == 0
