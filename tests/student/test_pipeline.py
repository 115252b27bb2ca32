"""The pipeline answers as the stock one does, in every form of call, but in whole batches."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import TextClassificationPipeline, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_sparse.student import (
    SparseNgramForSequenceClassification,
    SparseNgramTextClassificationPipeline,
    SparseNgramTokenizer,
)
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary

ModelFactory = Callable[..., SparseNgramForSequenceClassification]

TEXTS = ["the film was good", "a bad , bad film !", "", "unknown words only", "the the the film and a good bad film"]
PAIRS = [
    {"text": text, "text_pair": pair} for text, pair in zip(TEXTS, ["good film", "", "bad", "a", "!"], strict=True)
]


class ListDataset(Dataset[Any]):
    """A map-style data set that, as allowed, never raises IndexError."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index % len(self.items)]


class StreamDataset(IterableDataset[Any]):
    """A data set without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(TEXTS)


def read(results: Any) -> Any:
    """Results as lists, also where a pipeline gives an iterator."""
    return results if isinstance(results, list | dict) else list(results)


def same(ours: Any, stock: Any) -> None:
    """Compare results: equal but for the last digits of a score."""
    assert type(ours) is type(stock)
    if isinstance(ours, list):
        assert len(ours) == len(stock)
        for one, other in zip(ours, stock, strict=True):
            same(one, other)
    else:
        assert ours.keys() == stock.keys() == {"label", "score"}
        assert ours["label"] == stock["label"]
        assert ours["score"] == pytest.approx(stock["score"], abs=1e-6)


def both(model: Any, tokenizer: Any, **settings: Any) -> tuple[Any, Any]:
    """Our pipeline and the stock one around the same model and tokenizer."""
    return (
        SparseNgramTextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu", **settings),
        TextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu", **settings),
    )


INPUTS: dict[str, Callable[[], Any]] = {
    "string": lambda: TEXTS[0],
    "empty string": lambda: "",
    "list": lambda: TEXTS,
    "list of one": lambda: TEXTS[:1],
    "generator": lambda: (text for text in TEXTS),
    "data set": lambda: ListDataset(TEXTS),
    "key data set": lambda: KeyDataset(ListDataset([{"text": text} for text in TEXTS]), "text"),
    "stream": lambda: StreamDataset(),
    "dictionary": lambda: PAIRS[0],
    "dictionary of one text": lambda: {"text": TEXTS[0]},
    "list of dictionaries": lambda: PAIRS,
    "pairs as lists": lambda: [[["the film", "was good"]], [["a", "bad film"]]],
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"batch_size": 2},
    {"top_k": None},
    {"top_k": 1},
    {"top_k": 2, "batch_size": 3},
    {"function_to_apply": "sigmoid"},
    {"function_to_apply": "softmax", "top_k": None},
    {"function_to_apply": "none"},
    {"truncation": True, "max_length": 3},
    {"truncation": "only_first", "max_length": 4},
    {"max_length": 3},
    {"padding": "max_length", "max_length": 50, "truncation": True},
    {"padding": True, "top_k": None},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("form", INPUTS)
def test_results_are_those_of_the_stock_pipeline(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, form: str, options: dict[str, Any]
) -> None:
    for sentence_pairs in (False, True):
        ours, stock = both(make_model(sentence_pairs=sentence_pairs), tokenizer)
        stock_options = {name: value for name, value in options.items() if name != "batch_size"}
        same(read(ours(INPUTS[form](), **options)), read(stock(INPUTS[form](), **stock_options)))


@pytest.mark.parametrize(
    "settings",
    [
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression", "num_labels": 1},
        {"num_labels": 1},
        {"num_labels": 2},
    ],
)
def test_scores_follow_the_problem_type(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, settings: dict[str, Any]
) -> None:
    ours, stock = both(make_model(**settings), tokenizer)
    for options in ({}, {"top_k": None}):
        same(ours(TEXTS, **options), stock(TEXTS, **options))
        same(ours(TEXTS[0], **options), stock(TEXTS[0], **options))


def test_settings_of_the_pipeline_hold_for_its_calls(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    ours, stock = both(make_model(), tokenizer, top_k=2, truncation=True, max_length=2)
    same(ours(TEXTS), stock(TEXTS))
    ours, _ = both(make_model(), tokenizer, batch_size=2)
    assert count_batches(ours, lambda: ours(TEXTS)) == [2, 2, 1]
    assert count_batches(ours, lambda: ours(TEXTS, batch_size=4)) == [4, 1]


def count_batches(pipe: Any, call: Callable[[], Any]) -> list[int]:
    """The sizes of the batches that the model sees during a call."""
    sizes: list[int] = []
    handle = pipe.model.register_forward_pre_hook(
        lambda _, __, inputs: sizes.append(inputs["lengths"].shape[0]), with_kwargs=True
    )
    read(call())
    handle.remove()
    return sizes


def test_lists_and_data_sets_are_cut_into_batches(make_model: ModelFactory, tokenizer: SparseNgramTokenizer) -> None:
    ours, _ = both(make_model(), tokenizer)
    assert count_batches(ours, lambda: ours(TEXTS * 60)) == [256, 44]
    assert count_batches(ours, lambda: ours(ListDataset(TEXTS))) == [5]
    assert count_batches(ours, lambda: ours(text for text in TEXTS)) == [1] * 5
    assert count_batches(ours, lambda: ours((text for text in TEXTS), batch_size=3)) == [3, 2]


def test_a_generator_is_read_as_results_are_asked_for(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    seen: list[str] = []

    def texts() -> Iterator[str]:
        for text in TEXTS * 10:
            seen.append(text)
            yield text

    ours, stock = both(make_model(), tokenizer)
    results = iter(ours(texts(), batch_size=2))
    same(next(results), stock(TEXTS[:1])[0])
    assert len(seen) == 2
    assert len(list(results)) == 49


def test_results_of_a_data_set_have_a_length_and_can_be_read_again(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    ours, stock = both(make_model(), tokenizer)
    results = ours(ListDataset(TEXTS))
    assert len(results) == 5
    for _ in range(2):
        same(list(results), stock(TEXTS))


def test_mixed_inputs_and_no_inputs(make_model: ModelFactory, tokenizer: SparseNgramTokenizer) -> None:
    for sentence_pairs in (False, True):
        ours, stock = both(make_model(sentence_pairs=sentence_pairs), tokenizer)
        mixed = [TEXTS[0], PAIRS[0], {"text": TEXTS[1]}, {"text": TEXTS[0], "text_pair": None}]
        same(ours(mixed), [stock([item])[0] for item in mixed])
        assert ours([]) == []


def test_workers_and_unknown_options_fall_back_to_the_stock_way(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    ours, stock = both(make_model(), tokenizer)
    same(ours(TEXTS, num_workers=1), stock(TEXTS))
    same(ours(TEXTS, add_special_tokens=False), stock(TEXTS))
    with pytest.raises(ValueError, match="invalid inputs"):
        ours([["a", "b"]])


def test_the_vocabulary_of_another_model_is_refused(make_model: ModelFactory) -> None:
    other = SparseNgramTokenizer(vocabulary=NgramVocabulary.from_counts({("other",): 1}))
    with pytest.raises(ValueError, match="vocabulary of another model"):
        SparseNgramTextClassificationPipeline(model=make_model(), tokenizer=other)


def test_the_ordinary_call_gives_the_custom_pipeline(student_folder: Path, device: torch.device) -> None:
    pipe = pipeline("text-classification", model=str(student_folder), trust_remote_code=True, device=device)
    assert type(pipe).__name__ == "SparseNgramTextClassificationPipeline"
    stock = pipeline(
        "text-classification", model=str(student_folder), pipeline_class=TextClassificationPipeline, device="cpu"
    )
    same(pipe(TEXTS, top_k=None), stock(TEXTS, top_k=None))
