"""What a student is, read from its files: without its weights, and without running anything."""

from pathlib import Path
from typing import Any, Final

from hf_sparse.files import read_json
from hf_sparse.hub.metadata import answered
from hf_sparse.hub.verify import verify_student
from hf_sparse.runtime.folder import fetch
from hf_sparse.runtime.student_config import read_config

_SMALL: Final = ("config.json", "report.json", "compression.json", "*.index.json", "README.md")
_SCORES: Final = ("accuracy", "macro_f1", "pearson", "mean_squared_error")
_WEIGHTS: Final = ("model*.safetensors", "vocabulary.safetensors")
_BY_THRESHOLDS: Final = "the student's scores are by its own; the teacher's, retention and agreement by 0.5"


def info(model: str, *, revision: str | None = None, verify: bool = False) -> dict[str, Any]:
    """Say what a student is.

    Args:
        model: Folder of a student, or its repository on the Hub, of which only the small files are fetched.
        revision: Branch, tag or commit of the repository.
        verify: Fetch all of it and check that it is whole: that code, vocabulary and weights belong together, and that
            torch and the runtime give the same answers.

    Returns:
        Shape, labels, size, and what the report says of accuracy, speed, teacher and licence.

    Raises:
        FileNotFoundError: There is no student.
        ValueError: It is no student, or `verify` finds something that does not fit.
    """
    folder = Path(model) if Path(model).is_dir() else fetch(model, revision=revision, files=None if verify else _SMALL)
    config = read_config(folder)
    if verify:
        verify_student(folder)
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # what transformers takes for granted
    files = [path for pattern in _WEIGHTS for path in folder.glob(pattern)]
    return {
        "model": model,
        "problem_type": config.get("problem_type") or "single_label_classification",
        "labels": [names[key] for key in sorted(names, key=int)],
        "sentence_pairs": config["sentence_pairs"],
        "num_ngrams": config["vocab_size"] - 1,
        "embedding_size": config["embedding_size"],
        "hidden_sizes": config["hidden_sizes"],
        "pooling": config["pooling"],
        "table_dtype": config.get("table_dtype", "float32"),
        "calibrated": config.get("calibration_temperature") is not None,
        "bytes": sum(path.stat().st_size for path in files) if files else None,
        **_reported(folder),
        "verified": verify or None,
    }


def format_info(found: dict[str, Any]) -> str:
    """Return the facts, one a line."""
    shown = {
        name: f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in found.items()
        if value is not None
    }
    shown |= {name: ", ".join(map(str, value)) for name, value in shown.items() if isinstance(value, list)}
    width = max(map(len, shown))
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {value}" for name, value in shown.items())


def _reported(folder: Path) -> dict[str, Any]:
    """Return what the report says, and of a compressed student what is known of itself."""
    if not (folder / "report.json").is_file():
        return {}
    report = read_json(folder / "report.json")
    speeds = report.get("texts_per_second", {})
    measured = {
        **{name: answered(report).get(name) for name in _SCORES},
        "retention": report["retention"],
        "agreement": report["agreement"],
        "texts_per_second": speeds.get("student") and round(speeds["student"]),
    }
    compression = folder / "compression.json"
    if compression.is_file():
        last = read_json(compression)["steps"][-1]
        measured = {f"{name}_before_compression": value for name, value in measured.items()}
        measured |= {"accuracy": last["accuracy"], "agreement_with_that_before_compression": last["agreement"]}
    return {
        "teacher": report["teacher"]["base_model"] or report["teacher"]["model"],
        "license": report.get("hub", {}).get("license"),
        **{f"teacher_{name}": report["teacher"].get(name) for name in _SCORES},
        **measured,
        "thresholds": _BY_THRESHOLDS if "student_with_thresholds" in report else None,
        "teacher_texts_per_second": speeds.get("teacher") and round(speeds["teacher"]),
    }
