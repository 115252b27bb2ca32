"""A saved student on a machine without hf_sparse: the files that travel with it are enough."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import pipeline

from hf_sparse.student import (
    SparseNgramForSequenceClassification,
    SparseNgramModel,
    SparseNgramTextClassificationPipeline,
    SparseNgramTokenizer,
)

ModelFactory = Callable[..., SparseNgramForSequenceClassification]

TEXTS = ["the film was good", "a bad , bad film !", "", "The FILM was … ünknown 映画"]

SCRIPT = '''
import importlib.abc
import json
import sys

class Hide(importlib.abc.MetaPathFinder):
    """Make this process one that does not have hf_sparse or numba."""
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hf_sparse", "numba"):
            raise ModuleNotFoundError(f"No module named {name!r} (hidden)", name=name)

sys.meta_path.insert(0, Hide())
folder, copy = sys.argv[1:]

import torch
from transformers import (
    AutoModel, AutoModelForSequenceClassification, AutoProcessor, AutoTokenizer, pipeline
)

trusted = {"trust_remote_code": True}
texts = json.load(sys.stdin)

def classify(folder):
    pipe = pipeline("text-classification", model=folder, device="cpu", **trusted)
    tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
    model = AutoModelForSequenceClassification.from_pretrained(folder, **trusted)
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        flat = tokenizer.extract(texts)
        flat = {"input_ids": torch.from_numpy(flat.ids), "lengths": torch.from_numpy(flat.lengths)}
        bare = AutoModel.from_pretrained(folder, **trusted)(**batch).pooler_output
        return model, {
            "pipeline": [[result["score"] for result in sorted(results, key=lambda r: r["label"])]
                         for results in pipe(texts, top_k=None)],
            "model": model(**batch).logits.softmax(1).tolist(),
            "flat": model(**flat).logits.softmax(1).tolist(),
            "bare": model.classifier(bare).softmax(1).tolist(),
            "processor": type(AutoProcessor.from_pretrained(folder, **trusted)).__name__,
            "class": type(pipe).__name__,
            "modules": sorted({type(part).__module__.split(".")[0] for part in (pipe, tokenizer, model)}),
        }

model, first = classify(folder)
model.save_pretrained(copy)
AutoTokenizer.from_pretrained(folder, **trusted).save_pretrained(copy)
_, second = classify(copy)
print("RESULT " + json.dumps({"first": first, "second": second, "modules": "hf_sparse" in sys.modules}))
'''


def test_the_files_that_travel_import_only_what_is_there_and_each_other(student_folder: Path) -> None:
    here = {path.stem for path in student_folder.glob("*.py")}
    package = {path.stem for path in Path(sys.modules["hf_sparse.student"].__file__ or "").parent.glob("*_ngram.py")}
    assert here == package
    for file in student_folder.glob("*.py"):
        for node in _outside_try(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.module in here, f"{file.name} imports .{node.module}"
            elif isinstance(node, ast.ImportFrom | ast.Import):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
                for name in names:
                    root = name.split(".")[0]
                    known = {"torch", "transformers", "numpy", "tokenizers", "safetensors", *sys.stdlib_module_names}
                    assert root in known, f"{file.name} imports {name}"


@pytest.mark.parametrize("entry", ["configuration", "modeling", "tokenization", "pipeline"])
def test_entry_files_import_all_they_need_themselves(student_folder: Path, entry: str) -> None:
    """Transformers 5.0 copies what an entry file imports, but not what those files import."""

    def imports(name: str) -> set[str]:
        nodes = ast.walk(ast.parse((student_folder / f"{name}.py").read_text()))
        return {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level}

    name = f"{entry}_sparse_ngram"
    direct = imports(name)
    assert all(imports(other) <= direct | {name} for other in direct)


def test_one_save_of_model_or_tokenizer_is_complete(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path
) -> None:
    make_model().save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_sparse_ngram.SparseNgramConfig",
        "AutoModel": "modeling_sparse_ngram.SparseNgramModel",
        "AutoModelForSequenceClassification": "modeling_sparse_ngram.SparseNgramForSequenceClassification",
    }
    assert config["custom_pipelines"]["text-classification"]["impl"] == (
        "pipeline_sparse_ngram.SparseNgramTextClassificationPipeline"
    )
    for name in ("configuration", "modeling", "table", "pipeline"):
        assert (tmp_path / "model" / f"{name}_sparse_ngram.py").is_file()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    for name in ("tokenization", "encoding", "extraction", "vocabulary", "words", "unicode"):
        assert (tmp_path / "tokenizer" / f"{name}_sparse_ngram.py").is_file()


def test_a_save_drops_the_repository_a_model_came_from(make_model: ModelFactory, tmp_path: Path) -> None:
    make_model().model.save_pretrained(tmp_path / "plain")
    model = SparseNgramModel.from_pretrained(tmp_path / "plain")
    model.config.auto_map = {name: f"org/old--{entry}" for name, entry in model.config.auto_map.items()}
    task = model.config.custom_pipelines["text-classification"]
    task["impl"] = f"org/old--{task['impl']}"
    model.save_pretrained(tmp_path / "again")
    assert "org/old" not in (tmp_path / "again" / "config.json").read_text()


@pytest.mark.parametrize("form", ["mean", "attentive", "pairs"])
def test_a_process_without_hf_sparse_gives_the_same_probabilities(
    make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path, form: str
) -> None:
    settings = {
        "mean": {},
        "attentive": {"pooling": "attentive", "block_rows": 110},
        "pairs": {"sentence_pairs": True},
    }
    model = make_model(**settings[form])
    folder = tmp_path / "tiny-student"
    pipe = SparseNgramTextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu")
    pipe.save_pretrained(folder)
    expected = [
        [result["score"] for result in sorted(results, key=lambda result: result["label"])]
        for results in pipe(TEXTS, top_k=None)
    ]
    found = run_without_hf_sparse(folder, tmp_path)
    assert found["modules"] is False
    for results in (found["first"], found["second"]):
        assert results["class"] == "SparseNgramTextClassificationPipeline"
        assert results["processor"] == "SparseNgramTokenizer"
        assert results["modules"] == ["transformers_modules"]
        for way in ("pipeline", "model", "flat", "bare"):
            if way == "flat" and form == "pairs":
                continue
            assert torch.allclose(torch.tensor(results[way]), torch.tensor(expected), atol=1e-6), way


def run_without_hf_sparse(folder: Path, tmp_path: Path) -> dict[str, dict[str, list[list[float]]]]:
    """Load and use a student in a process that cannot import hf_sparse, in another place, with empty caches."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-I", str(script), str(folder), str(tmp_path / "copy")],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def test_remote_code_may_be_used_beside_the_installed_package(student_folder: Path) -> None:
    pipe = pipeline("text-classification", model=str(student_folder), trust_remote_code=True, device="cpu")
    # Which of the two codes transformers takes depends on its release; both do the same.
    assert type(pipe.model).__name__ == "SparseNgramForSequenceClassification"
    local = SparseNgramTextClassificationPipeline(
        model=SparseNgramForSequenceClassification.from_pretrained(student_folder),
        tokenizer=SparseNgramTokenizer.from_pretrained(student_folder),
        device="cpu",
    )
    assert pipe(TEXTS, top_k=None) == local(TEXTS, top_k=None)


def _outside_try(tree: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, ast.Try):
            found += [child, *_outside_try(child)]
    return found
