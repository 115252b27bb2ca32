"""Contributions add up to the logit: exactly for linear students, ever closer with more steps for deep ones."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from hf_sparse.compression import fold, quantise
from hf_sparse.distillation import student_facts
from hf_sparse.distillation.recipe import Recipe, TeacherRecipe
from hf_sparse.distillation.recipe_data import DataRecipe, TextSet
from hf_sparse.distillation.student_facts import describe_student
from hf_sparse.explanation import Explainer, explain, format_explanations
from hf_sparse.explanation.attribution import attribute
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import SparseNgramTextClassificationPipeline, SparseNgramTokenizer
from tests.conftest import LABELS, PAIR_SHAPES, ModelFactory

TEXTS = ("the film was good and the film was bad !", "good", "", "a bad bad bad film", "nothing known")


def flat(tokenizer: SparseNgramTokenizer, texts: Any, pairs: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and lengths as tensors."""
    batch = tokenizer.extract(list(texts), pairs)
    return torch.from_numpy(batch.ids.copy()), torch.from_numpy(batch.lengths.copy())


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("block_rows", [100, 1000])
def test_linear_student_is_explained_exactly(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, pooling: str, block_rows: int
) -> None:
    model = make_model(hidden_sizes=[], pooling=pooling, block_rows=block_rows)
    ids, lengths = flat(tokenizer, TEXTS)
    found = attribute(model, ids, lengths, labels=[0, 1, 2], steps=1)
    with torch.inference_mode():
        expected = model(input_ids=ids, lengths=lengths).logits
    torch.testing.assert_close(found.logits, expected, atol=1e-5, rtol=1e-5)
    assert found.residuals.abs().max() < 1e-5
    # Of an n-gram of the first text: its row through the classifier, divided by the n-grams of that text if a mean.
    share = 1 / int(lengths[0]) if pooling == "mean" else 1
    direct = model.model.table.rows(ids[:1]) @ model.classifier.weight.T * share
    torch.testing.assert_close(found.contributions[0], direct[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "sum", "max", "attentive"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_residual_of_a_deep_student_falls_with_the_steps(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, pooling: str, activation: str
) -> None:
    model = make_model(hidden_sizes=[6, 5], pooling=pooling, activation=activation)
    ids, lengths = flat(tokenizer, TEXTS)
    residuals = [
        attribute(model, ids, lengths, labels=[0, 2], steps=steps).residuals.abs().max() for steps in (1, 16, 256)
    ]
    assert residuals[2] < 0.02
    assert residuals[2] <= residuals[0] + 1e-6
    assert model.model.table.blocks[0].requires_grad  # all is as it was


def test_packed_and_folded_students(make_model: ModelFactory, tokenizer: SparseNgramTokenizer) -> None:
    ids, lengths = flat(tokenizer, TEXTS)
    for model in (fold(make_model(hidden_sizes=[])), quantise(fold(make_model()), "int8")):
        found = attribute(model, ids, lengths, labels=[1], steps=128)
        with torch.inference_mode():
            expected = model(input_ids=ids, lengths=lengths).logits[:, [1]]
        torch.testing.assert_close(found.logits, expected, atol=1e-4, rtol=1e-4)
        assert found.residuals.abs().max() < 0.02


class _Largest(TorchDispatchMode):
    """Keeps the number of values of the largest tensor that is made."""

    values = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_many_labels_take_no_gradient_each(make_model: ModelFactory, tokenizer: SparseNgramTokenizer) -> None:
    model = make_model()
    ids, lengths = flat(tokenizer, TEXTS)
    with _Largest() as largest:
        attribute(model, ids, lengths, labels=[0, 1, 2, 0, 1, 2], steps=2)
    assert largest.values < 3 * len(ids) * model.config.embedding_size


@pytest.mark.parametrize("kind", PAIR_SHAPES)
def test_pairs(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, kind: str) -> None:
    model = make_model(**PAIR_SHAPES[kind])
    ids, lengths = flat(tokenizer, TEXTS, list(reversed(TEXTS)))
    found = attribute(model, ids, lengths, labels=[0], steps=512)
    assert found.logits.shape == (len(TEXTS), 1)
    with torch.inference_mode():
        expected = model(input_ids=ids, lengths=lengths).logits[:, [0]]
    torch.testing.assert_close(found.logits, expected, atol=1e-4, rtol=1e-4)
    assert found.residuals.abs().max() < 0.02


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps is {steps}, but must be at least 1"):
        attribute(make_model(), *flat(tokenizer, TEXTS), labels=[0], steps=steps)


@pytest.fixture(scope="module")
def explainer(student_folder: Any) -> Explainer:
    """Of the three-class student."""
    return Explainer(student_folder, steps=64)


def test_explanation_adds_up(explainer: Explainer) -> None:
    text = "The film was good, and the film was bad!"
    found = explainer.explain(text)
    total = sum(item.contribution for item in found.ngrams)
    assert found.baseline + total + found.residual == pytest.approx(found.logit, abs=1e-4)
    assert sum(value for _, value in found.words) == pytest.approx(total, abs=1e-4)
    assert [word for word, _ in found.words] == explainer.tokenizer.extractor.words(text)
    counts = {item.ngram: item.count for item in found.ngrams}
    assert counts["film"] == 2
    assert counts["good"] == 1
    ids, lengths = flat(explainer.tokenizer, [text])
    assert sum(counts.values()) == int(lengths[0])
    with torch.inference_mode():
        logits = explainer.model(input_ids=ids, lengths=lengths).logits[0]
    assert found.label == LABELS[int(logits.argmax())]
    assert found.logit == pytest.approx(float(logits.max()), abs=1e-4)
    assert explainer.explain(text, label="neutral").logit == pytest.approx(float(logits[1]), abs=1e-4)


def test_labels_over_texts_are_means_of_single_texts(explainer: Explainer) -> None:
    texts = [*TEXTS, "a good film"] * 20  # more than a batch
    found = explainer.per_label(texts, top=400)
    for name in LABELS:
        expected: dict[str, float] = {}
        counts: dict[str, int] = {}
        for text in texts:
            for item in explainer.explain(text, label=name).ngrams:
                expected[item.ngram] = expected.get(item.ngram, 0.0) + item.contribution / len(texts)
                counts[item.ngram] = counts.get(item.ngram, 0) + item.count
        merged = [*found[name]["for"], *found[name]["against"]]
        assert {item.ngram: item.count for item in merged} == counts
        for item in merged:
            assert item.contribution == pytest.approx(expected[item.ngram], abs=1e-5)
        values = [item.contribution for item in found[name]["for"]]
        assert values == sorted(values, reverse=True)
        assert max((item.contribution for item in found[name]["against"]), default=-1.0) < 0


def test_some_labels_over_texts(explainer: Explainer) -> None:
    found = explainer.per_label(TEXTS)
    assert explainer.per_label(TEXTS, labels=["positive", "neutral"]) == {
        name: found[name] for name in ("positive", "neutral")
    }


def test_card_shows_some_labels_where_there_are_many(
    student_folder: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "t").mkdir()
    recipe = Recipe(
        output_dir="run", data=DataRecipe(train=TextSet(path="t")), teacher=TeacherRecipe(model=str(tmp_path / "t"))
    )
    assert list(describe_student(student_folder, recipe, TEXTS, None)["ngrams"]) == list(LABELS)
    monkeypatch.setattr(student_facts, "_LABELS", 2)
    assert list(describe_student(student_folder, recipe, TEXTS, None)["ngrams"]) == list(LABELS[:2])


def test_errors_name_the_way_out(explainer: Explainer, student_folder: Any) -> None:
    with pytest.raises(ValueError, match="no label 'x'; its labels are negative, neutral, positive"):
        explainer.explain("good", label="x")
    with pytest.raises(ValueError, match="single texts: leave text_pair out"):
        explainer.explain("good", "bad")
    for arguments in ({}, {"text": "a", "data": "b"}):
        with pytest.raises(ValueError, match="give --text or --data"):
            explain(str(student_folder), **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="per_label is about many texts"):
        explain(str(student_folder), text="a", per_label=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec=None), max_size=40))
