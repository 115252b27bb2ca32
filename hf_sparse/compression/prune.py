"""Pruning: a student that keeps only its most useful n-grams (Ye et al. 2022, figure 5).

Leaving an n-gram out of a text of L n-grams moves the mean by `(mean - row) / L`, since the denominator changes too.
So what an n-gram is worth is not its row but how far the row lies from the mean row, seen through the first dense
layer, `|W1 (row - mean row)|`. Were these shifts independent, the squared error over all texts would be the sum of
`count * shift**2`, hence the score `shift * sqrt(count)`. On IMDB it keeps more accuracy than the count alone below
about 200,000 n-grams, and as much as any other score tried (norms of rows, of their deviation, of the logit's shift;
times the count or its root).
"""

import copy
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hf_sparse.runtime.rows import BITS, TAILS
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification
from hf_sparse.student.extraction_sparse_ngram import NgramExtractor
from hf_sparse.student.vocabulary_format_sparse_ngram import serialise
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary

Criterion = Literal["frequency", "norm"]
Rows = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]

_TEXTS_AT_ONCE: Final = 8192
_ROWS_AT_ONCE: Final = 65_536  # 64 MB of float32 at 256 columns
_HEADER_BYTES: Final = 4096  # of the file of the weights: names and shapes, at most


def prune_student(
    model: SparseNgramForSequenceClassification,
    vocabulary: NgramVocabulary,
    *,
    keep: int,
    by: Criterion = "norm",
    texts: Iterable[str] | None = None,
    ids: Rows | None = None,
) -> tuple[SparseNgramForSequenceClassification, NgramVocabulary]:
    """Make a student of the best n-grams of another.

    Args:
        model: The student; it stays as it is.
        vocabulary: Its vocabulary.
        keep: How many n-grams to keep.
        by: What is best: the most frequent, or those whose absence would change most (see the module).
        texts: Texts of the task, by whose n-grams frequency is counted; the paper found D_train best. Without `texts`
            and `ids` the counts of the vocabulary decide.
        ids: The n-grams of these texts, already extracted (N,).

    Returns:
        The smaller student and its vocabulary, without counts. Rows 1 .. `keep` are in the order they had.

    Raises:
        ValueError: `keep` is not between 1 and the number of n-grams, the table is quantised, both `texts` and `ids`
            are given, or the criterion needs counts and there are none.
    """
    counts = occurrences(vocabulary, texts=texts, ids=ids)
    kept = rank_rows(model, vocabulary, by=by, counts=counts)[: _checked(keep, vocabulary)]
    pruned = prune_vocabulary(vocabulary, kept)
    return prune_table(model, kept, vocabulary_sha256=pruned.sha256), pruned


def occurrences(
    vocabulary: NgramVocabulary, *, texts: Iterable[str] | None = None, ids: Rows | None = None
) -> Counts | None:
    """Count how often each row occurs.

    Args:
        vocabulary: Which n-grams have a row, and their counts in the corpus.
        texts: Texts to count in.
        ids: Row ids (N,) to count instead.

    Returns:
        Counts (V,); those of the vocabulary where neither texts nor ids are given, None if it has none.

    Raises:
        ValueError: Both are given, or an id is no row of the vocabulary.
    """
    if texts is not None and ids is not None:
        raise ValueError("texts and ids are both given; give one of them")
    if ids is not None:
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary.num_rows:
            raise ValueError(f"ids must be rows of the vocabulary, 0 to {vocabulary.num_rows - 1}, got others")
        return np.bincount(ids, minlength=vocabulary.num_rows).astype(np.int64)
    counts = np.zeros(vocabulary.num_rows, dtype=np.int64)
    if texts is not None:
        extractor, remaining = NgramExtractor(vocabulary), iter(texts)
        while batch := list(islice(remaining, _TEXTS_AT_ONCE)):
            counts += np.bincount(extractor.extract(batch).ids, minlength=vocabulary.num_rows)
        return counts
    if vocabulary.counts is None:
        return None
    has_row = vocabulary.node_row > 0
    counts[vocabulary.node_row[has_row]] = vocabulary.counts[has_row]
    return counts


