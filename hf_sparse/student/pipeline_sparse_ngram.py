"""The text-classification pipeline of the student: whole batches where the stock one tokenises text by text.

It answers as `transformers.TextClassificationPipeline` does, for every form of input. It takes the place of that one
in `pipeline("text-classification", model=..., trust_remote_code=True)` through the `custom_pipelines` of the config.
"""

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from types import GeneratorType
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import TextClassificationPipeline

# Large enough that the cost of a call is spread over many texts, small enough for a few MB of ids.
DEFAULT_BATCH_SIZE = 256

_HANDLED_OPTIONS = {"truncation", "max_length", "padding", "pad_to_multiple_of", "padding_side", "verbose"}


class SparseNgramTextClassificationPipeline(TextClassificationPipeline):
    """Classify texts or pairs of texts, batch by batch, in the flat form of the student."""

    tokenizer: Any
    model: Any
    modelcard = None  # transformers 5.0 asks for it when it saves a pipeline, but never sets it

    def __init__(self, **kwargs: Any) -> None:
        """Put model and tokenizer together.

        Raises:
            ValueError: If the tokenizer's vocabulary is not the one whose rows are in the model's table.
        """
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        wanted = getattr(self.model.config, "vocabulary_sha256", None)
        given = getattr(self.tokenizer, "vocabulary_sha256", None)
        if wanted is not None and given is not None and wanted != given:
            raise ValueError(
                f"the tokenizer of {self.tokenizer.name_or_path or 'this pipeline'} has the vocabulary of another "
                f"model: its SHA-256 is {given}, but the model's config.json names {wanted}; load both from one "
                "repository, or save them together again"
            )

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Classify; arguments and results are those of the stock pipeline, and an empty list gives an empty list.

        With `calibrated=True` logits are divided by the model's `calibration_temperature`, so that a score of 0.9 is
        right about nine times of ten; it is a `ValueError` if the model has none.

        Without a `batch_size`, lists and data sets are cut into batches of 256. A generator is then read one text at a
        time, since it may be a live source; with a `batch_size` it is read one batch at a time.
        """
        if isinstance(inputs, list) and not inputs:
            return []
        if isinstance(inputs, GeneratorType):
            inputs = _Stream(inputs)
        known_size = isinstance(inputs, Sized) and not isinstance(inputs, str | dict)
        if known_size and kwargs.get("batch_size") is None and self._batch_size is None:
            kwargs["batch_size"] = DEFAULT_BATCH_SIZE
        return super().__call__(inputs, **kwargs)

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Any:
        """Return the lazy results of many inputs, in their order."""
        params = (preprocess_params, forward_params, postprocess_params)
        if num_workers or not self._can_batch(preprocess_params):
            return super().get_iterator(inputs, num_workers, batch_size, *params)
        results = _Results(self, inputs, batch_size, params)
        # What can be read once only must not start again when its results are passed to another loop.
        return results.run() if isinstance(inputs, _Stream) else results

    def run_batch(self, items: list[Any], params: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]) -> list[Any]:
        """Classify a list of inputs in one go.

        Args:
            items: Strings, or dictionaries with `text` and perhaps `text_pair`.
            params: What the stock pipeline calls the parameters of preprocessing, forward and postprocessing.

        Returns:
            One result an input, as from the stock pipeline.
        """
        preprocess_params, forward_params, postprocess_params = params
        if not all(map(_is_plain, items)):
            stock: Any = super().run_single
            return [stock(item, *params) for item in items]
        model_inputs = self._flat_inputs(items, preprocess_params)
        outputs: Any = self.forward(model_inputs, **forward_params)  # type: ignore[no-untyped-call]
        return self._finish(outputs["logits"], **postprocess_params)

    def run_single(
        self,
        inputs: Any,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Any:
        """Classify one input."""
        params = (preprocess_params, forward_params, postprocess_params)
        if self._can_batch(preprocess_params):
            return self.run_batch([inputs], params)[0]
        return super().run_single(inputs, *params)  # type: ignore[no-untyped-call]

    def _finish(
        self, logits: torch.Tensor, function_to_apply: str | None = None, top_k: int | None = 1, _legacy: bool = True
    ) -> list[Any]:
        """Do for logits (B, C) what the stock `postprocess` does text by text, which costs more than the model."""
        config = self.model.config
        names, function = config.id2label, function_to_apply or _default_function(config)
        scores = logits.float()
        if function == "softmax":
            scores = scores.softmax(dim=1)
        elif function == "sigmoid":
            scores = scores.sigmoid()
        if _legacy and top_k == 1:
            best = scores.numpy().argmax(axis=1).tolist()
            values = scores.amax(dim=1).tolist()
            return [{"label": names[i], "score": score} for i, score in zip(best, values, strict=True)]
        results = [[{"label": names[i], "score": score} for i, score in enumerate(row)] for row in scores.tolist()]
        if _legacy:
            return results
        return [sorted(row, key=_score, reverse=True)[:top_k] for row in results]

    def _sanitize_parameters(self, calibrated: bool | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)  # type: ignore[no-untyped-call]
        if calibrated and getattr(self.model.config, "calibration_temperature", None) is None:
            raise ValueError(
                "calibrated is True, but the model's config.json has no calibration_temperature; fit one with "
                "`hf-sparse calibrate`, or leave calibrated out"
            )
        return preprocess, forward if calibrated is None else forward | {"calibrated": calibrated}, postprocess

    def _forward(self, model_inputs: Any, calibrated: bool = False) -> Any:  # type: ignore[override]
        # The stock one inspects the signature of the model at each call, a third of the time of a single text.
        outputs = self.model(**model_inputs)
        if calibrated:
            outputs["logits"] = outputs["logits"] / self.model.config.calibration_temperature
        return outputs

    def _can_batch(self, preprocess_params: dict[str, Any]) -> bool:
        return hasattr(self.tokenizer, "extract") and preprocess_params.keys() <= _HANDLED_OPTIONS

    def _flat_inputs(self, items: list[Any], options: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return `input_ids` (N,) and `lengths` (B,), or (2B,) for a model of sentence pairs."""
        _, truncation, max_length, _ = self.tokenizer._get_padding_truncation_strategies(**options)
        limit = None if truncation.value == "do_not_truncate" else max_length
        texts = [item if isinstance(item, str) else item["text"] for item in items]
        pairs = ["" if isinstance(item, str) else item.get("text_pair") or "" for item in items]
        compares = self.model.config.sentence_pairs
        if not compares and not any(pairs):
            batch = self.tokenizer.extract(texts, max_length=limit)
            lengths = batch.lengths
        else:
            batch = self.tokenizer.extract(texts, pairs, max_length=limit, truncation=truncation.value)
            # A model that does not compare texts takes a pair as one bag of n-grams.
            lengths = batch.lengths if compares else batch.lengths.reshape(-1, 2).sum(axis=1)
        return {"input_ids": torch.from_numpy(batch.ids), "lengths": torch.from_numpy(lengths)}


