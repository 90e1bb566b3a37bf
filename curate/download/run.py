"""The command `python -m curate.download`: metadata, shards in processes of their own, and the report."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line, nearest
from poolbench.files import claimed, files_in, read_json, write_json

from curate.download.arrived import report
from curate.download.images import FACES, NEEDED, Settings, Shard, may_try_again, stats_of
from curate.download.metadata import SCALES, bring, recorded
from curate.download.options import DownloadOptions
from curate.download.processes import make_all
from curate.download.web import Limits

METADATA = "metadata"
SHARDS = "shards"
_PLAN = ".plan.json"  # in the folder of shards: which rows are whose, and what decides how pictures look


def download(options: DownloadOptions) -> int:
    """Bring the pool that the options name.

    Returns:
        1 where a shard could not be written.

    Raises:
        UserError: a wrong option, or metadata that cannot be brought or read.
    """
    _check(options)
    out = Path(options.out)
    with claimed(out, wait=2.0):
        folder = out / METADATA
        folder.mkdir(exist_ok=True)
        if options.metadata:
            source = bring(options.scale, folder, npz=options.npz, jobs=4)
            print(f"{folder}: {len(source.files)} files of {source.repo} at {source.commit[:12]}", flush=True)
        return _images(options, out) if options.images else 0


def _check(options: DownloadOptions) -> None:
    if options.scale not in SCALES:
        raise UserError(f"scale={options.scale} is not known; {nearest(options.scale, SCALES)}")
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise UserError(f"out={options.out} is not a folder")
    least = {"processes": 1, "threads": 1, "retries": 0, "pause": 0, "per_host": 1, "max_bytes": 1, "shard_size": 2}
    for key, value in least.items():
        if getattr(options, key) < value:
            raise UserError(f"{key}={getattr(options, key)}: at least {value}")
    for key in ("timeout", "deadline"):
        if not getattr(options, key) > 0:
            raise UserError(f"{key}={getattr(options, key)}: more than 0 seconds")
    if not options.metadata and options.npz:
        raise UserError("npz=true needs metadata=true: the npz files come from the hub as well")
    if not options.metadata and not options.images:
        raise UserError("metadata=false images=false: nothing to do")


def _images(options: DownloadOptions, out: Path) -> int:
    settings = Settings(
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
    folder = out / SHARDS
    folder.mkdir(exist_ok=True)
    rows = dict(_rows_of(out / METADATA, options.blur_faces))
    _check_plan(folder, rows, settings)
    shards = list(_shards(rows, settings.shard_size))
    due = [shard for shard in shards if stats_of(folder, shard.number) is None]
    if options.again:
        due += [shard for shard in shards if may_try_again(folder, shard.number)]
    problems = make_all(due, folder, settings, options.processes)
    source = recorded(out / METADATA)
    about: dict[str, Any] = {"scale": options.scale, "repository": source.repo if source else None}
    about |= {"commit": source.commit if source else None, "settings": asdict(settings)}
    report(out, folder, shards, problems, about, options.processes)
    return int(bool(problems))


def _rows_of(folder: Path, faces: bool) -> Iterator[tuple[Path, int]]:
    """The metadata files in the order of their names, as img2dataset takes them, and how many rows each has.

    Raises:
        UserError: there are none, or one is damaged or lacks a column.
    """
    paths = files_in(folder, "*.parquet")
    if not paths:
        raise UserError(f"{folder} holds no parquet file; metadata=true brings the pool's")
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
        return
    before = read_json(path)
    for key, value in plan.items():
        if before.get(key) != value:
            found = "other files or rows" if key == "files" else f"{key}={str(before.get(key)).lower()}"
            raise UserError(
                f"{folder} holds shards that were made with {found}; go on with these, or choose another out="
            )
