"""A push is one commit of everything, or none."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, snapshot_download
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_sparse import cli
from hf_sparse.benchmark.bench import bench
from hf_sparse.benchmark.texts import made_texts
from hf_sparse.demo.space import push_space, space_files
from hf_sparse.hub.info import info
from hf_sparse.hub.push import format_push, push
from hf_sparse.runtime import NgramClassifier
from hf_sparse.student import SparseNgramTokenizer
from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
from tests.conftest import ModelFactory
from tests.hub.conftest import make_student
from tests.hub.loopback import TOKEN, environment
from tests.hub.store import Hub, Repo

ROOT = Path(__file__).parents[2]
TEXTS = ["good film", "not a good film !", "", "中文"]


def files_of(hub: Hub, repo: str = "org/student", revision: str = "main") -> dict[str, bytes]:
    commit = hub.repo(repo).resolve(revision)
    assert commit is not None
    return {name: blob.path.read_bytes() for name, blob in commit.files.items()}


def local_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_in_one_commit(hub: Hub, student: Path) -> None:
    shards = sorted(path.name for path in student.glob("model-*.safetensors"))
    assert len(shards) > 2
    (student / "latency.png").write_bytes(b"\x89PNG")
    (student / "benchmark.json").write_text("{}")
    (student / "optimizer.bin").write_bytes(b"\x80\x04")
    (student / "work").mkdir()
    for name in ("a", "b"):
        (student / "work" / name).touch()
    result = push(str(student), "student")
    history = hub.repo("org/student").history()
    assert [commit.title for commit in history] == ["Upload a sparse n-gram student", "initial commit"]
    expected = local_files(student)
    for name in ("optimizer.bin", "work/a", "work/b"):
        del expected[name]
    expected["README.md"] = expected["README.md"].replace(b"<this repo or folder>", b"org/student")
    assert files_of(hub) == expected
    assert result["repo"] == "org/student"
    assert result["commit"] == history[0].sha
    assert result["left_out"] == ["optimizer.bin", "work/"]
    assert result["files"] == len(expected)
    assert "not pushed: optimizer.bin" in format_push(result)
    assert TOKEN not in json.dumps(result) + format_push(result)
    assert all(TOKEN.encode() not in content for content in expected.values())


def test_pulled_student_answers_as_before(hub: Hub, student: Path) -> None:
    push(str(student), "org/student")
    local = pipeline("text-classification", model=str(student), trust_remote_code=True, device="cpu")
    there = pipeline("text-classification", model="org/student", trust_remote_code=True, device="cpu")
    assert there(TEXTS, top_k=None) == local(TEXTS, top_k=None)
    ours = NgramClassifier.from_pretrained("org/student")
    assert ours.predict(TEXTS) == [answer["label"] for answer in local(TEXTS)]


def test_repeated_push_uploads_nothing(hub: Hub, student: Path) -> None:
    push(str(student), "org/student")
    hub.requests.clear()
    result = push(str(student), "org/student")
    assert len(hub.repo("org/student").history()) == 2
    assert result["commit"] == hub.repo("org/student").history()[0].sha
    assert not [call for call in hub.requests if call.startswith("PUT") or "/commit/" in call]


def test_what_is_new_replaces_what_was(
    hub: Hub, student: Path, tmp_path: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    (student / "benchmark.json").write_text("{}")
    push(str(student), "org/student")
    other = make_student(tmp_path / "other", make_model, tokenizer, max_shard_size="1GB")
    shutil.rmtree(student)
    gone = {"model-00003-of-00003.safetensors", "model.safetensors.index.json", "benchmark.json"}
    assert not gone & set(local_files(other))
    push(str(other), "org/student")
    assert set(files_of(hub)) == set(local_files(other))
    NgramClassifier.from_pretrained("org/student")


def test_files_of_others_stay(hub: Hub, student: Path) -> None:
    push(str(student), "org/student")
    repo = hub.repo("org/student")
    mine = hub.add_blob(b"notes", is_large=False)
    repo.commit(repo.history()[0].files | {"NOTES.md": mine}, title="by hand")
    (student / "config.json").write_text((student / "config.json").read_text() + "\n")
    push(str(student), "org/student")
    assert files_of(hub)["NOTES.md"] == b"notes"


def test_private_branch_tag_and_pull_request(hub: Hub, student: Path) -> None:
    push(str(student), "org/student", private=True, tag="v1")
    repo = hub.repo("org/student")
    assert repo.private
    assert repo.tags == {"v1": repo.refs["main"]}
    with pytest.raises(ValueError, match="has a tag 'v1' already"):
        push(str(student), "org/student", tag="v1")
    (student / "recipe.yaml").write_text("seed: 1\n")
    main = repo.refs["main"]
    push(str(student), "org/student", revision="next")
    assert repo.refs["main"] == main
    assert files_of(hub, revision="next")["recipe.yaml"] == b"seed: 1\n"
    result = push(str(student), "org/student", create_pr=True)
    assert result["pull_request"].endswith("/discussions/1")
    assert repo.refs["main"] == main
    assert files_of(hub, revision="refs/pr/1")["recipe.yaml"] == b"seed: 1\n"
    with pytest.raises(ValueError, match="tag it when merged"):
        push(str(student), "org/student", create_pr=True, tag="v2")


def test_public_repository_is_not_taken_for_private(hub: Hub, student: Path) -> None:
    push(str(student), "org/student")
    before = files_of(hub)
    (student / "recipe.yaml").write_text("seed: 1\n")
    with pytest.raises(ValueError, match="exists and is public"):
        push(str(student), "org/student", private=True)
    assert files_of(hub) == before


def test_space_holds_one_student(
    hub: Hub, student: Path, tmp_path: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    """An index of former shards beside a new file would be read in its place; what others have put there stays."""
    push_space(str(student), "org/try-it")
    repo = hub.repo("org/try-it", "spaces")
    notes = {name: hub.add_blob(b"notes", is_large=False) for name in ("NOTES.md", "student/NOTES.md", "benchmark.md")}
    repo.commit(repo.history()[0].files | notes, title="by hand")
    other = make_student(tmp_path / "other", make_model, tokenizer, max_shard_size="1GB")
    push_space(str(other), "org/try-it")
    found = set(repo.history()[0].files) - set(space_files("other")) - {".gitattributes"}
    assert found == {f"student/{name}" for name in local_files(other)} | set(notes)


def test_public_space_is_not_taken_for_private(hub: Hub, student: Path) -> None:
    push_space(str(student), "org/try-it")
    before = hub.repo("org/try-it", "spaces").history()
    with pytest.raises(ValueError, match="org/try-it exists and is public"):
        push_space(str(student), "org/try-it", private=True)
    assert hub.repo("org/try-it", "spaces").history() == before


def test_large_files_go_in_parts(hub: Hub, student: Path) -> None:
    hub.multipart_above = 100
    push(str(student), "org/student")
    assert any(call.startswith("PUT /lfs/") and call.count("/") == 3 for call in hub.requests)
    expected = local_files(student)
    assert {name: content for name, content in files_of(hub).items() if name.endswith(".safetensors")} == {
        name: content for name, content in expected.items() if name.endswith(".safetensors")
    }


def test_commit_of_someone_else_meanwhile(hub: Hub, student: Path) -> None:
    push(str(student), "org/student")
    repo = hub.repo("org/student")
    (student / "recipe.yaml").write_text("seed: 1\n")

    def interfere(call: str) -> None:
        if "/commit/" in call:
            hub.before = lambda call: None
            repo.commit(dict(repo.history()[0].files), title="theirs")

    hub.before = interfere
    with pytest.raises(OSError, match="someone else has pushed"):
        push(str(student), "org/student")
    assert repo.history()[0].title == "theirs"
    push(str(student), "org/student")


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("config.json", "/preupload/"),  # read already: what was read is sent, so this one changes nothing
        ("model-00002-of-00005.safetensors", "/repos/create"),
        ("config.json", "/repos/create"),
        ("recipe.yaml", "/repos/create"),
        ("model-00002-of-00005.safetensors", "/preupload/"),
        ("model-00002-of-00005.safetensors", "/info/lfs/"),
        ("vocabulary.safetensors", "PUT /lfs/"),
    ],
)
def test_file_that_changes_meanwhile(hub: Hub, student: Path, name: str, when: str) -> None:
    whole = local_files(student)
    whole["README.md"] = whole["README.md"].replace(b"<this repo or folder>", b"org/student")

    def interfere(call: str) -> None:
        if when in call:
            hub.before = lambda call: None
            content = (student / name).read_bytes()
            (student / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    hub.before = interfere
    if (name, when) == ("config.json", "/preupload/"):
        push(str(student), "org/student")
    else:
        with pytest.raises((ValueError, OSError), match=r"has changed|BadDigest|content is not|refused"):
            push(str(student), "org/student")
    shown = files_of(hub)
    assert shown in ({}, whole)


@pytest.mark.parametrize("when", ["/repos/create", "PUT /lfs/", "/commit/"])
def test_hub_that_does_not_answer(student: Path, hub: Hub, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries again and again

    def hang_up(call: str) -> None:
        if when in call:
            raise ConnectionError

    hub.before = hang_up
    with pytest.raises(OSError, match=r"does not answer .* check the network"):
        push(str(student), "org/student")
    assert not hub.repos or not files_of(hub)


@pytest.mark.parametrize(
    ("repo", "revision", "message"),
    [
        ("org/nothing", None, "neither a folder here nor a repository"),
        ("org/student", "v9", "no branch, tag or commit 'v9'"),
        ("org/stu dent", None, "neither a folder nor the name"),
    ],
)
def test_names_of_nothing(hub: Hub, student: Path, repo: str, revision: str | None, message: str) -> None:
    push(str(student), "org/student")
    for read in (info, NgramClassifier.from_pretrained):
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            read(repo, revision=revision)


def test_without_a_token(hub: Hub, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 7)
    with pytest.raises(OSError, match="log in with `hf auth login`") as caught:
        push(str(student), "org/student")
    assert "wrong" not in str(caught.value)
    assert not hub.repos


def change(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def first_shard(folder: Path) -> Path:
    return min(folder.glob("model-*.safetensors"))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "shard missing": lambda folder: first_shard(folder).unlink(),
    "shard cut": lambda folder: os.truncate(first_shard(folder), first_shard(folder).stat().st_size - 8),
    "other weights": lambda folder: first_shard(folder).write_bytes(first_shard(folder).read_bytes()[:-1] + b"\1"),
    "other vocabulary": lambda folder: change(folder / "vocabulary.safetensors", b"good", b"gold"),
    "code": lambda folder: change(folder / "modeling_sparse_ngram.py", b"import os\n", b"import os, sys\n"),
    "code missing": lambda folder: (folder / "words_sparse_ngram.py").unlink(),
    "more code": lambda folder: (folder / "setup.py").touch(),
    "code elsewhere": lambda folder: change(folder / "config.json", b'"conf', b'"evil/code--conf'),
    "no vocabulary": lambda folder: (folder / "vocabulary.safetensors").unlink(),
    "token": lambda folder: (folder / "recipe.yaml").write_text(f"token: {TOKEN}\n"),
    "card": lambda folder: (folder / "README.md").write_text("---\nlicense: [\n---\n"),
    "report": lambda folder: (folder / "report.json").write_text('{"a": '),
}


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("shard missing", "model-00001"),
        ("shard cut", "truncated"),
        ("other weights", "belong to another student"),
        ("other vocabulary", "vocabulary.safetensors has SHA-256"),
        ("code", "modeling_sparse_ngram.py"),
        ("code missing", "words_sparse_ngram.py"),
        ("more code", "setup.py"),
        ("code elsewhere", "evil/code--"),
        ("no vocabulary", "vocabulary.safetensors"),
        ("token", "access token"),
        ("card", "README.md"),
        ("report", "report.json"),
    ],
)
def test_nothing_is_pushed_that_is_not_whole(hub: Hub, student: Path, kind: str, named: str) -> None:
    DAMAGES[kind](student)
    with pytest.raises((ValueError, FileNotFoundError), match=named) as caught:
        push(str(student), "org/student")
    assert TOKEN not in str(caught.value)
    assert not hub.requests


@pytest.mark.parametrize("token", ["hf_oauth_" + "x1" * 20, "api_org_" + "x" * 34, "of a form of its own"])
def test_no_token_leaves_the_machine(hub: Hub, student: Path, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    (student / "recipe.yaml").write_text(f"note: {token}\n")
    with pytest.raises(ValueError, match="access token") as caught:
        push(str(student), "org/student")
    assert token not in str(caught.value)
    assert not hub.requests


def test_student_that_is_not_finite(
    hub: Hub, tmp_path: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    model = make_model()
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    model.save_pretrained(tmp_path / "nan")
    tokenizer.save_pretrained(tmp_path / "nan")
    (tmp_path / "nan" / "README.md").write_text("---\nlicense: mit\n---\n")
    with pytest.raises(ValueError, match="not finite"):
        push(str(tmp_path / "nan"), "org/student")
    assert not hub.requests


def test_student_without_a_report(
    hub: Hub, tmp_path: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer
) -> None:
    make_model().save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    push(str(tmp_path / "bare"), "org/student")
    card = ModelCard(files_of(hub)["README.md"].decode())
    assert card.data.library_name == "transformers"
    assert 'model="org/student"' in card.text


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_folder_of_no_student(hub: Hub, tmp_path: Path, folder: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder|config\.json"):
        push(str(tmp_path / folder), "org/student")


@pytest.mark.parametrize("way", ["model and tokenizer", "pipeline"])
def test_push_as_any_model(hub: Hub, student: Path, way: str) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(student, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(student, trust_remote_code=True)
    local = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    if way == "pipeline":
        local.push_to_hub("org/again")
        assert len(hub.repo("org/again").history()) == 2
    else:
        model.push_to_hub("org/again", max_shard_size="1KB")
        tokenizer.push_to_hub("org/again")
        assert len(hub.repo("org/again").history()) == 3
        assert sum(name.startswith("model-") for name in files_of(hub, "org/again")) > 2
    assert not [name for name in files_of(hub, "org/again") if "pytest" in name]
    there = pipeline("text-classification", model="org/again", trust_remote_code=True, device="cpu")
    for ours, theirs in zip(there(TEXTS, top_k=None), local(TEXTS, top_k=None), strict=True):
        assert [one["label"] for one in ours] == [one["label"] for one in theirs]
        assert [one["score"] for one in ours] == pytest.approx([one["score"] for one in theirs], abs=1e-6)


# A process that has imported all it needs, and pushes in a child for each line that it reads.
PUSHER = """
import os, sys
from hf_sparse.hub.push import push
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        push(*line.split())
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_push_that_is_killed(hub: Hub, student: Path, tmp_path: Path) -> None:
    variables = os.environ | environment(hub, tmp_path / "home") | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    pusher = subprocess.Popen([sys.executable, "-c", PUSHER], env=variables, text=True, **pipes)
    assert pusher.stdout is not None
    assert pusher.stdin is not None
    assert pusher.stdout.readline() == "ready\n"
    child: list[int] = []

    def start(repo: str) -> int:
        assert pusher.stdout is not None
        assert pusher.stdin is not None
        pusher.stdin.write(f"{student} {repo}\n")
        pusher.stdin.flush()
        child[:] = [int(pusher.stdout.readline())]
        return int(pusher.stdout.readline())

    assert start("org/whole") == 0
    calls = list(hub.requests)
    points = [index for index, call in enumerate(calls) if call.startswith(("POST", "PUT"))]
    assert len(points) >= 10
    points = points[:: len(points) // 10]
    whole = {name for name in files_of(hub, "org/whole")}
    for number, point in enumerate(points):
        for blob in hub.blobs.iterdir():
            blob.unlink()
        seen: list[str] = []

        def kill(call: str, point: int = point, seen: list[str] = seen) -> None:
            seen.append(call)
            if len(seen) == point + 1:
                while not child:
                    pass
                os.kill(child[0], signal.SIGKILL)
                raise ConnectionError

        # Before a call is carried out, and when it is but is not answered.
        is_after = number % 2 == 1
        setattr(hub, "after" if is_after else "before", kill)
        repo = f"org/killed-{point}"
        child.clear()
        assert start(repo) == -signal.SIGKILL
        hub.before = hub.after = lambda call: None
        if ("models", repo) in hub.repos:
            shown = set(files_of(hub, repo))
            is_committed = is_after and "/commit/" in calls[point]
            assert shown == (whole if is_committed else set())
        hub.requests.clear()
        uploaded = {path.name for path in hub.blobs.iterdir()}
        assert start(repo) == 0
        assert set(files_of(hub, repo)) == whole
        again = {call.rpartition("/")[2] for call in hub.requests if call.startswith("PUT")}
        assert not again & uploaded
        assert len(hub.repo(repo).history()) == 2
    pusher.stdin.close()
    pusher.wait()


def test_offline_from_the_cache(hub: Hub, student: Path, tmp_path: Path) -> None:
    push(str(student), "org/student")
    variables = os.environ | environment(hub, tmp_path / "home") | {"PYTHONPATH": str(ROOT)}
    code = (
        "import time; from transformers import pipeline; start = time.perf_counter();"
        "pipe = pipeline('text-classification', model='org/student', trust_remote_code=True, device='cpu');"
        "print(pipe('good film')[0]['score'], time.perf_counter() - start)"
    )

    def load(**more: str) -> tuple[float, float]:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=variables | more, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        score, seconds = map(float, done.stdout.split())
        return score, seconds

    online, _ = load()
    hub.requests.clear()
    offline, seconds = load(HF_HUB_OFFLINE="1")
    assert offline == online
    assert not hub.requests
    assert seconds < 10  # loading tries no network; how fast it is, is no test


def test_poisoned_repository_harms_nothing(hub: Hub, student: Path, tmp_path: Path) -> None:
    push(str(student), "org/poisoned")
    repo = hub.repo("org/poisoned")
    pickled = b"cos\nsystem\n(S'touch " + str(tmp_path / "harmed").encode() + b"'\ntR."
    more = {name: hub.add_blob(pickled, is_large=True) for name in ("pytorch_model.bin", "model.pkl")}
    code = hub.add_blob(f"open({str(tmp_path / 'harmed')!r}, 'w')\n".encode(), is_large=False)
    more |= {name: code for name in ("modeling_sparse_ngram.py", "configuration_sparse_ngram.py")}
    repo.commit(repo.history()[0].files | more, title="poison")
    NgramClassifier.from_pretrained("org/poisoned")
    folder = Path(snapshot_download("org/poisoned"))
    with pytest.raises(ValueError, match="is not that of hf-sparse"):
        push(str(folder), "org/mine")
    assert not (tmp_path / "harmed").exists()
    # The classes of hf-sparse are registered: they load it, not the code of the repository.
    AutoTokenizer.from_pretrained("org/poisoned")
    AutoModelForSequenceClassification.from_pretrained("org/poisoned")
    assert not (tmp_path / "harmed").exists()


def test_path_outside_the_folder(hub: Hub, student: Path, tmp_path: Path) -> None:
    push(str(student), "org/poisoned")
    repo = hub.repo("org/poisoned")
    files = dict(repo.history()[0].files)
    files["../../../escaped.safetensors"] = files["vocabulary.safetensors"]
    index = json.loads(files["model.safetensors.index.json"].path.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../../escaped.safetensors")
    files["model.safetensors.index.json"] = hub.add_blob(json.dumps(index).encode(), is_large=False)
    repo.commit(files, title="poison")
    with pytest.raises((ValueError, OSError), match=r"\.\."):
        NgramClassifier.from_pretrained("org/poisoned")
    assert not list(tmp_path.rglob("escaped.safetensors"))


def test_pull_by_revision_code_revision_and_subfolder(hub: Hub, student: Path, tmp_path: Path) -> None:
    push(str(student), "org/student", tag="v1")
    repo = hub.repo("org/student")
    first = repo.refs["main"]
    config = json.loads((student / "config.json").read_text())
    config["id2label"]["0"] = "renamed"
    changed = hub.add_blob(json.dumps(config).encode(), is_large=False)
    repo.commit(repo.history()[0].files | {"config.json": changed}, title="other labels")

    def labels(repo_id: str = "org/student", **options: Any) -> list[str]:
        model = AutoModelForSequenceClassification.from_pretrained(repo_id, trust_remote_code=True, **options)
        return list(model.config.id2label.values())

    assert "renamed" in labels()
    for revision in ("v1", first):
        assert "renamed" not in labels(revision=revision)
        assert "renamed" not in NgramClassifier.from_pretrained("org/student", revision=revision).labels
    assert "renamed" in labels(code_revision="v1")
    assert "renamed" not in labels(revision="v1", code_revision="main")
    nested = {f"small/{name}": blob for name, blob in repo.history()[0].files.items()}
    hub.repos["models", "org/two"] = Repo("models", "org/two")
    # transformers looks for code at the root only.
    code = {name: blob for name, blob in repo.history()[0].files.items() if name.endswith(".py")}
    hub.repo("org/two").commit(nested | code, title="in a folder")
    assert "renamed" in labels("org/two", subfolder="small")
    tokenizer = AutoTokenizer.from_pretrained("org/two", subfolder="small", trust_remote_code=True)
    local = AutoTokenizer.from_pretrained(student, trust_remote_code=True)
    assert tokenizer(TEXTS)["input_ids"] == local(TEXTS)["input_ids"]


def test_commands(
    hub: Hub, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["push", str(student), "org/student", "--private", "--tag", "v1.0", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["tag"] == "v1.0"
    cli.main(["info", "org/student"])
    assert "num ngrams" in capsys.readouterr().out
    assert not [call for call in hub.requests if call.startswith("GET") and call.endswith(".safetensors")]
    cli.main(["info", "org/student", "--verify", "true", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["verified"]
    cli.main(["card", str(student)])
    assert "README.md" in capsys.readouterr().out
    cli.main(["demo", "org/student", "--push-space", "org/try-it"])
    assert "org/try-it" in capsys.readouterr().out
    space = hub.repo("org/try-it", "spaces")
    assert space.sdk == "gradio"
    assert [commit.title for commit in space.history()] == ["A page to try org/student", "initial commit"]
    assert b"build_app('org/student'" in space.history()[0].files["app.py"].path.read_bytes()
    cli.main(["demo", str(student), "--push-space"])
    space = hub.repo("org/student", "spaces")
    assert b"build_app('student'" in space.history()[0].files["app.py"].path.read_bytes()
    inside = {name.partition("/")[2] for name in space.history()[0].files if name.startswith("student/")}
    assert inside == set(local_files(student))
    (tmp_path / "in.txt").write_text("good film\n")
    cli.main(["predict", "org/student", str(tmp_path / "in.txt"), str(tmp_path / "out.jsonl"), "--revision", "v1.0"])
    expected = NgramClassifier.from_pretrained(student).predict(["good film"])
    assert json.loads((tmp_path / "out.jsonl").read_text())["label"] == expected[0]
    capsys.readouterr()
    cli.main(["explain", "org/student", "--revision", "v1.0", "--text", "good film", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["texts"][0]["label"] == expected[0]
    with pytest.raises(SystemExit) as end:
        cli.main(["explain", "org/student", "--revision", "v9", "--text", "good film"])
    assert end.value.code == 2
    assert "no branch, tag or commit 'v9'" in capsys.readouterr().err


def test_benchmark_from_a_name_alone(hub: Hub, student: Path, tmp_path: Path) -> None:
    push(str(student), "org/student")
    small: dict[str, Any] = {"quick": True, "seconds": 0.01, "rounds": 1, "lengths": [12], "batch_sizes": [8]}
    report = bench("org/student", output=str(tmp_path / "bench"), contestants=["runtime-*"], threads=[1], **small)
    assert report["texts"]["source"] == "made of the student's n-grams"
    assert report["cells"][0]["warm"]["median"] > 0
    vocabulary = NgramVocabulary.load(student)
    texts = made_texts(vocabulary, seed=0).texts
    assert texts == made_texts(vocabulary, seed=0).texts
    known = {vocabulary.ngram_text(row) for row in range(1, vocabulary.num_rows)}
    assert set(texts[0].split()) <= {word for ngram in known for word in ngram.split()}
    counts = [sum(text.count(vocabulary.ngram_text(row)) for text in texts) for row in (1, vocabulary.num_rows - 1)]
    assert counts[0] > counts[1]
