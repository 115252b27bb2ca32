"""The estimator keeps to scikit-learn's rules and is the same student as the Hugging Face model."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils import estimator_checks
from transformers import pipeline

from hf_sparse.estimator import SparseNgramClassifier
from tests.tiny_task import NAMES, make_rows, make_teacher

ROOT = Path(__file__).parents[1]
ROWS, TEST = make_rows(150, seed=1), make_rows(60, seed=2)
TEXTS, LABELS = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
TEST_TEXTS, TEST_LABELS = [row["text"] for row in TEST], [row["label"] for row in TEST]


def make(**settings: Any) -> SparseNgramClassifier:
    # The label is that of most words, which a mean counts.
    small: dict[str, Any] = {
        "num_ngrams": 300,
        "embedding_size": 8,
        "batch_size": 32,
        "epochs": 12,
        "fine_tune_epochs": 2,
    }
    small |= {"pooling": "mean"}
    return SparseNgramClassifier(**(small | {"random_state": 0} | settings))


@pytest.fixture(scope="module")
def fitted() -> SparseNgramClassifier:
    return make().fit(TEXTS, LABELS)


def test_learns_without_a_teacher(fitted: SparseNgramClassifier) -> None:
    assert fitted.classes_.tolist() == sorted(NAMES)
    assert fitted.score(TEST_TEXTS, TEST_LABELS) > 0.8
    scores = fitted.predict_proba(TEST_TEXTS)
    assert scores.sum(axis=1) == pytest.approx(1)
    assert (fitted.classes_[scores.argmax(axis=1)] == fitted.predict(TEST_TEXTS)).all()
    assert fitted.decision_function(TEST_TEXTS).shape == (60, 3)


def test_number_of_threads_may_change_after_fit(fitted: SparseNgramClassifier) -> None:
    more = copy.deepcopy(fitted).set_params(num_threads=2)
    assert more.predict_proba(TEST_TEXTS) == pytest.approx(fitted.predict_proba(TEST_TEXTS), abs=1e-6)
    assert (more.student_.num_threads, fitted.student_.num_threads) == (2, 1)


def test_same_seed_same_student(fitted: SparseNgramClassifier) -> None:
    again = make().fit(TEXTS, LABELS)
    assert (again.predict_proba(TEST_TEXTS) == fitted.predict_proba(TEST_TEXTS)).all()
    other = make(random_state=1).fit(TEXTS, LABELS)
    assert (other.predict_proba(TEST_TEXTS) != fitted.predict_proba(TEST_TEXTS)).any()


def test_is_the_model_that_it_saves(fitted: SparseNgramClassifier, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path)
    pipe = pipeline("text-classification", model=str(tmp_path), trust_remote_code=True, device="cpu")
    for ours, theirs in zip(fitted.predict_proba(TEST_TEXTS), pipe(TEST_TEXTS, top_k=None), strict=True):
        by_label = {one["label"]: one["score"] for one in theirs}
        assert ours == pytest.approx([by_label[label] for label in fitted.classes_], abs=1e-5)


@pytest.mark.parametrize("kind", ["probabilities", "decisions", "function"])
def test_teachers(kind: str) -> None:
    judge = LinearSVC() if kind == "decisions" else LogisticRegression()
    teacher = make_pipeline(TfidfVectorizer(), judge).fit(TEXTS, LABELS)
    asked = teacher.decision_function if kind == "function" else teacher
    student = make(fine_tune_epochs=0).fit(TEXTS[:50], LABELS[:50], teacher=asked, unlabelled=TEXTS[50:])
    agreed = (student.predict(TEST_TEXTS) == teacher.predict(TEST_TEXTS)).mean()
    assert agreed > 0.85


def test_teacher_of_the_hub(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "teacher", labels=NAMES[::-1])
    student = make(fine_tune_epochs=0).fit(TEXTS, LABELS, teacher=folder)
    assert student.predict_proba(TEST_TEXTS).shape == (60, 3)
    for labels in (["other", *LABELS[1:]], [NAMES.index(label) for label in LABELS]):
        with pytest.raises(ValueError, match=f"y has the label .*, but the teacher .* '{NAMES[0]}'"):
            make().fit(TEXTS, labels, teacher=folder)


@pytest.mark.parametrize(
    "labels", [[0, 7], [False, True], ["no", "yes"], [np.str_("no"), np.str_("yes")], [1.0, 2.0]], ids=str
)
def test_any_labels(labels: Any) -> None:
    y = [labels[label == "sport"] for label in LABELS]
    student = make(epochs=3).fit(np.array(TEXTS, dtype=object), y)
    assert set(student.predict(TEST_TEXTS).tolist()) <= set(list(labels))
    assert student.classes_.tolist() == list(labels)
    decisions = student.decision_function(pa.array(TEST_TEXTS))
    assert decisions.shape == (60,)
    assert ((decisions > 0) == (student.predict(TEST_TEXTS) == labels[1])).all()


def test_copies(fitted: SparseNgramClassifier, tmp_path: Path) -> None:
    expected = fitted.predict_proba(TEST_TEXTS)
    assert (copy.deepcopy(fitted).predict_proba(TEST_TEXTS) == expected).all()
    (tmp_path / "student.pickle").write_bytes(pickle.dumps(fitted))
    program = (
        "import pickle, sys, json; from pathlib import Path\n"
        f"student = pickle.loads(Path({str(tmp_path / 'student.pickle')!r}).read_bytes())\n"
        f"print(json.dumps(student.predict_proba({TEST_TEXTS[:3]!r}).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert np.array(eval(done.stdout)) == pytest.approx(expected[:3])
    bare = clone(fitted)
    with pytest.raises(NotFittedError):
        bare.predict(TEST_TEXTS)
    assert bare.get_params() == fitted.get_params()


def test_in_cross_validation() -> None:
    scores = cross_val_score(make(epochs=30), TEXTS, LABELS, cv=2)
    assert scores.mean() > 0.6


def test_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    make(epochs=1).fit(TEXTS, LABELS)
    found = capfd.readouterr()
    assert not found.out
    assert not found.err


@pytest.mark.parametrize(
    ("texts", "labels", "options", "error", "message"),
    [
        ("one text", ["a"], {}, TypeError, "got one string"),
        (["a", 3], ["a", "b"], {}, TypeError, "text 1 is int"),
        (TEXTS, LABELS[:-1], {}, ValueError, "one label each"),
        (TEXTS, ["a"] * 150, {}, ValueError, "one class"),
        (TEXTS, [None, *LABELS[1:]], {}, ValueError, "no label for 1 of 150 texts, the first of them 0"),
        (TEXTS, [1.0, float("nan")] * 75, {}, ValueError, "no label for 75 of 150 texts, the first of them 1"),
        (TEXTS, np.linspace(0, 1, 150), {}, ValueError, "Unknown label type"),
        (TEXTS, [["a"], ["a", "b"]] * 75, {}, ValueError, "one label a text"),
        ({"text": TEXTS}, LABELS, {}, TypeError, "one column of a table"),
        (np.array([TEXTS]).T, LABELS, {}, TypeError, "one column of a table"),
        (["a", "b"], ["a", "b"], {}, ValueError, "at least 5"),
        (TEXTS, LABELS, {"unlabelled": ["a"]}, ValueError, "give one"),
        (TEXTS, LABELS, {"teacher": 3}, ValueError, "teacher is int"),
        (TEXTS, LABELS, {"teacher": lambda texts: np.zeros((len(texts), 2))}, ValueError, "must be"),
    ],
)
def test_mistakes(texts: Any, labels: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make().fit(texts, labels, **options)


def test_short_texts_are_pooled_by_their_maximum() -> None:
    found = [
        make(pooling=pooling, epochs=1).fit(TEXTS, LABELS).predict_proba(TEST_TEXTS) for pooling in ("auto", "max")
    ]
    assert (found[0] == found[1]).all()


def test_pooling_that_the_runtime_has_not() -> None:
    with pytest.raises(ValueError, match="pooling is 'attentive', but must be one of 'auto', 'mean', 'sum', 'max'"):
        make(pooling="attentive").fit(TEXTS, LABELS)


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_checks_of_scikit_learn(check: str) -> None:
    """Those that feed no matrices; `check_estimator` leaves the others out for estimators of texts."""
    getattr(estimator_checks, check)("SparseNgramClassifier", SparseNgramClassifier())


def test_check_estimator() -> None:
    with pytest.warns(match="input") as warned:
        results = estimator_checks.check_estimator(make(), on_skip=None)
    assert {result["status"] for result in results} == {"passed"}
    assert warned
