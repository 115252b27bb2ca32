"""The planner: what it says of a recipe is what a run of it makes, and what cannot be is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_sparse import cli
from hf_sparse.distillation.recipe import Recipe, StudentRecipe, TeacherRecipe, VocabularyRecipe
from hf_sparse.distillation.recipe_data import DataRecipe, TextSet
from hf_sparse.distillation.student_weights import new_student
from hf_sparse.planning.corpus import distinct_rows, measure_corpus, ngrams_per_word
from hf_sparse.planning.estimate import Batch, Shape, received_bytes
from hf_sparse.planning.hardware import known_hardware, load_hardware
from hf_sparse.planning.plan import format_plan, plan
from hf_sparse.student import SparseNgramConfig
from tests.tiny_task import make_encoder, make_teacher


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """A recipe with 100 labelled texts of four words, 50 without labels, and 30 to test."""
    for name, count in (("train", 100), ("corpus", 50), ("test", 30)):
        rows = [json.dumps({"text": f"this is text {index}", "label": index % 3}) for index in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return {
        "output_dir": str(tmp_path / "run"),
        "data": {
            "train": {"path": str(tmp_path / "train.jsonl"), "label_column": "label"},
            "corpus": [{"path": str(tmp_path / "corpus.jsonl")}],
            "test": {"path": str(tmp_path / "test.jsonl"), "label_column": "label"},
            "labels": {0: "a", 1: "b", 2: "c"},
        },
        "teacher": {"model": "some/teacher", "max_length": 32},
        "vocabulary": {"num_ngrams": 1000},
        "student": {"embedding_size": 40, "hidden_sizes": [8, 6]},
        "distil": {"epochs": 3, "batch_size": 16},
        "fine_tune": {"epochs": 2, "batch_size": 32},
    }


def write(content: dict[str, Any], folder: Path) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def test_baselines_that_the_teacher_on_this_machine_rules_out(recipe: dict[str, Any], tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "several", problem_type="multi_label_classification")
    recipe |= {"teacher": {"model": str(teacher)}, "baselines": {"names": ["tfidf"]}}
    with pytest.raises(ValueError, match="the task is a multi_label_classification, and baselines only give one"):
        plan(write(recipe, tmp_path))


@pytest.mark.parametrize("shape", [{}, {"pair_bags": "sides"}, {"alignment_size": 0}, {"hidden_sizes": []}], ids=str)
def test_parameters_of_students_of_pairs(recipe: dict[str, Any], tmp_path: Path, shape: dict[str, Any]) -> None:
    for source in (recipe["data"]["train"], *recipe["data"]["corpus"], recipe["data"]["test"]):
        source["text_pair_column"] = "text"
    recipe["student"] |= shape
    found = plan(write(recipe, tmp_path), teacher_parameters=1e6)
    settings = {"hidden_sizes": [8, 6], "pair_bags": "overlap"} | shape
    settings.setdefault("alignment_size", 10 if settings["pair_bags"] == "overlap" else 0)
    config = SparseNgramConfig(vocab_size=1001, embedding_size=40, sentence_pairs=True, num_labels=3, **settings)
    assert found["parameters"] == new_student(config, seed=0).num_parameters()


def test_counts_are_those_of_a_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    found = plan(write(recipe, tmp_path), teacher_parameters=1e6)
    config = SparseNgramConfig(vocab_size=1001, embedding_size=40, hidden_sizes=[8, 6], num_labels=3)
    assert found["parameters"] == new_student(config, seed=0).num_parameters()
    assert found["rows"] == 1001
    assert found["texts"] == 180
    assert found["words_per_text"] == 4.0
    # A fifth of the 100 is held out: 80 and 50 are distilled on, in batches of 16; 80 fine-tuned on, in batches of 32.
    assert found["stages"]["distil"]["steps"] == 3 * 9
    assert found["stages"]["fine_tune"]["steps"] == 2 * 3
    assert found["bytes"]["table_per_process"] == 1001 * 40 * 4
    assert found["bytes"]["optimizer_state_per_process"] == 1001 * 4
    assert 0 < found["bytes"]["subwords_per_process"] < found["bytes"]["table_per_process"] / 10
    assert found["network_bytes"] == 0
    assert found["warnings"] == [
        "the teacher is not on this machine: if it has no head for this task, its fine-tuning comes on top"
    ]
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] for stage in found["stages"].values()))


def test_texts_made_of_others_are_labelled_and_distilled_on(recipe: dict[str, Any], tmp_path: Path) -> None:
    own = plan(write(recipe, tmp_path), teacher_parameters=1e6)
    assert own["texts_made"] == 0
    recipe["data"]["augmentation"] = {"crossed": 32, "fragments": 48}
    found = plan(write(recipe, tmp_path), teacher_parameters=1e6)
    assert (found["texts"], found["texts_made"]) == (180 + 80, 80)
    assert found["stages"]["distil"]["steps"] == 3 * (9 + 5)
    assert found["stages"]["fine_tune"]["steps"] == own["stages"]["fine_tune"]["steps"]
    assert found["stages"]["label"]["seconds"] == pytest.approx(own["stages"]["label"]["seconds"] * 260 / 180)
    assert found["stages"]["vocabulary"] == own["stages"]["vocabulary"]
    assert "80 of them made of others" in format_plan(found)
    del recipe["data"]["augmentation"]
    assert plan(write(recipe, tmp_path), num_texts=920, teacher_parameters=1e6)["texts_made"] == 4_000


def test_aligned_steps_take_longer(recipe: dict[str, Any], tmp_path: Path) -> None:
    for source in (recipe["data"]["train"], *recipe["data"]["corpus"], recipe["data"]["test"]):
        source["text_pair_column"] = "text"
    seconds = []
    for size in (0, 8):
        recipe["student"]["alignment_size"] = size
        found = plan(write(recipe, tmp_path), teacher_parameters=1e6)
        seconds.append(found["stages"]["distil"]["seconds_per_step"])
    assert seconds[1] > 1.9 * seconds[0]


def test_subwords_take_time_and_memory(recipe: dict[str, Any], tmp_path: Path) -> None:
    shared = plan(write(recipe, tmp_path), teacher_parameters=1e6)
    recipe["student"]["subwords"] = False
    alone = plan(write(recipe, tmp_path), teacher_parameters=1e6)
    assert alone["bytes"]["subwords_per_process"] == 0
    assert alone["bytes"]["memory_per_process"] < shared["bytes"]["memory_per_process"]
    assert alone["stages"]["distil"]["seconds_per_step"] < shared["stages"]["distil"]["seconds_per_step"]


def test_labelling_is_left_out_where_logits_are_given(recipe: dict[str, Any], tmp_path: Path) -> None:
    for source in (recipe["data"]["train"], recipe["data"]["corpus"][0], recipe["data"]["test"]):
        source["logits_path"] = source["path"]
    path = write(recipe, tmp_path)
    content = yaml.safe_load(Path(path).read_text())
    data = DataRecipe(
        train=TextSet(**content["data"]["train"]),
        corpus=[TextSet(**content["data"]["corpus"][0])],
        test=TextSet(**content["data"]["test"]),
    )
    read = Recipe(output_dir="x", data=data, teacher=TeacherRecipe(model="some/teacher"))
    assert measure_corpus(read, words_per_text=4).has_logits


def test_a_teacher_without_a_head_is_trained_first(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["teacher"]["model"] = str(make_teacher(tmp_path / "classifier"))
    ready = plan(write(recipe, tmp_path))
    assert "teacher" not in ready["stages"]
    assert ready["warnings"] == []
    recipe["teacher"] |= {"model": str(make_encoder(tmp_path / "encoder")), "epochs": 3}
    found = plan(write(recipe, tmp_path))
    assert list(found["stages"])[:4] == ["texts", "vocabulary", "teacher", "label"]
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] for stage in found["stages"].values()))
    # 80 texts, three times, each four times as long as one of the 180 that are labelled.
    assert found["stages"]["teacher"]["seconds"] == pytest.approx(
        found["stages"]["label"]["seconds"] * 4 * 3 * 80 / 180
    )
    recipe["teacher"]["fine_tune"] = "head"
    head = plan(write(recipe, tmp_path))["stages"]
    assert head["teacher"]["seconds"] == pytest.approx(head["label"]["seconds"] * 80 / 180)


def test_columns_are_shared_out(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["student"]["embedding_size"] = 64
    path = write(recipe, tmp_path)
    one, four = (plan(path, processes=number, teacher_parameters=1e6) for number in (1, 4))
    assert four["table"] == "split"
    assert four["bytes"]["table_per_process"] * 4 == one["bytes"]["table_per_process"]
    assert four["network_bytes"] > 0
    recipe["table"] = "replicated"
    whole = plan(write(recipe, tmp_path), processes=4, teacher_parameters=1e6)
    assert whole["bytes"]["table_per_process"] == one["bytes"]["table_per_process"]


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "lazy_adam"])
def test_network_depends_on_the_batch_alone(optimizer: str) -> None:
    sizes = []
    for num_ngrams in (10**6, 10**8):
        read = Recipe(
            output_dir="x",
            data=DataRecipe(corpus=[TextSet(path="x")]),
            teacher=TeacherRecipe(model="some/teacher"),
            vocabulary=VocabularyRecipe(num_ngrams=num_ngrams),
            student=StudentRecipe(embedding_size=1000),
        )
        shape = Shape.of(read, num_labels=2, processes=8)
        sizes.append(received_bytes(shape, Batch(ngrams=1e6, rows=1e5), batch_size=256, optimizer=optimizer))
    assert sizes[0] == sizes[1]


# K, n-grams of a batch and different rows among them, measured on film reviews.
MEASURED = [
    (10_000, 25_922, 5_637),
    (10_000, 413_152, 9_988),
    (100_000, 35_044, 13_777),
    (100_000, 139_942, 36_177),
    (100_000, 560_140, 72_962),
    (1_000_000, 44_058, 22_493),
    (1_000_000, 176_214, 70_321),
    (1_000_000, 704_691, 196_740),
    (1_000_000, 2_830_499, 476_470),
]


@pytest.mark.parametrize(("num_ngrams", "in_batch", "rows"), MEASURED)
def test_rows_of_a_batch(num_ngrams: int, in_batch: int, rows: int) -> None:
    assert distinct_rows(in_batch, num_ngrams) == pytest.approx(rows, rel=0.2)


@pytest.mark.parametrize(("num_ngrams", "measured"), [(10_000, 1.432), (100_000, 1.944), (1_000_000, 2.463)])
def test_ngrams_of_a_word(num_ngrams: int, measured: float) -> None:
    assert ngrams_per_word(num_ngrams, 4) == pytest.approx(measured, rel=0.02)
    assert ngrams_per_word(num_ngrams, 1) <= 1


def test_what_does_not_fit_is_named(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["vocabulary"]["num_ngrams"] = 100_000_000
    recipe["student"]["embedding_size"] = 1000
    path = write(recipe, tmp_path)
    found = plan(path, teacher_parameters=1e6)
    assert "a process needs 4" in found["warnings"][0]
    assert "! a process needs" in format_plan(found)
    (warning,) = plan(path, hardware="h200", processes=8, teacher_parameters=1e6)["warnings"]
    assert "its fine-tuning comes on top" in warning


def test_what_is_not_known_is_asked_for(recipe: dict[str, Any], tmp_path: Path) -> None:
    path = write(recipe, tmp_path)
    with pytest.raises(ValueError, match="--teacher_parameters"):
        plan(path)
    with pytest.raises(ValueError, match="no such file"):
        plan(str(tmp_path / "nothing.yaml"))
    with pytest.raises(ValueError, match="'abacus' is not known; name one of cpu-2-cores"):
        plan(path, hardware="abacus")


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("processes", 0, "at least 1"),
        ("num_texts", -5, "at least 0"),
        ("num_labels", 0, "at least 1"),
        ("words_per_text", 0.0, "above 0"),
        ("teacher_parameters", -1.0, "above 0"),
    ],
)
def test_numbers_that_cannot_be(recipe: dict[str, Any], tmp_path: Path, name: str, value: Any, bound: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}, but must be {bound}$"):
        plan(write(recipe, tmp_path), **{name: value})
    recipe["data"] = {"corpus": [{"path": "some/corpus"}]}
    path = write(recipe, tmp_path)
    with pytest.raises(ValueError, match=r"set data\.corpus\[0\]\.limit, or give --num_texts"):
        plan(path, teacher_parameters=1e6)
    with pytest.raises(ValueError, match="--words_per_text"):
        plan(path, num_texts=10**6, teacher_parameters=1e6)
    assert plan(path, num_texts=10**6, words_per_text=100, teacher_parameters=1e6)["texts"] == 10**6


@pytest.mark.parametrize("name", known_hardware())
def test_hardware_files(name: str, tmp_path: Path) -> None:
    """Each is whole; a file of one's own is checked."""
    found = load_hardware(name)
    values = {key: value for key, value in vars(found).items() if key != "memory"}
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ValueError, match="memory"):
        load_hardware(str(own))
    for wrong in ("much", 0, -1.0):
        own.write_text(yaml.safe_dump(values | {"memory": wrong}), encoding="utf-8")
        with pytest.raises(ValueError, match=r"memory in .*own.yaml' must be"):
            load_hardware(str(own))
    own.write_text(yaml.safe_dump(values | {"memory": "64e9"}), encoding="utf-8")
    assert load_hardware(str(own)).memory == 64e9


def test_command(recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(recipe, tmp_path)
    cli.main(["plan", path, "--processes", "2", "--teacher_parameters", "1e6"])
    shown = capsys.readouterr().out
    assert "2 x 2 CPU cores (measured)" in shown
    assert "1,001 rows" in shown
    cli.main(["plan", path, "--teacher_parameters", "1e6", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["rows"] == 1001
