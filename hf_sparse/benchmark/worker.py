"""The process of one contestant: loads it, and answers the coordinator's requests, one line of JSON each.

This file is run as a script, with the interpreter of the contestant's own environment, which need not have hf_sparse:
it imports nothing but the standard library, and finds the contestant by the path of its module. What the contestant's
libraries print goes to stderr, so that the replies on stdout stay clean.
"""

import gc
import importlib.util
import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

_EVICTION_BYTES = 128 << 20
_WARM_UP_SECONDS = 0.02
_TOUCH_TEXTS = 256
_TOUCH_SECONDS = 1.0


class Worker:
    """One contestant and the texts it is measured on."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """Keep what the coordinator says about the contestant; nothing is imported yet."""
        self._spec = spec
        self._peer: Any = None
        self._texts: dict[int, list[str]] = {}
        self._junk = bytearray()
        self._position = 0

    def prepare(self) -> dict[str, Any]:
        """Train, convert or compile what the contestant needs; not timed against others."""
        start = time.perf_counter()
        peer = self._make_peer()
        if hasattr(peer, "prepare"):
            peer.prepare(Path(self._spec["folder"]))
        return {"seconds": time.perf_counter() - start}

    def load(self, length: int, from_disk: bool) -> dict[str, Any]:
        """Import the contestant's libraries, load it, and classify one text and then 256, timed.

        Args:
            length: Which texts.
            from_disk: Have the system forget the model's files first.

        Returns:
            Times, the memory after 256 texts, and the size of the files; `first_call_seconds` is the first text ever.
        """
        if from_disk:
            drop_page_cache(self._files())
        texts = self._pool(length)
        start = time.perf_counter()
        self._peer = self._make_peer()
        if hasattr(self._peer, "import_libraries"):
            self._peer.import_libraries()
        imported = time.perf_counter()
        self._peer.load(Path(self._spec["folder"]))
        loaded = time.perf_counter()
        self._peer.predict(texts[:1])
        answered = time.perf_counter()
        self._touch(texts)
        return {
            "import_seconds": imported - start,
            "load_seconds": loaded - imported,
            "first_call_seconds": answered - loaded,
            "memory": memory(),
            "file_bytes": sum(path.stat().st_size for path in self._files()),
            "versions": _versions(self._spec.get("packages", [])),
            "note": getattr(self._peer, "note", ""),
        }

    def probe(self, length: int, texts: int) -> dict[str, Any]:
        """Return the seconds of one call on some texts, the second of two."""
        pool = self._pool(length)
        self._peer.predict(pool[:1])
        return {"seconds": self._time(pool[:texts])}

    def measure(
        self, length: int, batch_size: int, seconds: float, max_calls: int, part_size: int, max_parts: int, cold: bool
    ) -> dict[str, Any]:
        """Time calls on successive batches of texts: a cold one, some uncounted, then warm ones.

        Args:
            length: Which texts.
            batch_size: Texts a call.
            seconds: Time for the warm calls; there is at least one.
            max_calls: Warm calls at most.
            part_size: 0 hands over whole batches; else a batch is sorted by length and handed over in parts.
            max_parts: Of how many parts of a batch the time is taken; that of the rest is extrapolated.
            cold: Empty the processor's caches and time a first call, which is then not counted as warm.
        """
        parts = (part_size, max_parts)
        begin = time.perf_counter()
        first = None
        if cold:
            self._evict()
            first = self._batch_seconds(length, batch_size, parts)
        else:
            # The other contestants have had the caches since the last round.
            end = time.perf_counter() + min(_WARM_UP_SECONDS, seconds / 4)
            while time.perf_counter() < end:
                self._batch_seconds(length, batch_size, parts)
        calls: list[float] = []
        end = time.perf_counter() + seconds
        while not calls or (len(calls) < max_calls and time.perf_counter() < end):
            calls.append(self._batch_seconds(length, batch_size, parts))
        return {"cold_seconds": first, "call_seconds": calls, "spent_seconds": time.perf_counter() - begin}

    def answer(self, file: str, seconds: float, batch_size: int) -> dict[str, Any]:
        """Return the labels of the texts of a file, of as many as there is time for."""
        texts = json.loads(Path(file).read_text(encoding="utf-8"))
        labels: list[str] = []
        end = time.perf_counter() + seconds
        for start in range(0, len(texts), batch_size):
            labels += self._peer.predict(texts[start : start + batch_size])
            if time.perf_counter() > end:
                break
        return {"labels": labels}

    def memory(self) -> dict[str, Any]:
        """Return the memory of the process now."""
        return memory()

    def _make_peer(self) -> Any:
        # A worker that stands for a machine without a package must not find it: None in sys.modules stops the import.
        for name in self._spec.get("hidden", []):
            sys.modules[name] = None  # type: ignore[assignment]
        path = Path(self._spec["module"])
        module_spec = importlib.util.spec_from_file_location(f"benchmark_peer_{path.stem}", path)
        assert module_spec is not None, "spec_from_file_location knows every .py file"
        assert module_spec.loader is not None, "a .py file has a loader"
        module = importlib.util.module_from_spec(module_spec)
        # numba finds the globals of a cached function by the name of its module.
        sys.modules[module_spec.name] = module
        module_spec.loader.exec_module(module)
        return getattr(module, self._spec["class"])(threads=self._spec["threads"], **self._spec["options"])

    def _files(self) -> list[Path]:
        """Return the files of the contestant's model."""
        found: list[Path] = []
        for name in self._spec.get("files", []):
            path = Path(name)
            found += sorted(path.rglob("*")) if path.is_dir() else [path]
        return [path for path in found if path.is_file()]

    def _pool(self, length: int) -> list[str]:
        if length not in self._texts:
            # One length at a time: the texts of a worker are part of its memory.
            self._texts = {length: json.loads(Path(self._spec["texts"][str(length)]).read_text(encoding="utf-8"))}
            self._position = 0
        return self._texts[length]

    def _touch(self, texts: list[str]) -> None:
        """Bring pages in that a first request need not pay for again: 256 texts, of a slow contestant fewer."""
        start, size = 0, 1
        while start < min(_TOUCH_TEXTS, len(texts)):
            if self._time(texts[start : start + size]) > _TOUCH_SECONDS:
                return
            start, size = start + size, min(2 * size, 32)

    def _evict(self) -> None:
        """Write over more memory than any cache of the processor holds."""
        if not self._junk:
            self._junk = bytearray(_EVICTION_BYTES)
        self._junk[::64] = bytes(len(self._junk) // 64)

    def _batch_seconds(self, length: int, batch_size: int, parts: tuple[int, int]) -> float:
        pool = self._pool(length)
        batch = [pool[(self._position + index) % len(pool)] for index in range(batch_size)]
        self._position = (self._position + batch_size) % len(pool)
        if not parts[0]:
            return self._time(batch)
        chosen, share = choose_parts(batch, parts[0], parts[1])
        return sum(self._time(part) for part in chosen) / share

    def _time(self, texts: list[str]) -> float:
        start = time.perf_counter()
        self._peer.predict(texts)
        return time.perf_counter() - start


def choose_parts(batch: list[str], part_size: int, max_parts: int) -> tuple[list[list[str]], float]:
    """Sort a batch by length, cut it into parts and choose some, evenly from short to long.

    Returns:
        The parts, and their share of the batch's characters (1 when all are chosen).
    """
    ordered = sorted(batch, key=len)
    parts = [ordered[start : start + part_size] for start in range(0, len(ordered), part_size)]
    if len(parts) <= max_parts:
        return parts, 1.0
    chosen = [parts[(2 * index + 1) * len(parts) // (2 * max_parts)] for index in range(max_parts)]
    characters = sum(len(text) for part in chosen for text in part)
    return chosen, characters / max(1, sum(map(len, batch)))


def memory() -> dict[str, int]:
    """Return the resident memory of this process in bytes: now, at its peak, and what of it are pages of files.

    The peak is the process's own (`VmHWM`); `getrusage` may report that of the process which started it.
    """
    fields = {"VmRSS": "resident", "VmHWM": "peak", "RssAnon": "anonymous", "RssFile": "files"}
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {fields[name]: int(value.split()[0]) * 1024 for name, value in pairs if name in fields}


def drop_page_cache(files: list[Path]) -> None:
    """Ask the system to forget the pages of files, so that loading reads them from disk; needs no privilege."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _versions(packages: list[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer requests until there are no more; an error of the contestant is an answer too."""
    spec = json.loads(requests.readline())
    if hasattr(os, "sched_setaffinity"):
        # More threads than a library was told to use would find no processor to run on.
        os.sched_setaffinity(0, spec["processors"])
    worker = Worker(spec)
    for line in requests:
        request = json.loads(line)
        try:
            reply = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # whatever a third-party library raises is the reason of a blank row
            reply = {"error": f"{type(error).__name__}: {error}".strip()[:500]}
        gc.collect()
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, channel)
