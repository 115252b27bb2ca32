"""The same page as a Space of the Hub."""

from pathlib import Path
from typing import Any, Final

import gradio as gr
import yaml
from huggingface_hub import CommitOperationAdd, HfApi

import hf_sparse
from hf_sparse.hub.push import check_private, deletions, explained
from hf_sparse.hub.verify import read_metadata, verify_student

_INSIDE: Final = "student"
_APP: Final = '''"""A page to try {name!r}."""

from hf_sparse.demo import build_app

build_app({model!r}, revision={revision!r}).launch()
'''


def space_files(
    model: str, *, revision: str | None = None, license_name: str | None = None, is_inside: bool = False
) -> dict[str, str]:
    """Return the files of a Space that shows a student, by name.

    Args:
        model: Repository of the student, or its name where it is inside.
        revision: Its branch, tag or commit.
        license_name: Of the student.
        is_inside: Whether the student is a folder of the Space, `student`.
    """
    name = model.rpartition("/")[2]
    metadata: dict[str, Any] = {
        "title": name,
        "emoji": "⚡",
        "sdk": "gradio",
        "sdk_version": gr.__version__,
        "app_file": "app.py",
        "short_description": "Try a classifier that answers in microseconds",
    }
    if not is_inside:
        metadata["models"] = [model]
    if license_name is not None:
        metadata["license"] = license_name
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    link = f"[{name}](./{_INSIDE}/README.md)" if is_inside else f"[{model}](https://huggingface.co/{model})"
    return {
        "README.md": f"---\n{front}---\n\nTry {link}.\n",
        "app.py": _APP.format(name=model, model=_INSIDE if is_inside else model, revision=revision),
        # Spaces have no GPU by default: the small torch.
        "requirements.txt": "--extra-index-url https://download.pytorch.org/whl/cpu\n"
        f"hf-sparse[demo]=={hf_sparse.__version__}\n",
    }


def push_space(
    model: str, space: str | None = None, *, revision: str | None = None, private: bool = False
) -> dict[str, Any]:
    """Push the Space of a student in one commit; it is made if there is none.

    Args:
        model: Repository of the student, or its folder, which goes into the Space then, if it is whole.
        space: Where to, `name` or `organisation/name`; None is the name of the student.
        revision: Branch, tag or commit of the student.
        private: Make a Space that others do not see; one that exists must be private already.

    Raises:
        FileNotFoundError: A file of the student is missing.
        ValueError: The student is not whole, or the Space is public and a private one is asked for.
        OSError: The Hub did not answer, or refused.
    """
    api = HfApi()
    folder = Path(model)
    own_name = folder.resolve().name if folder.is_dir() else model
    space = space or own_name
    additions: dict[str, bytes | Path] = {}
    with explained(space):
        if folder.is_dir():
            student = verify_student(folder)
            additions = {f"{_INSIDE}/{name}": folder / name for name in student.files}
            card = folder / "README.md"
            license_name = read_metadata(card).get("license") if card.is_file() else None
            texts = space_files(own_name, license_name=license_name, is_inside=True)
        else:
            found = api.model_info(model, revision=revision)
            license_name = found.card_data.get("license") if found.card_data else None
            texts = space_files(model, revision=revision, license_name=license_name)
        additions |= {path: text.encode() for path, text in texts.items()}
        name = api.create_repo(
            space, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True
        ).repo_id
        head = api.space_info(name)
        check_private(head, private=private)
        commit = api.create_commit(
            name,
            [
                *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in additions.items()),
                *deletions(head, additions, folder=f"{_INSIDE}/"),
            ],
            repo_type="space",
            commit_message=f"A page to try {own_name}",
            parent_commit=head.sha,
        )
    return {"space": name, "commit": commit.oid, "url": str(commit.repo_url)}
