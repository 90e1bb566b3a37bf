"""One shard of a pool's pictures from their urls: a tar, a list of what became of each row, and a line of counts.

The three files are named and laid out as img2dataset's (docs/download.md): `<shard>.tar`, `<shard>.parquet`, and, when
both are whole, `<shard>_stats.json`.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError
from poolbench.files import atomic, leftovers, read_json, write_json
from poolbench.shards.samples import Problem, read_shard
from poolbench.shards.writer import SampleWriter
from poolbench.uids import split_uid

from curate.download.resize import Picture, finished
from curate.download.web import Fetched, Limits, fetch_all, may_mend
from curate.pool.files import plain

NEEDED = ("uid", "url", "text")
FACES = "face_bboxes"
CHANGED = "changed"  # the kind of failure of pictures that are not those of the metadata's sha256
_USED = (*NEEDED, FACES, "sha256")
_NETWORK = {"timeout", "too slow", "no such host", "no connection"}
_MANY = 100  # rows, of which one at least is reached where there is a network

_LIST = pa.schema(
    [
        ("uid", pa.string()),
        (FACES, pa.list_(pa.list_(pa.float64()))),
        ("caption", pa.string()),
        ("url", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("sha256", pa.string()),
        ("changed", pa.bool_()),
    ]
)


class Shard(NamedTuple):
    """Rows `start` to `stop` of a metadata file, and the number that names what is made of them."""

    number: int
    metadata: Path
    start: int
    stop: int


@dataclass(frozen=True)
class Settings:
    """How pictures are fetched and kept.

    Attributes:
        connections: under way at a time.
        retries: further passes over the urls whose failure may mend.
        blur_faces: whether the metadata's boxes are blurred.
        keep_changed: whether pictures with another SHA-256 than the metadata's are kept.
        shard_size: rows of a shard; the last one of a metadata file has fewer.
        pause: seconds before the second pass; twice as many before the third, and so on.
    """

    limits: Limits = field(default_factory=Limits)
    connections: int = 128
    retries: int = 2
    blur_faces: bool = True
    keep_changed: bool = True
    shard_size: int = 10_000
    pause: float = 5.0


class Stats(NamedTuple):
    """What became of a shard's rows: `failures` by kind; `changed` of the arrived have another SHA-256."""

    rows: int
    arrived: int
    changed: int
    failures: dict[str, int]
    seconds: float


def name_of(number: int) -> str:
    """The name of a shard's files, without what tells them apart."""
    return f"{number:08d}"


