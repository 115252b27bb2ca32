"""A student that serves: text to label with NumPy and the compiled kernels alone."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_sparse.runtime.folder import student_folder
from hf_sparse.runtime.head import Head, label_thresholds, logit, probabilities
from hf_sparse.runtime.jit import Floats, Ids, Offsets
from hf_sparse.runtime.kernel import CompiledExtractor, build_tables
from hf_sparse.runtime.pairs import Alignment, bag_shares, overlap_bags, with_words
from hf_sparse.runtime.pooling import MODES, Table, ids_pooler, texts_pooler
from hf_sparse.runtime.rows import BITS, FORMATS, NUMPY_DTYPES, TAILS
from hf_sparse.runtime.student_config import read_config
from hf_sparse.runtime.student_files import (
    NgramExtractor,
    NgramVocabulary,
    clean_texts,
    code_point_table,
    normalise_texts,
)
from hf_sparse.runtime.texts import Encoder
from hf_sparse.runtime.weights import check_weights, map_weights

# Texts that one thread takes at a time: enough that starting it costs nothing, few enough for the caches.
_BATCH_TEXTS: Final = 512
_BATCH_CHARACTERS: Final = 1 << 20
# Fewer texts are not worth another thread.
_FEWEST_TEXTS: Final = 16
# Batches for each thread that are made before any is begun.
_WAVE_BATCHES: Final = 8
_PROBLEM_TYPES: Final = ("single_label_classification", "multi_label_classification", "regression")


class NgramClassifier:
    """Classifies texts; made by `from_pretrained`. Any number of threads may use one at the same time.

    `labels` are the names of the C labels, `problem_type` is as in the config of any Hugging Face model,
    `sentence_pairs` says whether it takes pairs, `num_threads` over how many threads a call spreads its texts,
    `calibration_temperature` is None where none was fitted; `label_thresholds` (C,) are as in the config, or 0.5.
    """

    def __init__(
        self,
        *,
        config: Mapping[str, Any],
        vocabulary: NgramVocabulary,
        weights: Mapping[str, npt.NDArray[Any]],
        num_threads: int = 1,
    ) -> None:
        """Put a student together; see `from_pretrained`."""
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self.num_threads = num_threads
        self._head = Head.from_weights(config, weights)
        self.sentence_pairs = self._head.sentence_pairs
        self.labels = _labels(config, self._head.num_labels)
        self.problem_type: str = config.get("problem_type") or _PROBLEM_TYPES[0]
        self.calibration_temperature: float | None = config.get("calibration_temperature")
        self.label_thresholds = label_thresholds(config, self._head.num_labels)
        self._cutoffs = logit(self.label_thresholds)
        _check_pooling(config)
        # The table is only addresses to the loops: this keeps the memory behind them.
        self._blocks, self._table = _table(config, weights, vocabulary.num_rows)
        row_format, mode = FORMATS[config.get("table_dtype", "float32")], MODES[config["pooling"]]
        if self._head.sentence_pairs and self._head.pair_bags == "overlap":
            alignment = Alignment.from_weights(config, weights)
            self._pool = _overlap_pooler(vocabulary, row_format, mode, self._table, alignment)
        else:
            self._pool = _pooler(vocabulary, row_format, mode, self._table)
        self._threads = ThreadPoolExecutor(num_threads - 1, "hf-sparse") if num_threads > 1 else None
        # Loads the machine code, or compiles it: the first real call waits for nothing.
        self._logits(["a"] * (1 + self._head.sentence_pairs))

    @classmethod
    def from_pretrained(
        cls, folder_or_repo: str | os.PathLike[str], *, revision: str | None = None, num_threads: int = 1
    ) -> "NgramClassifier":
        """Load a student; its weights are mapped, not read, and shared with other processes that map them.

        Args:
            folder_or_repo: A folder, or the id of a repository on the Hub.
            revision: Branch, tag or commit of the repository.
            num_threads: Over how many threads a call spreads its texts.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: The folder does not hold a student that the runtime can serve; the message says why.
        """
        folder = student_folder(folder_or_repo, revision=revision)
        config = read_config(folder)
        vocabulary = NgramVocabulary.load(folder)
        expected = config.get("vocabulary_sha256")
        if expected is not None and expected != vocabulary.sha256:
            raise ValueError(
                f"{folder}: vocabulary.safetensors has sha256 {vocabulary.sha256}, but the model was made with "
                f"{expected}: both must come from one student"
            )
        if config["vocab_size"] != vocabulary.num_rows:
            raise ValueError(
                f"{folder}: config.json has vocab_size {config['vocab_size']}, but the vocabulary numbers "
                f"{vocabulary.num_rows} rows: both must come from one student"
            )
        weights = map_weights(folder)
        check_weights(config, weights, where=folder)
        classifier = cls(config=config, vocabulary=vocabulary, weights=weights, num_threads=num_threads)
        del vocabulary
        _return_memory()
        return classifier

    def predict(self, texts: Iterable[str], text_pairs: Iterable[str] | None = None) -> list[Any]:
        """Return the label of each text; with several labels a text, the list of those above their threshold.

        The threshold is 0.5 where the config has no `label_thresholds`.

        Args:
            texts: B texts in a list, an iterator or an Arrow column.
            text_pairs: Their partners, for a student of sentence pairs.

        Raises:
            TypeError: `texts` is one string, or one of them is not a string.
            ValueError: The student is one of regression, or `text_pairs` does not fit it.
        """
        if self.problem_type == "regression":
            raise ValueError("a regression has no labels: predict_proba gives its values")
        logits = self.predict_logits(texts, text_pairs)
        if self.problem_type == "multi_label_classification":
            return [[self.labels[index] for index in np.flatnonzero(row > self._cutoffs)] for row in logits]
        return [self.labels[index] for index in logits.argmax(axis=1).tolist()]

    def predict_proba(
        self, texts: Iterable[str], text_pairs: Iterable[str] | None = None, *, calibrated: bool = False
    ) -> Floats:
        """Return probabilities (B, C) float32, those of a regression being its values; see `predict`.

        Args:
            texts: B texts in a list, an iterator or an Arrow column.
            text_pairs: Their partners, for a student of sentence pairs.
            calibrated: Divide logits by the student's temperature: 0.9 is then right about nine times of ten.

        Raises:
            ValueError: `calibrated` is asked for, but the student has no temperature.
        """
        temperature = self.calibration_temperature if calibrated else 1.0
        if temperature is None:
            raise ValueError(
                "calibrated is True, but the student's config.json has no calibration_temperature; fit one with "
                "`hf-sparse calibrate`, or leave calibrated out"
            )
        logits = self.predict_logits(texts, text_pairs)
        return probabilities(logits / np.float32(temperature) if calibrated else logits, self.problem_type)

    def predict_logits(self, texts: Iterable[str], text_pairs: Iterable[str] | None = None) -> Floats:
        """Return logits (B, C) float32; see `predict`."""
        if (text_pairs is not None) != self._head.sentence_pairs:
            wants = "pairs of texts: give text_pairs" if self._head.sentence_pairs else "single texts, no text_pairs"
            raise ValueError(f"this student takes {wants}")
        if text_pairs is not None:
            if isinstance(texts, Sized) and isinstance(text_pairs, Sized) and len(texts) != len(text_pairs):
                raise ValueError(f"there are {len(texts)} texts, but {len(text_pairs)} text_pairs: one each")
            sides = zip(strings(texts), strings(text_pairs), strict=True)
            batches = _batches(chain.from_iterable(sides))
        else:
            batches = _batches(texts if isinstance(texts, list | tuple) else strings(texts), self.num_threads)
        parts = list(self._run(batches))
        if not parts:
            return np.zeros((0, self._head.num_labels), dtype=np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, batches: Iterator[Sequence[str]]) -> Iterator[Floats]:
        """Yield the logits of batches, in order; what is read from an iterator is read by the calling thread."""
        if self._threads is None:
            yield from map(self._logits, batches)
            return
        while wave := list(islice(batches, _WAVE_BATCHES * self.num_threads)):
            yield from self._share(self._threads, wave)

    def _share(self, threads: ThreadPoolExecutor, wave: Sequence[Sequence[str]]) -> list[Floats]:
        """Return the logits of batches, each taken by whichever thread is free; the calling one is among them."""
        parts: list[Floats | None] = [None] * len(wave)
        numbers = iter(range(len(wave)))  # one step of it is atomic

        def work() -> None:
            for number in numbers:
                parts[number] = self._logits(wave[number])

        helpers = [threads.submit(work) for _ in range(min(self.num_threads, len(wave)) - 1)]
        try:
            work()
        finally:
            for helper in helpers:
                helper.cancel()
        for helper in helpers:
            if not helper.cancelled():
                helper.result()
        return [part for part in parts if part is not None]

    def _logits(self, texts: Sequence[str]) -> Floats:
        if not all(map(str.__instancecheck__, texts)):
            wrong = next(text for text in texts if not isinstance(text, str))
            raise TypeError(f"texts must be strings, got {type(wrong).__name__} {wrong!r:.50}")
        return self._head.logits(self._pool(texts))


def _return_memory() -> None:
    """Hand what loading has freed back to the system; glibc would keep some 16 MB of a million n-grams for itself."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def strings(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts one by one, those of an Arrow column too."""
    if isinstance(texts, str):
        raise TypeError(f"texts must be many strings, got one: put it into a list, [{texts!r:.50}]")
    slices = getattr(texts, "slice", None)
    if slices is not None and hasattr(texts, "to_pylist"):
        return chain.from_iterable(
            slices(first, _BATCH_TEXTS).to_pylist()
            for first in range(0, len(texts), _BATCH_TEXTS)  # type: ignore[arg-type]
        )
    return iter(texts)


