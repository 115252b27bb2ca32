"""A read-only Hub on 127.0.0.1: folders as repositories, with the calls that loading models and data sets makes."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class _Handler(BaseHTTPRequestHandler):
    root: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        """Answer as GET does, without a body."""
        self._answer()

    def do_GET(self) -> None:
        """Serve `/api/{models,datasets}/<id>[/revision/<r>|/tree/<r>[/<path>]]` and `.../<id>/resolve/<r>/<path>`."""
        self._answer()

    def do_POST(self) -> None:
        """Serve `/api/{models,datasets}/<id>/paths-info/<r>`."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if len(parts) < 5 or parts[0] != "api" or parts[4] != "paths-info":
            return self._send(404, b"{}")
        folder = self.root / parts[1] / parts[2] / parts[3]
        wanted = json.loads(body)["paths"] if body.startswith(b"{") else []
        entries = [_entry(folder, folder / name) for name in wanted if (folder / name).exists()]
        return self._send(200, json.dumps(entries).encode())

    def _answer(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "api" and len(parts) >= 4 and parts[1] in ("models", "datasets"):
            return self._api(self.root / parts[1] / parts[2] / parts[3], parts[1], parts[4:])
        kind = "models"
        if parts[0] == "datasets":
            kind, parts = "datasets", parts[1:]
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._file(self.root / kind / parts[0] / parts[1], "/".join(parts[4:]))
        return self._send(404, b"{}")

    def _api(self, folder: Path, kind: str, rest: list[str]) -> None:
        if not folder.is_dir():
            return self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if rest[:1] == ["tree"]:
            base = folder / "/".join(rest[2:])
            if not base.exists():
                return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            recursive = "recursive=true" in self.path.lower()
            found = files if recursive else sorted(base.iterdir())
            entries = [_entry(folder, path) for path in found if path.is_relative_to(base)]
            return self._send(200, json.dumps(entries).encode())
        names = [{"rfilename": str(path.relative_to(folder))} for path in files]
        identity = f"{folder.parent.name}/{folder.name}"
        info = {"id": identity, "sha": COMMIT, "siblings": names, "tags": [], "private": False, "downloads": 0}
        return self._send(200, json.dumps(info).encode())

    def _file(self, folder: Path, name: str) -> None:
        path = folder / name
        if not folder.is_dir():
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = path.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted and self.command == "GET":
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(content), len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            return self._send(206, content[start:stop], headers)
        return self._send(200, content, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    return {
        "type": "file",
        "path": name,
        "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        "size": path.stat().st_size,
    }


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve `root/{models,datasets}/<org>/<name>/`; yield the address for `HF_ENDPOINT`."""
    handler = type("Handler", (_Handler,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
