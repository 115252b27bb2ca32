"""Starting the service on uvicorn."""

import logging
import os
import signal
from typing import Any

import orjson
import uvicorn

from hf_sparse.runtime import NgramClassifier
from hf_sparse.serving.app import Limits, Service

logger = logging.getLogger(__name__)

_SETTINGS = "HF_SPARSE_SERVE"


def serve(
    model: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    num_threads: int = 1,
    workers: int = 1,
    max_batch: int = 256,
    max_queue: int = 4096,
    max_body_bytes: int = 1_000_000,
    max_texts: int = 1024,
    revision: str | None = None,
) -> None:
    """Answer requests over HTTP until told to stop; then finish what has been accepted.

    `POST /predict` takes `{"text": "..."}` or `{"texts": [...]}` and an optional `top_k`; `GET /health`,
    `GET /metrics` (Prometheus) and `GET /` say how it is.

    Args:
        model: Folder of a student, or its repository on the Hub.
        host: Address to listen on; 0.0.0.0 is open to the network.
        port: Port to listen on.
        num_threads: Threads that share a large batch.
        workers: Processes that share the port; the weights are in memory once. `/metrics` is that of the one process
            which answers, any of them, so with several its counts are no totals.
        max_batch: Most texts that are classified at once.
        max_queue: Most texts that wait; beyond, requests get status 503.
        max_body_bytes: Largest request; beyond, status 413.
        max_texts: Most texts of a request; beyond, status 422.
        revision: Branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: There is no student.
        ValueError: It cannot be served; the message says why.
    """
    limits = Limits(max_body_bytes=max_body_bytes, max_texts=max_texts, max_batch=max_batch, max_queue=max_queue)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    # A process of several workers makes its own application; the settings reach it by the environment.
    settings = {"model": model, "revision": revision, "num_threads": num_threads, "limits": vars(limits)}
    os.environ[_SETTINGS] = orjson.dumps(settings).decode()
    options: dict[str, Any] = {"host": host, "port": port, "access_log": False, "log_level": "info"}
    if workers > 1:
        uvicorn.run("hf_sparse.serving.serve:app_from_environment", factory=True, workers=workers, **options)
        return
    server = uvicorn.Server(uvicorn.Config(app_from_environment(), **options))
    # uvicorn ends orderly, then raises the signal again, which would make the exit status one of a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run()


def app_from_environment() -> Service:
    """Return the application that the settings of `serve` ask for."""
    settings = orjson.loads(os.environ[_SETTINGS])
    classifier = NgramClassifier.from_pretrained(
        settings["model"], revision=settings["revision"], num_threads=settings["num_threads"]
    )
    if classifier.sentence_pairs:
        raise ValueError(
            f"serve answers for single texts, but {settings['model']} takes pairs: use `hf-sparse predict`"
        )
    # What is made at first use, such as the tables for letters that are not ASCII, is made before the first request.
    classifier.predict_proba(["a", "é"])
    return Service(classifier, name=settings["model"], limits=Limits(**settings["limits"]))
