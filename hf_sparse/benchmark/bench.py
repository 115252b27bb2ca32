"""The benchmark: from raw strings to labels, the same texts and threads for all, one process each, in turns."""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hf_sparse.benchmark.contestants import Field, make_contestants, read_config
from hf_sparse.benchmark.hardware import describe_commit, describe_hardware, describe_versions
from hf_sparse.benchmark.harness import Timing
from hf_sparse.benchmark.journal import Journal, digest
from hf_sparse.benchmark.report import make_report, write_report
from hf_sparse.benchmark.run import run_benchmark
from hf_sparse.benchmark.session import Materials, Settings
from hf_sparse.benchmark.texts import (
    POOL_SIZE,
    LabelledTexts,
    describe_pool,
    made_texts,
    make_pool,
    read_texts,
    shuffle,
)
from hf_sparse.extras import require_extra
from hf_sparse.runtime.folder import fetch
from hf_sparse.runtime.student_files import NgramVocabulary

logger = logging.getLogger(__name__)

LENGTHS = (12, 60, 235, 1000)
BATCH_SIZES = (1, 32, 256, 4096)
_QUICK_LENGTHS = (60, 235)
_QUICK_BATCH_SIZES = (1, 256)


@dataclass(frozen=True, kw_only=True)
class _Places:
    """The folders of models, on this machine."""

    student: Path
    compressed: Path | None
    teacher: Path | None
    encoder: Path | None


