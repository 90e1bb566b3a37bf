"""The command `python -m curate.download`: metadata, shards in processes of their own, and the report."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line, nearest
from poolbench.files import claimed, files_in, read_json, write_json
from poolbench.machine import cores

from curate.download.arrived import report
from curate.download.images import FACES, NEEDED, Settings, Shard, may_try_again, name_of, stats_of
from curate.download.metadata import SCALES, bring, check_brought, recorded
from curate.download.options import DownloadOptions
from curate.download.processes import make_all
from curate.download.web import Limits
from curate.pool.parts import WHOLE, Part, part_or_merge, tell_missing

METADATA = "metadata"
SHARDS = "shards"
_PLAN = ".plan.json"  # in the folder of shards: which rows are whose, and what decides how pictures look
_PLANNING = ".planning"  # there, too; claimed by the part that plans
_WAIT = 24 * 3600.0  # seconds for another part to plan


class Connections(NamedTuple):
    """How many processes a part has, and how many connections to one host each of them."""

    processes: int
    per_host: int


def download(options: DownloadOptions) -> int:
    """Bring the pool that the options name, or a part of it; or see what the parts have brought.

    Returns:
        1 where a shard could not be written, or is missing.

    Raises:
        UserError: a wrong option, or metadata that cannot be brought or read, or are missing.
    """
    part = _checked(options)
    out = Path(options.out)
    with _claimed(out, part) as staging:
        folder = out / METADATA
        folder.mkdir(exist_ok=True)
        if options.metadata:
            _metadata(options, folder, part, staging)
        return _images(options, out, part) if options.images else 0


@contextlib.contextmanager
def _claimed(out: Path, part: Part) -> Iterator[Path | None]:
    """Be the only process that does all of it, or this part; the folder that a part has for itself.

    Raises:
        UserError: another process does the same.
    """
    if part is not WHOLE:
        own = out / f".part-{part.number}-of-{part.of}"
        with claimed(own, wait=2.0):
            yield own
        return
    with claimed(out, wait=2.0), contextlib.ExitStack() as parts:
        every = sorted(out.glob(".part-*-of-*"))
        for one in every:
            parts.enter_context(claimed(one, wait=2.0))
        yield None
        for one in every:
            shutil.rmtree(one)


def _metadata(options: DownloadOptions, folder: Path, part: Part, staging: Path | None) -> None:
    if options.merge is not None:
        source = check_brought(options.scale, folder, npz=options.npz, of=options.merge)
    else:
        wants = {"npz": options.npz, "everything": options.images}  # which rows are a shard's, all files say
        source = bring(options.scale, folder, **wants, jobs=4, part=part, staging=staging)
    print(f"{folder}: {len(source.files)} files of {source.repo} at {source.commit[:12]}", flush=True)


def _checked(options: DownloadOptions) -> Part:
    """The part that is asked for.

    Raises:
        UserError: options that cannot be right.
    """
    part = part_or_merge(options.part, options.merge)
    if options.scale not in SCALES:
        raise UserError(f"scale={options.scale} is not known; {nearest(options.scale, SCALES)}")
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise UserError(f"out={options.out} is not a folder")
    least = {"processes": 1, "threads": 1, "retries": 0, "pause": 0, "per_host": 1, "per_host_total": 1, "max_bytes": 1}
    for key, value in (least | {"shard_size": 2}).items():
        if getattr(options, key) is not None and getattr(options, key) < value:
            raise UserError(f"{key}={getattr(options, key)}: at least {value}")
    for key in ("timeout", "deadline"):
        if not getattr(options, key) > 0:
            raise UserError(f"{key}={getattr(options, key)}: more than 0 seconds")
    if not options.metadata and options.npz:
        raise UserError("npz=true needs metadata=true: the npz files come from the hub as well")
    if not options.metadata and not options.images:
        raise UserError("metadata=false images=false: nothing to do")
    connections(options, part)
    return part


def connections(options: DownloadOptions, part: Part) -> Connections:
    """A part's share of the connections that all processes of all parts may have to one host.

    Raises:
        UserError: they are fewer than the processes.
    """
    most = options.per_host_total // part.of
    processes = min(cores(), max(most, 1)) if options.processes is None else options.processes
    if processes > most:
        raise UserError(
            f"per_host_total={options.per_host_total}: with {processes} processes in each of {part.of} parts not every "
            "one may have a connection to one host; give fewer processes= or parts, or more connections"
        )
    return Connections(processes, min(options.per_host, options.per_host_total // (part.of * processes)))


def _settings(options: DownloadOptions) -> Settings:
    return Settings(
        limits=Limits(
            timeout=options.timeout,
            deadline=options.deadline,
            max_bytes=options.max_bytes,
            per_host=options.per_host,
            private=options.private_addresses,
        ),
        connections=options.threads,
        retries=options.retries,
        blur_faces=options.blur_faces,
        keep_changed=options.keep_changed,
        shard_size=options.shard_size,
        pause=options.pause,
    )


def _images(options: DownloadOptions, out: Path, part: Part) -> int:
    settings = _settings(options)
    folder = out / SHARDS
    folder.mkdir(exist_ok=True)
    rows = _planned(folder, _metadata_files(out / METADATA), settings, part)
    shards = list(_shards(rows, settings.shard_size))
    own = part.own(shards)
    if part is not WHOLE:
        _check_own(own, rows, settings.blur_faces)
    if options.merge is not None:
        problems = _missing(shards, folder, options.merge)
    else:
        due = [shard for shard in own if stats_of(folder, shard.number) is None]
        if options.again:
            due += [shard for shard in own if may_try_again(folder, shard.number)]
        share = connections(options, part)
        limits = replace(settings.limits, per_host=share.per_host)
        problems = make_all(due, folder, replace(settings, limits=limits), share.processes)
    if part is not WHOLE:
        print(
            f"part {part}: {len(own) - len(problems):,} of {len(own):,} shards are here; merge={part.of} reports on all"
        )
        return int(bool(problems))
    source = recorded(out / METADATA)
    about: dict[str, Any] = {"scale": options.scale, "repository": source.repo if source else None}
    about |= {"commit": source.commit if source else None, "settings": asdict(settings)}
    report(out, folder, shards, problems, about, options.processes or cores())
    return int(bool(problems))


def _missing(shards: Sequence[Shard], folder: Path, of: int) -> dict[int, str]:
    """Number of a shard that is not finished -> whose it is; the parts are told."""
    there = [(folder / f"{name_of(shard.number)}_stats.json").exists() for shard in shards]
    tell_missing([name_of(shard.number) for shard in shards], there, of, "shards")
    return {
        shard.number: f"part {place % of + 1}/{of} has not finished it"
        for place, (shard, good) in enumerate(zip(shards, there, strict=True))
        if not good
    }


def _metadata_files(folder: Path) -> list[Path]:
    """The metadata in the order of their names, as img2dataset takes them.

    Raises:
        UserError: there are none.
    """
    paths = files_in(folder, "*.parquet")
    if not paths:
        raise UserError(f"{folder} holds no parquet file; metadata=true brings the pool's")
    return paths


def _planned(folder: Path, paths: Sequence[Path], settings: Settings, part: Part) -> dict[Path, int]:
    """How many rows each metadata file has. Of several parts one opens them all, and the others find it in the plan:
    where a pool has a million files, their number times that of the parts would be too many.

    Raises:
        UserError: see `_rows_of` and `_check_plan`.
    """
    with contextlib.nullcontext() if part is WHOLE else claimed(folder / _PLANNING, _WAIT):
        known = {} if part is WHOLE or not (folder / _PLAN).exists() else read_json(folder / _PLAN).get("files", {})
        found = known.keys() == {path.name for path in paths}
        rows = {path: known[path.name] for path in paths} if found else dict(_rows_of(paths, settings.blur_faces))
        _check_plan(folder, rows, settings)
    return rows


def _check_own(own: Sequence[Shard], rows: dict[Path, int], faces: bool) -> None:
    """Open the files of a part's own shards.

    Raises:
        UserError: one has other rows than are planned; or see `_rows_of`.
    """
    for path, count in _rows_of(list(dict.fromkeys(shard.metadata for shard in own)), faces):
        if count != rows[path]:
            raise UserError(
                f"{path} has {count:,} rows, the shards were planned with {rows[path]:,}; go on with the file as it "
                "was, or choose another out="
            )


def _rows_of(paths: Sequence[Path], faces: bool) -> Iterator[tuple[Path, int]]:
    """Some metadata files, and how many rows each has.

    Raises:
        UserError: one is damaged or lacks a column.
    """
    needed = [*NEEDED, FACES] if faces else list(NEEDED)
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                names, rows = file.schema_arrow.names, file.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} is no parquet file: {first_line(error)}; delete it") from None
        lacking = [name for name in needed if name not in names]
        if lacking:
            hint = "; blur_faces=false downloads without" if lacking == [FACES] else ""
            raise UserError(f"{path} has no column {', '.join(lacking)}{hint}")
        yield path, rows


def _shards(rows: dict[Path, int], size: int) -> Iterator[Shard]:
    """No shard has rows of two files; their numbers count on from file to file."""
    number = 0
    for path, count in rows.items():
        for start, stop in pairwise([*range(0, count, size), count]):
            yield Shard(number, path, start, stop)
            number += 1


def _check_plan(folder: Path, rows: dict[Path, int], settings: Settings) -> None:
    """Write down what the folder's shards are made from, or compare.

    Raises:
        UserError: they were made from other metadata, or in another way.
    """
    plan: dict[str, Any] = {key: getattr(settings, key) for key in ("shard_size", "blur_faces", "keep_changed")}
    plan["files"] = {path.name: count for path, count in rows.items()}
    path = folder / _PLAN
    if not path.exists():
        write_json(path, plan)
    before = read_json(path)  # another part may have written it
    for key, value in plan.items():
        if before.get(key) != value:
            found = "other files or rows" if key == "files" else f"{key}={str(before.get(key)).lower()}"
            raise UserError(
                f"{folder} holds shards that were made with {found}; go on with these, or choose another out="
            )
