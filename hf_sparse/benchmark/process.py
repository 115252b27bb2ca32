"""A contestant's process as the coordinator sees it: started, asked one thing at a time, stopped."""

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any, Protocol

from hf_sparse.processors import available_processors

_WORKER = Path(__file__).with_name("worker.py")
# Where a library takes its number of threads from; each process is pinned to as many processors besides.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


class ContestantError(RuntimeError):
    """A contestant could not do what it was asked; the message says why, and becomes the reason of a blank row."""


class Channel(Protocol):
    """What the harness needs of a contestant."""

    def ask(self, do: str, *, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Have the contestant do something and return its reply."""
        ...


class ContestantProcess:
    """A worker process and the pipes to it."""

    def __init__(self, python: str, spec: dict[str, Any], *, environment: dict[str, str], log: Path) -> None:
        """Start the process.

        Args:
            python: The interpreter of the contestant's environment.
            spec: What `worker.Worker` needs to know.
            environment: Environment variables besides the coordinator's own.
            log: Where the process's stderr goes.
        """
        self._log = log
        with log.open("ab") as stderr:
            # -P: the folder of worker.py has modules whose names are also those of the standard library.
            self._process = subprocess.Popen(
                [python, "-P", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | environment,
            )
        self._pending = b""
        self._write(spec)

    def ask(self, do: str, *, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Have the worker do something and wait for the reply.

        Args:
            do: The name of a method of `worker.Worker`.
            timeout: Seconds to wait; then the process is ended.
            arguments: Those of the method.

        Raises:
            ContestantError: If the contestant fails, ends, or does not answer in time.
        """
        self._write({"do": do, **arguments})
        reply: dict[str, Any] = json.loads(self._read_line(time.monotonic() + timeout, timeout))
        if "error" in reply:
            raise ContestantError(reply["error"])
        return reply

    @property
    def is_running(self) -> bool:
        """Whether the process is there to be asked."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ContestantError(self._ending()) from error

    def _read_line(self, deadline: float, timeout: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._process.kill()
                raise ContestantError(f"no answer within {timeout:.0f} s")
            part = os.read(descriptor, 1 << 16)
            if not part:
                raise ContestantError(self._ending())
            self._pending += part
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def _ending(self) -> str:
        """Say how the process ended, with the last line that it wrote."""
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the process ended with code {code}" + (f": {lines[-1][:300]}" if lines else "")


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment variables that hold a process to some threads."""
    variables = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    variables["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    # Threads that spin while they wait would take the processor from the contestant whose turn it is.
    variables["OMP_WAIT_POLICY"] = "PASSIVE"
    variables["HF_HUB_OFFLINE"] = "1"
    return variables


def pinned_processors(threads: int) -> list[int]:
    """Return the processors that contestants with some threads run on: the last ones, since the first has interrupts.

    Raises:
        ValueError: If there are not as many.
    """
    processors = available_processors()
    if threads > len(processors):
        raise ValueError(f"threads must be at most {len(processors)}, the processors of this machine, got {threads}")
    return processors[-threads:]
