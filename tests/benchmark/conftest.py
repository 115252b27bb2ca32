"""Contestants that take no time: a channel with a clock of its own, and a module that a real worker loads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_sparse.benchmark.process import ContestantError

PEER = '''
import time
from pathlib import Path


class Echo:
    """Answers with the first word of each text."""

    def __init__(self, *, threads, fail=None, sleep=0.0, package=None):
        self._fail, self._sleep, self._package = fail, sleep, package
        self.note = f"{threads} threads"

    def prepare(self, folder):
        print("libraries print what they like")
        (Path(folder) / "prepared").write_text("x" * 1000)

    def load(self, folder):
        if self._fail == "load":
            raise ImportError("no such library")
        if self._package:
            __import__(self._package)

    def predict(self, texts):
        if self._fail == "predict" and len(texts) > 1:
            raise MemoryError("too many texts")
        if self._fail == "exit":
            import os
            os._exit(3)
        time.sleep(self._sleep)
        return [text.split()[0] for text in texts]
'''


class FakeChannel:
    """A contestant that needs `seconds_per_text`, and notes what it is asked in a list that all share."""

    def __init__(self, name: str, seconds_per_text: float, log: list[tuple[str, str]], *, fails: str = "") -> None:
        self.name, self.seconds_per_text, self.log, self.fails = name, seconds_per_text, log, fails
        self.measured: list[dict[str, Any]] = []

    def ask(self, do: str, *, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Answer as a worker does."""
        self.log.append((self.name, do))
        if do == self.fails:
            raise ContestantError("it fell over")
        if do == "probe":
            return {"seconds": arguments["texts"] * self.seconds_per_text}
        self.measured.append(arguments)
        whole = arguments["batch_size"] * self.seconds_per_text
        part = arguments["part_size"] * arguments["max_parts"] or arguments["batch_size"]
        spent = part * self.seconds_per_text
        calls = max(1, min(arguments["max_calls"], int(arguments["seconds"] / spent)))
        cold = 2 * whole if arguments["cold"] else None
        return {"cold_seconds": cold, "call_seconds": [whole] * calls, "spent_seconds": spent * calls}


@pytest.fixture
def worker_spec(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make what a worker needs to know about the contestant `Echo`; arguments go to it."""
    (tmp_path / "peer.py").write_text(PEER, encoding="utf-8")
    texts = [f"label{index % 2} " + "word " * (index % 7) for index in range(64)]
    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")

    def make(hidden: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
        import os

        return {
            "module": str(tmp_path / "peer.py"),
            "class": "Echo",
            "options": options,
            "threads": 1,
            "hidden": hidden,
            "packages": ["numpy", "there-is-no-such-package"],
            "files": [str(tmp_path / "prepared")],
            "folder": str(tmp_path),
            "processors": sorted(os.sched_getaffinity(0))[-1:],
            "texts": {"4": str(tmp_path / "texts.json")},
        }

    return make