def test_any_text_is_explained(explainer: Explainer, text: str) -> None:
    found = explainer.explain(text + " good film", label="positive")
    total = sum(item.contribution for item in found.ngrams)
    assert found.baseline + total + found.residual == pytest.approx(found.logit, abs=1e-3)
    assert np.isfinite([value for _, value in found.words]).all()
    assert format_explanations({"top": 3, "texts": [found.as_dict()]})


@pytest.mark.parametrize("pooling", ["mean", "sum", "max", "attentive"])
def test_words_add_up_to_what_the_ngrams_contribute(
    tmp_path: Any, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, pooling: str
) -> None:
    model = make_model(pooling=pooling)
    folder = tmp_path / pooling
    SparseNgramTextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu").save_pretrained(folder)
    found = Explainer(folder).explain("good film good film the good film bad bad")
    assert any(item.count > 1 for item in found.ngrams)
    total = sum(item.contribution for item in found.ngrams)
    assert sum(value for _, value in found.words) == pytest.approx(total, abs=1e-6)


def test_of_several_labels_one_that_is_given_is_explained(
    tmp_path: Any, make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    text = "a good film"
    for first in range(3):
        thresholds = [0.999, 0.999, 0.999]
        thresholds[first] = 0.001
        model = make_model(problem_type="multi_label_classification", label_thresholds=thresholds)
        folder = tmp_path / str(first)
        SparseNgramTextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu").save_pretrained(folder)
        assert Explainer(folder).explain(text).label in NgramClassifier.from_pretrained(folder).predict([text])[0]


def test_of_several_labels_that_are_given_the_most_probable_is_explained(
    tmp_path: Any, make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    for thresholds in ([0.01, 0.05, 0.001], [0.001, 0.01, 0.05], [0.05, 0.001, 0.01]):
        model = make_model(problem_type="multi_label_classification", label_thresholds=thresholds)
        folder = tmp_path / str(thresholds[0])
        SparseNgramTextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu").save_pretrained(folder)
        classifier = NgramClassifier.from_pretrained(folder)
        best = int(classifier.predict_logits(["a good film"])[0].argmax())
        assert len(classifier.predict(["a good film"])[0]) == 3
        assert Explainer(folder).explain("a good film").label == classifier.labels[best]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_word_that_both_texts_share_counts_alike_in_both(
    tmp_path: Any, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, pooling: str
) -> None:
    model = make_model(sentence_pairs=True, pair_bags="overlap", pooling=pooling)
    SparseNgramTextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu").save_pretrained(tmp_path)
    found = Explainer(tmp_path).explain("good", "good")
    (_, own), (_, other) = found.words
    assert own == pytest.approx(other)
    assert own != 0
    assert own + other == pytest.approx(sum(item.contribution for item in found.ngrams), abs=1e-6)


@pytest.mark.parametrize("kind", PAIR_SHAPES)
def test_pairs_are_explained(
    tmp_path: Any, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, kind: str
) -> None:
    folder = tmp_path / "pairs"
    model = make_model(**PAIR_SHAPES[kind])
    SparseNgramTextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu").save_pretrained(folder)
    explainer = Explainer(folder)
    found = explainer.explain("a good film", "bad !")
    assert found.second == 3
    assert [word for word, _ in found.words] == ["a", "good", "film", "bad", "!"]
    total = sum(item.contribution for item in found.ngrams)
    assert found.baseline + total + found.residual == pytest.approx(found.logit, abs=1e-3)
    with pytest.raises(ValueError, match="pairs: give a text_pair"):
        explainer.explain("a")