def _batches(texts: Iterable[str], num_threads: int = 1) -> Iterator[Sequence[str]]:
    """Cut texts into batches of an even number of texts, and of bounded size where the number leaves a choice.

    Those of a list that several threads share become smaller towards its end, so that all end at about the same time.
    The first is a small one: while the calling thread makes it ready, no other can begin.
    """
    left = len(texts) if isinstance(texts, list | tuple) and num_threads > 1 else 0
    stream = iter(texts)
    size = _FEWEST_TEXTS if left else _BATCH_TEXTS
    while True:
        batch = list(islice(stream, size))
        if not batch:
            return
        if left:
            left -= len(batch)
            size = min(_BATCH_TEXTS, max(_FEWEST_TEXTS, 2 * left // (3 * num_threads) // 2 * 2))
        if len(batch) > 2 and _num_characters(batch) > _BATCH_CHARACTERS:
            yield from (batch[first : first + 2] for first in range(0, len(batch), 2))
        else:
            yield batch


def _num_characters(texts: Sequence[str]) -> int:
    try:
        return sum(map(len, texts))
    except TypeError:  # something is no string: whoever reads the texts says what
        return 0


def _pooler(
    vocabulary: NgramVocabulary, row_format: int, mode: int, table: Table
) -> Callable[[Sequence[str]], Floats]:
    """Return the function that pools the rows of texts (B, D)."""
    if vocabulary.word_rule == "words":
        codes = code_point_table()
        encoder = Encoder(codes, vocabulary.clean, clean_texts, normalise_texts)
        tables, pool_texts = build_tables(vocabulary, codes), texts_pooler(row_format, mode)
        return lambda texts: pool_texts(encoder.encode(texts), tables, table)
    extract, pool_ids = _extractor(vocabulary), ids_pooler(row_format, mode)
    return lambda texts: pool_ids(*extract(texts), table)


def _overlap_pooler(
    vocabulary: NgramVocabulary, row_format: int, mode: int, table: Table, alignment: Alignment | None
) -> Callable[[Sequence[str]], Floats]:
    """Return the function that pools the rows of the bags of pairs (3B, D), given their sides interleaved."""
    extract, pool_ids = _extractor(vocabulary), ids_pooler(row_format, mode)

    def pool(texts: Sequence[str]) -> Floats:
        ids, lengths = overlap_bags(*extract(texts))
        num_bags = lengths.size
        if alignment is None:
            pooled = pool_ids(ids, lengths, table)
        else:
            ids, lengths, words = with_words(ids, lengths, alignment.is_word)
            pooled = pool_ids(ids, lengths, table)
            aligned = alignment(pooled[num_bags:], words)
            pooled = pooled[:num_bags]
        if mode == MODES["mean"]:
            pooled *= bag_shares(lengths[:num_bags])
        if alignment is not None:
            for side in range(2):
                pooled[side::3, -alignment.size :] = aligned[side::2]
        return pooled

    return pool


def _extractor(vocabulary: NgramVocabulary) -> Callable[[Sequence[str]], tuple[Ids, Offsets]]:
    """Return the function that finds the n-gram ids (N,) of texts and the number (B,) of each."""
    if vocabulary.word_rule == "words":
        compiled = CompiledExtractor(vocabulary, code_point_table())
        return lambda texts: compiled.extract(texts, clean_texts, normalise_texts)
    extractor = NgramExtractor(vocabulary, compiled=False)

    def extract(texts: Sequence[str]) -> tuple[Ids, Offsets]:
        batch = extractor.extract(texts)
        return batch.ids, batch.lengths

    return extract


def _table(
    config: Mapping[str, Any], weights: Mapping[str, npt.NDArray[Any]], num_rows: int
) -> tuple[list[npt.NDArray[Any]], Table]:
    """Return the row blocks and where they are.

    Raises:
        ValueError: They do not have the rows that the vocabulary numbers, or the size that the config says.
    """
    dtype, width, block_rows = config.get("table_dtype", "float32"), config["embedding_size"], config["block_rows"]
    stride = width * BITS[dtype] // 8 + TAILS[dtype]
    blocks = []
    for index, start in enumerate(range(0, num_rows, block_rows)):
        name, rows = f"model.table.blocks.{index}", min(block_rows, num_rows - start)
        block = weights.get(name)
        if block is None or block.dtype != NUMPY_DTYPES[dtype] or block.shape != (rows, stride // block.itemsize):
            found = "there is none" if block is None else f"it is {block.dtype} {block.shape}"
            raise ValueError(f"the weights {name} must have {rows} rows of {stride} bytes ({dtype}), but {found}")
        blocks.append(block)
    addresses = np.array([block.ctypes.data for block in blocks], dtype=np.int64)
    return blocks, (addresses, block_rows, stride, width)


def _check_pooling(config: Mapping[str, Any]) -> None:
    dtype = config.get("table_dtype", "float32")
    if dtype not in FORMATS:
        raise ValueError(f"table_dtype is {dtype!r}, known are {', '.join(FORMATS)}: install a newer hf-sparse")
    if config["pooling"] not in MODES:
        raise ValueError(
            f"the runtime pools by {', '.join(MODES)}, not by {config['pooling']!r}: "
            "load this student with AutoModelForSequenceClassification"
        )


def _labels(config: Mapping[str, Any], num_labels: int) -> list[str]:
    names = config.get("id2label")
    if names is None:
        return [f"LABEL_{index}" for index in range(num_labels)]
    if len(names) != num_labels:
        raise ValueError(
            f"id2label in config.json names {len(names)} labels, but the weights have {num_labels}: both must come "
            "from one student"
        )
    return [str(names[str(index)]) for index in range(num_labels)]
