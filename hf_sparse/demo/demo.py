"""The command `hf-sparse demo`."""

from pathlib import Path
from typing import Any

from hf_sparse.demo.app import build_app
from hf_sparse.demo.space import push_space


def demo(
    model: str,
    *,
    revision: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    push_to_space: str | None = None,
    private: bool = False,
) -> dict[str, Any] | None:
    """Serve a page to try a student, or push it as a Space.

    Args:
        model: Folder of a student, or its repository on the Hub; nothing in it is run.
        revision: Branch, tag or commit of the repository.
        host: Address to listen on; 0.0.0.0 lets others in.
        port: Port to listen on.
        push_to_space: Push the page as this Space, `name` or `organisation/name`, instead of serving it here; the
            student must be a repository of the Hub then.
        private: Make a Space that others do not see.

    Raises:
        FileNotFoundError: There is no student.
        ValueError: It cannot be loaded, or a Space is asked for of a folder.
        OSError: The port is taken, or the Hub refused.
    """
    if push_to_space is not None:
        if Path(model).is_dir():
            raise ValueError(f"a Space needs a student on the Hub, but {model!r} is a folder; push it first")
        return push_space(model, push_to_space, revision=revision, private=private)
    build_app(model, revision=revision).launch(server_name=host, server_port=port, quiet=False, share=False)
    return None


def format_demo(result: dict[str, Any] | None) -> str:
    """Return where the Space is."""
    return "" if result is None else f"{result['url']} ({result['commit'][:7]})"
