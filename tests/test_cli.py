"""The command line: quick help, results on stdout, one line for a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_sparse import __version__, cli
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification, SparseNgramTokenizer
from hf_sparse.vocabulary import count_ngrams

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


def test_help_imports_nothing_large() -> None:
    program = (
        "import sys\nfrom hf_sparse import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "large = {'torch', 'transformers', 'numba', 'numpy', 'jsonargparse', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported: {large}' if large else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)


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
    done = run("compress", str(student), str(tmp_path / "small"), "--table_dtype", "int4")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["step", "student", "fold", "int4"]
    assert (tmp_path / "small/model.safetensors").is_file()


def test_json(student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["compress", str(student), str(tmp_path / "small"), "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "small/compression.json").read_text())


def test_mistakes_are_one_line(student: Path, tmp_path: Path) -> None:
    for arguments, message in [
        (["compress", "nowhere", str(tmp_path / "x")], "nowhere is not the folder of a student"),
        (["compress", str(student), str(tmp_path / "x"), "--table_dtype", "int3"], "'int3'"),
        (["distill"], "there is no command 'distill'"),
    ]:
        done = run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        assert not done.stdout
    done = run("compress", str(student), str(tmp_path / "x"), "--no_such_option", "1")
    assert done.returncode == 2
    assert "no_such_option" in done.stderr


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
