"""Labelling: the teacher's logits of every text, one Parquet shard for one shard of texts.

A shard is a unit of work for a process: processes take every W-th shard and never wait for each other, so one
may die, and a restart with another number of processes finishes the rest. Within a shard the logits of every few
hundred texts are kept as they come, so that a slow teacher that is killed loses a minute, not an hour. Every file is
written under another name and renamed: what is there is whole and is not done again.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from hf_sparse.distillation.logits import logits_column, logits_matrix
from hf_sparse.distillation.teacher import TeacherEncoder
from hf_sparse.distillation.texts import GROUP_ROWS, TEXT_SETS, shards
from hf_sparse.files import whole_file

# Logits of so many texts are kept at a time; sorting by length within them is nearly as good as within a whole shard.
_PART_TEXTS = 512
_PART_SUFFIX = ".part.npy"


def has_given_logits(texts_folder: Path) -> bool:
    """Tell whether every text came with the teacher's logits, so that no teacher needs to run."""
    files = [path for text_set in TEXT_SETS for path in shards(texts_folder, text_set)]
    return all("logits" in pq.read_schema(path).names for path in files)


def label_texts(
    encoder: TeacherEncoder | None,
    texts_folder: Path,
    folder: Path,
    *,
    num_labels: int,
    top_k: int | None = None,
    rank: int = 0,
    num_processes: int = 1,
    progress: bool = True,
) -> None:
    """Write the logits of all shards of texts that have none yet.

    Args:
        encoder: The teacher; may be None if all texts came with logits.
        texts_folder: Shards of texts.
        folder: Where the shards of logits go, under the same names.
        num_labels: Outputs C of the teacher.
        top_k: Keep so many logits of a text where there are over twice as many classes; None keeps all.
        rank: Of this process.
        num_processes: That share the work.
        progress: Show a bar on stderr.

    Raises:
        ValueError: If given logits are not C a text.
        OSError: If the disk is full; what was finished stays.
    """
    sources = [path for text_set in TEXT_SETS for path in shards(texts_folder, text_set)]
    # By place among all shards, not among the missing ones: those change while processes start at different times.
    mine = [path for path in sources[rank::num_processes] if not (folder / path.name).exists()]
    total = sum(pq.read_metadata(path).num_rows for path in mine)
    with tqdm(total=total, desc="label", unit=" texts", disable=not progress) as bar:
        for path in mine:
            logits = _label_shard(encoder, path, folder, num_labels=num_labels, bar=bar)
            if not np.isfinite(logits).all():
                _remove_parts(folder, path)
                raise ValueError(
                    f"the teacher's logits of {path.name} are not all finite; set label.dtype to float32, or correct "
                    "the teacher"
                )
            write_logits(logits, folder / path.name, top_k=top_k)
            _remove_parts(folder, path)
    for path in sources:
        if (folder / path.name).exists():  # a process that was killed may have left the parts of a finished shard
            _remove_parts(folder, path)


def read_logits(folder: Path, text_set: str) -> npt.NDArray[np.float32]:
    """Return the logits (B, C) of a text set, in the order of its texts."""
    parts = [logits_matrix(pq.read_table(path)["logits"]) for path in shards(folder, text_set)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _label_shard(
    encoder: TeacherEncoder | None, path: Path, folder: Path, *, num_labels: int, bar: "tqdm[Any]"
) -> npt.NDArray[np.float32]:
    table = pq.read_table(path)
    if "logits" in table.column_names:
        column = table["logits"].combine_chunks()
        widths = set(column.value_lengths().to_pylist())
        if widths - {num_labels}:
            raise ValueError(
                f"the given logits of {path.name} have {sorted(widths)} values a text, but there are "
                f"{num_labels} labels; correct logits_path or data.labels"
            )
        bar.update(table.num_rows)
        return np.asarray(column.flatten().to_numpy(), np.float32).reshape(-1, num_labels)
    assert encoder is not None
    if encoder.model.config.num_labels != num_labels:
        raise ValueError(
            f"the teacher has {encoder.model.config.num_labels} outputs, but the task has {num_labels}; correct "
            "data.problem_type"
        )
    pairs = table["text_pair"].to_pylist() if "text_pair" in table.column_names else None
    texts = table["text"].to_pylist()
    parts = []
    for start in range(0, len(texts), _PART_TEXTS):
        part = folder / f"{path.stem}.{start:06d}{_PART_SUFFIX}"
        stop = start + _PART_TEXTS
        if part.exists():
            bar.update(len(texts[start:stop]))
        else:
            logits = encoder.logits(texts[start:stop], None if pairs is None else pairs[start:stop], bar=bar)
            with whole_file(part) as temporary, temporary.open("wb") as file:
                np.save(file, logits, allow_pickle=False)
        parts.append(np.load(part, allow_pickle=False))
    return np.concatenate(parts)


def _remove_parts(folder: Path, path: Path) -> None:
    for part in folder.glob(f"{path.stem}.*{_PART_SUFFIX}"):
        part.unlink(missing_ok=True)


def write_logits(logits: npt.NDArray[np.float32], path: Path, *, top_k: int | None) -> None:
    """Write the logits (B, C) of a shard of texts; only the `top_k` largest where there are over twice as many."""
    column = logits_column(logits, top_k)
    with whole_file(path) as temporary:
        # The same row groups as the texts have, so that training reads both side by side.
        pq.write_table(pa.table({"logits": column}), temporary, row_group_size=GROUP_ROWS)
