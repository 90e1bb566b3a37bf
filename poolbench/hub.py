"""The Hugging Face Hub: what a dataset repository holds, and fetching its files.

HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured, as in every tool built on `huggingface_hub`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import requests
from tenacity import RetryCallState, stop_after_attempt

from poolbench.errors import UserError, first_line, no_room, unwritable
from poolbench.files import digest_file
from poolbench.retry import raised, retried, wait_asked

ATTEMPTS = 6
FIRST_PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
STAGING = ".download"  # folder for files that are under way, within the one they are for

_TIMEOUTS = (10, 60)  # seconds to connect, and without a byte
_PIECE = 1 << 16  # bytes; a lost connection loses one of them

Value = TypeVar("Value")


class FullDiskError(UserError):
    """A file could not grow, as the disk or a quota has no room for it."""


@dataclass(frozen=True)
class File:
    """A file of a repository.

    Attributes:
        path: in the repository.
        name: relative to the folder where it lies on disk.
        size: bytes.
        sha256: of the content; None where the Hub does not tell, as for small files.
        blob: git's SHA-1 of a small file, None where `sha256` is known.
    """

    path: str
    name: str
    size: int
    sha256: str | None
    blob: str | None = None

    def problem(self, path: Path) -> str | None:
        """What is wrong with a copy of it at `path`, None where nothing is."""
        if not path.is_file():
            return "missing"
        if path.stat().st_size != self.size:
            return f"{path.stat().st_size} bytes instead of {self.size}"
        expected, found = self.sha256 or self.blob, digest_file(path) if self.sha256 else _git_digest(path)
        return None if found == expected else f"its digest is {found} instead of {expected}"


@dataclass(frozen=True)
class Repository:
    """What a dataset repository holds at a commit. `licence` as its card says, None where it says nothing."""

    repo: str
    commit: str
    licence: str | None
    files: tuple[File, ...]


def inspect(repo: str, revision: str, named: Callable[[Sequence[str]], Mapping[str, str]]) -> Repository:
    """Ask the Hub for some files of a dataset repository at the newest commit of a revision.

    Args:
        named: from the paths of all its files, path -> name on disk of those wanted; what it raises ends the asking.

    Raises:
        UserError: no such repository, no answer, or one without sizes and digests.
    """
    from huggingface_hub import HfApi

    info = insist(repo, lambda: HfApi().dataset_info(repo, revision=revision, files_metadata=True))
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    names = named(list(siblings))
    files = tuple(_file(repo, siblings[path], names[path]) for path in siblings if path in names)
    card: Any = getattr(info, "card_data", None) or {}
    licence = card.get("license")
    return Repository(repo, str(info.sha), None if licence is None else str(licence), files)


def _file(repo: str, sibling: Any, name: str) -> File:
    lfs = sibling.lfs
    size = lfs.size if lfs is not None else sibling.size
    sha256 = lfs.sha256 if lfs is not None else None
    if size is None or (sha256 is None and sibling.blob_id is None):
        raise UserError(f"{repo}: the hub tells no size or digest of {sibling.rfilename}")
    return File(sibling.rfilename, name, size, sha256, sibling.blob_id if sha256 is None else None)


def fetch(repo: str, commit: str, file: File, folder: Path, tell: Callable[[int], object] = lambda _: None) -> Path:
    """Bring a file into `folder` under its name and return its path.

    It grows below `folder`/.download, behind what an interrupted download left there, and takes its name when size and
    digest are right. (The library's own download does not go on behind what an earlier process left.) Only one process
    at a time may fetch into a folder.

    Args:
        tell: called with the bytes that were there already and with those of each piece as it comes in, with fewer
            than none where some have to come again. What it raises ends the download.

    Raises:
        UserError: the Hub does not give it, or gives something else twice.
        FullDiskError: there is no room for it.
    """
    from huggingface_hub import get_token, hf_hub_url

    url, token = hf_hub_url(repo, file.path, repo_type="dataset", revision=commit), get_token()
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
    part = folder / STAGING / f"{file.name.replace('/', '-')}.{(file.sha256 or file.blob or '')[:16]}"
    problem = None
    tell(_size(part))
    for _ in range(2):
        insist(f"{repo}/{file.path}", lambda: _grow(part, url, headers, file.size, tell), lambda: _size(part))
        problem = file.problem(part)
        if problem is None:
            path = folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            return part.replace(path)
        tell(-_size(part))
        part.unlink()
    raise UserError(f"{repo}/{file.path} at {commit}: {problem}, twice; the hub's copy is damaged or was changed")


def _grow(part: Path, url: str, headers: Mapping[str, str], size: int, tell: Callable[[int], object]) -> None:
    """Append to `part` what it lacks of `size` bytes."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        start = file.tell()
        if start >= size:
            return
        asked = {**headers, "Range": f"bytes={start}-"} if start else headers
        with requests.get(url, headers=asked, stream=True, timeout=_TIMEOUTS) as response:
            response.raise_for_status()
            if start and response.status_code != 206:  # the server does not know ranges: from the beginning
                file.truncate(0)
                tell(-start)
            for piece in response.iter_content(_PIECE):
                file.write(piece)
                tell(len(piece))
        file.flush()
        if file.tell() < size:
            raise ConnectionError("the connection was closed half-way")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def insist(what: str, ask: Callable[[], Value], progress: Callable[[], int] = lambda: 0) -> Value:
    """The answer of the Hub; after a lost connection or an overloaded server it is asked again.

    Args:
        progress: what it gives has changed when a failure was one on the way; only ATTEMPTS in vain end it.

    Raises:
        UserError: no answer, a refusal, or a folder that cannot be written.
        FullDiskError: the disk has no room for what came.
    """
    if forbidden():
        raise UserError(f"{what} is not here, and HF_HUB_OFFLINE forbids to fetch it")
    try:
        return retried(ask, mends=_mends, stop=stop_after_attempt(ATTEMPTS), pause=_pause, progress=progress)
    except UserError:
        raise
    except Exception as error:
        if no_room(error):
            raise FullDiskError(f"{what} cannot be written: {error.strerror}") from None
        if _closed(error):
            raise UserError(f"{what} cannot be written: {error.strerror} ({error.filename or 'data='})") from None
        if not _foreign(error):
            raise
        raise UserError(f"{what} cannot be fetched: {_reason(error, _status(error))}") from None


def forbidden() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the Hub."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def endpoint() -> str:
    """The address of the Hub, HF_ENDPOINT or the public one."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _mends(error: Exception) -> bool:
    """Whether the Hub may give the same later: the connection was lost, or the server has too much to do."""
    if isinstance(error, UserError) or no_room(error) or _closed(error) or not _foreign(error):
        return False
    status = _status(error)
    return status is None or status in (408, 429) or status >= 500


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt."""
    headers = getattr(getattr(raised(state), "response", None), "headers", {})
    return max(FIRST_PAUSE * 2.0 ** (state.attempt_number - 1), wait_asked(headers))


def _status(error: BaseException) -> int | None:
    """The HTTP status of an answer that became an error; the library's HTTP package changes with its version."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def _closed(error: BaseException) -> TypeGuard[OSError]:
    """Whether nothing may be written there."""
    return isinstance(error, PermissionError) or unwritable(error)


def _foreign(error: Exception) -> bool:
    """Whether it comes from the network or the Hub, and not from a mistake of ours."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or package in ("huggingface_hub", "httpx", "httpx2", "httpcore", "urllib3")


def _git_digest(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _reason(error: Exception, status: int | None) -> str:
    known = {
        401: "it needs a token (HF_TOKEN)",
        403: "access is not granted",
        404: "there is no such file or repository",
    }
    first = first_line(error)
    return known.get(status or 0, f"status {status}: {first}" if status else first)
