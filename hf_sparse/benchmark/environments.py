"""Environments of their own for contestants whose packages do not go together with the others'.

An environment sees the packages of the one that runs the benchmark, behind its own: `fasttext-turbo` takes the place
of `fasttext-numpy2` there, and luxical finds torch and numba without what it needs for training only.
"""

import logging
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

logger = logging.getLogger(__name__)

REQUIREMENTS = {
    "fasttext-turbo": ("fasttext-turbo==0.1.0",),
    "luxical": ("luxical==1.1.2", "arrow-tokenize==1.0.2"),
}


class EnvironmentMissingError(RuntimeError):
    """An environment could not be made; the message says why."""


def python_of(name: str, *, folder: Path) -> str:
    """Return the interpreter of an environment, made when it is not there.

    Args:
        name: One of `REQUIREMENTS`.
        folder: Where environments are kept.

    Raises:
        EnvironmentMissingError: If its packages cannot be installed.
    """
    target = folder / name
    python = target / "bin" / "python"
    wanted = " ".join(REQUIREMENTS[name])
    marker = target / "requirements.txt"
    if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
        return str(python)
    logger.info("making an environment for %s", wanted)
    shutil.rmtree(target, ignore_errors=True)
    try:
        _run([sys.executable, "-m", "venv", "--without-pip", str(target)])
        parents = "\n".join(dict.fromkeys(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")))
        next(target.glob("lib/python*/site-packages")).joinpath("parent.pth").write_text(parents, encoding="utf-8")
        _run([sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", *REQUIREMENTS[name]])
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", "") or str(error)
        raise EnvironmentMissingError(f"{wanted} cannot be installed: {output.strip().splitlines()[-1]}") from error
    marker.write_text(wanted, encoding="utf-8")
    return str(python)


def _run(command: list[str]) -> None:
    # PIP_USER and the like would put packages elsewhere.
    variables = {name: value for name, value in os.environ.items() if name not in ("PIP_USER", "PYTHONPATH")}
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=variables)
