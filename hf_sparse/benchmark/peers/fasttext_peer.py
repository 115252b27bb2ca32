"""fastText, trained on the same texts; `fasttext-numpy2` and `fasttext-turbo` are both imported as `fasttext`."""

import json
import random
from importlib import import_module
from pathlib import Path

_PREFIX = "__label__"


class FastText:
    """A supervised fastText model."""

    def __init__(
        self, *, threads: int, train: str, word_ngrams: int, dim: int, lr: float = 0.5, epoch: int = 5
    ) -> None:
        """Take the file of training texts and what fastText calls its parameters."""
        self._train = train
        self._settings = {"wordNgrams": word_ngrams, "dim": dim, "lr": lr, "epoch": epoch, "minCount": 2}
        self.note = f"wordNgrams {word_ngrams}, dim {dim}, lr {lr}, {epoch} epochs, 2,000,000 buckets"

    def prepare(self, folder: Path) -> None:
        """Train, unless that was done before."""
        target = folder / "model.bin"
        if target.exists():
            return
        data = json.loads(Path(self._train).read_text(encoding="utf-8"))
        numbers = {label: index for index, label in enumerate(sorted(set(data["labels"])))}
        (folder / "labels.json").write_text(json.dumps(sorted(numbers)), encoding="utf-8")
        lines = [
            f"{_PREFIX}{numbers[label]} {_line(text)}\n"
            for text, label in zip(data["texts"], data["labels"], strict=True)
        ]
        # fastText reads its file in order: one label after the other would leave it with the last.
        random.Random(0).shuffle(lines)
        source = folder / "train.txt"
        source.write_text("".join(lines), encoding="utf-8", errors="replace")
        model = import_module("fasttext").train_supervised(str(source), thread=1, seed=0, verbose=0, **self._settings)
        partial = folder / "model.partial"
        model.save_model(str(partial))
        partial.rename(target)
        source.unlink()

    def load(self, folder: Path) -> None:
        """Load the model."""
        names = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self._names = {f"{_PREFIX}{index}": name for index, name in enumerate(names)}
        self._model = import_module("fasttext").load_model(str(folder / "model.bin"))

    def predict(self, texts: list[str]) -> list[str]:
        """Return a label for each text."""
        labels, _ = self._model.predict([_line(text) for text in texts])
        return [self._names[found[0]] if found else "" for found in labels]


def _line(text: str) -> str:
    """Return a text on one line: fastText refuses line feeds."""
    return text.replace("\n", " ")
