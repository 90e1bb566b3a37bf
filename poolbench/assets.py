"""Files that no package carries: fetched once into the cache, known by their digests.

    path = fetched(Asset("lid.176.bin", "https://...", "sha256:7e69..."))

A file that somebody copies into the cache under its name is taken as it is when its digest is right, which is the way
for machines without a network.
"""

import hashlib
import sys
from pathlib import Path
from typing import IO, NamedTuple

from poolbench.errors import UserError
from poolbench.files import atomic, cache
from poolbench.remote import PIECE, RemoteFile, Tally


class Asset(NamedTuple):
    """A file that can be fetched.

    Attributes:
        name: in the cache.
        url: where it is published.
        digest: "sha256:" or "git:" (SHA-1 as git names content) and hexadecimal digits.
        instead: what the user can do without it, the end of a sentence; empty where nothing.
    """

    name: str
    url: str
    digest: str
    instead: str = ""


def fetched(asset: Asset, root: Path | None = None) -> Path:
    """Where an asset lies, downloaded where it does not lie below `root` (the cache) yet.

    It takes its name when it is whole and its digest is right. Processes that need it at once each load it, and the
    last one wins; a command therefore asks once before it starts its workers.

    Raises:
        UserError: no connection, no such file, another content, or no room.
    """
    path = (root or cache()) / "assets" / asset.name
    if path.is_file():
        with path.open("rb") as file:
            _check(asset, _digest(file, asset, path.stat().st_size), f"{path}: delete it, or put the right one there")
        return path
    print(f"fetching {asset.url} to {path}", file=sys.stderr, flush=True)
    try:
        _download(asset, path)
    except UserError:
        raise
    except OSError as error:
        way = f"; fetch {asset.url} elsewhere and copy it to {path}" + (f", {asset.instead}" if asset.instead else "")
        if error.errno is not None:
            raise UserError(f"{path} cannot be written: {error.strerror}; POOLBENCH_CACHE is the folder") from None
        raise UserError(f"{asset.name} is not in the cache and cannot be fetched: {error}{way}") from None
    return path


def _download(asset: Asset, path: Path) -> None:
    with RemoteFile(asset.url, 0, Tally()) as remote, atomic(path, "w+b") as file:
        buffer = bytearray(PIECE)
        while count := remote.readinto(buffer):
            file.write(memoryview(buffer)[:count])
        size = file.tell()
        file.seek(0)
        _check(asset, _digest(file, asset, size), f"{asset.url}: it was changed, or a proxy answers instead")


def _digest(file: IO[bytes], asset: Asset, size: int) -> str:
    kind = asset.digest.partition(":")[0]
    if kind == "sha256":
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]
    digest = hashlib.sha1(b"blob %d\0" % size)
    while piece := file.read(PIECE):
        digest.update(piece)
    return f"git:{digest.hexdigest()}"


def _check(asset: Asset, found: str, what: str) -> None:
    if found != asset.digest:
        raise UserError(f"the digest is {found} instead of {asset.digest} of {what}")
