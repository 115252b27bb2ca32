"""Pushing a student: everything in one commit, or nothing."""

import fnmatch
import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    SpaceInfo,
    constants,
)
from huggingface_hub.errors import HfHubHTTPError

from hf_sparse.hub.card import PLACEHOLDER, write_card
from hf_sparse.hub.verify import CODE, VerifiedStudent, verify_student

# The client's own HTTP library, httpx or the one after it, whichever is installed.
_TransportError: Final = cast(type[Exception], HfHubHTTPError.__mro__[1])
# What belongs to one student only: a repository that held another one must not keep it.
_REPLACED: Final = ("model*.safetensors", "model.safetensors.index.json", "compression.json", "benchmark.*", CODE)


def push(
    folder: str,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    message: str = "Upload a sparse n-gram student",
) -> dict[str, Any]:
    """Push a student to the Hub in one commit, if it is whole.

    The repository is made if there is none. What an interrupted push has uploaded is not uploaded again, and the
    repository shows nothing of it before the commit. The access token is that of `hf auth login` or `HF_TOKEN`.

    Args:
        folder: The folder of a student: weights, vocabulary, code, card, report, benchmark and pictures are pushed.
        repo: Where to, `name` or `organisation/name`.
        private: Make a repository that others do not see; one that exists must be private already.
        revision: Branch to push to, made if there is none; `main` without it.
        create_pr: Open a pull request instead of committing.
        tag: Name for the commit, such as `v1.0`.
        message: First line of the commit.

    Returns:
        `repo`, `url`, `commit`, `revision`, `tag`, `pull_request`, `files`, `bytes` and `left_out`, what was in the
        folder and was not pushed.

    Raises:
        FileNotFoundError: A file of the student is missing.
        ValueError: The student is not whole, changes meanwhile, or the repository does not allow what is asked for.
        OSError: The Hub did not answer, or refused.
    """
    if not (Path(folder) / "README.md").is_file():
        write_card(Path(folder))
    student = verify_student(Path(folder))
    api = HfApi()
    with explained(repo):
        head = _prepare(api, repo, private=private, revision=revision, create_pr=create_pr, tag=tag)
        commit = _commit(api, student, head, revision=revision, create_pr=create_pr, message=message)
        if tag is not None:
            api.create_tag(head.id, tag=tag, revision=commit.oid)
    return {
        "repo": head.id,
        "url": str(commit.repo_url),
        "commit": commit.oid,
        "revision": commit.pr_revision or revision or "main",
        "tag": tag,
        "pull_request": commit.pr_url,
        "files": len(student.files),
        "bytes": sum((student.folder / name).stat().st_size for name in student.files),
        "left_out": student.left_out,
    }


def format_push(result: dict[str, Any]) -> str:
    """Return where a student has gone."""
    place = result["pull_request"] or f"{result['url']} ({result['revision']}, {result['commit'][:7]})"
    lines = [f"{result['files']} files, {result['bytes'] / 1e6:,.1f} MB: {place}"]
    if result["tag"]:
        lines.append(f"tag {result['tag']}")
    if result["left_out"]:
        lines.append(f"not pushed: {', '.join(result['left_out'])}")
    return "\n".join(lines)


def _prepare(
    api: HfApi, repo: str, *, private: bool, revision: str | None, create_pr: bool, tag: str | None
) -> ModelInfo:
    """Make repository and branch where they are missing; return what is there."""
    if create_pr and tag is not None:
        raise ValueError(f"tag is {tag!r}, but a pull request is no commit of the repository yet; tag it when merged")
    if not create_pr:
        # None leaves it to the organisation's settings.
        repo = api.create_repo(repo, private=private or None, exist_ok=True).repo_id
        if revision is not None and revision != "main":
            api.create_branch(repo, branch=revision, exist_ok=True)
    head = api.model_info(repo, revision=revision)
    check_private(head, private=private)
    if tag is not None and tag in {known.name for known in api.list_repo_refs(repo).tags}:
        raise ValueError(f"{repo} has a tag {tag!r} already; choose another")
    return head


def _commit(
    api: HfApi, student: VerifiedStudent, head: ModelInfo, *, revision: str | None, create_pr: bool, message: str
) -> CommitInfo:
    additions = [_addition(student, name, repo=head.id) for name in student.files]
    # The client reads weights again to send them; what it sends goes by the digest that it finds.
    api.preupload_lfs_files(head.id, additions, revision=revision, create_pr=create_pr, free_memory=False)
    for addition in additions:
        if addition.path_in_repo.endswith(".safetensors"):
            _check_unchanged(student, addition.path_in_repo, addition.upload_info.sha256.hex())
    operations: list[CommitOperationAdd | CommitOperationDelete | CommitOperationCopy] = [
        *additions,
        *deletions(head, student.files),
    ]
    return api.create_commit(
        head.id,
        operations,
        commit_message=message,
        revision=revision,
        create_pr=create_pr,
        # Fails where someone else has pushed since: what is stale was decided by this commit.
        parent_commit=head.sha,
    )


def _addition(student: VerifiedStudent, name: str, *, repo: str) -> CommitOperationAdd:
    path = student.folder / name
    if path.suffix == ".safetensors":
        return CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
    content = path.read_bytes()
    _check_unchanged(student, name, hashlib.sha256(content).hexdigest())
    if name == "README.md":
        content = content.replace(PLACEHOLDER.encode(), repo.encode())
    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)


def _check_unchanged(student: VerifiedStudent, name: str, digest: str) -> None:
    if digest != student.digests[name]:
        raise ValueError(
            f"{name} in {str(student.folder)!r} has changed while the student was pushed; nothing was committed: wait "
            "until whatever writes there is done, then run the same command again"
        )


def check_private(head: ModelInfo | SpaceInfo, *, private: bool) -> None:
    """Refuse a repository that others see where a private one is asked for.

    Raises:
        ValueError: It is public.
    """
    if private and not head.private:
        raise ValueError(f"{head.id} exists and is public; make it private in its settings, or push to another name")


def deletions(head: ModelInfo | SpaceInfo, kept: Collection[str], *, folder: str = "") -> list[CommitOperationDelete]:
    """Return what removes from a repository the files that belong to a former student only.

    Args:
        head: The repository as it is.
        kept: Files that the new student brings.
        folder: Where in the repository the student is, with a slash behind it.
    """
    stale = {file.rfilename for file in head.siblings or []} - set(kept)
    patterns = [folder + kind for kind in _REPLACED]
    found = sorted(name for name in stale if any(fnmatch.fnmatch(name, pattern) for pattern in patterns))
    return [CommitOperationDelete(path_in_repo=name) for name in found]


@contextmanager
def explained(repo: str) -> Iterator[None]:
    """Raise what goes wrong on the way to a repository as an OSError that says what it means to who writes there."""
    try:
        yield
    except (HfHubHTTPError, _TransportError, RuntimeError) as error:
        # What goes wrong in an upload the client wraps.
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, HfHubHTTPError):
            raise OSError(_explain_refusal(cause, repo)) from error
        if isinstance(cause, _TransportError):
            raise OSError(
                f"the Hub at {constants.ENDPOINT} does not answer ({cause}); {repo} is as it was: check the network, "
                "then run the same command again"
            ) from error
        raise


def _explain_refusal(error: HfHubHTTPError, repo: str) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return f"the Hub does not let you write to {repo} ({status}); log in with `hf auth login`, or set HF_TOKEN"
    if status == 412:
        return f"someone else has pushed to {repo} meanwhile; run the same command again"
    return f"the Hub refused ({status}): {error.server_message or error}"
