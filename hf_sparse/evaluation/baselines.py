"""Classifiers without a transformer, trained on gold labels: what a student has to beat to be worth its making.

Each has a few settings; whoever calls chooses one on validation data. All read lower-cased words and punctuation
marks, without markup. Of a pair they read the words of either side, marked as such, and those that both sides have.
"""

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_sparse.distillation.recipe import BaselineName

Scores = npt.NDArray[np.float32]
Classifier = Callable[[Sequence[str]], Scores]

_PACKAGES: Final = {"fasttext": "fasttext", "model2vec": "model2vec"}
_MARKUP: Final = re.compile(r"<[a-zA-Z/][^<>]*>")
_WORD: Final = re.compile(r"\w+|[^\w\s]")
_MOST_FEATURES: Final = 2_000_000
_LONG_CORPUS: Final = 10_000_000  # characters


@dataclass(frozen=True, kw_only=True)
class TrainingTexts:
    """Texts, as `plain_text` makes them, with labels.

    Attributes:
        texts: B texts.
        labels: (B,) ids below C.
        num_labels: C.
        encoder: Folder or Hub id of a sentence encoder, of which model2vec makes its word vectors.
    """

    texts: Sequence[str]
    labels: npt.NDArray[np.int64]
    num_labels: int
    encoder: str


def plain_text(text: str, pair: str | None = None) -> str:
    """Return the words of a text, or of a pair, with blanks between them."""
    words = _WORD.findall(_MARKUP.sub(" ", text).lower())
    if pair is None:
        return " ".join(words)
    others = _WORD.findall(_MARKUP.sub(" ", pair).lower())
    both = set(words) & set(others)
    marked = [f"1_{word}" for word in words] + [f"2_{word}" for word in others]
    only = [f"only_{word}" for word in [*words, *others] if word not in both]
    return " ".join([*marked, *(f"both_{word}" for word in sorted(both)), *only])


def missing_packages(names: Sequence[str]) -> list[str]:
    """Return which packages the baselines of these names lack."""
    return [package for name, package in _PACKAGES.items() if name in names and find_spec(package) is None]


def trained(name: BaselineName, texts: TrainingTexts) -> Iterator[tuple[dict[str, Any], Classifier]]:
    """Train a baseline with each of its settings in turn.

    Args:
        name: Which one.
        texts: What to train on.

    Yields:
        The setting, and a function from texts to scores (B, C), of which the largest tells the label.
    """
    yield from _BASELINES[name](texts)


def _majority(texts: TrainingTexts) -> Iterator[tuple[dict[str, Any], Classifier]]:
    counts = np.bincount(texts.labels, minlength=texts.num_labels).astype(np.float32)
    yield {}, lambda others: np.tile(counts, (len(others), 1))


def _tfidf(texts: TrainingTexts) -> Iterator[tuple[dict[str, Any], Classifier]]:
    """TF-IDF of 1-3-grams and multinomial logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 3), min_df=2, sublinear_tf=True, token_pattern=r"\S+", max_features=_MOST_FEATURES
    )
    features = vectorizer.fit_transform(texts.texts)
    for inverse_penalty in (1.0, 10.0, 100.0):
        model = LogisticRegression(C=inverse_penalty, max_iter=200)
        _fit_quietly(model, features, texts.labels)
        yield (
            {"C": inverse_penalty},
            _of_scikit(model, lambda others: vectorizer.transform(others), num_labels=texts.num_labels),
        )


def _nb_lr(texts: TrainingTexts) -> Iterator[tuple[dict[str, Any], Classifier]]:
    """Naive-Bayes weighted 1-3-grams and logistic regression (Wang and Manning, ACL 2012)."""
    from sklearn.feature_extraction.text import CountVectorizer

    from hf_sparse.distillation.ensemble import NgramExpert

    vectorizer = CountVectorizer(
        ngram_range=(1, 3), min_df=2, binary=True, token_pattern=r"\S+", max_features=_MOST_FEATURES, dtype=np.float32
    )
    features = vectorizer.fit_transform(texts.texts)
    for inverse_penalty in (0.03, 0.1, 0.3, 1.0, 3.0):
        model = NgramExpert.fit(features, texts.labels, num_labels=texts.num_labels, regularisation=inverse_penalty)

        def classify(others: Sequence[str], model: NgramExpert = model) -> Scores:
            return model.logits(vectorizer.transform(others))

        yield {"C": inverse_penalty}, classify


def _fasttext(texts: TrainingTexts) -> Iterator[tuple[dict[str, Any], Classifier]]:
    """FastText (Joulin et al., EACL 2017), one thread, so that it repeats."""
    import fasttext

    # Passes over long corpora are few: more of them overfit and take long.
    many, few = (10, 5) if sum(map(len, texts.texts)) > _LONG_CORPUS else (25, 5)
    settings = [(2, 0.5, many), (3, 0.5, many), (2, 0.1, many), (2, 0.5, few), (3, 0.2, few)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        # It learns line by line: of texts sorted by label it would remember the last one.
        order = np.random.default_rng(0).permutation(len(texts.texts))
        lines = (f"__label__{texts.labels[index]} {texts.texts[index]}\n" for index in order)
        path.write_text("".join(lines), encoding="utf-8")
        for word_ngrams, lr, epochs in settings:
            setting = {"wordNgrams": word_ngrams, "lr": lr, "epoch": epochs, "dim": 50}
            model = fasttext.train_supervised(
                str(path), thread=1, seed=0, verbose=0, bucket=500_000, minCount=1, **setting
            )

            def classify(others: Sequence[str], model: Any = model) -> Scores:
                scores = np.zeros((len(others), texts.num_labels), np.float32)
                names, values = model.predict([text or " " for text in others], k=-1)
                for row, (found, probabilities) in enumerate(zip(names, values, strict=True)):
                    for label, probability in zip(found, probabilities, strict=True):
                        scores[row, int(label.removeprefix("__label__"))] = probability
                return scores

            yield setting, classify


def _model2vec(texts: TrainingTexts) -> Iterator[tuple[dict[str, Any], Classifier]]:
    """A static model made of an encoder's tokens (model2vec) and logistic regression on its vectors."""
    from sklearn.linear_model import LogisticRegression

    from hf_sparse.benchmark.peers.model2vec_peer import static_model

    model = static_model(texts.encoder)

    def encode(others: Sequence[str]) -> Any:
        return model.encode(list(others), use_multiprocessing=False)

    features = encode(texts.texts)
    for inverse_penalty in (1.0, 10.0, 100.0, 1000.0):
        head = LogisticRegression(C=inverse_penalty, max_iter=1000)
        _fit_quietly(head, features, texts.labels)
        yield {"C": inverse_penalty}, _of_scikit(head, encode, num_labels=texts.num_labels)


def _fit_quietly(model: Any, features: Any, labels: npt.NDArray[np.int64]) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)


def _of_scikit(model: Any, features_of: Callable[[Sequence[str]], Any], *, num_labels: int) -> Classifier:
    def classify(others: Sequence[str]) -> Scores:
        scores = np.zeros((len(others), num_labels), np.float32)
        scores[:, model.classes_] = model.predict_proba(features_of(others))
        return scores

    return classify


_BASELINES: Final[dict[str, Callable[[TrainingTexts], Iterator[tuple[dict[str, Any], Classifier]]]]] = {
    "majority": _majority,
    "tfidf": _tfidf,
    "nb_lr": _nb_lr,
    "fasttext": _fasttext,
    "model2vec": _model2vec,
}
