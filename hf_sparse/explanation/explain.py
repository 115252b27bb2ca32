"""Why a student answers as it does: what the n-grams of a text, or of many for each label, contribute to a logit."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from hf_sparse.explanation.attribution import attribute
from hf_sparse.files import write_atomic
from hf_sparse.runtime.folder import student_folder
from hf_sparse.runtime.head import above_thresholds
from hf_sparse.student.modeling_sparse_ngram import SparseNgramForSequenceClassification
from hf_sparse.student.tokenization_sparse_ngram import SparseNgramTokenizer

_BATCH: Final = 64


@dataclass(frozen=True, kw_only=True)
class NgramContribution:
    """An n-gram of a text, how often it occurs there, and what all its occurrences together add to the logit."""

    ngram: str
    count: int
    contribution: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a text, or a pair, got its logit for a label: `baseline + sum of contributions + residual = logit`.

    Attributes:
        words: The words as the student reads them, those of a pair's second text after those of the first, each with
            its share of the contributions of the n-grams that cover it.
        second: Where the words of the second text begin; None where there is none.
        label: Name of the label.
        probability: Of that label, by the student's own softmax or sigmoid; None for a regression.
        logit: Of that label.
        baseline: The logit of a text without n-grams.
        residual: What contributions and baseline do not explain; 0 up to rounding where the student is linear.
        ngrams: The n-grams, those that matter most first.
    """

    words: list[tuple[str, float]]
    second: int | None
    label: str
    probability: float | None
    logit: float
    baseline: float
    residual: float
    ngrams: list[NgramContribution]

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation for a JSON file."""
        ngrams = [
            {"ngram": item.ngram, "count": item.count, "contribution": item.contribution} for item in self.ngrams
        ]
        words = [{"word": word, "contribution": value} for word, value in self.words]
        return {**vars(self), "words": words, "ngrams": ngrams}


class Explainer:
    """Explains a student.

    Args:
        folder: A folder, or a repository whose code may be run.
        steps: Points of the integral; the residual falls with them.

    Raises:
        ValueError: If vocabulary and weights do not belong together.
    """

    def __init__(self, folder: str | Path, *, steps: int = 32) -> None:
        self.model = SparseNgramForSequenceClassification.from_pretrained(folder)
        self.tokenizer = SparseNgramTokenizer.from_pretrained(folder)
        self.steps = steps
        expected = self.model.config.vocabulary_sha256
        if expected is not None and expected != self.tokenizer.vocabulary_sha256:
            raise ValueError(f"{folder} has the vocabulary of another student; save weights and vocabulary together")
        self.labels: list[str] = [str(name) for _, name in sorted((self.model.config.id2label or {}).items())]

    def label_id(self, label: str) -> int:
        """Return the id of a label.

        Raises:
            ValueError: If the student has no such label.
        """
        if label not in self.labels:
            raise ValueError(f"the student has no label {label!r}; its labels are {', '.join(self.labels)}")
        return self.labels.index(label)

    def explain(self, text: str, text_pair: str | None = None, *, label: str | None = None) -> Explanation:
        """Explain the logit of a text, or a pair, for a label.

        Args:
            text: Any text.
            text_pair: Its partner, for students of pairs.
            label: Name of the label; the student's answer if None.

        Raises:
            ValueError: If the student has no such label, or wants pairs and gets none, or the reverse.
        """
        if self.model.config.sentence_pairs != (text_pair is not None):
            wanted = "pairs: give a text_pair" if text_pair is None else "single texts: leave text_pair out"
            raise ValueError(f"the student classifies {wanted}")
        ids, lengths = self._extract([text], None if text_pair is None else [text_pair])
        with torch.inference_mode():
            logits = self.model.classify(self.model.pool(ids, lengths))[0].float()
        # Of several labels that a text has the most probable, as the pipeline lists them; where it has none, as well.
        answers = logits.numpy()
        has = above_thresholds(answers, self.model.config.to_dict()) > 0
        if self.model.config.problem_type == "multi_label_classification" and has.any():
            answers = np.where(has, answers, -np.inf)
        chosen = self.label_id(label) if label is not None else int(answers.argmax())
        found = attribute(self.model, ids, lengths, labels=[chosen], steps=self.steps)
        contributions = found.contributions[:, 0].numpy()
        by_row: dict[int, list[float]] = defaultdict(list)
        for row, value in zip(ids.tolist(), contributions.tolist(), strict=True):
            by_row[row].append(value)
        ngrams = [
            NgramContribution(ngram=self._name(row), count=len(values), contribution=float(sum(values)))
            for row, values in by_row.items()
        ]
        texts = [text] if text_pair is None else [text, text_pair]
        # A maximum gives what a row contributes to one of its occurrences, of pairs that are compared by what they
        # share to one of either text: all get the same part of it.
        shared = self.model.model.compares_overlap
        places = np.cumsum(lengths.numpy())[:-1]
        bags = (
            [(ids.numpy(), contributions)] * len(texts)
            if shared
            else zip(np.split(ids.numpy(), places), np.split(contributions, places), strict=True)
        )
        words = [self._words(text, *bag) for text, bag in zip(texts, bags, strict=True)]
        return Explanation(
            words=[word for side in words for word in side],
            second=None if text_pair is None else len(words[0]),
            label=self.labels[chosen],
            probability=self._probability(logits, chosen),
            logit=float(found.logits[0, 0]),
            baseline=float(found.baselines[0, 0]),
            residual=float(found.residuals[0, 0]),
            ngrams=sorted(ngrams, key=lambda item: (-abs(item.contribution), item.ngram)),
        )

    def per_label(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        labels: Sequence[str] | None = None,
        top: int = 20,
    ) -> dict[str, dict[str, list[NgramContribution]]]:
        """Return for each label the n-grams that speak most for and against it over many texts.

        Args:
            texts: The texts.
            text_pairs: Their partners.
            labels: Names of the labels; None: all.
            top: N-grams on either side.

        Returns:
            By label, `for` and `against`; a contribution is the mean over all texts, a count that of all occurrences.

        Raises:
            ValueError: If the student has no such label.
        """
        counts: dict[int, int] = defaultdict(int)
        sums: dict[int, Any] = {}
        names = self.labels if labels is None else labels
        chosen = [self.label_id(name) for name in names]
        for first in range(0, len(texts), _BATCH):
            part = slice(first, first + _BATCH)
            ids, lengths = self._extract(texts[part], None if text_pairs is None else text_pairs[part])
            found = attribute(self.model, ids, lengths, labels=chosen, steps=self.steps)
            rows, places = np.unique(ids.numpy(), return_inverse=True)
            totals = np.zeros((len(rows), len(chosen)))
            np.add.at(totals, places, found.contributions.numpy())
            for row, total, count in zip(rows.tolist(), totals, np.bincount(places).tolist(), strict=False):
                counts[row] += count
                sums[row] = sums[row] + total if row in sums else total
        rows_seen = list(sums)
        means = np.array([sums[row] for row in rows_seen]).reshape(-1, len(chosen)) / max(1, len(texts))
        return {
            name: {
                side: list(self._strongest(rows_seen, sign * means[:, place], counts, top=top, sign=sign))
                for side, sign in (("for", 1), ("against", -1))
            }
            for place, name in enumerate(names)
        }

    def _strongest(
        self, rows: list[int], values: Any, counts: dict[int, int], *, top: int, sign: int
    ) -> Iterator[NgramContribution]:
        for place in np.argsort(-values, kind="stable")[:top]:
            if values[place] > 0:
                row = rows[place]
                value = float(sign * values[place])
                yield NgramContribution(ngram=self._name(row), count=counts[row], contribution=value)

    def _extract(self, texts: Sequence[str], pairs: Sequence[str] | None) -> tuple[torch.Tensor, torch.Tensor]:
        batch = self.tokenizer.extract(texts, pairs)
        return torch.from_numpy(batch.ids.copy()), torch.from_numpy(batch.lengths.copy())

    def _name(self, row: int) -> str:
        return str(self.tokenizer.vocabulary.ngram_text(row))

    def _probability(self, logits: torch.Tensor, label: int) -> float | None:
        problem_type = self.model.config.problem_type
        if problem_type == "regression":
            return None
        several = problem_type == "multi_label_classification"
        return float((torch.sigmoid(logits) if several else torch.softmax(logits, -1))[label])

    def _words(self, text: str, ids: Any, contributions: Any) -> list[tuple[str, float]]:
        """Return the words of a text, each with its share of what the n-grams (N,) of its bag contribute."""
        vocabulary = self.tokenizer.vocabulary
        words = self.tokenizer.extractor.words(text)
        rows, places, counts = np.unique(ids, return_inverse=True, return_counts=True)
        means = np.bincount(places, weights=contributions, minlength=len(rows)) / counts
        each = dict(zip(rows.tolist(), means.tolist(), strict=True))
        shares = np.zeros(len(words))
        spans = {len(vocabulary.ngram_words(row)) for row in each}
        by_words = {vocabulary.ngram_words(row): value for row, value in each.items()}
        for size in spans:
            for start in range(len(words) - size + 1):
                value = by_words.get(tuple(words[start : start + size]))
                if value is not None:
                    shares[start : start + size] += value / size
        return list(zip(words, shares.tolist(), strict=True))


def explain(
    model: str,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    data: str | None = None,
    text_column: str = "text",
    text_pair_column: str | None = None,
    label: str | None = None,
    per_label: int | None = None,
    limit: int | None = None,
    top: int = 10,
    steps: int = 32,
    html: str | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Say which n-grams a student's answers rest on.

    Args:
        model: Folder of a student, or its repository on the Hub; nothing in it is run.
        text: A text to explain.
        text_pair: Its partner, for students of pairs.
        data: Parquet, CSV, JSON Lines or text file whose texts are explained.
        text_column: Column of the texts in it.
        text_pair_column: Column of the partners in it.
        label: Explain this label; null explains the student's answer.
        per_label: Instead of single texts, show for each label so many n-grams that speak for and against it over all
            texts of the data.
        limit: How many rows of the data to read.
        top: N-grams shown of a text, on either side.
        steps: Points of the integral of students with hidden layers; more make the residual smaller.
        html: Also write a page to this file.
        revision: Branch, tag or commit of the repository.

    Returns:
        `texts`, a list of explanations, or `labels`, the n-grams of each label.

    Raises:
        FileNotFoundError: If there is no student.
        ValueError: If neither text nor data is given, or both, or they do not fit the student.
    """
    from hf_sparse.explanation.show import label_page, text_page

    if (text is None) == (data is None):
        raise ValueError("give --text or --data: one of the two is explained")
    if per_label is not None and data is None:
        raise ValueError("per_label is about many texts; name them with --data")
    if per_label is not None and label is not None:
        raise ValueError("per_label shows all labels; leave label out")
    if text_pair is not None and data is not None:
        raise ValueError("text_pair belongs to text; for the texts of data name a text_pair_column")
    for name, value in (("per_label", per_label), ("limit", limit), ("top", top)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    explainer = Explainer(student_folder(model, revision=revision), steps=steps)
    texts, pairs = _read(text, text_pair, data, text_column, text_pair_column, limit)
    if per_label is not None:
        labels = explainer.per_label(texts, pairs, top=per_label)
        if html is not None:
            write_atomic(Path(html), label_page(labels, num_texts=len(texts)))
        plain = {
            name: {side: [vars(item) for item in found] for side, found in sides.items()}
            for name, sides in labels.items()
        }
        return {"num_texts": len(texts), "labels": plain}
    explained = [
        explainer.explain(one, None if pairs is None else pairs[index], label=label) for index, one in enumerate(texts)
    ]
    if html is not None:
        write_atomic(Path(html), text_page(explained, top=top))
    return {"top": top, "texts": [explanation.as_dict() for explanation in explained]}


def _read(
    text: str | None, pair: str | None, data: str | None, column: str, pair_column: str | None, limit: int | None
) -> tuple[list[str], list[str] | None]:
    if text is not None:
        return [text], None if pair is None else [pair]
    from hf_sparse.distillation.recipe_data import TextSet
    from hf_sparse.distillation.sources import read_rows

    assert data is not None
    texts: list[str] = []
    pairs: list[str] = []
    for table in read_rows(TextSet(path=data, text_column=column, text_pair_column=pair_column, limit=limit)):
        texts += table["text"].to_pylist()
        pairs += table["text_pair"].to_pylist() if pair_column is not None else []
    if not texts:
        raise ValueError(f"{data!r} holds no texts")
    return texts, pairs if pair_column is not None else None
