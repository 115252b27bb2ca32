"""The order in which training sees texts, and the batches made from them.

Row groups of all shards are permuted anew each epoch; the rows of a window of row groups are permuted together. Only
one window is in memory, the order depends on nothing but (seed, epoch), and a batch is found again by its number, so
that a restart continues where it stopped. Text sets smaller than a window are permuted as a whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hf_sparse.distillation.logits import logits_matrix

WINDOW_GROUPS = 96


@dataclass(frozen=True, kw_only=True)
class TextShard:
    """A shard of texts and the shard of the teacher's logits of the same rows, if there is one.

    Attributes:
        texts: File of the texts.
        logits: File of the logits.
        num_texts: Read so many texts, the first ones; None reads all.
    """

    texts: Path
    logits: Path | None
    num_texts: int | None = None


def first_texts(shards: Sequence[TextShard], num_texts: int | None) -> list[TextShard]:
    """Return the shards that hold so many texts, all if that is None; of the last one only the first texts."""
    found: list[TextShard] = []
    for shard in shards:
        rows = pq.read_metadata(shard.texts).num_rows
        if num_texts is not None and num_texts <= rows:
            return [*found, replace(shard, num_texts=num_texts)]
        found.append(shard)
        num_texts = None if num_texts is None else num_texts - rows
    return found


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """B texts.

    Attributes:
        texts: The texts.
        text_pairs: The second texts of pairs.
        numbers: (B,) number of each text among all texts of the stream.
        logits: (B, C) of the teacher, NaN-free, or None.
        labels: List of B labels (None where there is none), or None.
        epoch: The pass over the texts that this batch belongs to.
        num_in_batch: Texts of the whole batch, of which these are a share.
    """

    texts: list[str]
    text_pairs: list[str] | None
    numbers: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32] | None
    labels: list[object] | None
    epoch: int
    num_in_batch: int


@dataclass(frozen=True)
class _Group:
    shard: int
    index: int
    first: int
    rows: int


class TextStream:
    """All batches of a training, in order.

    Args:
        shards: What to read.
        batch_size: Texts B of a batch; the last one of an epoch may be smaller.
        seed: Of the permutations; None keeps the order of the files.
    """

    def __init__(self, shards: Sequence[TextShard], *, batch_size: int, seed: int | None) -> None:
        self._shards = list(shards)
        self._batch_size = batch_size
        self._seed = seed
        self._groups: list[_Group] = []
        first = 0
        for number, shard in enumerate(self._shards):
            metadata = pq.read_metadata(shard.texts)
            left = metadata.num_rows if shard.num_texts is None else shard.num_texts
            for index in range(metadata.num_row_groups):
                rows = min(left, metadata.row_group(index).num_rows)
                if not rows:
                    break
                left -= rows
                self._groups.append(_Group(number, index, first, rows))
                first += rows
        self.num_texts = first

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches of one pass."""
        return -(-self.num_texts // self._batch_size)

    def batches(self, *, first: int, stop: int, share: tuple[int, int] = (0, 1)) -> Iterator[TextBatch]:
        """Yield the batches with numbers from `first` to before `stop`, counted over all epochs.

        Args:
            first: The first batch.
            stop: Behind the last one.
            share: Rank of a process, and how many there are: of each batch it gets consecutive texts, maybe none.
        """
        number = first
        while number < stop:
            epoch, skipped = divmod(number, self.batches_per_epoch)
            for batch in self._epoch(epoch, skipped=skipped, share=share):
                yield batch
                number += 1
                if number == stop:
                    return

    def _epoch(self, epoch: int, *, skipped: int, share: tuple[int, int]) -> Iterator[TextBatch]:
        random = None if self._seed is None else np.random.default_rng([self._seed, epoch])
        order = np.arange(len(self._groups)) if random is None else random.permutation(len(self._groups))
        left_to_skip = skipped * self._batch_size
        carried: pa.Table | None = None
        for start in range(0, len(order), WINDOW_GROUPS):
            groups = [self._groups[index] for index in order[start : start + WINDOW_GROUPS]]
            rows = sum(group.rows for group in groups)
            permutation = np.arange(rows) if random is None else random.permutation(rows)
            if left_to_skip >= rows:
                left_to_skip -= rows
                continue
            window = self._read(groups).take(permutation[left_to_skip:])
            left_to_skip = 0
            window = window if carried is None else pa.concat_tables([carried, window], promote_options="default")
            whole = window.num_rows - window.num_rows % self._batch_size
            for position in range(0, whole, self._batch_size):
                yield _to_batch(window.slice(position, self._batch_size), epoch, share)
            carried = window.slice(whole)
        if carried is not None and carried.num_rows:
            yield _to_batch(carried, epoch, share)

    def _read(self, groups: list[_Group]) -> pa.Table:
        tables = []
        for group in groups:
            shard = self._shards[group.shard]
            table = pq.ParquetFile(shard.texts).read_row_group(group.index).slice(0, group.rows)
            columns = {name: table[name] for name in table.column_names if name != "logits"}
            if shard.logits is not None:
                logits = pq.ParquetFile(shard.logits).read_row_group(group.index)["logits"]
                columns["logits"] = logits.slice(0, group.rows)
            columns["number"] = pa.array(np.arange(group.first, group.first + group.rows, dtype=np.int64))
            tables.append(pa.table(columns))
        return pa.concat_tables(tables, promote_options="default").combine_chunks()


def _to_batch(table: pa.Table, epoch: int, share: tuple[int, int]) -> TextBatch:
    num_in_batch, (rank, num_shares) = table.num_rows, share
    start, end = (num_in_batch * edge // num_shares for edge in (rank, rank + 1))
    names = table.column_names
    # Of the whole batch: a share without texts would not tell how many labels there are.
    logits = logits_matrix(table["logits"])[start:end] if "logits" in names else None
    table = table.slice(start, end - start)
    return TextBatch(
        texts=table["text"].to_pylist(),
        text_pairs=table["text_pair"].to_pylist() if "text_pair" in names else None,
        numbers=table["number"].to_numpy(),
        logits=logits,
        labels=table["label"].to_pylist() if "label" in names else None,
        epoch=epoch,
        num_in_batch=num_in_batch,
    )
