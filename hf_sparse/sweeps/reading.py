"""Studies without training: a trained student that reads only some of its n-grams.

What is left out is not replaced, so this is what `hf-sparse compress` makes of the student, without a folder of it.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from hf_sparse.compression.prune import Criterion, occurrences, rank_rows
from hf_sparse.distillation import student_stages
from hf_sparse.distillation.plan import RunPlan
from hf_sparse.distillation.texts import read_texts
from hf_sparse.evaluation.metrics import score
from hf_sparse.student.table_sparse_ngram import keep_ids
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from hf_sparse.sweeps.studies import ReadingStudy

_BATCH = 512

Rows: TypeAlias = npt.NDArray[np.bool_]


class Reader:
    """A trained student, and labelled validation texts that it reads in part.

    Args:
        plan: A run whose student is there.
    """

    def __init__(self, plan: RunPlan) -> None:
        self._space = plan.space
        self._model = student_stages.load_student(plan, student_stages.choose_student(plan)).train(False)
        tokenizer = student_stages.load_tokenizer(plan)
        self.vocabulary: NgramVocabulary = tokenizer.vocabulary
        texts = plan.stage_folder("texts")
        (first, second), labels = student_stages.read_labelled(texts, "validation", plan.space)
        self._labels = labels.numpy()
        parts = [slice(start, start + _BATCH) for start in range(0, len(first), _BATCH)]
        self._batches = [tokenizer.extract(first[part], None if second is None else second[part]) for part in parts]
        train = list(read_texts(texts, "train"))
        # As the paper found, n-grams are best ranked by how often they occur in D_train.
        self._counts = occurrences(self.vocabulary, texts=train or None)

    @torch.inference_mode()
    def score(self, rows: Rows) -> dict[str, float]:
        """Return the metrics of the student that reads some rows (V,) only."""
        kept = torch.from_numpy(rows)
        found = []
        for batch in self._batches:
            ids, lengths = torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths)
            pooled = self._model.pool(*keep_ids(ids, lengths, kept[ids.long()]))
            found.append(self._model.classify(pooled).float().numpy())
        return score(np.concatenate(found), self._labels, problem_type=self._space.problem_type)

    def of_length(self, criterion: str) -> Callable[[float], Rows]:
        """Return the function that chooses the rows (V,) of n-grams of at most so many words."""
        lengths = ngram_lengths(self.vocabulary)
        return lambda longest: (lengths > 0) & (lengths <= longest)

    def of_rank(self, criterion: Criterion) -> Callable[[float], Rows]:
        """Return the function that chooses the rows (V,) of a share of the n-grams, the best ones."""
        ranked = rank_rows(self._model, self.vocabulary, by=criterion, counts=self._counts)

        def choose(share: float) -> Rows:
            rows = np.zeros(self.vocabulary.num_rows, dtype=bool)
            rows[ranked[: max(1, round(share * self.vocabulary.num_ngrams))]] = True
            return rows

        return choose


def ngram_lengths(vocabulary: NgramVocabulary) -> npt.NDArray[np.int64]:
    """Return the number of words of each row's n-gram (V,), 0 for rows without one."""
    node = np.arange(len(vocabulary.node_prefix))
    words = np.zeros(len(node), dtype=np.int64)
    for _ in range(vocabulary.max_n):
        words += node >= 0
        node = np.where(node >= 0, vocabulary.node_prefix[node], -1)
    lengths = np.zeros(vocabulary.num_rows, dtype=np.int64)
    has_row = vocabulary.node_row > 0
    lengths[vocabulary.node_row[has_row]] = words[has_row]
    return lengths


_CHOICES: dict[str, Callable[[Reader, Any], Callable[[float], Rows]]] = {
    "ngrams": Reader.of_length,
    "pruning": Reader.of_rank,
}


def read_in_part(reader: Reader, name: str, study: ReadingStudy) -> list[dict[str, Any]]:
    """Return the metrics of a student at each point of a study, with the n-grams that it still reads."""
    found = []
    for criterion in study.series:
        choose = _CHOICES[name](reader, criterion)
        for point in study.points(reader.vocabulary.max_n):
            rows = choose(point)
            found.append(
                {"series": criterion, "value": point, "ngrams": int(rows.sum()), "metrics": reader.score(rows)}
            )
    return found
