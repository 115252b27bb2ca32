"""The model card: front matter that parses, and every figure from the report."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from hf_sparse.distillation.reporting import format_summary
from hf_sparse.hub.card import render_card, write_card
from hf_sparse.hub.metadata import eval_results
from hf_sparse.student import SparseNgramTokenizer
from tests.conftest import ModelFactory

SCORES = {
    "single_label_classification": {"accuracy": 0.91, "macro_f1": 0.8765},
    "multi_label_classification": {"accuracy": 0.91, "macro_f1": 0.8765, "micro_f1": 0.88, "subset_accuracy": 0.5},
    "regression": {"mean_squared_error": 0.25, "pearson": 0.875},
}


def make_report(problem_type: str, *, speed: bool = True, gold: bool = True, base_model: str | None = "org/t") -> Any:
    """Return a report as a run writes it."""
    scores = SCORES[problem_type] if gold else {}
    report: dict[str, Any] = {
        "text_set": "test",
        "problem_type": problem_type,
        "labels": ["no", 'yes: "quoted"'],
        "num_texts": {"train": 1000, "corpus": 50_000, "validation": 200, "test": 1234},
        "teacher": {"model": "/some/where/teacher", "base_model": base_model, "fine_tuned": True} | scores,
        "student": {"stage": "fine_tune"} | scores,
        "retention": 1.0123 if gold else None,
        "agreement": 0.9321,
        "calibration": None,
        "num_parameters": 64_001_234,
        "num_ngrams": 1_000_000,
        "stages": {},
        "environment": {
            "versions": {"torch": "2"},
            "python": "3",
            "machine": "x",
            "processors": 2,
            "accelerator": None,
        },
        "recipe": {"vocabulary": {"max_n": 4, "num_ngrams": 1_000_000}, "distil": {"epochs": 4}},
    }
    if speed:
        report["texts_per_second"] = {"teacher": 30.4, "student": 54_321.0}
        report["texts_per_second_range"] = {"teacher": [30, 31], "student": [54_000, 55_000]}
        report["speedup"] = 1787.0
        report["speed_conditions"] = {
            "texts": 256,
            "mean_words": 235.2,
            "threads": 1,
            "device": "cpu",
            "teacher": "float32",
            "student": "float32",
        }
    return report


@pytest.mark.parametrize("problem_type", SCORES)
@pytest.mark.parametrize("speed", [True, False])
@pytest.mark.parametrize("gold", [True, False])
@pytest.mark.parametrize("base_model", ["org/t", None])
def test_card_holds_the_figures(problem_type: str, speed: bool, gold: bool, base_model: str | None) -> None:
    report = make_report(problem_type, speed=speed, gold=gold, base_model=base_model)
    card = render_card(report)
    front, body = card.split("---\n", 2)[1:]
    metadata = yaml.safe_load(front)
    assert metadata["pipeline_tag"] == "text-classification"
    assert metadata.get("base_model") == base_model
    assert metadata.get("base_model_relation") == (base_model and "finetune")
    assert ModelCard(card).data.library_name == "transformers"
    assert "1,000,000" in body
    assert "1,234 test texts" in body
    assert ("54,321" in body) == speed
    assert ("keeps 101.23 %" in body) == gold
    assert "/some/where" not in card
    assert "{{" not in card
    assert "{%" not in card


def test_card_without_scores_has_no_table() -> None:
    report = make_report("single_label_classification", gold=False, speed=False)
    card = render_card(report)
    assert "|" not in card
    assert yaml.safe_load(card.split("---\n", 2)[1]).get("metrics") is None
    assert "\n\n\n" not in card
    speeds = render_card(make_report("single_label_classification", gold=False))
    lines = [line for line in speeds.splitlines() if line.startswith("|")]
    assert lines == ["| | texts per second |", "|---|---:|", "| teacher | 30 |", "| student | 54,321 |"]


@pytest.mark.parametrize(("threads", "said"), [(1, "1 thread, cpu"), (2, "2 threads, cpu")])
def test_number_of_threads(threads: int, said: str) -> None:
    report = make_report("regression")
    report["speed_conditions"]["threads"] = threads
    assert said in render_card(report)


def test_card_says_what_the_run_took() -> None:
    report = make_report("regression")
    assert "Wall time" not in render_card(report)
    seconds = {"texts": 1.25, "label": 100.04, "evaluate": 9.0}
    report["resources"] = {"seconds": seconds, "total_seconds": 110.29, "peak_memory_bytes": 1_512_000_000}
    card = render_card(report)
    assert "on 2 processors: texts 1.2 s, label 100.0 s, evaluate 9.0 s; in all 110 s.\n" in card
    assert "Peak memory: 1.51 GB.\n" in card
    report["resources"] |= {"seconds": seconds | {"label": None}, "total_seconds": None}
    report["environment"]["accelerator"] = "NVIDIA X"
    assert "2 processors and NVIDIA X: texts 1.2 s, label resumed, evaluate 9.0 s.\n" in render_card(report)


@pytest.mark.parametrize("problem_type", SCORES)
def test_table_has_as_many_cells_as_columns(problem_type: str) -> None:
    lines = [line for line in render_card(make_report(problem_type)).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["teacher", "student"]


@pytest.mark.parametrize("problem_type", SCORES)
def test_summary_is_a_table(problem_type: str) -> None:
    lines = format_summary(make_report(problem_type)).splitlines()
    assert len({len(line) for line in lines[:3]}) == 1
    assert [line.split()[0] for line in lines[1:3]] == ["teacher", "student"]
    assert lines[3] == "retention 1.0123, agreement 0.9321, 64,001,234 parameters, 1,787 times faster"
    plain = format_summary(make_report(problem_type, gold=False, speed=False))
    assert plain == "agreement 0.9321, 64,001,234 parameters"


def test_card_says_what_calibration_brings() -> None:
    report = make_report("single_label_classification")
    assert "calibrated=True" not in render_card(report)
    report["calibration"] = {
        "temperature": 1.23456,
        "fitted_on": "the validation texts",
        "test": {"num_texts": 1234, "ece_before": 0.0456, "ece_after": 0.0123},
    }
    card = render_card(report)
    assert "divides logits by 1.235, fitted on the validation texts" in card
    assert "The expected calibration error on 1,234 test texts is 0.0456 without and 0.0123 with it.\n" in card
    del report["calibration"]["test"]  # texts without labels
    card = render_card(report)
    assert "divides logits by 1.235, fitted on the validation texts.\n" in card
    assert "calibration error" not in card
    del report["calibration"]  # reports of before
    assert "calibrated=True" not in render_card(report)


FACTS = {
    "model_id": "org/my-student",
    "license": "apache-2.0",
    "language": ["en"],
    "datasets": ["org/reviews"],
    "examples": [
        {"text": "A | text <b>", "output": [{"label": "no", "score": 0.75}, {"label": "yes", "score": 0.25}]},
        {"text": "One.", "text_pair": "Two.", "output": [{"label": "no", "score": 0.5}]},
    ],
    "ngrams": {"no": [{"ngram": "not | `a`", "count": 3, "contribution": 0.5}], "yes": []},
    "num_texts": 500,
    "file_bytes": 12_000_000,
}


def metadata_of(card: str) -> Any:
    return yaml.safe_load(card.split("---\n", 2)[1])


def test_scores_are_not_those_of_a_corpus() -> None:
    """A local test set is of the data set that the recipe names; a corpus of the Hub is none."""
    report = make_report("single_label_classification") | {"hub": FACTS | {"datasets": ["org/corpus"]}}
    report["recipe"] |= {"data": {"test": {"path": "mine/test.csv"}}, "hub": {"datasets": []}}
    assert eval_results(report) == {}
    assert metadata_of(render_card(report))["model-index"][0]["results"][0]["dataset"]["name"] == "mine"
    report["recipe"]["hub"]["datasets"] = ["org/mine"]
    assert list(eval_results(report)) == [".eval_results/org--mine.yaml"]


@pytest.mark.parametrize("problem_type", SCORES)
def test_metadata_of_the_hub(problem_type: str) -> None:
    report = make_report(problem_type) | {"hub": FACTS}
    report["recipe"]["data"] = {"test": {"path": "org/reviews", "name": "plain", "split": "test"}}
    metadata = metadata_of(render_card(report))
    assert metadata["license"] == "apache-2.0"
    assert metadata["language"] == ["en"]
    assert metadata["datasets"] == ["org/reviews"]
    assert [example["text"] for example in metadata["widget"]] == ["A | text <b>"]
    (model,) = metadata["model-index"]
    assert model["name"] == "my-student"
    (result,) = model["results"]
    assert result["dataset"] == {"name": "reviews", "type": "org/reviews", "config": "plain", "split": "test"}
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert found["samples_per_second"] == 54_321.0
    assert found["latency_in_seconds"] == pytest.approx(1 / 54_321, rel=1e-2)
    assert set(found) == set(metadata["metrics"])
    assert found.get("accuracy") == report["student"].get("accuracy")
    # What the Hub's client makes of it.
    results = ModelCard(render_card(report)).data.eval_results
    assert {one.metric_type for one in results} == set(found)


def test_body_cannot_be_broken_by_texts() -> None:
    card = render_card(make_report("single_label_classification") | {"hub": FACTS})
    body = card.split("---\n", 2)[2]
    for line in body.splitlines():
        if line.startswith("| A") or line.startswith("| One"):
            assert line.replace("\\|", "").count("|") == 3
    assert "<b>" not in body
    assert "``not \\| `a```" in body or "`` not \\| `a` ``" in body
    assert "org/reviews](https://huggingface.co/datasets/org/reviews)" in body
    assert "`apache-2.0`" in body


def test_card_says_of_how_many_labels_it_shows_ngrams() -> None:
    report = make_report("single_label_classification") | {"hub": FACTS}
    assert "speak most for each label over" in render_card(report)
    assert "speak most for each of the first 2 labels over" in render_card(report | {"labels": list("abc")})


def test_result_for_the_leaderboard_of_a_data_set(tmp_path: Path) -> None:
    report = make_report("single_label_classification") | {"hub": FACTS}
    report["recipe"]["data"] = {"test": {"path": "org/reviews", "name": "plain", "split": "test"}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    written = write_card(tmp_path)
    assert [Path(path).relative_to(tmp_path).as_posix() for path in written] == [
        "README.md",
        ".eval_results/org--reviews.yaml",
    ]
    (entry,) = yaml.safe_load((tmp_path / ".eval_results" / "org--reviews.yaml").read_text())
    assert entry["dataset"] == {"id": "org/reviews", "task_id": "plain"}
    assert entry["value"] == 91.0
    (parsed,) = parse_eval_result_entries([entry])
    assert (parsed.dataset_id, parsed.value) == ("org/reviews", 91.0)
    report["text_set"] = "validation"
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert len(write_card(tmp_path)) == 1


@pytest.mark.parametrize("settings", [{}, {"sentence_pairs": True}, {"problem_type": "regression", "num_labels": 1}])
def test_card_without_a_report(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        write_card(tmp_path)
    make_model(**settings).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (written,) = write_card(tmp_path)
    card = ModelCard(Path(written).read_text(encoding="utf-8"))
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model is None
    assert "328 embeddings of 1-3-grams\nmade with hf-sparse\n" in card.text
    assert ("negative, neutral, positive" in card.text) == (not settings or "sentence_pairs" in settings)
    assert ("Its partner." in card.text) == ("sentence_pairs" in settings)
    for nothing in ("teacher", "None", "## Training", "\n\n\n"):
        assert nothing not in card.text.replace("None is known", "")


def test_report_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ValueError, match=r"report\.json' is no JSON"):
        write_card(tmp_path)


STEP = {"name": "prune", "num_ngrams": 77, "num_columns": 8, "table_dtype": "int4", "num_bytes": 9_000}
STEP |= {"accuracy": 0.8, "agreement": 0.85}


def test_scores_before_a_compression_are_not_those_of_its_result() -> None:
    report = make_report("single_label_classification") | {"hub": FACTS}
    compression = {"num_texts": 100, "steps": [STEP | {"num_ngrams": 1000}, STEP]}
    card = render_card(report, compression=compression)
    assert "model-index" in render_card(report)
    assert "model-index" not in card
    assert "over 77 embeddings" in card
    assert "parameters" not in card.split("## Use")[0]
    assert "Of the student before it was compressed" in card


def test_card_says_what_was_distilled() -> None:
    report = make_report("single_label_classification")
    assert "linear classifier" not in render_card(report)
    report["ensemble"] = {"weights": {"teacher": 0.0, "ngram_expert": 0.413}, "accuracy": 0.7}
    card = render_card(report)
    assert "0.00 times the teacher's logits and 0.41 times those of a linear classifier" in card
    assert "together they have an accuracy of 0.7000 on the test texts" in card
    del report["ensemble"]["accuracy"]
    assert "together" not in render_card(report)


def test_of_several_labels_the_thresholds_count() -> None:
    report = make_report("multi_label_classification")
    report["student_with_thresholds"] = report["student"] | {"accuracy": 0.6543, "macro_f1": 0.4321}
    metadata, card = metadata_of(render_card(report)), render_card(report)
    values = {result["value"] for result in metadata["model-index"][0]["results"][0]["metrics"]}
    assert {0.6543, 0.4321} <= values
    assert report["student"]["accuracy"] not in values
    assert "| student, its thresholds | 0.6543 | 0.4321 |" in card
    assert "above a threshold of their own" in card


@pytest.mark.parametrize("compressed", [True, False])
def test_table_says_what_the_student_is_worth(compressed: bool) -> None:
    report = make_report("single_label_classification") | {"hub": FACTS}
    report["baselines"] = {"tfidf": {"test": {"accuracy": 0.7, "macro_f1": 0.6}, "validation": {}}}
    report["calibration"] = {"temperature": 1.2, "fitted_on": "texts"}
    report["calibration"]["test"] = {"num_texts": 10, "ece_before": 0.0456, "ece_after": 0.0123}
    compression = {"num_texts": None, "steps": [STEP]} if compressed else None
    card = render_card(report, compression=compression)
    size = "" if compressed else " 12.0 |"
    assert ("| MB |" in card.split("### Compression")[0]) == (not compressed)
    assert f"| student | 0.9100 | 0.8765 | 0.9321 | 0.0456 → 0.0123 |{size} 54,321 |\n" in card
    assert f"| tfidf | 0.7000 | 0.6000 |  |  |{'' if compressed else '  |'}  |\n" in card


def test_speeds_of_the_benchmark() -> None:
    path = Path(__file__).parents[2] / "model_cards" / "imdb" / "benchmark.json"
    benchmark = json.loads(path.read_text(encoding="utf-8"))
    card = render_card(make_report("single_label_classification"), benchmark, pictures=["latency.png"])
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| student int8, runtime |")]
    cell = next(
        cell
        for cell in benchmark["cells"]
        if (cell["contestant"], cell["length"], cell["batch_size"], cell["threads"]) == ("runtime-int8", 235, 256, 1)
    )
    assert rows[0][1].split(" ")[0] == f"{cell['warm']['median'] / 256 * 1e6:.1f}"
    assert "](latency.png)" in card
    assert "extraction alone" not in card


def test_baselines_stand_beside_the_student() -> None:
    report = make_report("single_label_classification")
    report["baselines"] = {"tfidf": {"test": {"accuracy": 0.7, "macro_f1": 0.6}, "validation": {}}}
    assert "| tfidf | 0.7000 | 0.6000 |  |  |" in render_card(report)
