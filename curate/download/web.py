"""Fetch files from hosts that may be slow, broken, lying or hostile: what comes is bounded in time and in bytes."""

import asyncio
import contextlib
import hashlib
import ipaddress
import socket
import urllib.request
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

# What img2dataset sends and obeys where it is not told otherwise, as the pool's download does not.
USER_AGENT = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:72.0) Gecko/20100101 Firefox/72.0"
DISALLOWED = {"noai", "noimageai", "noindex", "noimageindex"}

_PIECE = 1 << 16  # bytes
_PRIVATE = "private address"
_MAY_MEND = {"timeout", "too slow", "no such host", "no connection", "truncated"}
_BUSY = {"http 408", "http 425", "http 429"}


@dataclass(frozen=True)
class Limits:
    """What one file may take.

    Attributes:
        timeout: seconds to connect, and without a byte.
        deadline: seconds in all, redirects included.
        max_bytes: of the body.
        redirects: how many are followed.
        per_host: connections to one host at a time.
        private: whether addresses of this machine and of private networks may be asked.
    """

    timeout: float = 10.0
    deadline: float = 60.0
    max_bytes: int = 64 * 2**20
    redirects: int = 10
    per_host: int = 8
    private: bool = False


class Fetched(NamedTuple):
    """A body with its SHA-256, or the kind of failure."""

    body: bytes = b""
    sha256: str = ""
    failure: str = ""


class _PrivateAddressError(OSError):
    """A name that leads to this machine or into a private network."""


def may_mend(failure: str) -> bool:
    """Whether the same request may succeed later."""
    return failure in _MAY_MEND or failure in _BUSY or failure.startswith("http 5")


async def fetch_all(
    urls: Mapping[int, str],
    take: Callable[[int, Fetched], Awaitable[None]],
    limits: Limits,
    connections: int,
) -> None:
    """Fetch every url and hand each outcome to `take` as soon as it is there; what that raises ends the whole.

    Args:
        urls: by a number that is the caller's.
        connections: urls under way at a time; no more than `limits.per_host` of one host.
    """
    waiting: dict[str, deque[int]] = defaultdict(deque)
    for number, url in urls.items():
        waiting[_host(url)].append(number)
    turns: asyncio.Queue[str] = asyncio.Queue()
    for host, numbers in waiting.items():
        for _ in range(min(limits.per_host, len(numbers))):
            turns.put_nowait(host)
    left = len(urls)
    done = asyncio.Event()

    async def serve(session: aiohttp.ClientSession) -> None:
        nonlocal left
        while True:
            host = await turns.get()
            if not waiting[host]:
                continue
            number = waiting[host].popleft()
            fetched = await fetch(session, urls[number], limits)
            if waiting[host]:
                turns.put_nowait(host)
            await take(number, fetched)
            left -= 1
            if not left:
                done.set()

    if not urls:
        return
    try:
        async with _session(limits) as session, asyncio.TaskGroup() as group:
            tasks = [group.create_task(serve(session)) for _ in range(min(connections, len(urls)))]
            await done.wait()
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def fetch(session: aiohttp.ClientSession, url: str, limits: Limits) -> Fetched:
    """One file; a failure is told by its kind and never raised."""
    clock = asyncio.timeout(limits.deadline)
    try:
        async with clock, session.get(url, max_redirects=limits.redirects + 1, proxy=_proxy(url)) as response:
            if not 200 <= response.status < 300:
                return Fetched(failure=f"http {response.status}")
            if _disallowed(response.headers.getall("X-Robots-Tag", [])):
                return Fetched(failure="disallowed by X-Robots-Tag")
            return await _body(response, limits.max_bytes)
    except TimeoutError:
        return Fetched(failure="too slow" if clock.expired() else "timeout")
    except aiohttp.TooManyRedirects:
        return Fetched(failure="too many redirects")
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError, TypeError):
        return Fetched(failure="bad url")
    except aiohttp.ClientPayloadError:
        return Fetched(failure="truncated")
    except aiohttp.ClientConnectorDNSError:
        return Fetched(failure="no such host")
    except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch):
        return Fetched(failure="tls")
    except aiohttp.ClientResponseError:
        return Fetched(failure="bad answer")
    except (aiohttp.ClientError, OSError) as error:
        return Fetched(failure=_PRIVATE if _is_private(error) else "no connection")


async def _body(response: aiohttp.ClientResponse, max_bytes: int) -> Fetched:
    if (response.content_length or 0) > max_bytes:
        return Fetched(failure="too large")
    body, digest = bytearray(), hashlib.sha256()
    async for piece in response.content.iter_chunked(_PIECE):
        body += piece
        digest.update(piece)
        if len(body) > max_bytes:
            return Fetched(failure="too large")
    return Fetched(bytes(body), digest.hexdigest())


@contextlib.asynccontextmanager
async def _session(limits: Limits) -> AsyncIterator[aiohttp.ClientSession]:
    # Behind a proxy all connections lead to it, and which hosts it asks is for it to say.
    guarded = not limits.private and not urllib.request.getproxies()
    connector = aiohttp.TCPConnector(limit=0, socket_factory=_public_socket if guarded else None)
    times = aiohttp.ClientTimeout(total=None, sock_connect=limits.timeout, sock_read=limits.timeout)
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=times,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # nothing compressed was asked for; unpacked it would have no bound
    ) as session:
        yield session


def _public_socket(info: Any) -> socket.socket:
    """A socket for an address that a name led to, after every redirect; none for a private one.

    It is looked at here and not before, as a name server may give another address the second time.
    """
    family, kind, protocol, _, address = info
    number = ipaddress.ip_address(address[0])
    if not (getattr(number, "ipv4_mapped", None) or number).is_global:
        raise _PrivateAddressError(f"{address[0]} is a private address")
    return socket.socket(family=family, type=kind, proto=protocol)


def _is_private(error: BaseException) -> bool:
    found = (getattr(error, "os_error", None), error.__cause__, error)
    return any(isinstance(one, _PrivateAddressError) or _PRIVATE in str(one) for one in found)


def _disallowed(tags: list[str]) -> bool:
    """Whether a header forbids the use, to all and not to one robot by name; as img2dataset reads it."""
    everyone = [tag for tag in tags if ":" not in tag]
    return any(word.strip().lower() in DISALLOWED for tag in everyone for word in tag.split(","))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a url."""
    proxies = urllib.request.getproxies()
    if not proxies or urllib.request.proxy_bypass(_host(url)):
        return None
    return proxies.get(url.partition(":")[0].lower())
