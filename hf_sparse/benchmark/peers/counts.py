"""scikit-learn: TF-IDF with logistic regression, and the counts under the paper's own averaging network."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

_DAN_BATCH: Final = 256


class TfidfRegression:
    """`TfidfVectorizer` of 1-2-grams and `LogisticRegression`."""

    def __init__(self, *, threads: int, train: str) -> None:
        """Take the file of training texts."""
        self._train = train
        self.note = "1-2-grams in at least 2 texts, sublinear counts"

    def prepare(self, folder: Path) -> None:
        """Fit, unless that was done before."""
        if (folder / "model.joblib").exists():
            return
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        joblib = import_module("joblib")
        data = json.loads(Path(self._train).read_text(encoding="utf-8"))
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, dtype=np.float32)
        model = make_pipeline(vectorizer, LogisticRegression(C=10.0, max_iter=1000))
        model.fit(data["texts"], data["labels"])
        joblib.dump(model, folder / "partial.joblib")
        (folder / "partial.joblib").rename(folder / "model.joblib")

    def load(self, folder: Path) -> None:
        """Load the fitted pipeline."""
        self._model = import_module("joblib").load(folder / "model.joblib")

    def predict(self, texts: list[str]) -> list[str]:
        """Return a label for each text."""
        return [str(label) for label in self._model.predict(texts)]


class CountDan:
    """The paper's serving path: CountVectorizer's 1-4-grams, ids padded to the longest text, mean of an embedding.

    The network has random weights: speed does not depend on them.
    """

    def __init__(self, *, threads: int, train: str, names: list[str], num_ngrams: int, width: int) -> None:
        """Take the file of training texts, the label names, and the sizes of the student it stands beside."""
        import torch

        torch.set_num_threads(threads)
        self._train, self._names, self._num_ngrams, self._width = train, names, num_ngrams, width
        self.note = f"{num_ngrams:,} 1-4-grams, {width} columns, random weights"

    def prepare(self, folder: Path) -> None:
        """Choose the n-grams, unless that was done before."""
        if (folder / "vocabulary.json").exists():
            return
        from sklearn.feature_extraction.text import CountVectorizer

        texts = json.loads(Path(self._train).read_text(encoding="utf-8"))["texts"]
        vectorizer = CountVectorizer(ngram_range=(1, 4), max_features=self._num_ngrams).fit(texts)
        vocabulary = {ngram: int(index) for ngram, index in vectorizer.vocabulary_.items()}
        (folder / "partial.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / "partial.json").rename(folder / "vocabulary.json")

    def load(self, folder: Path) -> None:
        """Make the look-up and the network."""
        import torch
        from sklearn.feature_extraction.text import CountVectorizer

        self._torch: Any = torch
        self._ids = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self._analyze = CountVectorizer(ngram_range=(1, 4)).build_analyzer()
        torch.manual_seed(0)
        self._table = torch.nn.Embedding(len(self._ids) + 1, self._width, padding_idx=len(self._ids))
        self._head = torch.nn.Sequential(
            torch.nn.Linear(self._width, self._width), torch.nn.Tanh(), torch.nn.Linear(self._width, len(self._names))
        )

    def predict(self, texts: list[str]) -> list[str]:
        """Return a label for each text."""
        # Padded embeddings of a batch take memory by its longest text: 256 texts at a time, as many as one cell has.
        labels: list[str] = []
        for start in range(0, len(texts), _DAN_BATCH):
            labels += self._predict(texts[start : start + _DAN_BATCH])
        return labels

    def _predict(self, texts: list[str]) -> list[str]:
        torch, known = self._torch, self._ids
        rows = [torch.tensor([known[ngram] for ngram in self._analyze(text) if ngram in known]) for text in texts]
        padding = len(known)
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding).long()
        with torch.inference_mode():
            counts = (ids != padding).sum(dim=1, keepdim=True).clamp(min=1)
            logits = self._head(self._table(ids).sum(dim=1) / counts)
        return [self._names[index] for index in logits.argmax(dim=1).tolist()]
