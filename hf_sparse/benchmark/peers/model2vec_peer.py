"""model2vec: a static model of a sentence encoder's tokens, and a logistic regression on its vectors.

The Hub's models need a network. This one is made as `model2vec.distill` makes them (each token through the encoder,
mean pooling, 256 principal components, SIF weights), whose own code does not run with transformers 5.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

_COMPONENTS = 256
_SIF = 1e-4


class Model2Vec:
    """A `StaticModel` and a linear classifier."""

    def __init__(self, *, threads: int, train: str, encoder: str) -> None:
        """Take the file of training texts and the folder of the encoder."""
        self._train, self._encoder = train, encoder
        self.note = f"{_COMPONENTS} dimensions, distilled here from a MiniLM encoder; first 512 tokens (its default)"

    def prepare(self, folder: Path) -> None:
        """Make the static model and fit the classifier, unless that was done before."""
        if (folder / "head.json").exists():
            return
        from sklearn.linear_model import LogisticRegression

        model = static_model(self._encoder)
        model.save_pretrained(str(folder / "model"))
        data = json.loads(Path(self._train).read_text(encoding="utf-8"))
        vectors = model.encode(data["texts"], use_multiprocessing=False)
        head = LogisticRegression(max_iter=1000, C=100.0).fit(vectors, data["labels"])
        weight, bias = head.coef_.astype(np.float32), head.intercept_.astype(np.float32)
        if len(head.classes_) == 2:
            weight, bias = np.concatenate((-weight, weight)), np.concatenate((-bias, bias))
        np.savez(folder / "head.npz", weight=weight.T, bias=bias)
        (folder / "head.json").write_text(json.dumps([str(name) for name in head.classes_]), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Load the static model and the classifier."""
        from model2vec import StaticModel

        self._model = StaticModel.from_pretrained(str(folder / "model"))
        self._names = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        head = np.load(folder / "head.npz")
        self._weight, self._bias = head["weight"], head["bias"]

    def predict(self, texts: list[str]) -> list[str]:
        """Return a label for each text."""
        vectors = self._model.encode(texts, use_multiprocessing=False)
        return [self._names[index] for index in (vectors @ self._weight + self._bias).argmax(axis=1).tolist()]


def static_model(encoder: str) -> Any:
    """Return a `StaticModel` made of the tokens of an encoder, a folder or a Hub id."""
    from model2vec import StaticModel
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(encoder)
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return StaticModel(_token_vectors(encoder, tokenizer), backend, normalize=True)


def _token_vectors(encoder_path: str, tokenizer: Any) -> Any:
    """Return the vectors (tokens, components) float32 of all tokens."""
    import torch
    from sklearn.decomposition import PCA
    from transformers import AutoModel

    encoder: Any = AutoModel.from_pretrained(encoder_path, dtype=torch.float32).eval()
    size = max(tokenizer.get_vocab().values()) + 1
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = torch.tensor([[first, token, last] for token in range(size)])
    with torch.inference_mode():
        hidden = [encoder(input_ids=part).last_hidden_state.mean(dim=1) for part in ids.split(256)]
    vectors = PCA(min(_COMPONENTS, encoder.config.hidden_size), random_state=0).fit_transform(
        torch.cat(hidden).numpy()
    )
    # Tokens are numbered by frequency, so Zipf's law gives their probability (Model2Vec's SIF weights).
    probability = 1 / (np.arange(2, size + 2))
    probability /= probability.sum()
    return (vectors * (_SIF / (_SIF + probability))[:, None]).astype(np.float32)
