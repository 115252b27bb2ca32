"""Requests that arrive together are classified together."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Below this many characters (about 100 us of work) a batch is done before a thread could have been woken for it.
_INLINE_CHARACTERS: Final = 16_384


class Classifier(Protocol):
    """What the service needs of an `NgramClassifier`."""

    labels: list[str]
    problem_type: str
    label_thresholds: npt.NDArray[np.float64]

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Return probabilities (B, C)."""
        ...


class QueueFullError(Exception):
    """More texts are waiting than the service wants to keep."""


class Batcher:
    """Gathers the texts of concurrent requests into batches; lives in one event loop.

    Nothing ever waits for a batch to fill: what has arrived by the time the one before is done makes the next.
    """

    def __init__(self, classifier: Classifier, *, max_batch: int, max_queue: int) -> None:
        """Start with nothing waiting.

        Args:
            classifier: What classifies.
            max_batch: Most texts of a batch, but for a single request with more.
            max_queue: Most texts that may wait.
        """
        self._classifier = classifier
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._waiting: deque[tuple[list[str], asyncio.Future[Floats]]] = deque()
        self._thread = ThreadPoolExecutor(1, "hf-sparse-batch")
        self._running = False
        self.num_waiting = 0
        self.num_batches = 0

    async def predict_proba(self, texts: list[str]) -> Floats:
        """Return probabilities (B, C) of the texts of one request.

        Raises:
            QueueFullError: Too many texts are waiting already.
        """
        if self.num_waiting + len(texts) > self._max_queue:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Floats] = loop.create_future()
        self._waiting.append((texts, answer))
        self.num_waiting += len(texts)
        if not self._running:
            self._running = True
            # Not at once: the other requests that this turn of the loop reads come along.
            loop.call_soon(self._start)
        return await answer

    def close(self) -> None:
        """End the thread, after the batch it is at."""
        self._thread.shutdown()

    def _start(self) -> None:
        requests = [self._waiting.popleft()]
        texts = list(requests[0][0])
        while self._waiting and len(texts) + len(self._waiting[0][0]) <= self._max_batch:
            requests.append(self._waiting.popleft())
            texts += requests[-1][0]
        self.num_waiting -= len(texts)
        self.num_batches += 1
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            result: asyncio.Future[Floats] = asyncio.get_running_loop().create_future()
            try:
                result.set_result(self._classifier.predict_proba(texts))
            except Exception as error:  # whatever it is, it belongs to these requests and must not end the service
                result.set_exception(error)
            self._finish(requests, result)
        else:
            work: Any = asyncio.get_running_loop().run_in_executor(self._thread, self._classifier.predict_proba, texts)
            work.add_done_callback(lambda done: self._finish(requests, done))

    def _finish(self, requests: list[tuple[list[str], asyncio.Future[Floats]]], done: asyncio.Future[Floats]) -> None:
        error, first = done.exception(), 0
        for texts, answer in requests:
            last = first + len(texts)
            if not answer.done():  # a client that has gone away cancels
                if error is None:
                    answer.set_result(done.result()[first:last])
                else:
                    answer.set_exception(error)
            first = last
        self._running = bool(self._waiting)
        if self._running:
            asyncio.get_running_loop().call_soon(self._start)
