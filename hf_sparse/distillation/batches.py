"""From texts to the tensors a training step reads: n-gram ids, lengths, teacher logits, labels."""

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hf_sparse.distillation.dropout import drop_ngrams
from hf_sparse.distillation.losses import IGNORED_LABEL
from hf_sparse.distillation.recipe_data import ProblemType
from hf_sparse.distillation.stream import TextBatch
from hf_sparse.distillation.units import Unit
from hf_sparse.student import SparseNgramForSequenceClassification
from hf_sparse.student.alignment_sparse_ngram import Bags, with_words
from hf_sparse.student.pairs_sparse_ngram import overlap_order

Item = TypeVar("Item")


class NgramBatch(Protocol):
    """Flat n-gram ids (N,) and lengths (B,), as the tokenizer extracts them."""

    @property
    def ids(self) -> npt.NDArray[np.int32]:
        """N-gram ids (N,)."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """N-grams of each text (B,), for pairs (2B,) with the sides interleaved."""


class Extractor(Protocol):
    """What a training needs of a tokenizer."""

    def extract(
        self, texts: list[str], text_pairs: list[str] | None = None, *, max_length: int | None = None
    ) -> NgramBatch:
        """Extract the n-grams of texts or pairs."""


@dataclass(frozen=True, kw_only=True)
class StudentBatch:
    """A batch of B texts.

    Attributes:
        ids: (N,) int32 n-gram ids.
        lengths: (B,) int64 n-grams of each text; for pairs of each bag, (2B,) or (3B,), those of a pair together.
        logits: (B, C) of the teacher, or None.
        labels: (B,) ids with -100 for none, or float (B, C) or (B,) with NaN for none; or None.
        num_in_batch: Texts of the whole batch, of which these are a part.
        words: Words (2B,) of each side of pairs that are aligned, which are further bags of `ids`; None for none.
    """

    ids: Tensor
    lengths: Tensor
    logits: Tensor | None
    labels: Tensor | None
    num_in_batch: int
    words: Tensor | None = None

    def to(self, device: torch.device) -> "StudentBatch":
        """Return the batch on a device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name in ("ids", "lengths", "logits", "labels", "words")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class BatchMaker:
    """Turns batches of texts into batches of tensors.

    Attributes:
        tokenizer: Extracts the n-grams.
        problem_type: Of the labels.
        num_labels: Outputs C.
        max_length: N-grams read of a text; None reads all.
        ngram_dropout: Probability with which an n-gram is left out.
        seed: Of the dropout.
        overlap: Whether pairs are sorted into bags of what their sides share and what they do not.
        is_word: 1 for the rows (V,) of single words, if those that only one side has are aligned.
        unit: In which the targets of a regression are; None: as they are.
    """

    tokenizer: Extractor
    problem_type: ProblemType
    num_labels: int
    max_length: int | None = None
    ngram_dropout: float = 0.0
    seed: int = 0
    overlap: bool = False
    is_word: Tensor | None = None
    unit: Unit | None = None

    @classmethod
    def of(
        cls,
        model: SparseNgramForSequenceClassification,
        *,
        tokenizer: Extractor,
        problem_type: ProblemType,
        max_length: int | None = None,
        unit: Unit | None = None,
    ) -> "BatchMaker":
        """Make batches as a student reads them, without dropout."""
        alignment = model.model.alignment
        return cls(
            tokenizer=tokenizer,
            problem_type=problem_type,
            num_labels=model.num_labels,
            max_length=max_length,
            overlap=model.model.compares_overlap,
            is_word=None if alignment is None else alignment.is_word.cpu(),
            unit=unit,
        )

    def __call__(self, batch: TextBatch) -> StudentBatch:
        """Extract, drop and convert."""
        extracted = self.tokenizer.extract(batch.texts, batch.text_pairs, max_length=self.max_length)
        ids, lengths = extracted.ids, extracted.lengths
        if self.overlap:  # before the dropout: what is left out of one side is shared all the same
            order, counts = overlap_order(torch.from_numpy(ids), torch.from_numpy(lengths))
            ids, lengths = ids[order.numpy()], counts.numpy()
        if self.ngram_dropout:
            numbers = bag_numbers(batch.numbers, len(lengths) // max(1, len(batch.numbers)))
            ids, lengths = drop_ngrams(
                ids, lengths, numbers, rate=self.ngram_dropout, seed=self.seed, epoch=batch.epoch
            )
        bags = Bags(torch.from_numpy(np.ascontiguousarray(ids)), torch.from_numpy(np.ascontiguousarray(lengths)))
        if self.is_word is not None:
            bags = with_words(bags.ids, bags.lengths, self.is_word)
        return StudentBatch(
            ids=bags.ids,
            lengths=bags.lengths,
            words=bags.words,
            logits=None if batch.logits is None else self._in_unit(torch.from_numpy(batch.logits)),
            labels=None if batch.labels is None else self._in_unit(self._labels(batch.labels)),
            num_in_batch=batch.num_in_batch,
        )

    def _in_unit(self, targets: Tensor) -> Tensor:
        return targets if self.unit is None else self.unit.standardise(targets)

    def _labels(self, labels: list[object]) -> Tensor:
        if self.problem_type == "single_label_classification":
            return torch.tensor([IGNORED_LABEL if label is None else label for label in labels], dtype=torch.int64)
        if not labels:
            wide = self.problem_type == "multi_label_classification"
            return torch.zeros((0, self.num_labels) if wide else 0)
        missing: object = float("nan")
        if self.problem_type == "multi_label_classification":
            missing = [float("nan")] * self.num_labels
        return torch.tensor([missing if label is None else label for label in labels], dtype=torch.float32)


def cut_batch(batch: TextBatch, num_parts: int) -> list[TextBatch]:
    """Cut a batch into parts of about as many texts each; every process gets as many parts, some may be empty."""
    if num_parts == 1:
        return [batch]
    edges = [len(batch.texts) * part // num_parts for part in range(num_parts + 1)]
    return [_slice(batch, slice(start, stop)) for start, stop in pairwise(edges)]


def _slice(batch: TextBatch, part: slice) -> TextBatch:
    return replace(
        batch,
        texts=batch.texts[part],
        text_pairs=None if batch.text_pairs is None else batch.text_pairs[part],
        numbers=batch.numbers[part],
        logits=None if batch.logits is None else batch.logits[part],
        labels=None if batch.labels is None else batch.labels[part],
    )


def prefetch(items: Iterable[Item], *, depth: int = 4) -> Iterator[Item]:
    """Yield items that a thread prepares ahead, at most `depth` of them waiting; its errors are raised here."""
    waiting: queue.Queue[Item | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, daemon=True, name="prefetch")
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def bag_numbers(numbers: npt.NDArray[np.int64], bags: int) -> npt.NDArray[np.int64]:
    """Number the bags of texts that have numbers (B,) and the same number of bags each."""
    return (bags * numbers[:, None] + np.arange(bags)).reshape(-1)
