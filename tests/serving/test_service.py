"""The service over real sockets: what it answers, what it refuses, how it batches and how it ends."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from hf_sparse.runtime import NgramClassifier
from hf_sparse.serving.app import Limits, Service
from hf_sparse.serving.batching import Batcher, QueueFullError
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification, SparseNgramTokenizer
from hf_sparse.vocabulary import count_ngrams

ROOT = Path(__file__).parents[2]
ENV = os.environ | {"PYTHONPATH": str(ROOT)}
LONG = "x" * 20_000  # too much to be classified in the event loop itself


class Lengths:
    """Answers with the length of a text, so that nobody can get another's answer unnoticed."""

    labels = ["short", "long"]  # noqa: RUF012
    problem_type = "regression"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return the lengths, once the gate is open."""
        self.batches.append(len(texts))
        self.gate.wait(20)
        if "fail" in texts:
            raise RuntimeError("secret")
        return np.array([[len(text), 0.0] for text in texts], dtype=np.float32)


class Running:
    """A service on a free port, in a thread."""

    def __init__(self, classifier: Any, **limits: int) -> None:
        config = uvicorn.Config(Service(classifier, limits=Limits(**limits)), port=0, log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Return status, parsed body and headers."""
        return request(self.port, method, path, body, **headers)

    def close(self) -> None:
        """End it, and wait for the end."""
        self.server.should_exit = True
        self.thread.join()


def request(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Return status, parsed body and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, sent, headers)
    response = connection.getresponse()
    raw, kind = response.read(), response.headers.get("content-type", "")
    connection.close()
    return response.status, json.loads(raw) if "json" in kind else raw.decode(), dict(response.headers)


@pytest.fixture
def lengths() -> Lengths:
    return Lengths()


@pytest.fixture
def service(lengths: Lengths) -> Iterator[Running]:
    running = Running(lengths, max_body_bytes=100_000, max_texts=5, max_queue=6)
    yield running
    lengths.gate.set()
    running.close()


def values(answer: Any) -> float:
    return answer[0]["score"]


def test_answers(service: Running) -> None:
    status, answer, _ = service.request("POST", "/predict", {"text": "four"})
    assert (status, values(answer)) == (200, 4.0)
    status, answer, _ = service.request("POST", "/predict", {"texts": ["a", "", "é" * 7]})
    assert (status, [values(one) for one in answer["answers"]]) == (200, [1.0, 0.0, 7.0])
    assert service.request("GET", "/health")[:2] == (200, {"status": "ok"})
    about = service.request("GET", "/")[1]
    assert about["labels"] == ["short", "long"]
    assert about["limits"]["max_texts"] == 5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"text": "\\ud800"}', "not JSON"),
        (b"[]", "the body must be"),
        (b"{}", "the body must be"),
        (b'{"text": "a", "texts": ["a"]}', "the body must be"),
        (b'{"text": 1}', "must be a string"),
        (b'{"texts": "a"}', "must be a string"),
        (b'{"texts": ["a", null]}', "must be a string"),
        (b'{"texts": []}', "1 to 5 texts"),
        (b'{"texts": ["a", "a", "a", "a", "a", "a"]}', "this one has 6"),
        (b'{"text": "a", "top_k": 0}', "top_k"),
        (b'{"text": "a", "top_k": true}', "top_k"),
        (b'{"text": "a", "topk": 1}', "'topk'"),
    ],
)
def test_malformed_requests(service: Running, lengths: Lengths, body: bytes, message: str) -> None:
    status, answer, _ = service.request("POST", "/predict", body)
    assert status == 422
    assert message in answer["error"]
    assert not lengths.batches


