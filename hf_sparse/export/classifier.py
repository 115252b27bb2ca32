"""A student in ONNX Runtime, from text to probabilities."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from hf_sparse.runtime.student_files import NgramExtractor, NgramVocabulary

MODEL_FILE: Final = "model.onnx"


class OnnxClassifier:
    """Classifies texts by the folder that `hf-sparse export` has written; neither torch nor transformers is loaded.

    Args:
        folder: That folder.
        num_threads: Threads of ONNX Runtime.

    Raises:
        FileNotFoundError: There is no such model.
    """

    def __init__(self, folder: str | os.PathLike[str], *, num_threads: int = 1) -> None:
        if not (Path(folder) / MODEL_FILE).is_file():
            raise FileNotFoundError(f"there is no {MODEL_FILE} in {str(folder)!r}; write it with hf-sparse export")
        self.config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self._extractor = NgramExtractor(NgramVocabulary.load(Path(folder)))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        path = str(Path(folder) / MODEL_FILE)
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict_logits(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> npt.NDArray[np.float32]:
        """Return logits (B, C); see `predict_proba`."""
        return self._run("logits", texts, text_pairs)

    def predict_proba(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> npt.NDArray[np.float32]:
        """Return probabilities (B, C), of a regression its numbers.

        Args:
            texts: B texts; all of them are one batch, padded to the longest.
            text_pairs: Their partners, for a student of sentence pairs.

        Raises:
            ValueError: `text_pairs` does not fit the student.
        """
        is_regression = self.config.get("problem_type") == "regression"
        return self._run("logits" if is_regression else "probabilities", texts, text_pairs)

    def _run(self, output: str, texts: Sequence[str], text_pairs: Sequence[str] | None) -> npt.NDArray[np.float32]:
        if self.config["sentence_pairs"] != (text_pairs is not None):
            wants = "pairs: give text_pairs" if text_pairs is None else "single texts: leave text_pairs out"
            raise ValueError(f"this student takes {wants}")
        batch = self._extractor.extract(list(texts))
        inputs = {"input_ids": pad(batch.ids, batch.lengths)}
        if text_pairs is not None:
            second = self._extractor.extract(list(text_pairs))
            other = pad(second.ids, second.lengths)
            sides = [np.zeros_like(inputs["input_ids"]), np.ones_like(other)]
            inputs = {
                "input_ids": np.concatenate([inputs["input_ids"], other], axis=1),
                "token_type_ids": np.concatenate(sides, axis=1),
            }
        found: npt.NDArray[np.float32] = self._session.run([output], inputs)[0]
        return found


def pad(ids: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Turn flat ids (N,) with lengths (B,) into padded ones (B, L), L at least 1."""
    padded = np.zeros((len(lengths), max(1, int(lengths.max(initial=0)))), np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = ids
    return padded
