"""Which share of a pool arrived, why the rest did not, and the uids of what there is: results depend on it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.download.images import Shard, Stats, name_of, stats_of
from curate.download.processes import told
from poolbench.errors import UserError
from poolbench.files import atomic, digest_file, write_json
from poolbench.uids import DTYPE, from_texts, write_header

REPORT = "arrived.json"
UIDS = "arrived_uids.npy"
_FORMAT = 1
_AT_ONCE = 2**25  # uids in memory, 512 MiB; and about as much to sort them


def report(
    out: Path, folder: Path, shards: Sequence[Shard], problems: Mapping[int, str], about: Mapping[str, Any]
) -> None:
    """Write the report and the list of uids, and print the sum.

    Args:
        about: what is known of the pool, for the report.
    """
    finished = {shard.number: stats for shard in shards if (stats := stats_of(folder, shard.number)) is not None}
    total = _sum(finished.values())
    pool = sum(shard.stop - shard.start for shard in shards)
    uids = write_uids(out / UIDS, [folder / f"{name_of(number)}.parquet" for number in finished], total.arrived)
    missing = [shard.number for shard in shards if shard.number not in finished]
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


def write_uids(path: Path, lists: Sequence[Path], count: int) -> int:
    """Write the uids of the lists' arrived rows as a subset file; none at all leave no file.

    They are cast into as many parts as fit into memory one at a time, by their first digits, which are those of a hash
    and so equally frequent.

    Returns:
        How many there are.
    """
    path.unlink(missing_ok=True)
    if not count:
        return 0
    parts = -(-count // _AT_ONCE)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        names = [Path(scratch) / str(part) for part in range(parts)]
        files = [name.open("wb") for name in names]
        written = 0
        for uids in _arrived(lists):
            written += len(uids)
            part = (uids["f0"] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
            for number, file in enumerate(files):
                file.write(uids[part == number].tobytes())
        for file in files:
            file.close()
        with atomic(path, "wb") as target:
            write_header(target, written)
            for name in names:
                uids = np.fromfile(name, DTYPE)
                target.write(uids[np.lexsort((uids["f1"], uids["f0"]))].tobytes())
    return written


def _arrived(lists: Sequence[Path]) -> Iterator[np.ndarray]:
    """The uids of each list's rows that arrived.

    Raises:
        UserError: a list cannot be read.
    """
    for path in lists:
        try:
            table = pq.read_table(path, columns=["uid", "status"])
            uids = table.filter(pc.equal(table["status"], "success"))["uid"].to_pylist()
            found = from_texts(uids)
        except (OSError, pa.ArrowException, ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read: {error}; delete the shard's files, and it is made again") from None
        yield found


def _sum(every: Any) -> Stats:
    failures: Counter[str] = Counter()
    rows = arrived = changed = 0
    seconds = 0.0
    for stats in every:
        failures.update(stats.failures)
        rows, arrived, changed = rows + stats.rows, arrived + stats.arrived, changed + stats.changed
        seconds += stats.seconds
    return Stats(rows, arrived, changed, dict(failures), seconds)
