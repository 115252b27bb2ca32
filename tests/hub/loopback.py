"""A Hub on 127.0.0.1 for the real clients: repositories with commits, branches, tags, pull requests and large files.

It keeps blobs as files, by digest, and answers the calls that huggingface_hub 2.4 makes with xet disabled: everything
that loading and pushing models, data sets and Spaces takes. What a folder `root/{models,datasets}/<org>/<name>` holds
when the server starts is the first commit of a repository.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.store import LARGE, Blob, Commit, Hub, Repo

TOKEN = "hf_" + "loopback" * 4


class _RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str = "", **headers: str) -> None:
        super().__init__(message or code)
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": str(self)}
        self.headers |= {name.replace("_", "-"): value for name, value in headers.items()}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        """Answer as GET does, without a body."""
        self._serve()

    def do_GET(self) -> None:
        """Read."""
        self._serve()

    def do_POST(self) -> None:
        """Write, or ask with a body."""
        self._serve()

    def do_PUT(self) -> None:
        """Take a large file or a part of one."""
        self._serve()

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = unquote(url.path).strip("/").split("/")
        call = f"{self.command} {url.path}"
        try:
            self.hub.before(call)
            self.hub.requests.append(call)
            with self.hub.lock:
                status, body, headers = self._answer(parts)
            self.hub.after(call)
        except _RefusedError as refusal:
            status, headers = refusal.status, refusal.headers
            body = json.dumps({"error": str(refusal)}).encode()
        except ConnectionError:
            self.close_connection = True
            return
        self._send(status, body, headers)

    def _answer(self, parts: list[str]) -> tuple[int, bytes, dict[str, str]]:
        if parts[0] == "lfs":
            return self._store(parts[1:])
        if parts[0] == "api":
            return self._api(parts[1:])
        kind = parts.pop(0) if parts[0] in ("datasets", "spaces") else "models"
        if len(parts) >= 4 and parts[2:4] == ["info", "lfs"]:
            return self._batch(kind, f"{parts[0]}/{parts[1].removesuffix('.git')}")
        if len(parts) >= 5 and parts[2] == "resolve":
            # A revision with a slash, `refs/pr/1`, comes quoted and so as several parts.
            revision, rest = ("/".join(parts[3:6]), parts[6:]) if parts[3] == "refs" else (parts[3], parts[4:])
            return self._file(self._repo(kind, "/".join(parts[:2])), revision, "/".join(rest))
        raise _RefusedError(404, "EntryNotFound")

    def _api(self, parts: list[str]) -> tuple[int, bytes, dict[str, str]]:
        if parts == ["whoami-v2"]:
            self._require_token()
            return _json({"name": "org", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})
        if parts == ["validate-yaml"]:
            return _json({"errors": [], "warnings": []})
        if parts == ["repos", "create"]:
            return self._create()
        if len(parts) >= 3 and parts[0] in ("models", "datasets", "spaces"):
            repo = self._repo(parts[0], f"{parts[1]}/{parts[2]}")
            return self._repo_api(repo, parts[3:])
        raise _RefusedError(404, "RepoNotFound")

    def _repo_api(self, repo: Repo, rest: list[str]) -> tuple[int, bytes, dict[str, str]]:
        verb = rest[0] if rest else "revision"
        if verb == "refs":
            return _json(_refs(repo))
        revision = "/".join(rest[1:]) or "main"
        if verb in ("branch", "tag"):
            self._require_token()
            return self._name(repo, verb, revision)
        path = ""
        if verb == "tree" and not revision.startswith("refs/"):
            revision, _, path = revision.partition("/")
        commit = repo.resolve(revision)
        if verb == "commit":
            self._require_token()
            return self._commit(repo, revision, commit)
        if commit is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if verb == "preupload":
            self._require_token()
            return self._preupload(commit)
        if verb == "tree":
            return self._tree(commit, path)
        if verb == "paths-info":
            wanted = json.loads(self.body)["paths"] if self.body.startswith(b"{") else self._form_paths()
            return _json([_entry(name, commit.files[name]) for name in wanted if name in commit.files])
        if verb == "commits":
            return _json([_log_entry(made) for made in repo.history(revision)])
        return _json(_info(repo, commit))

    def _form_paths(self) -> list[str]:
        return parse_qs(self.body.decode()).get("paths", [])

    def _repo(self, kind: str, name: str) -> Repo:
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and not self._has_token()):
            raise _RefusedError(404 if self._has_token() else 401, "RepoNotFound", "Repository not found")
        return repo

    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _require_token(self) -> None:
        if not self._has_token():
            raise _RefusedError(401, "Unauthorized", "Invalid username or password.")

    def _create(self) -> tuple[int, bytes, dict[str, str]]:
        self._require_token()
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'org'}/{asked['name']}"
        kind = f"{asked.get('type') or 'model'}s"
        answer = json.dumps({"url": f"{self.hub.address}/{name}", "name": name, "id": name}).encode()
        if (kind, name) in self.hub.repos:
            return 409, answer, {"X-Error-Code": "RepoAlreadyExists"}
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repo = Repo(kind, name, private=private, sdk=asked.get("sdk"))
        repo.commit({}, title="initial commit")
        self.hub.repos[kind, name] = repo
        return 200, answer, {}

    def _name(self, repo: Repo, verb: str, revision: str) -> tuple[int, bytes, dict[str, str]]:
        asked = json.loads(self.body or b"{}")
        names = repo.refs if verb == "branch" else repo.tags
        name = revision if verb == "branch" else asked["tag"]
        if name in names:
            raise _RefusedError(409, "RefAlreadyExists", "Reference already exists")
        start = repo.resolve(asked.get("startingPoint") or "main" if verb == "branch" else revision)
        if start is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        names[name] = start.sha
        return _json({})

    def _preupload(self, commit: Commit) -> tuple[int, bytes, dict[str, str]]:
        answers = []
        for file in json.loads(self.body)["files"]:
            is_large = file["path"].endswith(LARGE) or file["size"] > self.hub.large_above
            there = commit.files.get(file["path"])
            answers.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large else "regular",
                    "shouldIgnore": False,
                    "oid": there.etag if there else None,
                }
            )
        return _json({"files": answers})

    def _batch(self, kind: str, name: str) -> tuple[int, bytes, dict[str, str]]:
        self._require_token()
        self._repo(kind, name)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            answer = {"oid": oid, "size": size}
            if not self.hub.has_blob(oid):
                upload: dict[str, Any] = {"href": f"{self.hub.address}/lfs/{oid}", "header": {}}
                if size > self.hub.multipart_above:
                    chunk = self.hub.multipart_above
                    parts = range(1, -(-size // chunk) + 1)
                    upload["header"] = {f"{part:05}": f"{self.hub.address}/lfs/{oid}/{part}" for part in parts}
                    upload["header"]["chunk_size"] = str(chunk)
                verify = {"href": f"{self.hub.address}/lfs/{oid}/verify"}
                answer["actions"] = {"upload": upload, "verify": verify}
            objects.append(answer)
        transfer = "multipart" if any(wanted["size"] > self.hub.multipart_above for wanted in objects) else "basic"
        return _json({"transfer": transfer, "objects": objects})

    def _store(self, parts: list[str]) -> tuple[int, bytes, dict[str, str]]:
        oid, part = parts[0], parts[1] if len(parts) > 1 else None
        if part == "verify":
            if not self.hub.has_blob(oid):
                raise _RefusedError(404, "EntryNotFound")
            return _json({})
        content = self.body
        if self.command == "PUT" and part is not None:
            (self.hub.blobs / f"{oid}.{int(part):05}").write_bytes(content)
            return 200, b"", {"ETag": f'"{part}"'}
        if self.command == "POST":  # all parts are there
            content = b"".join(path.read_bytes() for path in sorted(self.hub.blobs.glob(f"{oid}.*")))
        if hashlib.sha256(content).hexdigest() != oid:
            raise _RefusedError(422, "BadDigest", f"content is not {oid}")
        self.hub.add_blob(content, is_large=True)
        return 200, b"", {"ETag": f'"{oid}"'}

    def _commit(self, repo: Repo, revision: str, parent: Commit | None) -> tuple[int, bytes, dict[str, str]]:
        if parent is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        entries = [json.loads(line) for line in self.body.splitlines()]
        header = next(entry["value"] for entry in entries if entry["key"] == "header")
        files = self._changed(dict(parent.files), entries)
        if header.get("parentCommit") not in (None, parent.sha):
            raise _RefusedError(412, "BadRequest", "A commit has happened since. Please refresh and try again.")
        branch, request = revision, None
        if self.query.get("create_pr") in ("1", "true", "True"):
            request = sum(name.startswith("refs/pr/") for name in repo.refs) + 1
            branch = f"refs/pr/{request}"
            repo.refs[branch] = parent.sha
        made = repo.commit(files, title=header["summary"], branch=branch)
        answer = {"commitUrl": f"{self.hub.address}/{repo.name}/commit/{made.sha}", "commitOid": made.sha}
        if request is not None:
            answer["pullRequestUrl"] = f"{self.hub.address}/{repo.name}/discussions/{request}"
        return _json(answer)

    def _changed(self, files: dict[str, Blob], entries: list[dict[str, Any]]) -> dict[str, Blob]:
        for entry in entries:
            key, value = entry["key"], entry["value"]
            if key == "file":
                files[value["path"]] = self.hub.add_blob(base64.b64decode(value["content"]), is_large=False)
            elif key == "lfsFile":
                if not self.hub.has_blob(value["oid"]):
                    raise _RefusedError(400, "BadRequest", f"no such large file: {value['oid']}")
                files[value["path"]] = Blob(self.hub.blobs / value["oid"], is_large=True)
            elif key == "deletedFile":
                del files[value["path"]]
        return files

    def _tree(self, commit: Commit, path: str) -> tuple[int, bytes, dict[str, str]]:
        prefix = f"{path}/" if path else ""
        found = {name: blob for name, blob in commit.files.items() if name.startswith(prefix)}
        if path and not found:
            raise _RefusedError(404, "EntryNotFound")
        if self.query.get("recursive", "").lower() in ("true", "1"):
            return _json([_entry(name, blob) for name, blob in sorted(found.items())])
        folders = sorted({prefix + name[len(prefix) :].split("/")[0] for name in found if "/" in name[len(prefix) :]})
        entries = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders]
        entries += [_entry(name, blob) for name, blob in sorted(found.items()) if "/" not in name[len(prefix) :]]
        return _json(entries)

    def _file(self, repo: Repo, revision: str, name: str) -> tuple[int, bytes, dict[str, str]]:
        commit = repo.resolve(revision)
        if commit is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        blob = commit.files.get(name)
        if blob is None:
            raise _RefusedError(404, "EntryNotFound", f"no {name}", X_Repo_Commit=commit.sha)
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        content = blob.path.read_bytes()
        wanted = self.headers.get("Range")
        if wanted and self.command == "GET":
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(content), len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            return 206, content[start:stop], headers
        return 200, content, headers

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _json(value: Any) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps(value).encode(), {}


def _entry(name: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "oid": blob.git_sha1, "size": blob.size}
    if blob.is_large:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
    return entry


def _log_entry(commit: Commit) -> dict[str, Any]:
    return {"id": commit.sha, "title": commit.title, "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}


def _refs(repo: Repo) -> dict[str, Any]:
    def listed(names: dict[str, str], prefix: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"{prefix}{name}", "targetCommit": sha} for name, sha in names.items()]

    branches = {name: sha for name, sha in repo.refs.items() if not name.startswith("refs/")}
    return {"branches": listed(branches, "refs/heads/"), "tags": listed(repo.tags, "refs/tags/"), "converts": []}


def _info(repo: Repo, commit: Commit) -> dict[str, Any]:
    card = commit.files.get("README.md")
    return {
        "id": repo.name,
        "sha": commit.sha,
        "siblings": [
            {"rfilename": name} | {"size": blob.size, "blobId": blob.git_sha1} for name, blob in commit.files.items()
        ],
        "tags": [],
        "private": repo.private,
        "downloads": 0,
        "cardData": _front_matter(card.path.read_text(encoding="utf-8")) if card else None,
    }


def _front_matter(text: str) -> Any:
    import yaml

    parts = text.split("---\n", 2)
    return yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Return the variables by which a process talks to that Hub and to no other."""
    return {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@contextmanager
def serve(root: Path) -> Iterator[Hub]:
    """Serve a Hub whose repositories begin as the folders `root/{models,datasets}/<org>/<name>/`."""
    hub = Hub(root)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
