"""Transformer encoders in torch: the teacher, and well-known architectures with random weights."""

from pathlib import Path
from typing import Any

import torch
import transformers

_INTERNAL_BATCH = 32
_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "roberta-large": {
        "model_type": "roberta",
        "vocab_size": 50265,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    },
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "max_position_embeddings": 512,
    },
}


class Teacher:
    """A fine-tuned encoder from its folder."""

    def __init__(
        self, *, threads: int, model: str, names: list[str], dtype: str, max_length: int, device: str = "cpu"
    ) -> None:
        """Take the model's folder, the names of its labels by index, the type of its weights and its longest input."""
        torch.set_num_threads(threads)
        self._folder, self._dtype, self._device = model, getattr(torch, dtype), device
        self._names, self._max_length = names, max_length
        self.note = f"texts sorted by length, batches of {_INTERNAL_BATCH}, first {max_length} tokens"

    def load(self, folder: Path) -> None:
        """Load the weights and the tokenizer.

        Raises:
            RuntimeError: If the device is a GPU and there is none.
        """
        if self._device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("no GPU on this machine")
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(self._folder)
        self._model = self._make_model().eval().to(self._device)

    def predict(self, texts: list[str]) -> list[str]:
        """Return a label for each text."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        labels = [""] * len(texts)
        for start in range(0, len(order), _INTERNAL_BATCH):
            chosen = order[start : start + _INTERNAL_BATCH]
            inputs = self._tokenizer(
                [texts[index] for index in chosen],
                padding=True,
                truncation=True,
                max_length=self._max_length,
                return_token_type_ids=False,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                answers = self._model(**inputs).logits.argmax(dim=1).tolist()
            for index, answer in zip(chosen, answers, strict=True):
                labels[index] = self._names[answer]
        return labels

    def _make_model(self) -> Any:
        auto = transformers.AutoModelForSequenceClassification
        return auto.from_pretrained(self._folder, dtype=self._dtype)


class Architecture(Teacher):
    """An architecture with random weights: speed does not depend on them.

    The tokenizer is the teacher's, a real one with about the same number of tokens for English.
    """

    def __init__(self, *, architecture: str, **settings: Any) -> None:
        """Take the name of the architecture; the rest is the teacher's."""
        super().__init__(**settings)
        self._architecture = architecture
        self.note += "; random weights; the teacher's tokenizer"

    def _make_model(self) -> Any:
        settings = dict(_ARCHITECTURES[self._architecture])
        # Padding has the id of the tokenizer at hand: RoBERTa counts its positions by what is not padding.
        config = transformers.AutoConfig.for_model(
            settings.pop("model_type"),
            num_labels=len(self._names),
            pad_token_id=self._tokenizer.pad_token_id,
            **settings,
        )
        torch.manual_seed(0)
        return transformers.AutoModelForSequenceClassification.from_config(config).to(self._dtype)
