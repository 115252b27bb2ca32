"""What a process weighs before it holds a model."""

from pathlib import Path

from numba import njit


@njit(cache=True)
def _add(left: int, right: int) -> int:
    return left + right


class CachedKernel:
    """A process that has loaded one cached kernel: what a served student's memory is compared with."""

    def __init__(self, *, threads: int) -> None:
        """Nothing depends on the threads."""

    def prepare(self, folder: Path) -> None:
        """Compile the kernel into the cache on disk."""
        self.load(folder)

    def load(self, folder: Path) -> None:
        """Load the kernel."""
        _add(1, 2)

    def predict(self, texts: list[str]) -> list[str]:
        """Answer nothing."""
        _add(1, 2)
        return [""] * len(texts)
