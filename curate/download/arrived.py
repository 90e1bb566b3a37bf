"""Which share of a pool arrived, why the rest did not, and the uids of what there is: results depend on it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolbench.files import digest_file, write_json
from poolbench.uids import Uids, from_texts

from curate.download.images import Shard, Stats, name_of, stats_of
from curate.download.processes import told
from curate.pool.files import BadFile, File
from curate.pool.merge import RunWriter, merge, runs_in
from curate.pool.passes import Passes

REPORT = "arrived.json"
UIDS = "arrived_uids.npy"
_FORMAT = 1
_MEMORY = 2**30  # bytes that merging may take
_FEW = 64  # shards' lists that are read before another process would have begun


class _Sum(NamedTuple):
    """What became of all finished shards' rows, and how many uids are listed as arrived."""

    stats: Stats
    uids: int


def report(
    out: Path,
    folder: Path,
    shards: Sequence[Shard],
    problems: Mapping[int, str],
    about: Mapping[str, Any],
    workers: int = 1,
) -> None:
    """Write the report and the list of uids, and print the sum.

    Args:
        about: what is known of the pool, for the report.
        workers: processes that read the shards' lists, at most.

    Raises:
        UserError: a shard's list or counts cannot be read.
    """
    finished = [shard.number for shard in shards if (folder / f"{name_of(shard.number)}_stats.json").exists()]
    total, uids = _summed(folder, finished, out / UIDS, min(workers, 1 + len(finished) // _FEW))
    pool = sum(shard.stop - shard.start for shard in shards)
    missing = sorted({shard.number for shard in shards} - set(finished))
    write_json(
        out / REPORT,
        {
            "format": _FORMAT,
            **about,
            "rows": pool,
            "tried": total.rows,
            "arrived": total.arrived,
            "share": total.arrived / pool if pool else 0.0,
            "changed": total.changed,
            "failures": dict(sorted(total.failures.items(), key=lambda pair: (-pair[1], pair[0]))),
            "shards": {"planned": len(shards), "finished": len(finished)},
            "not_finished": {name_of(number): problems.get(number, "interrupted") for number in missing},
            "process_seconds": total.seconds,
            "uids": {"path": UIDS, "count": uids, "sha256": digest_file(out / UIDS)} if uids else None,
        },
    )
    share = 100 * total.arrived / pool if pool else 0.0
    print(f"{out}: {len(finished):,} of {len(shards):,} shards; {told(total)}")
    print(f"{share:.1f} % of the pool's {pool:,} samples are here; their uids: {out / UIDS if uids else 'none'}")


def _summed(folder: Path, finished: Sequence[int], path: Path, workers: int) -> _Sum:
    """Add up the finished shards, and write the uids of their arrived rows as a subset file; none at all leave no file.

    Nothing is kept for the next run: it would take as much room again as the subset.
    """
    path.unlink(missing_ok=True)
    files = [File(name_of(number), str(folder / f"{name_of(number)}.parquet"), 0, "") for number in finished]
    every = []
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        with Passes(files, None, workers, whole=True) as passes, Path(scratch, "runs").open("wb") as file:
            runs = RunWriter(file)
            for _, (stats, uids) in passes.map(arrived_in):
                every.append(stats)
                runs.add(uids)
            runs.end()
        if runs.uids:
            merge(runs_in(Path(scratch, "runs"), runs.lengths), path, _MEMORY)
    return _Sum(_total(every), runs.uids)


def arrived_in(file: File) -> tuple[Stats, Uids]:
    """The counts of a finished shard, and the uids of its rows that arrived.

    Raises:
        BadFile: its list cannot be read.
        UserError: its counts cannot be read.
    """
    stats = stats_of(Path(file.path).parent, int(file.name))
    assert stats is not None
    try:
        table = pq.read_table(file.path, columns=["uid", "status"])
        return stats, from_texts(table.filter(pc.equal(table["status"], "success"))["uid"].to_pylist())
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        again = "delete the shard's files, and it is made again"
        raise BadFile(f"{file.path} cannot be read: {error}; {again}") from None


def _total(every: Iterable[Stats]) -> Stats:
    failures: Counter[str] = Counter()
    rows = arrived = changed = 0
    seconds = 0.0
    for stats in every:
        failures.update(stats.failures)
        rows, arrived, changed = rows + stats.rows, arrived + stats.arrived, changed + stats.changed
        seconds += stats.seconds
    return Stats(rows, arrived, changed, dict(failures), seconds)
