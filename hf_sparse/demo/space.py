"""The same page as a Space of the Hub."""

from typing import Any, Final

import gradio as gr
import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

import hf_sparse
from hf_sparse.hub.push import explain_refusal

_APP: Final = '''"""A page to try {model!r}."""

from hf_sparse.demo import build_app

build_app({model!r}, revision={revision!r}).launch()
'''


def space_files(model: str, *, revision: str | None = None, license_name: str | None = None) -> dict[str, str]:
    """Return the files of a Space that shows a student of the Hub, by name.

    Args:
        model: Repository of the student.
        revision: Its branch, tag or commit.
        license_name: Of the student.
    """
    metadata: dict[str, Any] = {
        "title": model.rpartition("/")[2],
        "emoji": "⚡",
        "sdk": "gradio",
        "sdk_version": gr.__version__,
        "app_file": "app.py",
        "models": [model],
        "short_description": "Try a classifier that answers in microseconds",
    }
    if license_name is not None:
        metadata["license"] = license_name
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return {
        "README.md": f"---\n{front}---\n\nTry [{model}](https://huggingface.co/{model}).\n",
        "app.py": _APP.format(model=model, revision=revision),
        # Spaces have no GPU by default: the small torch.
        "requirements.txt": "--extra-index-url https://download.pytorch.org/whl/cpu\n"
        f"hf-sparse[demo]=={hf_sparse.__version__}\n",
    }


def push_space(model: str, space: str, *, revision: str | None = None, private: bool = False) -> dict[str, Any]:
    """Push the Space of a student in one commit; it is made if there is none.

    Args:
        model: Repository of the student.
        space: Where to, `name` or `organisation/name`.
        revision: Branch, tag or commit of the student.
        private: Make a Space that others do not see.

    Raises:
        ValueError: The student is no repository of the Hub.
        OSError: The Hub did not answer, or refused.
    """
    api = HfApi()
    try:
        found = api.model_info(model, revision=revision)
        license_name = found.card_data.get("license") if found.card_data else None
        name = api.create_repo(
            space, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True
        ).repo_id
        files = space_files(model, revision=revision, license_name=license_name)
        operations = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=text.encode()) for path, text in files.items()
        ]
        commit = api.create_commit(name, operations, repo_type="space", commit_message=f"A page to try {model}")
    except HfHubHTTPError as error:
        raise OSError(explain_refusal(error, space)) from error
    return {"space": name, "commit": commit.oid, "url": str(commit.repo_url)}
