"""The tokenizer of the student: from text to the row numbers of its n-grams, called like any tokenizer.

A token here is an n-gram, so ids overlap in the text: "a good film" may become `a`, `a good`, `a good film`, `good`,
... in the order of the word an n-gram begins with, shorter ones first. There is no special token but padding, row 0.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AddedToken, BatchEncoding
from transformers.tokenization_python import PythonBackend
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy, TensorType

from .encoding_sparse_ngram import IntArray, cut, fill_rows, share_length, split_rows
from .extraction_sparse_ngram import NgramBatch, NgramExtractor

# Transformers 5.0 brings along only what this file itself imports from a local folder, not what its imports import.
from .lookup_sparse_ngram import NgramLookup  # noqa: F401
from .unicode_sparse_ngram import code_point_table  # noqa: F401
from .vocabulary_format_sparse_ngram import FORMAT_VERSION  # noqa: F401
from .vocabulary_sparse_ngram import VOCABULARY_FILE, NgramVocabulary
from .words_sparse_ngram import clean_texts  # noqa: F401

PAD_TOKEN = "[PAD]"
NGRAM_SEPARATOR = " | "  # between the n-grams of a decoded text, whose own words are separated by spaces


class SparseNgramTokenizer(PythonBackend):
    """Turn texts into n-gram ids, whole batches at once.

    `max_length` counts ids. A pair of texts gets `token_type_ids`. `extract` gives the flat form that the collator,
    the pipeline and the training loop use.
    """

    vocab_files_names = {"vocabulary_file": VOCABULARY_FILE}  # noqa: RUF012 (the base class's type)
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        vocabulary_file: str | os.PathLike[str] | None = None,
        *,
        vocabulary: NgramVocabulary | None = None,
        vocabulary_sha256: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Take a vocabulary, or read one.

        Args:
            vocabulary_file: A `vocabulary.safetensors`; not needed with `vocabulary`.
            vocabulary: The vocabulary itself.
            vocabulary_sha256: The digest the vocabulary must have, as `tokenizer_config.json` keeps it.
            **kwargs: What every tokenizer takes: `model_max_length`, `padding_side`, `truncation_side`, ...

        Raises:
            ValueError: If there is no vocabulary, or it is not the one that `vocabulary_sha256` names.
        """
        if vocabulary is None:
            if vocabulary_file is None:
                folder = kwargs.get("name_or_path") or "the tokenizer's folder"
                raise ValueError(f"there is no {VOCABULARY_FILE} in {folder}; pass `vocabulary` or download it again")
            vocabulary = NgramVocabulary.load(vocabulary_file)
        if vocabulary_sha256 not in (None, vocabulary.sha256):
            raise ValueError(
                f"{vocabulary_file or VOCABULARY_FILE} has SHA-256 {vocabulary.sha256}, but tokenizer_config.json "
                f"names {vocabulary_sha256}: the file is damaged or belongs to another model; download or save the "
                "tokenizer again"
            )
        self.vocabulary = vocabulary
        self.vocabulary_sha256 = vocabulary.sha256
        self._lazy_extractor: NgramExtractor | None = None
        # Before the base class, which otherwise asks for the whole vocabulary as a dict to add padding to it.
        self._added_tokens_decoder = {0: AddedToken(PAD_TOKEN, normalized=False, special=True)}
        kwargs.setdefault("pad_token", PAD_TOKEN)
        super().__init__(vocabulary_sha256=self.vocabulary_sha256, **kwargs)  # type: ignore[no-untyped-call]

    @classmethod
    def _from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._from_pretrained(*args, **kwargs)  # type: ignore[no-untyped-call]
        except ImportError as error:
            # Transformers 5.0 imports protobuf to handle any error of `__init__`, and without it hides that error.
            if isinstance(error.__context__, ValueError):
                raise error.__context__ from None
            raise

    @property
    def extractor(self) -> NgramExtractor:
        """What finds n-grams in texts; made on first use, so that loading stays fast."""
        if self._lazy_extractor is None:
            self._lazy_extractor = NgramExtractor(self.vocabulary)
        return self._lazy_extractor

    def extract(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        truncation: str = "longest_first",
    ) -> NgramBatch:
        """Return the flat form of a batch: the n-gram ids of all texts, and how many each has.

        Args:
            texts: B texts.
            text_pairs: B partners.
            max_length: Most ids of a text, or of a pair; `None` keeps all.
            truncation: Which text of a pair is cut.

        Returns:
            `ids` (N,) int32 and `lengths` (B,) int64; with partners (2B,), text and partner one after the other.

        Raises:
            ValueError: If the numbers of texts and partners differ.
        """
        if text_pairs is None:
            if self.truncation_side == "right":
                return self.extractor.extract(texts, max_length=max_length)
            batch = self.extractor.extract(texts)
            kept = batch.lengths if max_length is None else np.full_like(batch.lengths, max_length)
            return cut(batch, kept, side="left")
        if len(texts) != len(text_pairs):
            raise ValueError(f"there are {len(texts)} texts, but {len(text_pairs)} text_pairs; give one to each text")
        batch = self.extractor.extract([text for pair in zip(texts, text_pairs, strict=True) for text in pair])
        if max_length is None:
            return batch
        return cut(batch, share_length(batch.lengths, max_length, truncation), side=self.truncation_side)

    def _encode_plus(  # type: ignore[override]
        self,
        text: Any,
        text_pair: Any = None,
        *,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: TruncationStrategy = TruncationStrategy.DO_NOT_TRUNCATE,
        max_length: int | None = None,
        is_split_into_words: bool = False,
        return_tensors: str | TensorType | None = None,
        **options: Any,
    ) -> BatchEncoding:
        """Encode one text or many, the step behind every call of a tokenizer."""
        for name in ("return_overflowing_tokens", "return_offsets_mapping"):
            if options.get(name):
                raise NotImplementedError(f"{name} is not available: n-grams overlap, so they do not tile the text")
        texts, pairs, is_batch = _read_inputs(text, text_pair, is_split_into_words)
        truncation = truncation_strategy.value
        limit = None if truncation == "do_not_truncate" else max_length
        batch = self.extract(texts, pairs, max_length=limit, truncation=truncation)
        lengths = batch.lengths if pairs is None else batch.lengths.reshape(-1, 2).sum(axis=1)
        columns = self._columns(batch, pairs is not None, options)
        width = _padded_width(lengths, padding_strategy, max_length, options.get("pad_to_multiple_of"))
        side: str = options.get("padding_side") or self.padding_side
        if return_tensors is not None:
            width = _tensor_width(lengths, width)
            rows = {name: fill_rows(v, lengths, width, side=side, fill=f) for name, (v, f) in columns.items()}
            if options.get("return_length"):
                rows["length"] = lengths
            return _as_tensors(rows, TensorType(return_tensors))
        data: dict[str, Any] = {
            name: split_rows(v, lengths, width, side=side, fill=f) for name, (v, f) in columns.items()
        }
        if options.get("return_length"):
            data["length"] = lengths.tolist()
        return BatchEncoding(data if is_batch else {name: rows[0] for name, rows in data.items()})

    def _columns(
        self, batch: NgramBatch, is_pair: bool, options: Mapping[str, Any]
    ) -> dict[str, tuple[IntArray, int]]:
        """Return what an encoding holds besides `length`: flat values (N,), and what pads them."""
        columns: dict[str, tuple[IntArray, int]] = {"input_ids": (batch.ids, 0)}
        wanted = {name: options.get(f"return_{name}") for name in ("token_type_ids", "attention_mask")}
        if wanted["token_type_ids"] or (wanted["token_type_ids"] is None and is_pair):
            sides = np.arange(batch.lengths.size) % 2 if is_pair else np.zeros_like(batch.lengths)
            columns["token_type_ids"] = (np.repeat(sides, batch.lengths), 0)
        if wanted["attention_mask"] or (
            wanted["attention_mask"] is None and "attention_mask" in self.model_input_names
        ):
            columns["attention_mask"] = (np.ones_like(batch.ids), 0)
        if options.get("return_special_tokens_mask"):
            columns["special_tokens_mask"] = (np.zeros_like(batch.ids), 1)
        return columns

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[str]:
        """Return the n-grams of a text (and of its partner) that have a row, as texts."""
        batch = self.extractor.extract([text] if pair is None else [text, pair])
        return [self.vocabulary.ngram_text(row) for row in batch.ids.tolist()]

    @property
    def vocab_size(self) -> int:
        """Rows of the table, the padding row included."""
        return self.vocabulary.num_rows

    def __len__(self) -> int:
        return self.vocabulary.num_rows

    def get_vocab(self) -> dict[str, int]:
        """Return the row of every n-gram, by its text; made anew at each call, and large."""
        words, texts = self.vocabulary.word_list, list[str]()
        nodes = zip(self.vocabulary.node_prefix.tolist(), self.vocabulary.node_word.tolist(), strict=True)
        for prefix, word in nodes:  # a prefix stands before its continuations
            texts.append(words[word] if prefix < 0 else f"{texts[prefix]} {words[word]}")
        rows = self.vocabulary.node_row.tolist()
        return {PAD_TOKEN: 0} | dict(sorted(((t, r) for t, r in zip(texts, rows, strict=True) if r > 0), key=_row))

    def _convert_token_to_id(self, token: str) -> int | None:
        row = self.vocabulary.row_of(token.split(" "))
        return row if row > 0 else None

    def _convert_id_to_token(self, index: int) -> str:
        return self.vocabulary.ngram_text(index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join n-grams for reading, as `decode` does, with " | " between them: `"a | a good | good"`."""
        return NGRAM_SEPARATOR.join(tokens)

    def _add_tokens(self, new_tokens: Sequence[str | AddedToken], special_tokens: bool = False) -> int:
        unknown = [str(token) for token in new_tokens or () if self.convert_tokens_to_ids(str(token)) is None]
        if unknown:
            raise ValueError(
                f"cannot add {unknown}: the rows of the student's table belong to the n-grams of its vocabulary; "
                "count a vocabulary that has them"
            )
        return 0

    def _update_total_vocab_size(self) -> None:
        self.total_vocab_size = self.vocabulary.num_rows

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the vocabulary to a folder; return the file."""
        name = VOCABULARY_FILE if filename_prefix is None else f"{filename_prefix}-{VOCABULARY_FILE}"
        return (str(self.vocabulary.save(Path(save_directory) / name)),)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out look-ups: workers make their own, and `datasets` must hash a used tokenizer like a new one."""
        return self.__dict__ | {"_lazy_extractor": None, "vocabulary": replace(self.vocabulary)}


def _row(item: tuple[str, int]) -> int:
    return item[1]


def _read_inputs(text: Any, text_pair: Any, is_split: bool) -> tuple[list[str], list[str] | None, bool]:
    """Return the texts, their partners if any, and whether a batch was given.

    Raises:
        ValueError: If the inputs are not texts, or a batch comes with partners that are not one.
    """
    is_batch = isinstance(text, list | tuple) and not (is_split and (not text or isinstance(text[0], str)))
    texts = list(text) if is_batch else [text]
    pairs = None if text_pair is None else (list(text_pair) if is_batch else [text_pair])
    if pairs is not None and is_batch and isinstance(text_pair, str):
        raise ValueError("text is a batch, so text_pair must be a batch of the same length, not one string")
    if is_split:
        texts = [" ".join(words) for words in texts]
        pairs = None if pairs is None else [" ".join(words) for words in pairs]
    elif pairs is None and texts and all(isinstance(item, list | tuple) and len(item) == 2 for item in texts):
        texts, pairs = [item[0] for item in texts], [item[1] for item in texts]
    for item in [*texts, *(pairs or [])]:
        if not isinstance(item, str):
            raise ValueError(f"texts must be strings, lists of strings or pairs of strings, got {type(item).__name__}")
    return texts, pairs, is_batch


def _padded_width(lengths: IntArray, padding: PaddingStrategy, max_length: int | None, multiple: int | None) -> int:
    """Return the width to which rows are padded, 0 for none."""
    if padding == PaddingStrategy.DO_NOT_PAD:
        return 0
    width = int(lengths.max(initial=0))
    if padding == PaddingStrategy.MAX_LENGTH and max_length is not None:
        width = max_length
    return width if multiple is None else -(-width // multiple) * multiple


def _tensor_width(lengths: IntArray, width: int) -> int:
    """Return the one width that all rows of a tensor can have.

    Raises:
        ValueError: If rows have different lengths and are not padded.
    """
    longest = int(lengths.max(initial=0))
    if longest > width and bool((lengths != longest).any()):
        raise ValueError(
            f"texts of {int(lengths.min())} to {longest} n-grams do not fit one tensor: activate padding with "
            "padding=True, and truncation with truncation=True and max_length"
        )
    return max(width, longest)


def _as_tensors(rows: dict[str, Any], kind: TensorType) -> BatchEncoding:
    if kind == TensorType.NUMPY:
        return BatchEncoding(rows)
    if kind == TensorType.PYTORCH:
        return BatchEncoding({name: torch.from_numpy(values) for name, values in rows.items()})
    return BatchEncoding({name: values.tolist() for name, values in rows.items()}, tensor_type=kind)
