"""A local web of hosts that are good, slow, failing or lying; what is asked for begins with how it behaves."""

import contextlib
import http.server
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from local_server import Quiet, answering
from pools import picture

HTML = b"<html><body>Sorry, this picture has moved.</body></html>"


@dataclass
class Web:
    """`/<behaviour>/<number>`, where the number says which of the pictures of tests/pools.py it is.

    Attributes:
        side: pixels of the pictures.
        delay: seconds before each answer.
        mended: whether the failing and slow ones send their picture.
        gets: how often each path was asked for.
        under_way: requests that are being answered, and the most at a time.
    """

    side: int = 40
    delay: float = 0.0
    mended: bool = False
    gets: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most: int = 0
    port: int = 0
    ending: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, behaviour: str, number: int = 0) -> str:
        return f"http://127.0.0.1:{self.port}/{behaviour}/{number}"

    def picture(self, number: int) -> bytes:
        """What good hosts send."""
        return picture(number, self.side, "JPEG")


@contextlib.contextmanager
def serving(web: Web) -> Iterator[Web]:
    """Answer on a free port for as long as the block lasts."""

    class Bound(_Handler):
        hosts = web

    with answering(Bound, web.ending) as web.port:
        yield web


class _Handler(Quiet, http.server.BaseHTTPRequestHandler):
    hosts: Web

    def do_GET(self) -> None:
        web = self.hosts
        behaviour, number = self.path.strip("/").split("/")
        with web.lock:
            web.gets[self.path] += 1
            web.under_way += 1
            web.most = max(web.most, web.under_way)
        try:
            time.sleep(web.delay)
            if web.mended:
                self._send(web.picture(int(number)))
            else:
                getattr(self, f"_{behaviour}")(int(number))
        finally:
            with web.lock:
                web.under_way -= 1

    def _good(self, number: int) -> None:
        self._send(self.hosts.picture(number))

    def _mistyped(self, number: int) -> None:
        """The picture, under a wrong name of its kind."""
        self._send(self.hosts.picture(number), **{"Content-Type": "text/html"})

    def _html(self, _: int) -> None:
        """A page that says it is a picture."""
        self._send(HTML, **{"Content-Type": "image/jpeg"})

    def _empty(self, _: int) -> None:
        self._send(b"")

    def _changed(self, number: int) -> None:
        """Another picture than when the metadata were made."""
        self._send(self.hosts.picture(number + 1000))

    def _status(self, status: int) -> None:
        self._send(HTML, status)

    def _busy(self, number: int) -> None:
        """Sends its picture when it is asked for the third time."""
        if self.hosts.gets[self.path] < 3:
            self._send(b"", 503)
        else:
            self._good(number)

    def _moved(self, number: int) -> None:
        self._send(b"", 301, Location=f"/good/{number}")

    def _loop(self, number: int) -> None:
        self._send(b"", 302, Location=f"/loop/{number}")

    def _local(self, _: int) -> None:
        """A redirect to a file of whoever asks."""
        self._send(b"", 302, Location="file:///etc/hostname")

    def _private(self, _: int) -> None:
        self._send(b"", 302, Location="http://10.0.0.1/good/1")

    def _forbidden(self, number: int) -> None:
        self._send(self.hosts.picture(number), **{"X-Robots-Tag": "noindex, NoAI"})

    def _permitted(self, number: int) -> None:
        """Forbidden to another robot only."""
        self._send(self.hosts.picture(number), **{"X-Robots-Tag": "somebot: noai"})

    def _cut(self, number: int) -> None:
        """Half a picture, and the connection is reset."""
        self._half(number)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _short(self, number: int) -> None:
        """Half a picture, and the connection is closed as after a whole one."""
        self._half(number)
        self.close_connection = True

    def _stalled(self, number: int) -> None:
        """Half a picture, and then nothing."""
        self._half(number)
        self.hosts.ending.wait(60)

    def _silent(self, _: int) -> None:
        self.hosts.ending.wait(60)

    def _drip(self, number: int) -> None:
        """A byte now and then, so that no wait for the next one is long."""
        self._head(200, len(self.hosts.picture(number)))
        for byte in self.hosts.picture(number):
            self.wfile.write(bytes([byte]))
            if self.hosts.ending.wait(0.05):
                return

    def _huge(self, _: int) -> None:
        """Bytes for ever, without a word on how many."""
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        while not self.hosts.ending.is_set():
            self.wfile.write(bytes(1 << 16))

    def _announced(self, _: int) -> None:
        """More bytes than anyone wants, and says so."""
        self.close_connection = True
        self._head(200, 10**12)

    def _gibberish(self, _: int) -> None:
        self.close_connection = True
        self.wfile.write(b"220 this is no web server\r\n\r\n")

    def _half(self, number: int) -> None:
        data = self.hosts.picture(number)
        self._head(200, len(data))
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "image/jpeg", **headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self._head(status, len(body), **headers)
        self.wfile.write(body)
