"""luxical with the architecture of Luxical One: WordPiece 1-5-grams, TF-IDF, 96-3072-3072-192, random weights.

The published weights need a network; the speed does not depend on them. The n-grams are those of the training texts,
counted by luxical itself, so that as many of a text's n-grams are known as in use.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

_MAX_NGRAMS = 2_000_000
_WIDTHS = (96, 3072, 3072, 192)


class Luxical:
    """An `Embedder` and a linear classifier."""

    def __init__(self, *, threads: int, train: str, tokenizer: str, names: list[str]) -> None:
        """Take the file of training texts, the folder of a WordPiece tokenizer, and the names of the labels."""
        self._train, self._tokenizer, self._names = train, tokenizer, names
        self.note = f"architecture of Luxical One {_WIDTHS}, random weights, n-grams of the training texts"

    def prepare(self, folder: Path) -> None:
        """Count n-grams and write the embedder, unless that was done before; then compile its kernels."""
        if not (folder / "model.npz").exists():
            embedder = import_module("luxical.embedder")
            ngrams = import_module("luxical.ngrams")
            tokenizer = self._wordpiece()
            texts = json.loads(Path(self._train).read_text(encoding="utf-8"))["texts"]
            pyarrow = import_module("pyarrow")
            tokens = tokenizer.tokenize(pyarrow.array(texts), add_special_tokens=False).to_numpy(zero_copy_only=False)
            summary = ngrams.space_saving_ngram_summary(tokens, max_ngram_length=5, num_top_items=_MAX_NGRAMS)
            model = embedder.initialize_embedder_from_ngram_summary(
                summary, tokenizer, _WIDTHS, min_ngram_count_multiple=1.0, max_vocabulary_size=_MAX_NGRAMS
            )
            model.save(folder / "partial.npz")
            (folder / "partial.npz").rename(folder / "model.npz")
        self.load(folder)
        self.predict(["a text"])

    def load(self, folder: Path) -> None:
        """Load the embedder."""
        self._model = import_module("luxical.embedder").Embedder.load(folder / "model.npz")
        self._head = np.random.default_rng(0).standard_normal((_WIDTHS[-1], len(self._names)), dtype=np.float32)

    def predict(self, texts: list[str]) -> list[str]:
        """Return a label for each text."""
        vectors = self._model(texts)
        return [self._names[index] for index in (vectors @ self._head).argmax(axis=1).tolist()]

    def _wordpiece(self) -> Any:
        backend = import_module("tokenizers").Tokenizer.from_file(str(Path(self._tokenizer) / "tokenizer.json"))
        backend.no_padding()
        backend.no_truncation()
        return import_module("luxical.tokenization").arrow_tokenizer_from_tokenizer(backend)
