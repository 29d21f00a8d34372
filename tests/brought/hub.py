"""A small stand-in for the hub, on loopback: as much of its API as the real clients of models and data sets ask for.

`python -m tests.brought.hub` is the other side: a client of its own process, which HF_ENDPOINT points at the stand-in.
It reads one JSON request a line, and answers with one JSON line.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretsecretsecretsecret"  # noqa: S105  # of the stand-in alone
MEMBER_TOKEN = "hf_membermembermembermember"  # noqa: S105  # of one who accepted the terms


@dataclass
class Repo:
    """A model or a data set: revision -> file -> content."""

    revisions: dict[str, dict[str, bytes]]
    is_private: bool = False
    is_gated: bool = False

    def sha(self, revision: str) -> str | None:
        """The commit of a branch or tag, or a commit itself."""
        shas = {name: hashlib.sha1(name.encode()).hexdigest() for name in self.revisions}  # noqa: S324  # as git has it
        return shas.get(revision) or (revision if revision in shas.values() else None)

    def files(self, revision: str) -> dict[str, bytes]:
        wanted = self.sha(revision)
        return next(files for name, files in self.revisions.items() if self.sha(name) == wanted)


@dataclass
class Hub:
    """What is kept, and what was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)
    """`models/org/name` or `datasets/org/name`"""
    cuts: dict[str, int] = field(default_factory=dict)
    """File -> how many more downloads of it break off halfway."""
    ranges: list[str] = field(default_factory=list)
    """From where downloads went on."""
    downloads: list[str] = field(default_factory=list)
    """Files that were downloaded, whole or not."""
    endpoint: str = ""


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the base class asks for this name
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[0] == "api":
            self._api(parts[1], "/".join(parts[2:4]), parts[4:])
            return
        kind, parts = ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)
        repo = self._allowed(f"{kind}/{'/'.join(parts[:2])}", needs_terms=True)
        if repo is not None and (files := self._revision(repo, parts[3])) is not None:
            self._file(files, "/".join(parts[4:]), str(repo.sha(parts[3])))

    do_HEAD = do_GET  # noqa: N815  # as above

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        repo = self._allowed("/".join(parts[1:4]))
        if repo is not None and (files := self._revision(repo, parts[5])) is not None:
            listed = _tree(files)
            self._json([entry for entry in listed if entry["path"] in asked["paths"]])

    def _api(self, kind: str, name: str, rest: list[str]) -> None:
        repo = self._allowed(f"{kind}/{name}")
        revision = rest[1] if len(rest) > 1 else "main"
        if repo is None or (files := self._revision(repo, revision)) is None:
            return
        if rest[:1] == ["tree"]:
            below = "/".join(rest[2:])
            listed = [entry for entry in _tree(files) if entry["path"].startswith(f"{below}/" if below else "")]
            self._json(listed)
            return
        siblings = [{"rfilename": path} for path in files]
        self._json(
            {"id": name, "sha": repo.sha(revision), "siblings": siblings, "private": repo.is_private, "tags": []}
        )

    def _allowed(self, name: str, needs_terms: bool = False) -> Repo | None:
        """The repository, where it may be seen; else the answer is given."""
        repo = self.hub.repos.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in (TOKEN, MEMBER_TOKEN):
            self._error(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.is_private and not token):
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repo.is_gated and needs_terms and token != MEMBER_TOKEN:
            self._error(403 if token else 401, "GatedRepo", "Access to this repository is restricted")
        else:
            return repo
        return None

    def _revision(self, repo: Repo, revision: str) -> dict[str, bytes] | None:
        if repo.sha(revision) is not None:
            return repo.files(revision)
        self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def _file(self, files: dict[str, bytes], path: str, sha: str) -> None:
        if path not in files:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
            return
        content, begin = files[path], 0
        asked = self.headers.get("Range")
        if asked:
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
        if self.command == "GET":
            self.hub.downloads.append(path)
            self.hub.ranges += [asked] if asked else []
        self.send_response(206 if asked else 200)
        headers = {"ETag": f'"{oid_of(content)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self._end(headers, content[begin:], self.hub.cuts.get(path, 0) > 0 and self.command == "GET")
        if self.command == "GET" and self.hub.cuts.get(path):
            self.hub.cuts[path] -= 1

    def _json(self, value: Any) -> None:
        self.send_response(200)
        self._end({"Content-Type": "application/json"}, json.dumps(value).encode())

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        content = json.dumps({"error": message}).encode()
        self._end({"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}, content)

    def _end(self, headers: dict[str, str], content: bytes, is_cut: bool = False) -> None:
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests look at what was asked."""


def oid_of(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()  # noqa: S324  # as git has it


def _tree(files: dict[str, bytes]) -> list[dict[str, Any]]:
    folders = {str(parent) for path in files for parent in Path(path).parents if str(parent) != "."}
    listed = [{"type": "directory", "path": path, "size": 0, "oid": oid_of(path.encode())} for path in sorted(folders)]
    return [
        *listed,
        *({"type": "file", "path": path, "size": len(c), "oid": oid_of(c)} for path, c in sorted(files.items())),
    ]


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Of the client's process: nothing of this one's hub settings, and no proxy between it and loopback."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    return {
        **kept, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    }  # fmt: skip


def main() -> None:
    from trainers.data.sources import DataProblem, read_rows
    from trainers.data.split_names import named_splits
    from trainers.model.source import model_folder
    from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef

    def data(**source: Any) -> Any:
        return [row.values for row in read_rows(SourceRef(**source), "train", [])]

    def splits(source: str) -> Any:
        given = DataRef(SourceRef(source), None, None, {"text": "text", "label": "label"}, 0.1, 0.1, 0)
        found, notes = named_splits(given)
        return {role: ref.split for role, ref in found.sources().items()}, notes

    def model(source: str, revision: str | None = None) -> Any:
        folder = model_folder(ModelRef(source, revision))
        return {
            str(file.relative_to(folder)): oid_of(file.read_bytes()) for file in folder.rglob("*") if file.is_file()
        }

    answers = {"data": data, "splits": splits, "model": model}
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ.pop("HF_TOKEN", None)
        if asked["token"]:
            os.environ["HF_TOKEN"] = asked["token"]
        try:
            answer = {"answer": answers[asked["what"]](**asked["arguments"])}
        except DataProblem as problem:
            answer = {"findings": [[f.where, f.found, f.expected] for f in problem.findings]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