def bench(
    student: str,
    *,
    texts: str | None = None,
    compressed: str | None = None,
    teacher: str | None = None,
    encoder: str | None = None,
    train: str | None = None,
    output: str = "runs/benchmark",
    peers: bool = False,
    quick: bool = False,
    contestants: list[str] | None = None,
    lengths: list[int] | None = None,
    batch_sizes: list[int] | None = None,
    threads: list[int] | None = None,
    text_column: str = "text",
    label_column: str | None = None,
    teacher_max_length: int = 512,
    seconds: float = 0.5,
    cell_seconds: float = 60.0,
    answer_seconds: float = 20.0,
    rounds: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a student against its teacher and others, from raw strings to labels.

    Writes `benchmark.json` (every figure), `benchmark.md` (tables, targets, roofline) and two pictures into `output`.
    A benchmark that was interrupted goes on where it was.

    Args:
        student: Folder or Hub repository of the student, uncompressed.
        texts: Parquet, CSV, JSON Lines or text file (or a pattern) with texts to classify; with labels the accuracy
            is measured too. Without it texts are made of the student's n-grams.
        compressed: Folder or repository of the same student, compressed.
        teacher: Folder or repository of the teacher.
        encoder: Folder or repository of a sentence encoder, from which a model2vec model is made; None is the teacher.
        train: File (or pattern) of labelled texts that peers are trained on.
        output: Folder for the results; also keeps what peers need, such as trained models.
        peers: Measure fastText, model2vec, luxical, scikit-learn and others too; what is missing is a blank row.
        quick: Few cells, little time for each.
        contestants: Names of the contestants that take part; all by default. `runtime-*` takes all that begin so.
        lengths: Words a text; 12, 60, 235 and 1000 by default.
        batch_sizes: Texts a call; 1, 32, 256 and 4096 by default.
        threads: Numbers of threads; 1 and 2 by default (1 where there is only one processor).
        text_column: The column of the texts.
        label_column: The column of the labels (names, or indices of the student's labels).
        teacher_max_length: Tokens of a text that the teacher reads.
        seconds: Time for a cell of a fast contestant.
        cell_seconds: Time for a cell at most; slow contestants are measured on parts of a batch.
        answer_seconds: Time for the accuracy of a contestant at most.
        rounds: How many turns each contestant has in a cell.
        seed: Of the choice of texts.

    Returns:
        What `benchmark.json` holds.

    Raises:
        ValueError: If an argument has no meaning, a file or a contestant does not exist, or the student is one of
            pairs or of regression.
        ImportError: If packages of the extra `bench` are missing.
    """
    require_extra("bench")
    _check_positive(seconds=seconds, cell_seconds=cell_seconds, answer_seconds=answer_seconds, rounds=rounds)
    places = _Places(
        student=_local_folder(student),
        compressed=_local_folder(compressed) if compressed else None,
        teacher=_local_folder(teacher) if teacher else None,
        encoder=_local_folder(encoder) if encoder else None,
    )
    config = read_config(places.student)
    _check_task(student, config)
    folder = Path(output)
    (folder / "work").mkdir(parents=True, exist_ok=True)
    hardware = describe_hardware()
    names = list(config["id2label"].values())
    settings = Settings(
        lengths=tuple(lengths or (_QUICK_LENGTHS if quick else LENGTHS)),
        batch_sizes=tuple(batch_sizes or (_QUICK_BATCH_SIZES if quick else BATCH_SIZES)),
        threads=tuple(threads or ([1] if quick or hardware["processors"] == 1 else [1, 2])),
        timing=Timing(
            seconds=min(seconds, 0.2) if quick else seconds,
            bound=min(cell_seconds, 5.0) if quick else cell_seconds,
            rounds=min(rounds, 3) if quick else rounds,
        ),
        answer_seconds=min(answer_seconds, 2.0) if quick else answer_seconds,
        from_disk=not quick,
    )
    _check_settings(settings)
    if texts is None:
        labelled = made_texts(NgramVocabulary.load(places.student), seed=seed)
    else:
        labelled = read_texts(texts, text_column=text_column, label_column=label_column, label_names=names)
    train_file = _write_train(folder / "work", train, text_column, label_column, names)
    everyone = make_contestants(
        Field(
            student=places.student.resolve(),
            compressed=places.compressed and places.compressed.resolve(),
            teacher=places.teacher and places.teacher.resolve(),
            encoder=places.encoder and places.encoder.resolve(),
            train=train_file,
            teacher_max_length=teacher_max_length,
            peers=peers,
            gpu=hardware["accelerator"] is not None,
        )
    )
    chosen = choose(everyone, contestants)
    labelled = shuffle(labelled, seed=seed)
    materials = _write_materials(folder / "work", labelled, settings, seed=seed)
    commit = describe_commit(Path(__file__).parent)
    journal = Journal(folder / "work" / "journal.jsonl")
    measured = run_benchmark(chosen, materials, settings, journal=journal, folder=folder / "work", commit=commit)
    report = make_report(
        measured,
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": ["hf-sparse", *sys.argv[1:]],
            "commit": commit,
            "hardware": hardware,
            "versions": describe_versions(),
            "texts": {
                "source": texts or "made of the student's n-grams",
                "lengths": materials.described,
                "labelled": labelled.labels is not None,
            },
        },
        settings,
    )
    write_report(report, folder)
    return report


def choose(everyone: Sequence[Any], names: Sequence[str] | None) -> list[Any]:
    """Return the contestants of the given names, in the order of the table; a name with `*` at its end is a prefix.

    Raises:
        ValueError: If a name is that of no contestant.
    """
    if names is None:
        return list(everyone)
    chosen = set()
    for name in names:
        matching = {
            one.name for one in everyone if one.name == name or (name.endswith("*") and one.name.startswith(name[:-1]))
        }
        if not matching:
            known = ", ".join(one.name for one in everyone)
            raise ValueError(f"there is no contestant {name!r} here; choose among {known} (peers need `peers: true`)")
        chosen |= matching
    return [one for one in everyone if one.name in chosen]


def _local_folder(name: str) -> Path:
    """Return the folder of a model, fetched from the Hub where it is not one already."""
    return Path(name) if Path(name).is_dir() else fetch(name)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def _check_task(student: str, config: dict[str, Any]) -> None:
    if config.get("sentence_pairs"):
        raise ValueError(
            f"{student!r} is a student of pairs, but the benchmark's texts are single; name another student"
        )
    if config.get("problem_type") == "regression":
        raise ValueError(
            f"{student!r} is a student of regression, but the benchmark compares labels; name another one"
        )


def _check_settings(settings: Settings) -> None:
    for name in ("lengths", "batch_sizes", "threads"):
        values = getattr(settings, name)
        if min(values) < 1 or len(set(values)) < len(values):
            raise ValueError(f"{name} must be different numbers of at least 1, got {list(values)}")
    from hf_sparse.benchmark.process import pinned_processors

    pinned_processors(max(settings.threads))


def _write_train(
    work: Path, train: str | None, text_column: str, label_column: str | None, names: list[str]
) -> Path | None:
    """Write the training texts of peers as the JSON file they read."""
    if train is None:
        return None
    found = read_texts(train, text_column=text_column, label_column=label_column or "label", label_names=names)
    data = json.dumps({"texts": found.texts, "labels": found.labels})
    path = work / f"train-{digest(data)}.json"
    if not path.exists():
        path.write_text(data, encoding="utf-8")
    return path.resolve()


def _write_materials(work: Path, labelled: LabelledTexts, settings: Settings, *, seed: int) -> Materials:
    """Write the pools of texts and the texts whose answers are compared, as the JSON files that workers read."""
    files, described, contents = {}, {}, {}
    for length in settings.lengths:
        pool = make_pool(labelled.texts, length=length, size=POOL_SIZE, seed=seed)
        files[length] = (work / f"texts-{length}.json").resolve()
        contents[length] = json.dumps(pool)
        files[length].write_text(contents[length], encoding="utf-8")
        described[length] = describe_pool(pool)
    answers = (work / "answers.json").resolve()
    answers.write_text(json.dumps(labelled.texts), encoding="utf-8")
    return Materials(
        pools=files,
        described=described,
        answers=answers,
        labels=labelled.labels,
        pool_keys={length: digest(content) for length, content in contents.items()},
        answers_key=digest(labelled.texts, labelled.labels),
    )
