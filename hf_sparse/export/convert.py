"""The command `hf-sparse export`: a student as ONNX, compared with itself."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np

from hf_sparse.export.classifier import MODEL_FILE, OnnxClassifier
from hf_sparse.export.graph import OPSET, StudentGraph
from hf_sparse.files import replace_folder, write_json
from hf_sparse.runtime.folder import student_folder
from hf_sparse.runtime.weights import check_weights, map_weights
from hf_sparse.student import SparseNgramForSequenceClassification, SparseNgramTokenizer

_COPIED: Final = ("config.json", "tokenizer_config.json", "vocabulary.safetensors")
_PROBES: Final = ("", "a", "Not a good film, not at all!", "Ünïcode 中文 <br />", "word " * 50, "the film was good")
# Of float32; in half precision torch adds rows with as many digits as these have.
_TOLERANCES: Final = {"float16": 2e-2, "bfloat16": 1e-1}


def export(
    model: str,
    output: str,
    *,
    revision: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a student as ONNX, with ids in and probabilities out.

    Rows keep their type: a table of int8 or int4 is as small in the file. The folder also gets the vocabulary, the
    config and `onnx.json`, which names inputs, outputs and labels. What it answers is compared with torch.

    Args:
        model: Folder of a student, or its repository on the Hub.
        output: Folder to write.
        revision: Branch, tag or commit of the repository.
        overwrite: Replace an output that exists.

    Returns:
        What `onnx.json` holds: `opset`, `inputs`, `outputs`, `labels`, `problem_type`, `bytes` and `difference`, the
        largest one of logits from those of torch.

    Raises:
        FileExistsError: The output exists.
        ValueError: The student does not load, or ONNX Runtime answers differently.
    """
    source, target = student_folder(model, revision=revision), Path(output)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{output} exists already: remove it, name another output, or say overwrite")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        described = _write(source, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    replace_folder(partial, target)
    return described


def format_export(described: dict[str, Any]) -> str:
    """Return what was written."""
    return (
        f"{MODEL_FILE}: {described['bytes'] / 1e6:,.1f} MB, opset {described['opset']}, "
        f"{', '.join(described['inputs'])} to {', '.join(described['outputs'])}\n"
        f"logits differ from those of torch by {described['difference']:.2g} at most"
    )


def _write(source: Path, folder: Path) -> dict[str, Any]:
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    weights = map_weights(source)
    check_weights(config, weights, where=source)
    proto = StudentGraph(config, weights).save(folder / MODEL_FILE)
    for name in _COPIED:
        shutil.copyfile(source / name, folder / name)
    names = config.get("id2label") or {}
    difference = _difference(source, folder)
    described = {
        "opset": OPSET,
        "inputs": {one.name: ["batch", "length"] for one in proto.graph.input},
        "outputs": {one.name: ["batch", "labels"] for one in proto.graph.output},
        "labels": [names[key] for key in sorted(names, key=int)],
        "problem_type": config.get("problem_type") or "single_label_classification",
        "pad_token_id": 0,
        "bytes": sum(path.stat().st_size for path in folder.glob(f"{MODEL_FILE}*")),
        "difference": difference,
    }
    tolerance = _TOLERANCES.get(config.get("table_dtype", "float32"), 1e-3)
    if not difference <= tolerance:  # a NaN is no number to accept either
        raise ValueError(f"ONNX Runtime answers differently: its logits are {difference} from torch's")
    write_json(folder / "onnx.json", described)
    return described


def _difference(source: Path, folder: Path) -> float:
    """Return how far the logits of ONNX Runtime are from those of torch, relative to the largest above 1."""
    import torch

    model = SparseNgramForSequenceClassification.from_pretrained(source).train(False)
    tokenizer = SparseNgramTokenizer.from_pretrained(source)
    texts = list(_PROBES)
    partners = texts[::-1] if model.config.sentence_pairs else None
    batch = tokenizer.extract(texts, partners)
    with torch.inference_mode():
        expected = model(input_ids=torch.from_numpy(batch.ids), lengths=torch.from_numpy(batch.lengths)).logits
    found = OnnxClassifier(folder).predict_logits(texts, partners)
    logits = expected.float().numpy()
    return float(np.abs(found - logits).max() / max(1.0, float(np.abs(logits).max())))
