"""The extras of the package: what a part needs beyond loading, predicting and pushing."""

from importlib.util import find_spec

EXTRAS = {
    "predict": ("jsonargparse", "pyarrow"),
    "onnx": ("jsonargparse", "onnx", "onnxruntime"),
    "demo": ("gradio", "jinja2", "jsonargparse", "pyarrow"),
    "serve": ("httptools", "jsonargparse", "orjson", "prometheus_client", "starlette", "uvicorn"),
    "bench": ("jsonargparse", "matplotlib", "pyarrow"),
    "cluster": ("datatrove",),
    "train": ("accelerate", "datasets", "evaluate", "jinja2", "jsonargparse", "pyarrow", "sklearn", "scipy"),
}


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        ImportError: If one is missing; the message holds the command that installs it.
    """
    # A folder without code (`recipes/accelerate`, next to a script) has a spec too, but no origin.
    missing = [name for name in EXTRAS[extra] if getattr(find_spec(name), "origin", None) is None]
    if missing:
        raise ImportError(f"this needs {', '.join(missing)}; install it with: pip install 'hf-sparse[{extra}]'")
