"""A student as the page shows it: its answer to a text, what it rests on, and how long it took."""

import json
import statistics
import time
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Final

import yaml

from hf_sparse.explanation.explain import Explainer
from hf_sparse.explanation.show import every_ngram, text_section
from hf_sparse.hub.verify import read_metadata
from hf_sparse.runtime import NgramClassifier
from hf_sparse.runtime.folder import student_folder

_TIMED_CALLS: Final = 50
_TIMED_SECONDS: Final = 0.2
_TOP_NGRAMS: Final = 12
_MOST_NGRAMS: Final = 1000
_MOST_WORDS: Final = 5000
_MOST_LABELS: Final = 20
_TEACHER: Final = "teacher-fp32"  # a contestant of the benchmark
_STYLE: Final = """
#answer table { border-collapse: collapse; width: 100%; max-width: 36rem; margin: 0.5rem 0 1rem; }
#answer caption { text-align: left; font-size: 0.9rem; }
#answer th, #answer td { border: none; border-bottom: 1px solid #8884; padding: 0.25rem 0.6rem; text-align: left; }
#answer td.number { text-align: right; font-variant-numeric: tabular-nums; width: 6rem; }
#answer .bar { background: #8884; border-radius: 0.2rem; height: 0.8rem; min-width: 4rem; }
#answer .bar div { background: #2563eb; border-radius: 0.2rem; height: 100%; }
#answer .words { overflow-wrap: anywhere; line-height: 1.9; }
#answer .words span { padding: 0.1em 0.2em; border-radius: 0.2em; color: #111; }
#answer .ngrams { list-style: none; padding: 0; }
#answer .ngrams li { display: inline-block; margin-right: 0.8em; }
#answer summary { cursor: pointer; }
#answer .for { color: #1a7f37; } #answer .against { color: #b91c1c; }
.dark #answer .for { color: #4ade80; } .dark #answer .against { color: #fda4af; }
"""


class TriedStudent:
    """A student and what its folder says of it.

    Args:
        model: Folder, or repository on the Hub.
        revision: Branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: There is no student.
        ValueError: It cannot be loaded; the message says why.
    """

    def __init__(self, model: str, *, revision: str | None = None) -> None:
        # Without its code: nothing of a repository is run.
        self.folder = student_folder(model, revision=revision)
        self.name = self.folder.resolve().name if Path(model).is_dir() else model
        self.classifier = NgramClassifier.from_pretrained(self.folder)
        self.explainer = Explainer(self.folder)
        # The first call compiles kernels: nobody who tries the page should wait for that.
        self.classifier.predict_proba([""], [""] if self.classifier.sentence_pairs else None)
        self.report, self.benchmark = (_read(self.folder / f"{name}.json") for name in ("report", "benchmark"))

    @property
    def examples(self) -> list[list[str]]:
        """The examples of the model card, each with as many texts as the student takes."""
        found = self.report.get("hub", {}).get("examples", [])
        if not found and (self.folder / "README.md").is_file():
            try:
                found = read_metadata(self.folder / "README.md").get("widget") or []
            except (ValueError, yaml.YAMLError):
                found = []
        names = ("text", "text_pair") if self.classifier.sentence_pairs else ("text",)
        return [[str(example[name]) for name in names] for example in found if all(name in example for name in names)]

    def answer(self, text: str, text_pair: str | None = None) -> str:
        """Return the answer to a text, or a pair, as HTML: label, probabilities, time and n-grams."""
        pairs = None if text_pair is None else [text_pair]
        scores = self.classifier.predict_proba([text], pairs)[0].tolist()
        parts = [f"<style>{_STYLE}</style>", self._verdict(scores), self._time([text], pairs)]
        explanation = self.explainer.explain(text, text_pair)
        if explanation.ngrams:
            title = f"What speaks for and against {explanation.label}"
            shown = replace(explanation, words=explanation.words[:_MOST_WORDS])
            parts.append(text_section(shown, top=_TOP_NGRAMS, title=title))
            if len(explanation.words) > _MOST_WORDS:
                parts.append(f"<p>The first {_MOST_WORDS:,} of {len(explanation.words):,} words are shown.</p>")
            parts.append(every_ngram(explanation, most=_MOST_NGRAMS))
        else:
            parts.append("<p>It knows none of the words: this is what it answers to any such text.</p>")
        return "\n".join(parts)

    def _verdict(self, scores: list[float]) -> str:
        if self.classifier.problem_type == "regression":
            return f"<h2>{scores[0]:.4g}</h2>"
        labels = self.classifier.labels
        ranked = sorted(zip(labels, scores, strict=True), key=lambda item: -item[1])
        if self.classifier.problem_type == "multi_label_classification":
            limits = dict(zip(labels, self.classifier.label_thresholds.tolist(), strict=True))
            chosen = [label for label, score in ranked if score > limits[label]]
        else:
            chosen = [ranked[0][0]]
        rows = "".join(
            f"<tr><th scope='row'>{escape(label)}</th><td class='number'>{score:.3f}</td>"
            f"<td aria-hidden='true'><div class='bar'><div style='width: {100 * score:.1f}%'></div></div></td></tr>"
            for label, score in ranked[:_MOST_LABELS]
        )
        title = escape(", ".join(chosen)) or "none of the labels"
        return f"<h2 id='label'>{title}</h2><table><caption>probability of each label</caption>{rows}</table>"

    def _time(self, texts: list[str], pairs: list[str] | None) -> str:
        seconds: list[float] = []
        while len(seconds) < _TIMED_CALLS and sum(seconds) < _TIMED_SECONDS:
            started = time.perf_counter()
            self.classifier.predict_proba(texts, pairs)
            seconds.append(time.perf_counter() - started)
        calls = f"median of {len(seconds)} calls, one thread" if len(seconds) > 1 else "one thread"
        own = f"{1e6 * statistics.median(seconds):,.0f} µs for this text ({calls})"
        return f"<p id='time'>{own}{self._teachers_time()}</p>"

    def _teachers_time(self) -> str:
        """Return what the report, or the benchmark, says of the teacher; nothing where neither has measured it."""
        speeds = self.report.get("texts_per_second", {})
        if "teacher" in speeds:
            conditions = self.report["speed_conditions"]
            words, kind, rate = conditions["mean_words"], conditions["teacher"], speeds["teacher"]
        else:
            cells = [
                cell
                for cell in self.benchmark.get("cells", [])
                if cell["contestant"] == _TEACHER and cell["batch_size"] == 1 and cell["texts_per_second"]
            ]
            if not cells:
                return ""
            # Texts that people type are short.
            cell = min(cells, key=lambda cell: (cell["threads"], cell["length"]))
            words, kind, rate = cell["length"], "torch.float32", cell["texts_per_second"]
        taken = f"its teacher took {1e6 / rate:,.0f} µs a text of {words:.0f} words when measured"
        return f"; {taken} ({escape(kind)})"


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
