"""A real S3 server on this machine, and a bucket on it."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import fsspec
import pytest
from ports import free_port

START = 300  # seconds; the first start of a new environment reads thousands of files


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """The port of a server that answers, for as long as the block lasts."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(server, port)
        yield port
    finally:
        server.terminate()
        server.wait(300)


@contextlib.contextmanager
def bucket_of(name: str, port: int) -> Iterator[str]:
    """The URL of a new bucket; the environment says where its server is, as users say it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = fsspec.get_filesystem_class("s3")
        store.clear_instance_cache()  # those that are there know the server of an earlier test
        store().mkdir(name)
        yield f"s3://{name}"
        store.clear_instance_cache()


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert server.poll() is None, f"the server ended with status {server.returncode}"
        assert time.monotonic() < end, "the server does not answer"
        time.sleep(0.1)
