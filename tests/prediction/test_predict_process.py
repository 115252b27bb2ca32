"""The command as a process: pipes, kills, and what it does not import."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hf_sparse.runtime import NgramClassifier

ROOT = Path(__file__).parents[2]
ENV = os.environ | {"PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-m", "hf_sparse", "predict"]


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command with pipes."""
    pipes: dict[str, Any] = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    return subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, env=ENV, **(pipes | options))


def test_answers_come_while_the_input_is_open(student_folder: Path) -> None:
    process = start(str(student_folder), "--batch_size", "1", "--input_format", "jsonl")
    assert process.stdin is not None
    assert process.stdout is not None
    classifier = NgramClassifier.from_pretrained(student_folder)
    for text in ("a good film", "bad", ""):
        process.stdin.write(json.dumps({"text": text}).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert [answer["text"], answer["label"]] == [text, *classifier.predict([text])]
    process.stdin.close()
    assert process.wait(60) == 0
    assert process.stdout.read() == b""
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as errors:
        assert errors.read() == b""


def test_head_ends_it_without_a_word(student_folder: Path) -> None:
    """Its input never ends."""
    script = f"yes 'a good film' | {' '.join(COMMAND)} {student_folder} | head -1; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, env=ENV, timeout=60, check=True
    )
    line, status = done.stdout.splitlines()
    assert json.loads(line)["text"] == "a good film"
    assert status in ("0", "141")
    assert done.stderr == ""


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
def test_a_kill_leaves_the_old_output(output: str, student_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / output
    target.write_text("old")
    process = start(str(student_folder), "-", str(target), "--batch_size", "1")
    assert process.stdin is not None
    process.stdin.write(b"good\nbad\n" * 100)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not (tmp_path / f".{output}.tmp").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (tmp_path / f".{output}.tmp").exists()
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    (tmp_path / "in.txt").write_text("good\n")
    done = subprocess.run([*COMMAND, str(student_folder), str(tmp_path / "in.txt"), str(target)], cwd=ROOT, env=ENV)
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()].count(output) == 1
    assert target.read_bytes() != b"old"
    assert not (tmp_path / f".{output}.tmp").exists()


def test_needs_neither_torch_nor_arrow_for_lines(student_folder: Path) -> None:
    program = (
        "import sys\nfrom hf_sparse.prediction import predict\n"
        f"predict({str(student_folder)!r}, output_format='csv')\n"
        "print({'torch', 'transformers', 'pyarrow', 'sklearn', 'datasets'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=b"good\n", capture_output=True, cwd=ROOT, env=ENV, check=True
    )
    assert done.stderr == b"set()\n"
    assert done.stdout.startswith(b"text,label,score\ngood,")


def test_a_mistake_is_one_line(student_folder: Path, tmp_path: Path) -> None:
    for arguments, message in [
        ((str(tmp_path / "none.txt"),), "none.txt"),
        (("-", str(tmp_path / "no/out.csv")), "/no' to write 'out.csv'"),
        (("-", "-", "--top_k", "-1"), "top_k is a number of labels"),
    ]:
        process = start(str(student_folder), *arguments)
        _, errors = process.communicate(b"good\n")
        assert process.returncode == 2
        assert errors.count(b"\n") == 1
        assert message in errors.decode()
