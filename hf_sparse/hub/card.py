"""The model card, rendered from the JSON files of a student alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2

from hf_sparse.files import write_atomic
from hf_sparse.hub.metadata import card_metadata, eval_results
from hf_sparse.runtime.student_files import NgramVocabulary

# What a card says in the place of the repository until it is pushed.
PLACEHOLDER: Final = "<this repo or folder>"
_TEMPLATE: Final = Path(__file__).parent / "card.md.jinja"
_PICTURES: Final = {
    "accuracy.png": "Accuracy against microseconds a text",
    "latency.png": "Microseconds a text against its length, one text at a time",
    "cascade.png": "Accuracy against the share of texts handed over to the teacher",
}
_SCORES: Final = {
    "single_label_classification": ["accuracy", "macro_f1"],
    "multi_label_classification": ["accuracy", "macro_f1", "micro_f1"],
    "regression": ["mean_squared_error", "pearson"],
}


def card(folder: str) -> dict[str, Any]:
    """Write the model card of a student anew, from `report.json` and `benchmark.json` in its folder.

    Where there is no report, as for students that no recipe has made, the card says what the config says.

    Args:
        folder: The folder of a student.

    Returns:
        `files`: what was written.

    Raises:
        FileNotFoundError: There is neither a report nor a config.
        ValueError: One of them cannot be read.
    """
    return {"files": write_card(Path(folder))}


def format_card(result: dict[str, Any]) -> str:
    """Return what was written."""
    return "\n".join(result["files"])


def write_card(folder: Path) -> list[str]:
    """Write `README.md` and `.eval_results/*.yaml` of a student; see `card`."""
    found = {name: _read(folder / f"{name}.json") for name in ("report", "benchmark", "compression")}
    report = _described(folder) if found["report"] is None else found["report"]
    pictures = [name for name in _PICTURES if (folder / name).is_file()]
    text = render_card(report, found["benchmark"], found["compression"], pictures=pictures)
    # The scores of a student before it was compressed are not those of what lies here.
    files = {"README.md": text, **(eval_results(report) if found["compression"] is None else {})}
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomic(folder / name, content)
    return [str(folder / name) for name in files]


def render_card(
    report: Mapping[str, Any],
    benchmark: Mapping[str, Any] | None = None,
    compression: Mapping[str, Any] | None = None,
    *,
    pictures: list[str] | None = None,
) -> str:
    """Return the README.md of a student, metadata included.

    Args:
        report: What `report.json` holds; without `student` nothing is said of results and training.
        benchmark: What `benchmark.json` holds, if the student was measured against others.
        compression: What `compression.json` holds, if this is a compressed student.
        pictures: Names of the pictures beside the card.
    """
    teacher = report["teacher"]
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"code": _code, "cell": _cell}
    columns, rows = _results(report, is_compressed=compression is not None) if "student" in report else ([], {})
    body = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        facts=report.get("hub", {}),
        columns=columns,
        rows=rows,
        speeds=_speeds(benchmark),
        benchmark=benchmark,
        compression=compression,
        pictures={name: _PICTURES[name] for name in pictures or []},
        placeholder=PLACEHOLDER,
        last=compression["steps"][-1] if compression else None,
        pairs=report["sentence_pairs"] if "sentence_pairs" in report else _has_pairs(report),
        # In reports of earlier versions only the recipe said it.
        pooling=report.get("pooling") or report["recipe"].get("student", {}).get("pooling", "mean"),
        teacher_name=None if teacher is None else teacher["base_model"] or Path(teacher["model"]).name,
    )
    metadata = card_metadata(report, is_compressed=compression is not None)
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"


def _described(folder: Path) -> dict[str, Any]:
    """Return what a report would say of a student that no run has made, from its config and vocabulary."""
    config = _read(folder / "config.json")
    if config is None:
        raise FileNotFoundError(f"there is no config.json in {str(folder)!r}: it is not the folder of a student")
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # what transformers takes for granted
    return {
        "teacher": None,
        "problem_type": config.get("problem_type") or "single_label_classification",
        "labels": [names[key] for key in sorted(names, key=int)],
        "sentence_pairs": config["sentence_pairs"],
        "num_ngrams": config["vocab_size"] - 1,
        "pooling": config["pooling"],
        "recipe": {"vocabulary": {"max_n": NgramVocabulary.load(folder).max_n}},
    }


def _results(report: Mapping[str, Any], *, is_compressed: bool) -> tuple[list[str], dict[str, list[str]]]:
    """Return the column names and, for each classifier, the cells of the table of results.

    What only the student has, agreement, calibration and size, stands in its row alone.
    """
    # There are no scores where the texts had no labels.
    names = [name for name in _SCORES[report["problem_type"]] if name in report["student"]]
    scores = {"teacher": report["teacher"], "student": report["student"]}
    if "student_with_thresholds" in report:
        scores["student, its thresholds"] = report["student_with_thresholds"]
    if names:
        baselines = report.get("baselines", {})
        scores |= {who: found.get(report["text_set"], found["validation"]) for who, found in baselines.items()}
    rows = {who: [f"{found[name]:.4f}" for name in names] for who, found in scores.items()}
    columns = [name.replace("_", " ") for name in names]
    if names:
        for column, value in _of_the_student(report, is_compressed=is_compressed).items():
            columns.append(column)
            for who, cells in rows.items():
                cells.append(value if who == "student" else "")
    if "texts_per_second" in report:
        columns.append("texts per second")
        speeds = report["texts_per_second"]
        for who, cells in rows.items():
            cells.append(f"{speeds[who]:,.0f}" if who in speeds else "")
    return columns, rows


def _of_the_student(report: Mapping[str, Any], *, is_compressed: bool) -> dict[str, str]:
    found = {"agreement": f"{report['agreement']:.4f}"}
    calibration = (report.get("calibration") or {}).get(report["text_set"])
    if calibration is not None:
        found["ECE, calibrated"] = f"{calibration['ece_before']:.4f} → {calibration['ece_after']:.4f}"
    num_bytes = report.get("hub", {}).get("file_bytes")
    if num_bytes is not None and not is_compressed:
        found["MB"] = f"{num_bytes / 1e6:,.1f}"
    return found


def _speeds(benchmark: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the table of the benchmark: each contestant in the cell that stands for the rest, one thread."""
    if benchmark is None:
        return None
    from hf_sparse.benchmark.tables import headline_cell
    from hf_sparse.benchmark.targets import find_cell

    length, batch_size = headline_cell(dict(benchmark))
    measured = []
    for one in benchmark["contestants"]:
        cell = find_cell(dict(benchmark), one["name"], threads=1, length=length, batch_size=batch_size)
        if cell is not None and one["name"] != "extraction":
            measured.append((cell["warm"]["median"], one, cell))
    most = max((one["accuracy"]["num_texts"] for _, one, _ in measured if one["accuracy"]), default=0)
    best = min((time for time, _, _ in measured), default=1.0)
    rows = []
    for time, one, cell in sorted(measured, key=lambda found: found[0]):
        mark = " \\*" if cell["is_extrapolated"] else ""
        spread = cell["warm"]["iqr"] / batch_size * 1e6
        accuracy, size = one["accuracy"], one["file_bytes"]
        rows.append(
            [
                one["title"],
                f"{time / batch_size * 1e6:,.1f} ± {spread:,.1f}{mark}",
                f"{time / best:,.1f}",
                f"{accuracy['value']:.4f}" if accuracy and accuracy["num_texts"] == most else "",
                f"{size / 1e6:,.1f}" if size else "",
            ]
        )
    return {"length": length, "batch_size": batch_size, "rows": rows}


def _has_pairs(report: Mapping[str, Any]) -> bool:
    texts = report["recipe"].get("data", {})
    sources = [texts.get("train"), *texts.get("corpus", [])]
    return any(source and source.get("text_pair_column") for source in sources)


def _code(text: str) -> str:
    """Return a text as code in a cell of a Markdown table."""
    plain = " ".join(text.split()).replace("|", "\\|")
    return f"`` {plain} ``" if "`" in plain else f"`{plain}`"


def _cell(text: str) -> str:
    """Return a text without what would end a cell of a Markdown table, or become HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no JSON: {error}; remove it, or make it anew") from error
