"""The teacher in ONNX Runtime with dynamically quantised int8 weights."""

from importlib import import_module
from pathlib import Path
from typing import Any

_INTERNAL_BATCH = 32


class OnnxTeacher:
    """`torch.onnx.export`, then onnxruntime's `quantize_dynamic`."""

    def __init__(self, *, threads: int, model: str, names: list[str], max_length: int) -> None:
        """Take the model's folder, the names of its labels by index, and its longest input."""
        self._threads, self._model, self._names, self._max_length = threads, model, names, max_length
        self.note = f"texts sorted by length, batches of {_INTERNAL_BATCH}, first {max_length} tokens"

    def prepare(self, folder: Path) -> None:
        """Export and quantise, unless that was done before."""
        target = folder / "int8.onnx"
        if target.exists():
            return
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model: Any = AutoModelForSequenceClassification.from_pretrained(self._model, dtype=torch.float32).eval()
        tokenizer: Any = AutoTokenizer.from_pretrained(self._model)
        # Of two lengths: an example without padding is exported as a model that does not look at the mask.
        example = tokenizer(
            ["a text", "a longer text"], padding=True, return_token_type_ids=False, return_tensors="pt"
        )
        dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        exported = folder / "float32.onnx"
        torch.onnx.export(
            _logits_only(model),
            (example["input_ids"], example["attention_mask"]),
            exported,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": dynamic, "attention_mask": dynamic},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        quantization = import_module("onnxruntime.quantization")
        partial = folder / "int8.partial.onnx"
        quantization.quantize_dynamic(exported, partial, weight_type=quantization.QuantType.QInt8, per_channel=True)
        partial.rename(target)
        exported.unlink()

    def load(self, folder: Path) -> None:
        """Make a session with as many threads as the others have."""
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(self._model)
        onnxruntime = import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(folder / "int8.onnx"), options, providers=["CPUExecutionProvider"]
        )

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
                return_tensors="np",
            )
            logits = self._session.run(["logits"], dict(inputs))[0]
            for index, answer in zip(chosen, logits.argmax(axis=1).tolist(), strict=True):
                labels[index] = self._names[answer]
        return labels


def _logits_only(model: Any) -> Any:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits

    return Logits().eval()
