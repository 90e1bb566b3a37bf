"""A local HTTP server that fails as object stores and networks do, in front of a folder or of another server."""

import contextlib
import http.client
import http.server
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from local_server import Quiet, answering

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


BUSY = Answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)


@dataclass
class Faulty:
    """What is served and what is to go wrong. Paths begin with a slash.

    Attributes:
        folder: whose files are served, where no `upstream` is.
        upstream: port of a server on this machine that requests are handed to.
        ranges: whether a request for a part of a file of `folder` gets that part, or all of it.
        sizes: whether answers tell how long they are.
        busy_every: every n-th GET is answered with `busy`; 0 for none.
        busy: "503 SlowDown", or as other stores say it.
        cut: path -> how many answers end half-way with a reset connection.
        stuck: path -> how many answers stop half-way and only end with the server.
        refused: path -> status of all its answers.
        gone: paths that the folder's listing names but that are not there.
        gets: how often each path was asked for with GET.
        failed: how many GETs were made to fail.
    """

    folder: Path | None = None
    upstream: int = 0
    ranges: bool = True
    sizes: bool = True
    busy_every: int = 0
    busy: Answer = BUSY
    cut: Counter[str] = field(default_factory=Counter)
    stuck: Counter[str] = field(default_factory=Counter)
    refused: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    gets: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    port: int = 0
    ending: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(faulty: Faulty) -> Iterator[Faulty]:
    """Answer on a free port for as long as the block lasts."""

    class Bound(_Handler):
        faults = faulty

    with answering(Bound, faulty.ending) as faulty.port:
        yield faulty


class _Handler(Quiet, http.server.BaseHTTPRequestHandler):
    faults: Faulty

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self._fault() if self.command == "GET" else ""
        path = self.path.partition("?")[0]
        if path in self.faults.refused:
            self._send(Answer(self.faults.refused[path], {}, b""))
        elif fault == "busy":
            self._send(self.faults.busy)
        else:
            answer = self._forward(body) if self.faults.upstream else self._from_folder(path)
            self._send(answer, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 (named by the standard library)

    def _fault(self) -> str:
        """What goes wrong with this GET: "busy", "cut", "stuck" or nothing."""
        faults, path = self.faults, self.path.partition("?")[0]
        with faults.lock:
            faults.gets[path] += 1
            if faults.busy_every and faults.gets.total() % faults.busy_every == 0:
                faults.failed += 1
                return "busy"
            # An answer of one byte has no half.
            if not (faults.ranges and self.headers.get("Range") == "bytes=0-0"):
                for name, left in (("cut", faults.cut), ("stuck", faults.stuck)):
                    if left[path] > 0:
                        left[path] -= 1
                        faults.failed += 1
                        return name
        return ""

    def _forward(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.faults.upstream, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in ("connection", "transfer-encoding")}
        return Answer(answer.status, kept, content)

    def _from_folder(self, path: str) -> Answer:
        assert self.faults.folder is not None
        file = self.faults.folder / path.lstrip("/")
        if file.is_dir():
            names = sorted({child.name for child in file.iterdir()} | {Path(name).name for name in self.faults.gone})
            links = "".join(f'<a href="{name}">{name}</a>\n' for name in names)
            return Answer(200, {"Content-Type": "text/html"}, links.encode())
        if not file.is_file():
            return Answer(404, {}, b"")
        data = file.read_bytes()
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if part is None or not self.faults.ranges:
            return Answer(200, {"Content-Type": "application/x-tar"}, data)
        first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
        if first >= len(data):
            return Answer(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        return Answer(206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1])

    def _send(self, answer: Answer, fault: str = "") -> None:
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            if key.lower() != "content-length":
                self.send_header(key, value)
        if self.faults.sizes or answer.status != 200:
            # What upstream says of a HEAD, which has no body, is about the GET.
            size = answer.headers.get("Content-Length", len(answer.body))
            self.send_header("Content-Length", str(size))
        else:
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(answer.body[: len(answer.body) // 2] if fault else answer.body)
        if fault == "stuck":
            self.faults.ending.wait(60)
        if fault:
            # Closing with nothing lingering is a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
