"""The page, in Gradio: a tab for a text, a tab for a file."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hf_sparse.demo.tried_student import TriedStudent

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported

import gradio as gr

from hf_sparse.prediction import predict
from hf_sparse.prediction.formats import file_format
from hf_sparse.prediction.readers import Reader

_PREVIEW_ROWS: Final = 20
_HOUR: Final = 3600  # seconds after which what was uploaded, and its answers, are deleted
_SUFFIXES: Final = [".csv", ".tsv", ".jsonl", ".parquet", ".txt"]
# The answer is read aloud when it changes, and its texts may be reached without a mouse.
_ANNOUNCE: Final = """() => {
    const answer = document.getElementById("answer");
    answer.setAttribute("role", "status");
    answer.setAttribute("aria-live", "polite");
}"""


def build_app(model: str, *, revision: str | None = None) -> gr.Blocks:
    """Return the page for a student; `launch()` serves it.

    Args:
        model: Folder, or repository on the Hub; nothing in it is run.
        revision: Branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: There is no student.
        ValueError: It cannot be loaded; the message says why.
    """
    student = TriedStudent(model, revision=revision)
    app = gr.Blocks(title=student.name, delete_cache=(_HOUR, _HOUR))
    with app:
        gr.Markdown(f"# {_escape(student.name)}\n\n{_about(student)}")
        with gr.Tab("A text"):
            _text_tab(student)
        with gr.Tab("A file"):
            _file_tab(student)
        app.load(js=_ANNOUNCE)
    return app


def _text_tab(student: TriedStudent) -> None:
    is_pairs = student.classifier.sentence_pairs
    inputs = [gr.Textbox(label="Text", lines=3, elem_id="text")]
    if is_pairs:
        inputs.append(gr.Textbox(label="Its partner", lines=3, elem_id="text_pair"))
    button = gr.Button("Classify", variant="primary", elem_id="classify")
    answer = gr.HTML(elem_id="answer")
    if student.examples:
        gr.Examples(student.examples, inputs=inputs)
    gr.on([button.click, *(box.submit for box in inputs)], student.answer, inputs, answer, api_name="classify")


def _file_tab(student: TriedStudent) -> None:
    gr.Markdown(
        "CSV, TSV, JSON Lines or Parquet with a column of texts, or plain text with one a line. The answers are added "
        "as columns."
    )
    file = gr.File(label="File", file_types=_SUFFIXES, type="filepath", elem_id="file")
    column = gr.Textbox(label="Column of the texts", value="text", elem_id="column")
    inputs: list[Any] = [file, column]
    if student.classifier.sentence_pairs:
        inputs.append(gr.Textbox(label="Column of their partners", value="text_pair", elem_id="pair_column"))
    button = gr.Button("Classify the file", variant="primary", elem_id="classify_file")
    said = gr.Markdown(elem_id="said")
    preview = gr.Dataframe(label=f"The first {_PREVIEW_ROWS} rows", interactive=False, wrap=True, elem_id="preview")
    result = gr.File(label="All rows, as CSV", interactive=False, elem_id="result")

    def classify_file(path: str | None, text_column: str, pair_column: str | None = None) -> Iterator[Any]:
        with tempfile.TemporaryDirectory(prefix="hf-sparse-") as folder:
            try:
                answers = _classify_file(student, path, text_column, pair_column, folder=Path(folder))
            except (ValueError, OSError) as error:
                raise gr.Error(" ".join(str(error).split()), duration=None) from error
            yield answers  # Gradio copies the file before it asks for more

    button.click(classify_file, inputs, [said, preview, result], api_name="classify_file")


def _classify_file(
    student: TriedStudent, path: str | None, text_column: str, pair_column: str | None, *, folder: Path
) -> Any:
    if path is None:
        raise ValueError("choose a file first")
    output = folder / f"{Path(path).stem}-classified.csv"
    count = predict(
        str(student.folder),
        input=path,
        output=str(output),
        text_column=text_column,
        text_pair_column=pair_column,
        quiet=True,
    )
    rows = next(
        iter(
            Reader(
                str(output),
                file_format(str(output), None, standard="csv", option="input_format"),
                text_column=text_column,
                text_pair_column=pair_column,
                batch_size=_PREVIEW_ROWS,
                keep_columns=True,
            )
        )
    )
    columns = {name: list(values) for name, values in rows.columns().items()}
    table = {"headers": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}
    return f"{count:,} rows classified.", table, str(output)


def _about(student: TriedStudent) -> str:
    config = student.explainer.model.config
    teacher = student.report.get("teacher", {}).get("base_model")
    made_of = f", distilled from `{teacher}`" if teacher else ""
    return (
        f"A network over {config.vocab_size - 1:,} n-grams{made_of}. It looks up the n-grams of a text and "
        "classifies what they add up to; no transformer runs here."
    )


def _escape(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>#" else sign for sign in text)