class _Stream(IterableDataset[Any]):
    """A generator as a data set: early releases of transformers 5 read a bare generator to its end at once."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return self._items


class _Results(Iterator[Any]):
    """Run batches when results are asked for; like the stock pipeline's iterator it has a length and restarts."""

    def __init__(
        self,
        pipe: SparseNgramTextClassificationPipeline,
        inputs: Iterable[Any],
        batch_size: int,
        params: tuple[dict[str, Any], dict[str, Any], dict[str, Any]],
    ) -> None:
        self._pipe, self._inputs, self._batch_size, self._params = pipe, inputs, batch_size, params
        self._running: Iterator[Any] | None = None

    def __len__(self) -> int:
        return len(self._inputs)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        self._running = self.run()
        return self

    def __next__(self) -> Any:
        self._running = self.run() if self._running is None else self._running
        return next(self._running)

    def run(self) -> Iterator[Any]:
        """Yield the results, batch by batch."""
        inputs = self._inputs
        # A map-style data set need not raise IndexError at its end, so it is not iterated over directly.
        by_index = isinstance(inputs, Sized) and hasattr(inputs, "__getitem__")
        items = (inputs[i] for i in range(len(inputs))) if by_index else iter(inputs)  # type: ignore[index, arg-type]
        while batch := list(islice(items, self._batch_size)):
            yield from self._pipe.run_batch(batch, self._params)


def _score(result: dict[str, Any]) -> float:
    return float(result["score"])


def _default_function(config: Any) -> str:
    """Choose what turns logits into scores as the stock pipeline does."""
    if config.problem_type == "regression":
        return "none"
    return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"


def _is_plain(item: Any) -> bool:
    """Tell whether an input is a text or a pair that can join a batch; the stock pipeline sees to the others."""
    if isinstance(item, str):
        return True
    return (
        isinstance(item, dict)
        and item.keys() <= {"text", "text_pair"}
        and isinstance(item.get("text"), str)
        and isinstance(item.get("text_pair", ""), str | None)
    )
