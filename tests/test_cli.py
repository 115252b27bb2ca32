"""The command line: quick help, results on stdout, one line for a mistake."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_sparse import __version__, cli
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification, SparseNgramTokenizer
from hf_sparse.vocabulary import count_ngrams
from tests.tiny_task import write_task

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "hf_sparse", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "student"
    vocabulary = count_ngrams(["the film was good"], num_ngrams=10, progress=False)
    config = SparseNgramConfig(vocab_size=11, embedding_size=8, vocabulary_sha256=vocabulary.sha256)
    SparseNgramForSequenceClassification(config).save_pretrained(folder)
    SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(folder)
    return folder


def test_help_and_completion_import_nothing_large() -> None:
    program = (
        "import sys\nfrom hf_sparse import cli\n"
        "for words in [['--help'], *([name, '--help'] for name in cli.COMMANDS)]:\n"
        "    try: cli.main(words)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "cli.main(['completion', 'bash'])\n"
        "large = {'torch', 'transformers', 'huggingface_hub', 'numba', 'sklearn', 'pyarrow', 'gradio', 'datasets'}\n"
        "large &= set(sys.modules)\n"
        "sys.exit(f'imported: {large}' if large else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(f"usage: hf-sparse {name}" in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", ["compress", "bench"])
def test_help_of_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert f"hf-sparse {name}" in shown
    assert "--config" in shown
    assert ("--student" in shown) == (name == "bench")


def test_compress(student: Path, tmp_path: Path) -> None:
    done = run("compress", str(student), "--fold", str(tmp_path / "small"), "--table-dtype", "int4")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["step", "student", "fold", "int4"]
    assert (tmp_path / "small/model.safetensors").is_file()


def test_json(student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["compress", str(student), str(tmp_path / "small"), "--format", "json"])
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "small/compression.json").read_text())


def test_mistakes_are_one_line(student: Path, tmp_path: Path) -> None:
    for arguments, message in [
        (["compress", "nowhere", str(tmp_path / "x")], "nowhere is not the folder of a student"),
        (["compress", str(student), str(tmp_path / "x"), "--table_dtype", "int3"], "'int3'"),
        (["distil"], "there is no command 'distil'"),
        (["info", str(student), "--format", "xml"], "--format is 'xml'"),
        (["distill", "--config", str(tmp_path / "none.yaml")], "none.yaml"),
    ]:
        done = run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        assert not done.stdout
    done = run("compress", str(student), str(tmp_path / "x"), "--no_such_option", "1")
    assert done.returncode == 2
    assert "no_such_option" in done.stderr


def test_failures_are_not_mistakes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in [
        (ConnectionError("the Hub does not answer"), 1),
        (OSError(28, "No space left on device"), 1),
        (FileNotFoundError("there is no folder"), 2),
        (ValueError("no"), 2),
        (KeyboardInterrupt(), 130),
    ]:

        def fail(*args: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(cli, "_run", fail)
        with pytest.raises(SystemExit) as end:
            cli.main(["info", "x"])
        assert end.value.code == code
        assert str(error) in capsys.readouterr().err


def test_interrupted_command(student: Path) -> None:
    command = [sys.executable, "-m", "hf_sparse", "predict", str(student), "--quiet"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A shell's job in the background ignores the signal, and its children do.
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen([*command, "--batch-size", "1"], cwd=ROOT, text=True, **pipes)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("the film\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"] == "the film"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_reader_that_has_seen_enough(student: Path) -> None:
    for words in ("--help", f"info {student}", "completion bash"):
        script = f"{sys.executable} -m hf_sparse {words} | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.strip() in ("141", "0")  # 0 if all was written before the reader was gone
        assert not done.stderr


def test_missing_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(cli.COMMANDS, "compress", cli.Command(summary="", function="none:none", extra="train"))
    monkeypatch.setitem(__import__("hf_sparse.extras").extras.EXTRAS, "train", ("no_such_package",))
    with pytest.raises(SystemExit) as end:
        cli.main(["compress"])
    assert end.value.code == 2
    assert "pip install 'hf-sparse[train]'" in capsys.readouterr().err


def test_version_and_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out.strip() == __version__
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 2


def test_info(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["info", str(student)])
    assert "num ngrams" in capsys.readouterr().out
    cli.main(["info", str(student), "--verify", "true", "--format=json"])
    found = json.loads(capsys.readouterr().out)
    assert found["num_ngrams"] == 10
    assert found["verified"]
    assert found["bytes"] == sum(path.stat().st_size for path in student.glob("*.safetensors"))


def test_info_of_something_else(student: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SystemExit) as end:
        cli.main(["info", str(tmp_path)])
    assert end.value.code == 2


def test_distill_and_label(tmp_path: Path) -> None:
    write_task(tmp_path)
    recipe = {
        "output_dir": str(tmp_path / "run"),
        "data": {
            "train": {"path": str(tmp_path / "train.jsonl"), "label_column": "label"},
            "test": {"path": str(tmp_path / "test.jsonl"), "label_column": "label"},
        },
        "teacher": {"model": str(tmp_path / "teacher")},
        "vocabulary": {"num_ngrams": 100},
        "student": {"embedding_size": 8, "hidden_sizes": []},
        "distil": {"epochs": 1},
        "fine_tune": {"epochs": 0},
        "evaluate": {"speed_seconds": 0},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    done = run("label", "--config", str(tmp_path / "recipe.yaml"))
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == ["label", "teacher", "texts"]
    done = run("distill", "--config", str(tmp_path / "recipe.yaml"), "--distil.epochs", "2")
    assert done.returncode == 0, done.stderr
    assert "label: " in done.stderr
    assert "agreement" in done.stdout
    assert (tmp_path / "run" / "student" / "README.md").is_file()
    assert json.loads((tmp_path / "run" / "report.json").read_text())["recipe"]["distil"]["epochs"] == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["completion", shell])
    script = capsys.readouterr().out
    assert all(name in script for name in cli.COMMANDS)
    for option in ("table_dtype", "text_pair_column", "output_dir"):
        assert option in script
    assert shlex.split(script) or shell != "fish"  # no quote is left open


def test_completion_works_in_bash(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["completion", "bash"])
    script = capsys.readouterr().out
    ask = '\nCOMP_WORDS=(hf-sparse {words}); COMP_CWORD={place}; _hf_sparse; echo "${{COMPREPLY[@]}}"'
    for words, place, expected in [
        ("comp", 1, "compress completion"),
        ("push --pri", 2, "--private"),
        ("push --create-p", 2, "--create_pr"),
        ("compress a --keep", 3, "--keep_ngrams"),
    ]:
        program = script + ask.format(words=words, place=place)
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