def test_too_large(service: Running) -> None:
    """By what the header says, and by what comes when no header says it."""
    status, answer, _ = service.request("POST", "/predict", b"x" * 100_001)
    assert status == 413
    assert "100000" in answer["error"]
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.request("POST", "/predict", iter([b"x" * 60_000, b"x" * 60_000]), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    assert service.request("POST", "/predict", {"text": "four"})[0] == 200


def test_other_paths_and_methods(service: Running) -> None:
    assert service.request("GET", "/nowhere")[0] == 404
    status, _, headers = service.request("GET", "/predict")
    assert (status, headers["allow"]) == (405, "POST")
    assert service.request("POST", "/health", {})[0] == 405


def test_failures_stay_inside(service: Running) -> None:
    status, answer, _ = service.request("POST", "/predict", {"text": "fail"})
    assert status == 500
    assert "secret" not in json.dumps(answer)
    assert service.request("POST", "/predict", {"text": "four"})[0] == 200


def test_waiting_requests_are_batched_and_answered_each(service: Running, lengths: Lengths) -> None:
    lengths.gate.clear()
    with ThreadPoolExecutor(8) as clients:
        first = clients.submit(service.request, "POST", "/predict", {"text": LONG})
        while not lengths.batches:
            time.sleep(0.01)
        others = [clients.submit(service.request, "POST", "/predict", {"text": "x" * size}) for size in range(1, 7)]
        while "hf_sparse_waiting_texts 6.0" not in service.request("GET", "/metrics")[1]:
            time.sleep(0.01)
        # The queue is full: the next one is told to come again.
        status, _, headers = service.request("POST", "/predict", {"text": "late"})
        assert (status, headers["retry-after"]) == (503, "1")
        lengths.gate.set()
        assert values(first.result()[1]) == len(LONG)
        assert [values(other.result()[1]) for other in others] == [1, 2, 3, 4, 5, 6]
    assert lengths.batches == [1, 6]
    metrics = service.request("GET", "/metrics")[1]
    assert 'hf_sparse_requests_total{status="200"} 7.0' in metrics
    assert 'hf_sparse_requests_total{status="503"} 1.0' in metrics
    assert "hf_sparse_texts_total 7.0" in metrics
    assert "hf_sparse_batches 2.0" in metrics
    assert "hf_sparse_request_seconds_count 8.0" in metrics


def test_batches_are_bounded_and_clients_may_leave() -> None:
    lengths = Lengths()

    async def run() -> None:
        batcher = Batcher(lengths, max_batch=4, max_queue=100)
        sizes = [3, 2, 1, 6, 1]
        tasks = [asyncio.ensure_future(batcher.predict_proba(["x" * size] * size)) for size in sizes]
        await asyncio.sleep(0)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        for size, result in zip(sizes, results, strict=True):
            if not isinstance(result, BaseException):
                assert result[:, 0].tolist() == [size] * size
        with pytest.raises(QueueFullError):
            await batcher.predict_proba(["x"] * 101)
        batcher.close()

    asyncio.run(run())
    assert lengths.batches == [3, 3, 6, 1]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    vocabulary = count_ngrams(["the film was good", "a bad film !"], num_ngrams=20, progress=False)
    config = SparseNgramConfig(
        vocab_size=vocabulary.num_rows,
        embedding_size=8,
        vocabulary_sha256=vocabulary.sha256,
        id2label={0: "bad", 1: "so so", 2: "good"},
        initializer_range=1.0,
    )
    SparseNgramForSequenceClassification(config).save_pretrained(folder)
    SparseNgramTokenizer(vocabulary=vocabulary).save_pretrained(folder)
    return folder


def test_labels_and_scores_are_the_student_s(student: Path) -> None:
    classifier = NgramClassifier.from_pretrained(student)
    running = Running(classifier)
    try:
        texts = ["the film was good", "a bad film !", ""]
        expected = classifier.predict_proba(texts)
        answers = running.request("POST", "/predict", {"texts": texts})[1]["answers"]
        assert [answer["label"] for answer in answers] == classifier.predict(texts)
        np.testing.assert_allclose([answer["score"] for answer in answers], expected.max(axis=1), atol=1e-6)
        best = running.request("POST", "/predict", {"text": texts[0], "top_k": 2})[1]
        np.testing.assert_allclose([one["score"] for one in best], np.sort(expected[0])[::-1][:2], atol=1e-6)
    finally:
        running.close()


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="max_batch must be at least 1, got 0"):
        Limits(max_batch=0)
    with pytest.raises(ValueError, match="max_queue"):
        Limits(max_queue=10)


def start(student: Path, **options: int) -> tuple["subprocess.Popen[str]", int]:
    """Start the service in a process of its own; return it and its port."""
    program = f"from hf_sparse.serving import serve; serve({str(student)!r}, port=0, **{options})"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=ENV)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
            return process, int(found[1])
    raise AssertionError("the service ended before it listened")


def test_told_to_stop_it_finishes_what_it_has_accepted(student: Path) -> None:
    """A real process: requests that are in the middle of arriving get their answer, then it ends with 0."""
    process, port = start(student)
    body = json.dumps({"texts": ["the film was good"] * 1000}).encode()
    clients = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(3)]
    for client in clients:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:100])
    time.sleep(0.5)  # until the service has read the heads
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    with pytest.raises(OSError):  # noqa: PT011 (refused or reset, by the system)
        socket.create_connection(("127.0.0.1", port), timeout=1).sendall(b"GET / HTTP/1.1\r\n\r\n")
    for client in clients:
        client.sendall(body[100:])
        answer = b""
        while part := client.recv(65536):
            answer += part
            head, _, rest = answer.partition(b"\r\n\r\n")
            if len(rest) >= int(re.search(rb"content-length: (\d+)", head)[1]):  # type: ignore[index]
                break
        assert b"200 OK" in head
        assert len(json.loads(rest)["answers"]) == 1000
        client.close()
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


def test_load_generator(student: Path, tmp_path: Path) -> None:
    """Every request is sent and answered; those that are refused count as failed."""
    process, port = start(student, max_body_bytes=1000)
    texts = tmp_path / "texts.txt"
    texts.write_text(f"the film was good\ntoo short\nand {'x' * 2000} more\na bad film ! and more\n")
    command = [sys.executable, str(ROOT / "recipes/benchmark/serve_load.py"), str(texts), "--port", str(port)]
    command += ["--rate", "100", "--seconds", "1", "--connections", "4"]
    try:
        # A third of the texts of three words has one of 2,000 letters; to refuse it closes the connection.
        for words, failed in (("4", 0), ("3", 33)):
            ended = subprocess.run([*command, "--words", words], capture_output=True, text=True, check=True, env=ENV)
            result = json.loads(ended.stdout)
            assert (result["requests"], result["failed"]) == (100, failed)
            assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"]
            assert result["requests_per_second"] < 110
        none = subprocess.run([*command, "--words", "9"], capture_output=True, text=True, check=False, env=ENV)
        assert "no text has 9 words" in none.stderr
    finally:
        process.terminate()
        process.wait(20)
