"""Load on a running service: requests at a fixed rate, whether or not the ones before are answered (an open loop).

A latency counts from the moment a request was due, so that a service that stalls cannot hide it by slowing its client.
Start the service first: `hf-sparse serve runs/quickstart/student-int8`. The result is one line of JSON on stdout.
"""

import argparse
import asyncio
import json
import random
import time

WORDS = [
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "it",
    "is",
    "that",
    "was",
    "film",
    "story",
    "great",
    "bad",
    "not",
    "very",
]
WORDS += ["good", "plot", "acting", "scene", "people", "time", "never", "more", "well", "little", "through", "best"]


def request_bytes(words: int, seed: int) -> bytes:
    """Return a whole POST of one text."""
    text = " ".join(random.Random(seed).choices(WORDS, k=words))
    body = json.dumps({"text": text}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: load\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> bool:
    """Read one answer and return whether its status is 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    await reader.readexactly(length)
    return b" 200 " in head.split(b"\r\n", 1)[0]


async def client(host: str, port: int, due: list[float], words: int, seed: int) -> list[tuple[float, bool]]:
    """Send requests over one connection when they are due; return the latency (s) and success of each."""
    reader, writer = await asyncio.open_connection(host, port)
    requests = [request_bytes(words, seed * 1000 + index) for index in range(50)]
    results = []
    for index, moment in enumerate(due):
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        writer.write(requests[index % len(requests)])
        succeeded = await read_answer(reader)
        results.append((time.perf_counter() - moment, succeeded))
    writer.close()
    return results


async def measure(
    host: str, port: int, *, rate: float, seconds: float, connections: int, words: int
) -> dict[str, float]:
    """Return percentiles of the latency in ms, the rate that was answered, and how many failed."""
    start = time.perf_counter() + 0.2
    moments = [start + number / rate for number in range(int(rate * seconds))]
    clients = [client(host, port, moments[index::connections], words, index) for index in range(connections)]
    results = [result for part in await asyncio.gather(*clients) for result in part]
    elapsed = time.perf_counter() - start
    latencies = sorted(1000 * latency for latency, _ in results)
    percentiles = {f"p{share}_ms": latencies[int(len(latencies) * share / 100)] for share in (50, 95, 99)}
    failed = sum(not succeeded for _, succeeded in results)
    return {"requests": len(results), "failed": failed, "requests_per_second": len(results) / elapsed} | percentiles


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=2000.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--words", type=int, default=60, help="words of a text")
    options = parser.parse_args()
    load = {name: getattr(options, name) for name in ("rate", "seconds", "connections", "words")}
    print(json.dumps(load | asyncio.run(measure(options.host, options.port, **load))))


if __name__ == "__main__":
    main()