def rank_rows(
    model: SparseNgramForSequenceClassification,
    vocabulary: NgramVocabulary,
    *,
    by: Criterion = "norm",
    counts: Counts | None = None,
) -> npt.NDArray[np.int64]:
    """Order the rows of a student, the best first; of equals the one that comes first in the table.

    Args:
        model: The student.
        vocabulary: Its vocabulary.
        by: What is best, see `prune_student`.
        counts: How often each row (V,) occurs. Without them `frequency` goes by the order of the rows, which is that
            of their frequency in the corpus.

    Returns:
        The rows of all n-grams.

    Raises:
        ValueError: The criterion is unknown or needs counts, or the table is quantised.
    """
    _float_blocks(model)  # before anything else is asked for: no counts would help
    rows = np.sort(vocabulary.node_row[vocabulary.node_row > 0]).astype(np.int64)
    if by == "frequency":
        return rows if counts is None else rows[np.argsort(-counts[rows], kind="stable")]
    if by != "norm":
        raise ValueError(f"by is {by!r}, but must be 'frequency' or 'norm'")
    if counts is None:
        raise ValueError(
            "by='norm' needs to know how often n-grams occur, but the vocabulary has no counts; give texts"
        )
    scores = shifts(model, counts) * np.sqrt(counts)
    return rows[np.argsort(-scores[rows], kind="stable")]


@torch.inference_mode()
def shifts(model: SparseNgramForSequenceClassification, counts: Counts) -> npt.NDArray[np.float32]:
    """Return how far the absence of each n-gram moves what the activation sees, times the n-grams of the text.

    Args:
        model: The student.
        counts: How often each row (V,) occurs, which weighs the mean row.

    Returns:
        Norms (V,): of `W1 (row - mean row)` for mean pooling; of `W1 row` for a sum, which has no denominator; without
        `W1` where something else than the first dense layer follows (pairs, attentive and max pooling, folded tables).

    Raises:
        ValueError: The table is quantised.
    """
    config, blocks = model.config, _float_blocks(model)
    layers = model.model.hidden_layers
    linear = config.pooling in ("mean", "sum") and not config.sentence_pairs and not getattr(config, "folded", None)
    layer = (layers[0] if len(layers) else model.classifier) if linear else None
    parts = [rows for block in blocks for rows in block.split(_ROWS_AT_ONCE)]
    mean_row = torch.zeros(config.embedding_size)
    if config.pooling in ("mean", "attentive"):
        weights = torch.from_numpy(counts / max(int(counts.sum()), 1)).float()
        for rows, share in zip(parts, weights.split([len(rows) for rows in parts]), strict=True):
            mean_row += share @ rows.float()
    moved = (rows.float() - mean_row for rows in parts)
    seen = (rows if layer is None else rows @ layer.weight.float().T for rows in moved)
    found: npt.NDArray[np.float32] = torch.cat([torch.linalg.vector_norm(rows, dim=1) for rows in seen]).numpy()
    return found


def ngrams_for_size(
    model: SparseNgramForSequenceClassification,
    vocabulary: NgramVocabulary,
    *,
    target_bytes: int,
    table_dtype: str,
    folded: bool,
    by: Criterion = "norm",
) -> int:
    """Return how many of the best n-grams a student may keep so that its files fit into a size.

    Args:
        model: The student with float rows.
        vocabulary: Its vocabulary, whose file counts too.
        target_bytes: Size of weights and vocabulary together.
        table_dtype: How the rows will be stored.
        folded: Whether the first dense layer will be folded into the table.
        by: What is best, see `prune_student`.

    Raises:
        ValueError: Not even one n-gram fits.
    """
    ranked = rank_rows(model, vocabulary, by=by, counts=occurrences(vocabulary))
    row_bytes, other_bytes = _weight_bytes(model, table_dtype=table_dtype, folded=folded)

    def size(keep: int) -> int:
        pruned = prune_vocabulary(vocabulary, ranked[:keep])
        return (keep + 1) * row_bytes + other_bytes + sum(memoryview(part).nbytes for part in serialise(pruned))

    if size(1) > target_bytes:
        raise ValueError(f"{target_bytes} bytes are too few: with a single n-gram the student takes {size(1)} bytes")
    # The size grows with every n-gram, if only by its row: the most that fit are found by halving.
    fits, too_many = 1, len(ranked) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if size(middle) <= target_bytes else (fits, middle)
    return fits


def _weight_bytes(model: SparseNgramForSequenceClassification, *, table_dtype: str, folded: bool) -> tuple[int, int]:
    """Return the bytes of a row, and those of everything else in the file of the weights."""
    config = model.config
    hidden, classifier = list(model.model.hidden_layers), model.classifier
    layers = hidden if classifier is None else [*hidden, classifier]
    width, bias = config.embedding_size, 0
    if folded and not config.folded:
        width, layers = layers[0].out_features, layers[1:]
        bias = 4 * width
    attention, alignment = model.model.attention, model.model.alignment
    modules = [*layers, *(module for module in (attention, alignment) if module is not None)]
    dense = 4 * sum(parameter.numel() for module in modules for parameter in module.parameters())
    mark = 0 if alignment is None else alignment.is_word.itemsize
    return width * BITS[table_dtype] // 8 + TAILS[table_dtype] + mark, dense + bias + _HEADER_BYTES


