"""The ASGI application: `POST /predict`, `GET /health`, `GET /metrics`, `GET /`.

Starlette has the routes; `/predict`, for which every microsecond counts, is a plain ASGI function in front of them.
"""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hf_sparse.serving.batching import Batcher, Classifier, Floats, QueueFullError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

logger = logging.getLogger(__name__)

_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may be; anything beyond is refused."""

    max_body_bytes: int = 1_000_000
    max_texts: int = 1024
    max_batch: int = 256
    max_queue: int = 4096

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.max_queue < self.max_texts:
            raise ValueError(f"max_queue must be at least max_texts, {self.max_texts}, got {self.max_queue}")


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Metrics:
    """What `/metrics` tells, in a registry of its own."""

    def __init__(self, batcher: Batcher) -> None:
        self.registry = CollectorRegistry()
        self.answers = Counter("hf_sparse_requests", "Requests by status", ["status"], registry=self.registry)
        self.texts = Counter("hf_sparse_texts", "Texts classified", registry=self.registry)
        self.seconds = Histogram(
            "hf_sparse_request_seconds",
            "From the whole request to its answer",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        waiting = Gauge("hf_sparse_waiting_texts", "Texts that wait for a batch", registry=self.registry)
        waiting.set_function(lambda: batcher.num_waiting)
        batches = Gauge("hf_sparse_batches", "Batches begun", registry=self.registry)
        batches.set_function(lambda: batcher.num_batches)


class Service:
    """The application that serves a classifier."""

    def __init__(self, classifier: Classifier, *, name: str = "student", limits: Limits | None = None) -> None:
        """Put the routes together; `name` is what the model is called to clients."""
        self._classifier = classifier
        self._name = name
        self._limits = limits or Limits()
        self._batcher = Batcher(classifier, max_batch=self._limits.max_batch, max_queue=self._limits.max_queue)
        self._metrics = _Metrics(self._batcher)
        routes = [Route("/", self._index), Route("/health", self._health), Route("/metrics", self._show_metrics)]
        methods = ["GET", "PUT", "PATCH", "DELETE"]
        routes.append(Route("/predict", self._only_post, methods=methods))
        self._others = Starlette(routes=routes, lifespan=self._lifespan)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request, or the start and end of the service, as ASGI says."""
        if scope["type"] != "http" or scope["path"] != "/predict" or scope["method"] != "POST":
            await self._others(scope, receive, send)
            return
        start = time.perf_counter()
        status, answer, headers = await self._predict(scope, receive)
        self._metrics.answers.labels(str(status)).inc()
        self._metrics.seconds.observe(time.perf_counter() - start)
        await _send(send, status, answer, headers)

    async def _predict(self, scope: Message, receive: Receive) -> tuple[int, Any, Headers]:
        try:
            body = await _read(scope, receive, self._limits.max_body_bytes)
            texts, is_one, top_k = _parse(body, self._limits.max_texts)
            probabilities = await self._batcher.predict_proba(texts)
        except _RefusedError as error:
            return error.status, {"error": str(error)}, [(b"connection", b"close")] if error.status == 413 else []
        except QueueFullError:
            return 503, {"error": "too many texts are waiting; try again in a second"}, [(b"retry-after", b"1")]
        except Exception:
            logger.exception("a request failed")
            return 500, {"error": "the service failed on this request"}, []
        self._metrics.texts.inc(len(texts))
        answers = [_answer(row, self._classifier, top_k) for row in probabilities]
        return 200, answers[0] if is_one else {"answers": answers}, []

    async def _index(self, _: Request) -> Response:
        about = {"model": self._name, "labels": self._classifier.labels, "problem_type": self._classifier.problem_type}
        return JSONResponse(about | {"limits": vars(self._limits)})

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _show_metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type="text/plain; version=0.0.4")

    async def _only_post(self, _: Request) -> Response:
        return JSONResponse({"error": "POST your texts to /predict"}, 405, {"Allow": "POST"})

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self._batcher.close()


async def _read(scope: Message, receive: Receive, max_bytes: int) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
            raise _RefusedError(413, f"the body has {int(value)} bytes, at most {max_bytes} are taken")
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _RefusedError(400, "the client has gone away")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > max_bytes:
            raise _RefusedError(413, f"the body has more than {max_bytes} bytes")
    return body


def _parse(body: bytes, max_texts: int) -> tuple[list[str], bool, int | None]:
    """Return the texts of a request, whether it is for one text alone, and `top_k`."""
    try:
        request = orjson.loads(body)  # lone surrogates are refused as well
    except orjson.JSONDecodeError as error:
        raise _RefusedError(422, f"the body is not JSON: {error}") from error
    if not isinstance(request, dict) or ("text" in request) == ("texts" in request):
        raise _RefusedError(422, 'the body must be {"text": "..."} or {"texts": ["...", "..."]}')
    unknown = set(request) - {"text", "texts", "top_k"}
    if unknown:
        raise _RefusedError(422, f"unknown key {min(unknown)!r}; known are text, texts and top_k")
    is_one = "text" in request
    texts = [request["text"]] if is_one else request["texts"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _RefusedError(422, "text must be a string, texts a list of strings")
    if not 1 <= len(texts) <= max_texts:
        raise _RefusedError(422, f"a request has 1 to {max_texts} texts, this one has {len(texts)}")
    top_k = request.get("top_k")
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise _RefusedError(422, f"top_k must be a whole number of at least 1, got {top_k!r}")
    return texts, is_one, top_k


def _answer(row: Floats, classifier: Classifier, top_k: int | None) -> Any:
    """Return label and score; a list of the best `top_k`, of a multi-label task all likely ones, or of values."""
    if classifier.problem_type == "regression":
        chosen: list[int] = list(range(len(row)))
    elif top_k is not None:
        chosen = np.argsort(-row, kind="stable")[:top_k].tolist()
    elif classifier.problem_type == "multi_label_classification":
        chosen = np.flatnonzero(row > classifier.label_thresholds).tolist()
    else:
        best = int(row.argmax())
        return {"label": classifier.labels[best], "score": float(row[best])}
    return [{"label": classifier.labels[index], "score": float(row[index])} for index in chosen]


async def _send(send: Send, status: int, answer: Any, headers: Headers) -> None:
    body = orjson.dumps(answer)
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", b"application/json"), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
