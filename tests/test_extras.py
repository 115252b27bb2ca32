"""A missing extra fails with the command that installs it; the package itself imports nothing heavy."""

import subprocess
import sys

import pytest

from hf_sparse import extras


def test_missing_extra_names_packages_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "train", ("numpy", "no_such_package"))
    with pytest.raises(ImportError, match=r"no_such_package; install it with: pip install 'hf-sparse\[train\]'"):
        extras.require_extra("train")


def test_present_extra_passes() -> None:
    extras.require_extra("train")


@pytest.mark.parametrize("module", ["hf_sparse", "hf_sparse.runtime.kernel"])
def test_import_needs_neither_torch_nor_transformers(module: str) -> None:
    program = f"import {module}, sys; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_public_names_are_there() -> None:
    import hf_sparse

    for name in hf_sparse.__all__:
        assert getattr(hf_sparse, name) is not None
    with pytest.raises(AttributeError):
        _ = hf_sparse.no_such_name  # type: ignore[attr-defined]