def prune_vocabulary(vocabulary: NgramVocabulary, rows: Rows) -> NgramVocabulary:
    """Keep some n-grams, the prefixes that lead to them, and their words; drop the counts, which nothing reads.

    Args:
        vocabulary: The vocabulary.
        rows: The rows of the n-grams to keep (K,), in any order; they become 1 .. K in the order of the table.

    Returns:
        The smaller vocabulary. The n-grams it finds in a text are those of the larger one that are kept.
    """
    new_rows = np.full(vocabulary.num_rows + 1, -1, dtype=np.int32)  # one more for row -1
    new_rows[np.sort(rows)] = np.arange(1, len(rows) + 1)
    node_row = new_rows[vocabulary.node_row]
    is_kept = node_row > 0
    level, max_n = np.flatnonzero(is_kept), 0
    while level.size:
        max_n += 1
        level = np.unique(vocabulary.node_prefix[level])
        level = level[level >= 0]
        is_kept[level] = True
    new_nodes = (np.cumsum(is_kept) - 1).astype(np.int32)
    prefixes = vocabulary.node_prefix[is_kept]
    is_used = np.zeros(vocabulary.num_words, dtype=bool)
    is_used[vocabulary.node_word[is_kept]] = True
    word_bytes = np.diff(vocabulary.word_offsets)
    return replace(
        vocabulary,
        words=vocabulary.words[np.repeat(is_used, word_bytes)],
        word_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(word_bytes[is_used])]),
        node_prefix=np.where(prefixes >= 0, new_nodes[prefixes], np.int32(-1)),
        node_word=(np.cumsum(is_used) - 1).astype(np.int32)[vocabulary.node_word[is_kept]],
        node_row=node_row[is_kept],
        counts=None,
        max_n=max(max_n, 1),
        num_rows=len(rows) + 1,
    )


@torch.no_grad()
def prune_table(
    model: SparseNgramForSequenceClassification, rows: Rows, *, vocabulary_sha256: str | None
) -> SparseNgramForSequenceClassification:
    """Make a student of some rows of another.

    Args:
        model: The student; it stays as it is, and shares no memory with the new one.
        rows: The rows to keep (K,), in any order, without row 0.
        vocabulary_sha256: Digest of the vocabulary that these rows belong to, for the config.

    Returns:
        A student whose rows 1 .. K are these, in the order they have in the table.

    Raises:
        ValueError: The table is quantised.
    """
    blocks = _float_blocks(model)
    config = cast(SparseNgramConfig, copy.deepcopy(model.config))
    config.vocab_size, config.vocabulary_sha256 = len(rows) + 1, vocabulary_sha256
    wanted = torch.from_numpy(np.concatenate([np.zeros(1, np.int64), np.sort(rows)]))
    names = {id(block) for block in blocks}
    tensors = {name: value.clone() for name, value in model.named_parameters() if id(value) not in names}
    if model.model.alignment is not None:
        tensors["model.alignment.is_word"] = model.model.alignment.is_word[wanted]
    for index, part in enumerate(wanted.split(config.block_rows)):
        tensors[f"model.table.blocks.{index}"] = _gather(blocks, part, block_rows=model.config.block_rows)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        pruned = SparseNgramForSequenceClassification(config)
    pruned.load_state_dict(tensors, assign=True)
    pruned.train(model.training)
    return pruned


def _gather(blocks: list[Tensor], rows: Tensor, *, block_rows: int) -> Tensor:
    """Gather rows (K,), in rising order, from the blocks of a table."""
    bounds = torch.arange(len(blocks) + 1) * block_rows
    cuts = torch.searchsorted(rows, bounds).tolist()
    parts = [block[rows[cuts[i] : cuts[i + 1]] - i * block_rows] for i, block in enumerate(blocks)]
    return torch.cat(parts)


def _float_blocks(model: SparseNgramForSequenceClassification) -> list[Tensor]:
    blocks: list[Tensor] = list(model.model.table.blocks)
    if not all(block.is_floating_point() for block in blocks):
        raise ValueError("the student's table is quantised; prune the student it was made from, then quantise")
    return blocks


def _checked(keep: int, vocabulary: NgramVocabulary) -> int:
    if not 1 <= keep <= vocabulary.num_ngrams:
        raise ValueError(f"keep is {keep}, but must be between 1 and the student's {vocabulary.num_ngrams} n-grams")
    return keep
