"""What the texts of a recipe are like: how many there are, how long, and how many n-grams and rows they touch.

How many n-grams a word begins, and how many different rows a batch touches, was measured on 25,000 film reviews with
vocabularies of 10,000 to 1,000,000 n-grams and batches of 16 to 4,096 texts; the formulas meet these within 8 %.
"""

import math
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import pyarrow as pa

from hf_sparse.distillation.augmentation import numbers_to_make
from hf_sparse.distillation.recipe import Recipe
from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.sources import hub_rows, local_files, num_rows, read_rows
from hf_sparse.student.words_sparse_ngram import segment_texts

_SAMPLE_TEXTS: Final = 1024
# N-grams of a word with 10,000 n-grams, and how many more with ten times as many.
_FEW: Final = 10_000
_NGRAMS_OF_A_WORD: Final = 1.43
_MORE_NGRAMS: Final = 0.515
# Different rows among N n-grams, before the vocabulary runs out: scale * N ** exponent.
_DISTINCT_SCALE: Final = 4.1
_DISTINCT_GROWTH: Final = 0.166
_DISTINCT_EXPONENT: Final = 0.75


@dataclass(frozen=True, kw_only=True)
class CorpusSize:
    """The texts of a run.

    Attributes:
        train: Number of texts of D_train that are trained on.
        corpus: Number of texts of C.
        augmented: Number of texts that are made of those of D_train and C, counted as if they were as long.
        validation: Number of texts on which checkpoints are scored.
        calibration: Number of texts that temperature and thresholds are fitted on, if not on those of validation.
        test: Number of texts that only the report sees.
        characters: Mean of a text.
        words: Mean of a text.
        has_logits: Whether all of them come with the teacher's logits.
    """

    train: int
    corpus: int
    augmented: int
    validation: int
    calibration: int
    test: int
    characters: float
    words: float
    has_logits: bool

    @property
    def num_texts(self) -> int:
        """All texts, each of which is labelled."""
        return self.train + self.corpus + self.augmented + self.validation + self.calibration + self.test


def measure_corpus(recipe: Recipe, *, num_texts: int | None = None, words_per_text: float | None = None) -> CorpusSize:
    """Look at the texts of a recipe: Parquet files say how many they hold, a sample says how long they are.

    Args:
        recipe: The recipe.
        num_texts: Number of texts of C, where it cannot be known before they are read.
        words_per_text: Mean number of words; then no text is read.

    Raises:
        ValueError: The number or the length of the texts is not known.
    """
    data = recipe.data
    train = _count(data.train, "data.train") if data.train is not None else 0
    corpus = num_texts
    if corpus is None:
        corpus = sum(_count(source, f"data.corpus[{index}]") for index, source in enumerate(data.corpus))
    validation = data.validation_size
    if data.validation is not None:
        validation = _count(data.validation, "data.validation")
    elif train:
        validation = min(validation, train // 5) if data.fold is None else train // data.num_folds
        train -= validation
    else:
        validation = min(validation, corpus // 5)
        corpus -= validation
    calibration = _count(data.calibration, "data.calibration") if data.calibration is not None else 0
    test = _count(data.test, "data.test") if data.test is not None else 0
    sources = list(data.text_sets().values())
    characters, words = _lengths(sources) if words_per_text is None else (5.0 * words_per_text, words_per_text)
    pool = corpus + train * recipe.distil.include_train
    augmented = sum(numbers_to_make(data.augmentation, num_texts=pool, words=words).values())
    return CorpusSize(
        train=train,
        corpus=corpus,
        augmented=augmented,
        validation=validation,
        calibration=calibration,
        test=test,
        characters=characters,
        words=words,
        has_logits=bool(sources) and not augmented and all(source.logits_path is not None for source in sources),
    )


def ngrams_per_word(num_ngrams: int, max_n: int) -> float:
    """Return how many n-grams of a vocabulary begin at a word, on average."""
    return min(max_n, max(0.5, _NGRAMS_OF_A_WORD + _MORE_NGRAMS * math.log10(num_ngrams / _FEW)))


def distinct_rows(num_in_batch: float, num_ngrams: int) -> float:
    """Return how many different rows the N n-grams of a batch touch."""
    scale = _DISTINCT_SCALE * (num_ngrams / _FEW) ** _DISTINCT_GROWTH
    unbounded = scale * num_in_batch**_DISTINCT_EXPONENT
    return min(num_in_batch, -num_ngrams * math.expm1(-unbounded / num_ngrams))


def _count(source: TextSet, key: str) -> int:
    rows = num_rows(source) if local_files(source.path) else source.limit or hub_rows(source)
    if rows is None and local_files(source.path):
        rows = sum(table.num_rows for table in read_rows(replace(source, logits_path=None)))
    if rows is None:
        raise ValueError(
            f"how many texts {key} ({source.path!r}) has is not known before it is read; set {key}.limit"
            + (", or give --num_texts" if key.startswith("data.corpus") else "")
        )
    return rows


def _lengths(sources: list[TextSet]) -> tuple[float, float]:
    """Return the mean number of characters and words of the first texts of each source."""
    characters, words, number = 0, 0, 0
    for source in sources:
        if not local_files(source.path):
            continue
        tables = read_rows(replace(source, logits_path=None))
        texts = [text for table in islice(tables, 1) for text in _both(table)][:_SAMPLE_TEXTS]
        characters += sum(map(len, texts))
        words += int(segment_texts(texts, "html").num_words.sum())
        number += len(texts)
    if not number:
        raise ValueError("no text of the recipe is on this machine; give --words_per_text")
    return characters / number, words / number


def _both(table: pa.Table) -> list[str]:
    columns = [table[name].to_pylist() for name in ("text", "text_pair") if name in table.column_names]
    return [" ".join(parts) for parts in zip(*columns, strict=True)]
