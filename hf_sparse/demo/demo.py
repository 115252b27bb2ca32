"""The command `hf-sparse demo`."""

from typing import Any

from hf_sparse.demo import space
from hf_sparse.demo.app import build_app


def demo(
    model: str,
    *,
    revision: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    push_space: bool | str = False,
    private: bool = False,
) -> dict[str, Any] | None:
    """Serve a page to try a student, or push it as a Space.

    Args:
        model: Folder of a student, or its repository on the Hub; nothing in it is run.
        revision: Branch, tag or commit of the repository.
        host: Address to listen on; 0.0.0.0 lets others in.
        port: Port to listen on.
        push_space: Push the page as this Space, `name` or `organisation/name`, instead of serving it here; true gives
            it the student's name. A student that is a folder goes into the Space with it, if it is whole.
        private: Make a Space that others do not see; one that exists must be private already.

    Raises:
        FileNotFoundError: There is no student.
        ValueError: It cannot be loaded, is not whole, or a Space that should be private is public.
        OSError: The port is taken, or the Hub refused.
    """
    if push_space:
        name = None if push_space is True else push_space
        return space.push_space(model, name, revision=revision, private=private)
    build_app(model, revision=revision).launch(server_name=host, server_port=port, quiet=False, share=False)
    return None


def format_demo(result: dict[str, Any] | None) -> str:
    """Return where the Space is."""
    return "" if result is None else f"{result['url']} ({result['commit'][:7]})"
