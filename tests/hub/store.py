"""What a Hub for tests keeps: repositories with commits, branches, tags and pull requests; contents by digest."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

LARGE = (".safetensors", ".bin", ".parquet", ".png", ".arrow")


@dataclass(frozen=True)
class Blob:
    """The content of a file: where it lies, its digests, and whether a commit names it as a large file."""

    path: Path
    is_large: bool

    @cached_property
    def sha256(self) -> str:
        """Digest by which large files are named."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def git_sha1(self) -> str:
        """Digest by which git names a file."""
        head = f"blob {self.size}\0".encode()
        return hashlib.sha1(head + self.path.read_bytes()).hexdigest()

    @property
    def etag(self) -> str:
        """What the client compares."""
        return self.sha256 if self.is_large else self.git_sha1

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class Commit:
    """The files of a repository at one time."""

    sha: str
    parent: str | None
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    """A repository: its commits, and which of them branches, tags and pull requests name."""

    kind: str
    name: str
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    sdk: str | None = None

    def commit(self, files: dict[str, Blob], *, title: str, branch: str = "main") -> Commit:
        """Add a commit to a branch."""
        parent = self.refs.get(branch)
        text = f"{self.name} {parent} {title} {sorted((name, blob.etag) for name, blob in files.items())}"
        made = Commit(hashlib.sha1(text.encode()).hexdigest(), parent, title, files)
        self.commits[made.sha] = made
        self.refs[branch] = made.sha
        return made

    def resolve(self, revision: str) -> Commit | None:
        """Return the commit of a branch, tag, pull request or (short) digest."""
        sha = self.refs.get(revision) or self.tags.get(revision)
        found = [commit for name, commit in self.commits.items() if name == sha or name.startswith(revision)]
        return next((commit for commit in found if commit.sha == sha), found[0] if found and sha is None else None)

    def history(self, revision: str = "main") -> list[Commit]:
        """Return the commits of a branch, newest first."""
        commits, commit = [], self.resolve(revision)
        while commit is not None:
            commits.append(commit)
            commit = self.commits.get(commit.parent or "")
        return commits


class Hub:
    """What the server keeps; tests look into it.

    `requests` lists every call as `METHOD path`. `before` and `after` are called with each: before it is carried out,
    and when it is but the client has no answer yet; what they raise closes the connection.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = ""
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[str] = []
        self.before: Callable[[str], None] = lambda call: None
        self.after: Callable[[str], None] = lambda call: None
        self.multipart_above = 1 << 40
        self.large_above = 10_000_000
        self.blobs = root / ".blobs"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        for kind in ("models", "datasets"):
            for folder in sorted((root / kind).glob("*/*")):
                self.add_folder(folder, kind=kind)

    def repo(self, name: str, kind: str = "models") -> Repo:
        """Return a repository."""
        return self.repos[kind, name]

    def add_folder(self, folder: Path, *, kind: str = "models", title: str = "first") -> Commit:
        """Commit a folder as the content of the repository `<its parent's name>/<its name>`."""
        name = f"{folder.parent.name}/{folder.name}"
        files = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            blob = self.add_blob(path.read_bytes(), is_large=path.suffix in LARGE)
            files[str(path.relative_to(folder))] = blob
        repo = self.repos.setdefault((kind, name), Repo(kind, name))
        return repo.commit(files, title=title)

    def add_blob(self, content: bytes, *, is_large: bool) -> Blob:
        """Keep a content."""
        path = self.blobs / hashlib.sha256(content).hexdigest()
        path.write_bytes(content)
        return Blob(path, is_large)

    def has_blob(self, sha256: str) -> bool:
        """Tell whether a large file is there."""
        return (self.blobs / sha256).exists()
