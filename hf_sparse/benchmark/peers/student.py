"""The student, as its users call it: the runtime, the model with its tokenizer, the pipeline, and extraction alone."""

from importlib import import_module
from pathlib import Path
from typing import Any


class Runtime:
    """`hf_sparse.runtime.NgramClassifier`: neither torch nor transformers."""

    def __init__(self, *, threads: int, model: str) -> None:
        """Take the student's folder."""
        self._threads, self._model = threads, model

    def prepare(self, folder: Path) -> None:
        """Compile the kernels into the cache on disk."""
        self.load(folder)
        self.predict(["a text"])

    def import_libraries(self) -> None:
        """Import what the student's user imports."""
        self._class = import_module("hf_sparse.runtime").NgramClassifier

    def load(self, folder: Path) -> None:
        """Load the student."""
        self.import_libraries()
        self._classifier = self._class.from_pretrained(self._model, num_threads=self._threads)

    def predict(self, texts: list[str]) -> list[str]:
        """Return a label for each text."""
        labels: list[str] = self._classifier.predict(texts)
        return labels


class Extraction:
    """Texts to n-gram ids, no further."""

    def __init__(self, *, threads: int, model: str) -> None:
        """Take the student's folder."""
        self._model = model

    def prepare(self, folder: Path) -> None:
        """Compile the kernels into the cache on disk."""
        self.load(folder)
        self.predict(["a text"])

    def load(self, folder: Path) -> None:
        """Load the vocabulary."""
        vocabulary = import_module("hf_sparse.student.vocabulary_sparse_ngram").NgramVocabulary.load(self._model)
        extraction = import_module("hf_sparse.student.extraction_sparse_ngram")
        self._extractor = extraction.NgramExtractor(vocabulary, compiled=True)

    def predict(self, texts: list[str]) -> list[str]:
        """Extract, and answer nothing."""
        self._extractor.extract(texts)
        return []


class ModelCall:
    """`model(**tokenizer(texts, padding=True, return_tensors="pt"))`."""

    def __init__(self, *, threads: int, model: str, device: str = "cpu") -> None:
        """Take the student's folder."""
        self._threads, self._model_name, self._device = threads, model, device

    def prepare(self, folder: Path) -> None:
        """Compile the kernels into the cache on disk, where there are any."""
        self.load(folder)
        self.predict(["a text"])

    def import_libraries(self) -> None:
        """Import what the student's user imports."""
        import torch
        import transformers

        self._torch = torch
        self._transformers: Any = transformers
        torch.set_num_threads(self._threads)
        if self._device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("no GPU on this machine")

    def load(self, folder: Path) -> None:
        """Load the student with the code of its own repository."""
        self.import_libraries()
        auto = self._transformers
        self._tokenizer = auto.AutoTokenizer.from_pretrained(self._model_name, trust_remote_code=True)
        model = auto.AutoModelForSequenceClassification.from_pretrained(self._model_name, trust_remote_code=True)
        self._model = model.eval().to(self._device)
        self._names = self._model.config.id2label

    def predict(self, texts: list[str]) -> list[str]:
        """Return a label for each text."""
        inputs = self._tokenizer(texts, padding=True, return_tensors="pt").to(self._device)
        with self._torch.inference_mode():
            logits = self._model(**inputs).logits
        return [self._names[index] for index in logits.argmax(dim=1).tolist()]


class Pipeline(ModelCall):
    """`pipeline("text-classification", model=..., trust_remote_code=True)` on a list, or on a single text."""

    def load(self, folder: Path) -> None:
        """Make the pipeline."""
        self.import_libraries()
        self._pipeline = self._transformers.pipeline(
            "text-classification", model=self._model_name, trust_remote_code=True, device=self._device
        )

    def predict(self, texts: list[str]) -> list[str]:
        """Return a label for each text."""
        if len(texts) == 1:
            return [self._pipeline(texts[0])[0]["label"]]
        return [result["label"] for result in self._pipeline(texts, batch_size=256)]
