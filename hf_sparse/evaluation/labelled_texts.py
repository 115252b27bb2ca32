"""Labelled texts to measure a student on, from files or from the folder of a run, and the student's logits of them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from hf_sparse.distillation.label_space import LabelSpace
from hf_sparse.distillation.logits import logits_matrix
from hf_sparse.distillation.recipe_data import ProblemType, TextSet
from hf_sparse.distillation.sources import read_rows
from hf_sparse.distillation.texts import has_labels, shards
from hf_sparse.files import read_json
from hf_sparse.student import SparseNgramForSequenceClassification, SparseNgramTokenizer

_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """B texts.

    Attributes:
        texts: The texts.
        text_pairs: Their partners; None if they are no pairs.
        labels: Ids (B,) or multi-hot rows (B, C).
        teacher_logits: (B, C); None if no file has them.
    """

    texts: list[str]
    text_pairs: list[str] | None
    labels: npt.NDArray[Any]
    teacher_logits: npt.NDArray[np.float32] | None


class Student:
    """A student loaded from its folder.

    Args:
        folder: Of the student.

    Raises:
        FileNotFoundError: There is no config.json in it.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is not the folder of a student: it has no config.json")
        self.folder = folder
        self.model = SparseNgramForSequenceClassification.from_pretrained(folder).train(False)
        self.tokenizer = SparseNgramTokenizer.from_pretrained(folder)
        config = self.model.config
        self.problem_type: ProblemType = config.problem_type or "single_label_classification"
        self.names = label_names(config)
        if len(self.names) < 2 and self.problem_type == "single_label_classification":
            self.problem_type = "regression"  # as transformers takes a head of one output

    def read(self, source: TextSet) -> LabelledTexts:
        """Read labelled texts from files; a label is what it was in the data of the student's recipe, or a name.

        Of a student without a report, or whose labels have other names now, it is a name or an id.

        Raises:
            ValueError: There are no texts, a label is unknown, or the columns do not fit the student.
        """
        compares = self.model.config.sentence_pairs
        if compares != (source.text_pair_column is not None):
            wants = "pairs of texts: name text_pair_column" if compares else "single texts: leave text_pair_column out"
            raise ValueError(f"{self.folder} holds a student of {wants}")
        space = label_space(self.folder, self.names, problem_type=self.problem_type)
        tables = []
        for table in read_rows(source):
            labels = space.encode(table["label"].combine_chunks(), where=source.path)
            tables.append(table.set_column(table.column_names.index("label"), "label", labels))
        if not tables:
            raise ValueError(f"{source.path!r} holds no texts to measure on")
        return self._texts(pa.concat_tables(tables, promote_options="default"), where=source.path)

    def read_run(self, run: Path, text_set: str) -> LabelledTexts:
        """Read a text set of a run, with the teacher's logits.

        Raises:
            ValueError: The run has no such texts, or they have no labels.
        """
        where = f"the {text_set} texts of {str(run)!r}"
        if not has_labels(run / "texts", text_set):
            raise ValueError(
                f"{where} have no labels; name data.{text_set}.label_column in the recipe and run it again"
            )
        tables = []
        for path in shards(run / "texts", text_set):
            table, logits = pq.read_table(path), run / "label" / path.name
            table = table.select([name for name in ("text", "text_pair", "label") if name in table.column_names])
            if not logits.is_file() or pq.read_metadata(logits).num_rows != table.num_rows:
                raise ValueError(f"{logits} does not hold the teacher's logits of {path}; finish the run first")
            tables.append(table.append_column("logits", pq.read_table(logits)["logits"]))
        return self._texts(pa.concat_tables(tables), where=where)

    def _texts(self, table: pa.Table, *, where: str) -> LabelledTexts:
        kind = np.int64 if self.problem_type == "single_label_classification" else np.float32
        teacher = logits_matrix(table["logits"]) if "logits" in table.column_names else None
        if teacher is not None and teacher.shape[1] != len(self.names):
            raise ValueError(
                f"the teacher's logits of {where} have {teacher.shape[1]} values a text, but the student has "
                f"{len(self.names)} labels; the teacher must have the same, in the same order"
            )
        return LabelledTexts(
            texts=table["text"].to_pylist(),
            text_pairs=table["text_pair"].to_pylist() if "text_pair" in table.column_names else None,
            labels=np.array(table["label"].to_pylist(), dtype=kind),
            teacher_logits=teacher,
        )

    @torch.inference_mode()
    def logits(self, texts: list[str], text_pairs: list[str] | None = None) -> npt.NDArray[np.float32]:
        """Return the student's logits (B, C) of texts; a bar goes to stderr."""
        parts = [np.zeros((0, len(self.names)), np.float32)]
        for first in tqdm(range(0, len(texts), _BATCH), desc="student", unit="batch", disable=None):
            chosen = slice(first, first + _BATCH)
            batch = self.tokenizer.extract(texts[chosen], None if text_pairs is None else text_pairs[chosen])
            ids, lengths = torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths)
            if text_pairs is not None and not self.model.config.sentence_pairs:
                lengths = lengths.reshape(-1, 2).sum(1)
            parts.append(self.model(input_ids=ids, lengths=lengths).logits.float().numpy())
        return np.concatenate(parts)


def label_names(config: PreTrainedConfig) -> list[str]:
    """Return the names of a model's labels in the order of its logits."""
    names = config.id2label or {}
    return [str(names[index]) for index in sorted(names, key=int)]  # type: ignore[index]


def label_space(folder: Path, names: list[str], *, problem_type: ProblemType) -> LabelSpace:
    """Return what labels in files stand for, by the report beside a student if its labels are those of the report."""
    origin = f"the labels of {str(folder)!r}"
    space = LabelSpace.from_names(names, problem_type=problem_type, origin=origin)
    space = replace(space, advice="write the names of the labels in the file")
    path = folder / "report.json"
    report = read_json(path) if path.is_file() else {}
    if report.get("labels") != names:
        return space
    meanings = report.get("label_values")
    mapped = report.get("recipe", {}).get("data", {}).get("labels")
    if meanings is None and mapped and problem_type != "regression":  # a report of an older version
        meanings = LabelSpace.from_recipe(mapped, problem_type=problem_type, names=names).meanings()
    return space if meanings is None else space.with_meanings(meanings)


def run_problem(folder: Path) -> str | None:
    """Return why a folder is not that of a finished run, None if it is one."""
    marker, stage = folder / ".student.json", folder / "evaluate" / "stage.json"
    if not (folder / "student" / "config.json").is_file() or not marker.is_file() or not stage.is_file():
        return "it has no saved student"
    saved, evaluated = (json.loads(path.read_text(encoding="utf-8"))["key"] for path in (marker, stage))
    return None if saved == evaluated else "its student is older than its report: run its save stage again"
