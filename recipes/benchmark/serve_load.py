"""Load on a running service: requests at a fixed rate, whether or not the ones before are answered (an open loop).

A latency counts from the moment a request was due, so that a service that stalls cannot hide it by slowing its client.
Start the service first: `hf-sparse serve runs/quickstart/student-int8`. Texts are the first words of those in a file.
The result is one line of JSON on stdout.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence

import uvloop

from hf_sparse.benchmark.texts import read_texts


def make_requests(texts: Sequence[str], *, words: int) -> list[bytes]:
    """Return whole POSTs, each of one text: the first words of those that have as many.

    Raises:
        ValueError: If no text has.
    """
    cut = [" ".join(found[:words]) for text in texts if len(found := text.split()) >= words]
    if not cut:
        raise ValueError(f"no text has {words} words; give fewer with --words, or other texts")
    bodies = [json.dumps({"text": text}).encode() for text in cut]
    head = "POST /predict HTTP/1.1\r\nHost: load\r\nContent-Length: {}\r\n\r\n"
    return [head.format(len(body)).encode() + body for body in bodies]


async def read_answer(reader: asyncio.StreamReader) -> bool:
    """Read one answer and return whether its status is 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    await reader.readexactly(length)
    return b" 200 " in head.split(b"\r\n", 1)[0]


async def client(host: str, port: int, due: list[float], requests: list[bytes]) -> list[tuple[float, bool]]:
    """Send requests over one connection when they are due; return the latency (s) and success of each."""
    reader, writer = await asyncio.open_connection(host, port)
    results = []
    for index, moment in enumerate(due):
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        writer.write(requests[index % len(requests)])
        succeeded = await read_answer(reader)
        results.append((time.perf_counter() - moment, succeeded))
        if not succeeded:  # the service may have closed the connection
            writer.close()
            reader, writer = await asyncio.open_connection(host, port)
    writer.close()
    return results


async def measure(
    requests: list[bytes], *, host: str, port: int, rate: float, seconds: float, connections: int
) -> dict[str, float]:
    """Return percentiles of the latency in ms, the rate that was answered, and how many failed."""
    start = time.perf_counter() + 0.2
    moments = [start + number / rate for number in range(int(rate * seconds))]
    clients = [
        client(
            host,
            port,
            moments[index::connections],
            requests[index % len(requests) :] + requests[: index % len(requests)],
        )
        for index in range(connections)
    ]
    results = [result for part in await asyncio.gather(*clients) for result in part]
    elapsed = time.perf_counter() - start
    latencies = sorted(1000 * latency for latency, _ in results)
    percentiles = {f"p{share}_ms": latencies[int(len(latencies) * share / 100)] for share in (50, 95, 99)}
    failed = sum(not succeeded for _, succeeded in results)
    return {"requests": len(results), "failed": failed, "requests_per_second": len(results) / elapsed} | percentiles


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", help="Parquet, CSV, JSON Lines or text file of real texts")
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=2000.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--words", type=int, default=60, help="words of a text")
    options = parser.parse_args()
    found = read_texts(options.texts, text_column=options.text_column, label_column=None, label_names=())
    requests = make_requests(found.texts, words=options.words)
    load = {name: getattr(options, name) for name in ("rate", "seconds", "connections")}
    result = uvloop.run(measure(requests, host=options.host, port=options.port, **load))
    print(json.dumps({"words": options.words, **load, **result}))


if __name__ == "__main__":
    main()