def stats_of(folder: Path, number: int) -> Stats | None:
    """The counts of a finished shard, None where it is not finished.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / f"{name_of(number)}_stats.json"
    if not path.exists():
        return None
    found = read_json(path)
    try:
        failures = {kind: count for kind, count in found["status_dict"].items() if kind != "success"}
        return Stats(found["count"], found["successes"], found.get("changed", 0), failures, found["duration"])
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; delete it, and the shard is made again") from None


def may_try_again(folder: Path, number: int) -> bool:
    """Whether a shard is finished, and some of its failures may mend."""
    stats = stats_of(folder, number)
    return stats is not None and any(may_mend(kind) for kind in stats.failures)


def make(shard: Shard, folder: Path, settings: Settings) -> None:
    """Make a shard, or try again what failed of one that is finished.

    Raises:
        UserError: the metadata cannot be read, or nothing at all came, as without a network.
        OSError: the shard cannot be written.
    """
    began = time.time()
    rows = _rows(shard)
    tar_path, list_path = (folder / f"{name_of(shard.number)}{ending}" for ending in (".tar", ".parquet"))
    earlier = stats_of(folder, shard.number)
    known = _listed(list_path, rows) if earlier is not None else {}
    for left in [*leftovers(tar_path), *leftovers(list_path)]:
        left.unlink(missing_ok=True)
    with atomic(tar_path, "wb") as file, TemporaryFile(dir=folder) as unsorted:
        samples = _Samples(unsorted)
        if known:
            _copy(tar_path, samples)
        work = _Work(shard, rows, known, samples, settings)
        asyncio.run(work.download())
        _check_network(work.metas)
        with SampleWriter(file) as tar:
            samples.write(tar)
    metas = [work.metas[number] for number in range(len(rows))]
    with atomic(list_path, "wb") as file:
        pq.write_table(pa.Table.from_pylist(metas, schema=_LIST), file)
    seconds = time.time() - began + (earlier.seconds if earlier else 0.0)
    write_json(folder / f"{name_of(shard.number)}_stats.json", _stats(metas, began, seconds))


class _Samples:
    """Samples as they come, in a file of any order, to be written in that of their keys: the bytes of a shard must not
    depend on which host answers first."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._end = file, 0
        self._places: dict[str, dict[str, tuple[int, int]]] = {}  # key -> extension -> first byte, bytes

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Take a sample, unless it is there: a run that was killed may have left more in the tar than on the list."""
        if key in self._places:
            return
        places = self._places[key] = {}
        for extension, data in members.items():
            self._file.write(data)
            places[extension] = self._end, len(data)
            self._end += len(data)

    def write(self, tar: SampleWriter) -> None:
        """Write all of them."""
        for key in sorted(self._places):
            members = {}
            for extension, (start, size) in self._places[key].items():
                self._file.seek(start)
                members[extension] = self._file.read(size)
            tar.write(key, members)


class _Work:
    """A shard under way.

    Attributes:
        metas: what is known of each row, by its number in the shard: a row of the list.
    """

    def __init__(
        self,
        shard: Shard,
        rows: Sequence[Mapping[str, Any]],
        known: dict[int, dict[str, Any]],
        samples: _Samples,
        settings: Settings,
    ) -> None:
        self._shard, self._rows, self._samples, self._settings = shard, rows, samples, settings
        self.metas = known
        digits = len(str(settings.shard_size - 1))
        self._keys = [f"{shard.number * 10**digits + row:0{digits + 8}d}" for row in range(len(rows))]

    async def download(self) -> None:
        """All rows that are not there, those whose failure may mend in several passes."""
        due = self._due()
        # Names are looked up in these threads; by default they are few, and a dead name holds one for seconds.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self._settings.connections))
        with ThreadPoolExecutor(1) as artist:  # one core a process

            async def take(number: int, fetched: Fetched) -> None:
                await self._take(number, fetched, artist)

            for attempt in range(self._settings.retries + 1):
                if attempt and due:
                    await asyncio.sleep(self._settings.pause * 2 ** (attempt - 1))
                urls = {number: self._rows[number]["url"] for number in due}
                await fetch_all(urls, take, self._settings.limits, self._settings.connections)
                due = [number for number in due if may_mend(self.metas[number]["error_message"] or "")]

    def _due(self) -> list[int]:
        """The rows to ask for; those that cannot be asked for are told off at once."""
        due = []
        for number, row in enumerate(self._rows):
            if number in self.metas:
                if may_mend(self.metas[number]["error_message"] or ""):
                    due.append(number)
            elif not row["url"]:
                self._note(number, failure="bad url")
            elif not _is_uid(row["uid"]):
                self._note(number, failure="malformed uid")
            else:
                due.append(number)
        return due

    async def _take(self, number: int, fetched: Fetched, artist: ThreadPoolExecutor) -> None:
        row = self._rows[number]
        expected = str(row.get("sha256") or "").lower()
        changed = bool(expected and fetched.body) and fetched.sha256 != expected
        if fetched.failure:
            self._note(number, failure=fetched.failure)
        elif changed and not self._settings.keep_changed:
            self._note(number, failure=CHANGED)
        else:
            faces = (row.get(FACES) or []) if self._settings.blur_faces else []
            try:
                picture = await asyncio.get_running_loop().run_in_executor(artist, finished, fetched.body, faces)
            except ValueError:
                self._note(number, failure="not a picture", status="failed_to_resize")
            else:
                self._note(number, picture=picture, sha256=fetched.sha256, changed=changed)
                self._write(number, picture)

    def _note(
        self,
        number: int,
        *,
        failure: str | None = None,
        status: str = "failed_to_download",
        picture: Picture | None = None,
        sha256: str | None = None,
        changed: bool = False,
    ) -> None:
        row = self._rows[number]
        meta = {"uid": row["uid"], FACES: row.get(FACES), "caption": row["text"], "url": row["url"]}
        meta |= {"key": self._keys[number], "status": status if failure else "success", "error_message": failure}
        sizes = ("width", "height", "original_width", "original_height")
        meta |= {size: getattr(picture, size, None) for size in sizes}
        self.metas[number] = meta | {"sha256": sha256, "changed": changed}

    def _write(self, number: int, picture: Picture) -> None:
        meta = {name: value for name, value in self.metas[number].items() if name != "changed"}
        members = {"jpg": picture.jpeg, "json": json.dumps(meta, indent=4).encode()}
        members["txt"] = (self._rows[number]["text"] or "").encode()
        self._samples.add(self._keys[number], members)


def _copy(path: Path, samples: _Samples) -> None:
    """Take what an earlier run has brought.

    Raises:
        UserError: the earlier tar cannot be read.
    """
    for sample in read_shard(str(path)):
        if isinstance(sample, Problem):
            raise UserError(f"{path}: {sample.reason}; delete the shard's files, and it is made again")
        samples.add(*sample)


def _rows(shard: Shard) -> list[dict[str, Any]]:
    """The shard's rows, with the columns of a pool's metadata that are used.

    Raises:
        UserError: the file cannot be read.
    """
    rows: list[dict[str, Any]] = []
    try:
        with pq.ParquetFile(shard.metadata) as file:
            columns = [name for name in _USED if name in file.schema_arrow.names]
            for batch in _batches(file, shard, columns):
                rows += plain(batch).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{shard.metadata} cannot be read: {error}") from None
    return rows


def _batches(file: pq.ParquetFile, shard: Shard, columns: list[str]) -> Iterator[pa.Table]:
    """Tables whose rows together are the shard's; row groups without any of them are not read."""
    first = 0
    for group in range(file.num_row_groups):
        last = first + file.metadata.row_group(group).num_rows
        if first < shard.stop and last > shard.start:
            table = file.read_row_group(group, columns=columns)
            start = max(shard.start - first, 0)
            yield table.slice(start, min(shard.stop, last) - first - start)
        first = last


