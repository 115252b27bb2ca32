"""One of several processes that label: `python -m tests.distillation.label_worker FOLDER RANK PROCESSES SLEEP`.

The teacher answers with the length of a text and its last figure, and notes in `FOLDER/asked` what it was asked.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hf_sparse.distillation import labelling
from hf_sparse.distillation.labelling import label_texts


class SlowTeacher:
    """Takes its time for each part of a shard."""

    def __init__(self, notes: Path, sleep: float) -> None:
        self.model = type("Model", (), {"config": type("Config", (), {"num_labels": 2})})
        self._notes = notes
        self._sleep = sleep

    def logits(self, texts: list[str], pairs: list[str] | None = None, *, bar: Any = None) -> Any:
        """Answer."""
        with self._notes.open("a", encoding="utf-8") as file:
            file.write("".join(text + "\n" for text in texts))
        time.sleep(self._sleep)
        return np.array([[len(text), int(text[-1])] for text in texts], np.float32)


def main() -> None:
    """Label a share."""
    folder, rank, num_processes, sleep = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    labelling._PART_TEXTS = 5
    teacher: Any = SlowTeacher(folder / "asked", sleep)
    label_texts(
        teacher,
        folder / "texts",
        folder / "label",
        num_labels=2,
        rank=rank,
        num_processes=num_processes,
        progress=False,
    )


if __name__ == "__main__":
    main()
