"""The texts stage: every text set as Parquet shards with the same columns, labels as ids, validation held out.

Shards are small enough to be units of work (labelling) and their row groups units of shuffling (training).
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from hf_sparse.distillation.augmentation import POOL_TEXTS, make_texts, numbers_to_make
from hf_sparse.distillation.label_space import LabelSpace
from hf_sparse.distillation.recipe_data import DataRecipe, TextSet
from hf_sparse.distillation.sources import class_names, read_rows

logger = logging.getLogger(__name__)

SHARD_ROWS = 16_384
GROUP_ROWS = 1_024
TEXT_SETS = ("train", "corpus", "augmented", "validation", "calibration", "test")
_HELD_OUT_WINDOW = 65_536


def shards(folder: Path, text_set: str) -> list[Path]:
    """Return the shards of a text set in order."""
    return sorted(folder.glob(f"{text_set}-*.parquet"))


def has_labels(folder: Path, text_set: str) -> bool:
    """Tell whether a text set has texts, and a column of labels."""
    files = shards(folder, text_set)
    return bool(files) and all("label" in pq.read_schema(path).names for path in files)


def num_texts(folder: Path, text_set: str) -> int:
    """Return the number of texts of a text set."""
    return sum(pq.read_metadata(path).num_rows for path in shards(folder, text_set))


def calibration_set(folder: Path) -> str:
    """Return the text set that probabilities are fitted on: that of `data.calibration`, if there is one."""
    return "calibration" if shards(folder, "calibration") else "validation"


def read_texts(folder: Path, text_set: str, *, progress: bool = False) -> Iterator[str]:
    """Yield the texts of a text set, the two sides of a pair one after the other."""
    for path in tqdm(shards(folder, text_set), desc=f"reading {text_set}", unit="shard", disable=not progress):
        yield from read_shard(path)


def read_shard(path: Path) -> Iterator[str]:
    """Yield the texts of a shard, the two sides of a pair one after the other."""
    parquet = pq.ParquetFile(path)
    names = [name for name in ("text", "text_pair") if name in parquet.schema_arrow.names]
    for batch in parquet.iter_batches(GROUP_ROWS, columns=names):
        for row in zip(*(batch[name].to_pylist() for name in names), strict=True):
            yield from row


def write_text_sets(
    data: DataRecipe, folder: Path, *, space: LabelSpace, seed: int, progress: bool, include_train: bool = True
) -> dict[str, int]:
    """Write all text sets of a recipe into a folder.

    Args:
        data: What to read.
        folder: Where the shards go (`train-00000.parquet`, ...).
        space: The labels.
        seed: Of the choice of held-out texts.
        progress: Show bars on stderr.
        include_train: Make further texts of those of D_train too, not only of those of C.

    Returns:
        The number of texts of each set.

    Raises:
        ValueError: If a source is unreadable, holds an unknown label, sources do not fit together, or no texts are
            left to distil on or to validate with; or further texts cannot be made.
    """
    _check_sources(data)
    _check_class_names(data, space)
    for stale in folder.glob("*.parquet"):  # what an interrupted run has left
        stale.unlink()
    counts = dict.fromkeys(TEXT_SETS, 0)
    train = _read_all(data.train, space, progress=progress, name="train") if data.train is not None else None
    corpus: Iterator[pa.Table] = (
        table for source in data.corpus for table in _encoded(source, space, progress=progress, name="corpus")
    )
    if data.validation is not None:
        tables = _encoded(data.validation, space, progress=progress, name="validation")
        counts["validation"] = _write_shards(tables, folder, "validation")
    elif train is not None:
        held_out, train = _hold_out(train, data.validation_size, fold=data.fold, num_folds=data.num_folds, seed=seed)
        counts["validation"] = _write_shards([held_out], folder, "validation")
    else:
        window, corpus = _split_window(corpus)
        held_out, window = _hold_out(window, data.validation_size, seed=seed)
        counts["validation"] = _write_shards([held_out], folder, "validation")
        corpus = _chain([window], corpus)
    if train is not None:
        counts["train"] = _write_shards([train], folder, "train")
    counts["corpus"] = _write_shards(corpus, folder, "corpus")
    for name, source in (("calibration", data.calibration), ("test", data.test)):
        if source is not None:
            counts[name] = _write_shards(_encoded(source, space, progress=progress, name=name), folder, name)
    if counts["train"] + counts["corpus"] == 0:
        raise ValueError("the recipe's data.train and data.corpus hold no texts; name at least one source with texts")
    if counts["validation"] == 0:
        raise ValueError(
            f"there are no validation texts, by which students are chosen (validation_size is "
            f"{data.validation_size}, and at most a fifth of the texts is taken); name data.validation or more texts"
        )
    made = _made_texts(data, folder, include_train=include_train, progress=progress)
    counts["augmented"] = _write_shards(made, folder, "augmented")
    return counts


def _made_texts(data: DataRecipe, folder: Path, *, include_train: bool, progress: bool) -> Iterator[pa.Table]:
    """Yield texts made of those that have been written."""
    recipe, sets = data.augmentation, (("train", "corpus") if include_train else ("corpus",))
    if recipe.is_off:
        return
    total = sum(num_texts(folder, text_set) for text_set in sets)
    words = _mean_words(folder, sets) if total <= POOL_TEXTS else 0.0
    numbers = numbers_to_make(recipe, num_texts=total, words=words)
    if any(numbers.values()):
        train = read_texts(folder, "train") if include_train else ()
        yield from make_texts(
            recipe, numbers, train, islice(read_texts(folder, "corpus"), POOL_TEXTS), progress=progress
        )


def _mean_words(folder: Path, text_sets: Iterable[str]) -> float:
    """Return the mean number of words of texts, as blanks divide them."""
    words = texts = 0
    for path in (path for text_set in text_sets for path in shards(folder, text_set)):
        column = pq.read_table(path, columns=["text"])["text"]
        words += pc.sum(pc.list_value_length(pc.utf8_split_whitespace(column))).as_py() or 0
        texts += len(column)
    return words / max(texts, 1)


def labels_of(source: TextSet) -> Iterator[object]:
    """Yield the raw labels of a text set."""
    for table in read_rows(source):
        if "label" in table.column_names:
            yield from table["label"].to_pylist()


def _check_sources(data: DataRecipe) -> None:
    """Check that the text sets of a recipe have the columns that must go together."""
    present = data.text_sets()
    groups = {"text_pair_column": present, "logits_path": {n: s for n, s in present.items() if n.startswith("corpus")}}
    for key, sources in groups.items():
        missing = [name for name, source in sources.items() if getattr(source, key) is None]
        if missing and len(missing) < len(sources):
            raise ValueError(
                f"data.{missing[0]} has no {key}, but data.{next(name for name in sources if name not in missing)} "
                "has one; name it for both or for none"
            )


def _check_class_names(data: DataRecipe, space: LabelSpace) -> None:
    """Check that integers to which a data set gives names stand for the same labels in the space."""
    if data.labels is not None:  # the recipe has the last word
        return
    known = {name.casefold(): index for index, name in enumerate(space.names)}
    for key, source in data.text_sets().items():
        names = class_names(source) or []
        meant = {index: known[name.casefold()] for index, name in enumerate(names) if name.casefold() in known}
        if any(index != other for index, other in meant.items()):
            mapping = ", ".join(f"{index}: {space.names[other]!r}" for index, other in meant.items())
            raise ValueError(
                f"the labels of data.{key} are numbered {', '.join(names)}, but {space.origin} "
                f"{', '.join(space.names)}; say what the numbers mean with data.labels: {{{mapping}}}"
            )


def _encoded(source: TextSet, space: LabelSpace, *, progress: bool, name: str) -> Iterator[pa.Table]:
    num_empty = 0
    with tqdm(desc=f"texts of {name}", unit=" texts", disable=not progress) as bar:
        for table in read_rows(source):
            if "label" in table.column_names:
                labels = space.encode(table["label"].combine_chunks(), where=source.path)
                table = table.set_column(table.column_names.index("label"), "label", labels)
            num_empty += sum(
                _num_empty(table[column]) for column in ("text", "text_pair") if column in table.column_names
            )
            bar.update(table.num_rows)
            yield table
    if num_empty:
        logger.warning("%r (data.%s) has %d texts that are null or empty; they are kept", source.path, name, num_empty)


def _num_empty(texts: pa.ChunkedArray) -> int:
    """Return the number of texts that are empty, as those are now that were null."""
    return pc.sum(pc.equal(texts, "")).as_py() or 0


def _read_all(source: TextSet, space: LabelSpace, *, progress: bool, name: str) -> pa.Table:
    tables = list(_encoded(source, space, progress=progress, name=name))
    if not tables:
        raise ValueError(f"{source.path!r} (data.{name}) holds no texts")
    return pa.concat_tables(tables)


def _hold_out(
    table: pa.Table, size: int, *, fold: int | None = None, num_folds: int = 1, seed: int
) -> tuple[pa.Table, pa.Table]:
    """Cut `size` random rows off a table, or one of the parts of equal size into which it falls."""
    start, stop = 0, min(size, table.num_rows // 5)
    if fold is not None:
        if table.num_rows < num_folds:
            raise ValueError(
                f"data.num_folds is {num_folds}, but data.train has {table.num_rows} texts; take fewer folds"
            )
        start, stop = (fold - 1) * table.num_rows // num_folds, fold * table.num_rows // num_folds
    order = np.random.default_rng(seed).permutation(table.num_rows)
    kept = np.concatenate((order[:start], order[stop:]))
    return table.take(np.sort(order[start:stop])), table.take(np.sort(kept))


def _split_window(tables: Iterator[pa.Table]) -> tuple[pa.Table, Iterator[pa.Table]]:
    first: list[pa.Table] = []
    rows = 0
    for table in tables:
        first.append(table)
        rows += table.num_rows
        if rows >= _HELD_OUT_WINDOW:
            break
    if not first:
        raise ValueError("the recipe has neither data.train nor a data.corpus with texts; name at least one source")
    return pa.concat_tables(first, promote_options="default"), tables


def _chain(first: Iterable[pa.Table], rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield from first
    yield from rest


def _write_shards(tables: Iterable[pa.Table], folder: Path, text_set: str) -> int:
    pending: list[pa.Table] = []
    rows = total = shard = 0
    for table in tables:
        pending.append(table)
        rows += table.num_rows
        while rows >= SHARD_ROWS:
            joined = pa.concat_tables(pending, promote_options="default")
            _write_shard(joined.slice(0, SHARD_ROWS), folder / f"{text_set}-{shard:05d}.parquet")
            pending = [joined.slice(SHARD_ROWS)]
            rows -= SHARD_ROWS
            total += SHARD_ROWS
            shard += 1
    if rows:
        joined = pa.concat_tables(pending, promote_options="default")
        _write_shard(joined, folder / f"{text_set}-{shard:05d}.parquet")
    return total + rows


def _write_shard(table: pa.Table, path: Path) -> None:
    pq.write_table(table.combine_chunks(), path, row_group_size=GROUP_ROWS, compression="zstd")
