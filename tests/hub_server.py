"""A local server that speaks as much of the Hugging Face Hub's protocol as our data need, both ways, and can fail.

Sending: create a repository, preupload (which file goes where), the LFS batch, PUT and verify, one commit.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_server import Quiet, answering

COMMIT = "c0ffee" * 6 + "abcd"  # 40 hex digits, as a commit has


@dataclass
class Hub:
    """Repositories (name -> revision -> path -> content), and what is to go wrong.

    Attributes:
        token: what a client has to send to see anything, None where nothing is asked.
        cut: path -> how many answers end half-way.
        stuck: paths whose answers stop half-way and only end with the server.
        busy: path -> how many answers are "503" (or "429" with a Retry-After, for every second one).
        busy_after_cut: whether a path whose answer was cut is busy from then on.
        ranges: whether a request for a part of a file gets that part, or all of it.
        lies: path -> bytes that are sent instead of the content, of the same length.
        requests: how often each path was asked for with GET.
        sent: bytes of content sent for each path.
        refuses: step of sending (create, info, card, preupload, batch, upload, verify, commit) -> status it answers.
        busy_steps: step -> how many answers are "503".
        stuck_steps: steps that are not answered before the server ends.
        loses_answer: whether a commit is made and the connection closed instead of an answer.
        ignored: paths that a .gitignore of the repository leaves out.
        private: repositories that only their owner sees.
        stored: what was uploaded for a commit to name, by SHA-256.
        commits: (repository, message, paths) of each commit.
        received: all bodies that came in, uploads included.
        steps: how often each step was asked for.
    """

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    cut: Counter[str] = field(default_factory=Counter)
    stuck: set[str] = field(default_factory=set)
    busy: Counter[str] = field(default_factory=Counter)
    busy_after_cut: bool = False
    ranges: bool = True
    lies: dict[str, bytes] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    refuses: dict[str, int] = field(default_factory=dict)
    busy_steps: Counter[str] = field(default_factory=Counter)
    stuck_steps: set[str] = field(default_factory=set)
    loses_answer: bool = False
    ignored: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    stored: dict[str, bytes] = field(default_factory=dict)
    commits: list[tuple[str, str, list[str]]] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    steps: Counter[str] = field(default_factory=Counter)
    url: str = ""
    ending: threading.Event = field(default_factory=threading.Event)

    def add(self, repo: str, folder: Path, revision: str = "main") -> None:
        """A repository with the files of a folder."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.repositories.setdefault(repo, {})[revision] = files

    def head(self, repo: str) -> str:
        """The newest commit of a repository."""
        made = sum(name == repo for name, _, _ in self.commits)
        return f"{made:040x}" if made else COMMIT


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer for `hub` on a free port, whose address is `hub.url`, for as long as the block lasts."""

    class Bound(_Handler):
        server_hub = hub

    with answering(Bound, hub.ending) as port:
        hub.url = f"http://127.0.0.1:{port}"
        yield hub


def _is_lfs(path: str) -> bool:
    return path.endswith((".tar", ".parquet", ".npy", ".pt"))


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(Quiet, http.server.BaseHTTPRequestHandler):
    server_hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = [urllib.parse.unquote(part) for part in urllib.parse.urlsplit(self.path).path.strip("/").split("/")]
        token = self.server_hub.token
        if token is not None and parts[0] != "lfs" and self.headers.get("Authorization") != f"Bearer {token}":
            self._refuse(401, "RepoNotFound")
        elif parts[:2] == ["api", "models"]:
            self._step("info", lambda _: self._describe("/".join(parts[2:4]), "main"))
        elif parts[:2] == ["api", "datasets"]:
            self._describe("/".join(parts[2:4]), parts[5] if parts[4:5] == ["revision"] else "main")
        elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            self._resolve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]), body)
        elif parts[2:3] == ["resolve"]:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        elif parts[0] == "lfs":
            repo, path = "/".join(parts[1:3]), "/".join(parts[4:])
            self._send(path, (self._files(repo, parts[3]) or {})[path], body)
        else:
            self._refuse(404, "RepoNotFound")

    def _files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision; every repository is at the same commit, of any of its revisions."""
        revisions = self.server_hub.repositories.get(repo, {})
        return next(iter(revisions.values()), None) if revision == COMMIT else revisions.get(revision)

    def _describe(self, repo: str, revision: str) -> None:
        files = self._files(repo, revision)
        if files is None:
            known = repo in self.server_hub.repositories
            return self._refuse(404, "RevisionNotFound" if known else "RepoNotFound")
        siblings = []
        for path, content in files.items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": _blob(content)}
            if _is_lfs(path):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        licence = self.server_hub.licences.get(repo)
        hub = self.server_hub
        answer = {
            "id": repo,
            "sha": hub.head(repo),
            "private": repo in hub.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
        }
        answer |= {"likes": 0, "tags": [], "siblings": siblings}
        answer |= {"cardData": {"license": licence}} if licence else {}
        self._tell(answer)
        return None

    def _resolve(self, repo: str, revision: str, path: str, body: bool) -> None:
        """Answer with a small file itself, and for a large one with the address that stores it."""
        hub = self.server_hub
        files = self._files(repo, revision)
        if repo not in hub.repositories:
            return self._refuse(404, "RepoNotFound")
        if files is None or path not in files:
            return self._refuse(404, "EntryNotFound")
        if body and hub.busy[path]:
            hub.busy[path] -= 1
            return self._refuse(503 if hub.busy[path] % 2 == 0 else 429, None)
        if not _is_lfs(path):
            return self._send(path, files[path], body)
        self.send_response(302)
        self.send_header("Location", f"{hub.url}/lfs/{repo}/{COMMIT}/{urllib.parse.quote(path)}")
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(files[path]).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(files[path])))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _send(self, path: str, content: bytes, body: bool) -> None:
        hub = self.server_hub
        etag = hashlib.sha256(content).hexdigest() if _is_lfs(path) else _blob(content)
        content = hub.lies.get(path, content)
        asked = self.headers.get("Range") if hub.ranges else None
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            hub.requests[path] += 1
            self._send_part(path, content[start:])

    def _send_part(self, path: str, part: bytes) -> None:
        hub = self.server_hub
        if hub.cut[path] or path in hub.stuck:
            part = part[: len(part) // 2]
            self.close_connection = True
        with contextlib.suppress(ConnectionError):  # the client may be gone
            self.wfile.write(part)
        hub.sent[path] += len(part)
        if path in hub.stuck:
            hub.ending.wait()
        elif hub.cut[path]:
            hub.cut[path] -= 1
            hub.busy[path] += 1_000_001 if hub.busy_after_cut else 0

    def _refuse(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _tell(self, answer: Any, status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        hub, path = self.server_hub, urllib.parse.urlsplit(self.path).path
        parts = path.strip("/").split("/")
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._body()
            self._refuse(401, None)
        elif path == "/api/repos/create":
            self._step("create", self._create)
        elif path == "/api/validate-yaml":
            self._step("card", lambda _: self._tell({"errors": [], "warnings": []}))
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._step("batch", self._batch)
        elif path == "/verify":
            self._step("verify", self._verify)
        elif parts[:2] == ["api", "models"] and parts[4:] == ["preupload", "main"]:
            self._step("preupload", lambda body: self._preupload("/".join(parts[2:4]), body))
        elif parts[:2] == ["api", "models"] and parts[4:] == ["commit", "main"]:
            self._step("commit", lambda body: self._commit("/".join(parts[2:4]), body))
        else:
            self._body()
            self._refuse(404, None)

    def do_PUT(self) -> None:
        """An upload goes to a signed address, and without the token."""
        self._step("upload", lambda body: self._store(self.path.removeprefix("/store/"), body))

    def _step(self, step: str, answer: Callable[[bytes], None]) -> None:
        """Answer a step of sending, unless it is to fail."""
        hub = self.server_hub
        body = self._body()
        hub.received += body
        hub.steps[step] += 1
        if step in hub.stuck_steps:
            hub.ending.wait()
            self.close_connection = True
        elif hub.busy_steps[step]:
            hub.busy_steps[step] -= 1
            self._refuse(503, None)
        elif step in hub.refuses:
            self._refuse(hub.refuses[step], None)
        else:
            answer(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _create(self, body: bytes) -> None:
        hub, asked = self.server_hub, json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        known = repo in hub.repositories
        if not known:
            hub.repositories[repo] = {"main": {}}
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(repo)
        self._tell({"url": f"{hub.url}/{repo}", "id": repo}, 409 if known else 200)

    def _preupload(self, repo: str, body: bytes) -> None:
        files = self.server_hub.repositories[repo]["main"]
        answers = []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            answer = {"path": path, "uploadMode": "lfs" if _is_lfs(path) else "regular"}
            answer |= {"shouldIgnore": path in self.server_hub.ignored}
            if path in files:
                answer["oid"] = hashlib.sha256(files[path]).hexdigest() if _is_lfs(path) else _blob(files[path])
            answers.append(answer)
        self._tell({"files": answers})

    def _batch(self, body: bytes) -> None:
        hub = self.server_hub
        objects = []
        for asked in json.loads(body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in hub.stored:
                upload, verify = {"href": f"{hub.url}/store/{asked['oid']}"}, {"href": f"{hub.url}/verify"}
                answer["actions"] = {"upload": upload, "verify": verify}
            objects.append(answer)
        self._tell({"transfer": "basic", "objects": objects})

    def _store(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._refuse(400, None)
        self.server_hub.stored[oid] = body
        return self._tell({})

    def _verify(self, body: bytes) -> None:
        asked = json.loads(body)
        right = len(self.server_hub.stored.get(asked["oid"], b"")) == asked["size"]
        self._tell({}, 200 if right else 404)

    def _commit(self, repo: str, body: bytes) -> None:
        """All files at once or, where one was not uploaded before, none."""
        hub, summary, files = self.server_hub, "", {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                summary = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] in hub.stored:
                files[value["path"]] = hub.stored[value["oid"]]
            else:
                return self._refuse(400, None)
        hub.repositories[repo]["main"] |= files
        hub.commits.append((repo, summary, sorted(files)))
        if hub.loses_answer:
            self.close_connection = True
            return None
        oid = hub.head(repo)
        return self._tell({"commitUrl": f"{hub.url}/{repo}/commit/{oid}", "commitOid": oid})
