"""HTTP servers on this machine, each for as long as a block lasts."""

import contextlib
import http.server
import threading
from collections.abc import Iterator


class Quiet:
    """For handlers: connections stay open, and nothing goes to the terminal."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that gave up are what is tested."""


@contextlib.contextmanager
def answering(handler: type[http.server.BaseHTTPRequestHandler], ending: threading.Event) -> Iterator[int]:
    """The free port on which `handler` answers; `ending` is set at the end, for answers that wait for it."""
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)  # seconds to notice the end
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            ending.set()
            server.shutdown()
            thread.join()