def _listed(path: Path, rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """What the list of a finished shard says, by the number of the row.

    Raises:
        UserError: it is not the list of these rows.
    """
    try:
        table = pq.read_table(path, columns=[name for name in _LIST.names if name != "changed"])
        known = {int(meta["key"]) % 10 ** (len(meta["key"]) - 8): meta for meta in table.to_pylist()}
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}; delete the shard's files, and it is made again") from None
    if any(meta["uid"] != rows[number]["uid"] for number, meta in known.items() if number < len(rows)):
        raise UserError(f"{path} lists other rows than the metadata; choose another out=, or delete the shard's files")
    return {number: meta for number, meta in known.items() if number < len(rows)}


def _check_network(metas: Mapping[int, Mapping[str, Any]]) -> None:
    """A shard of which nothing came would be taken for done by the next run.

    Raises:
        UserError: not one host was reached.
    """
    failures = Counter(meta["error_message"] for meta in metas.values())
    if len(metas) >= _MANY and set(failures) <= _NETWORK:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in failures.most_common())
        raise UserError(f"not one of {len(metas):,} urls was reached ({kinds}); is there a network?")


def _stats(metas: Sequence[Mapping[str, Any]], began: float, seconds: float) -> dict[str, Any]:
    """The counts, under the names that img2dataset gives them."""
    statuses = Counter(meta["status"] for meta in metas)
    kinds = Counter(meta["error_message"] or "success" for meta in metas)
    return {
        "count": len(metas),
        "successes": statuses["success"],
        "failed_to_download": statuses["failed_to_download"],
        "failed_to_resize": statuses["failed_to_resize"],
        "changed": sum(bool(meta.get("changed")) for meta in metas),
        "duration": seconds,
        "start_time": began,
        "end_time": time.time(),
        "status_dict": dict(kinds.most_common()),
    }


def _is_uid(uid: Any) -> bool:
    try:
        split_uid(uid)
        return True
    except ValueError:
        return False
