"""A resharding: index the input, plan the output and copy it as the plan grows, report. Each finds again what was done
before."""

import contextlib
import importlib.metadata
import shutil
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from poolbench.errors import UserError
from poolbench.files import atomic, claimed, digest_file, json_line, read_json, write_json
from poolbench.machine import cores
from poolbench.shards.sources import Data, resolve
from poolbench.subset import Subset

from curate.reshard.copy import Done, names, publish
from curate.reshard.folder import BAD, META, begin, check_apart, check_out
from curate.reshard.job import Job
from curate.reshard.options import ReshardOptions, check
from curate.reshard.plan import Counts, places, why
from curate.reshard.processes import in_processes
from curate.reshard.schedule import Schedule

FORMAT = 3


def reshard(options: ReshardOptions) -> int:
    """Reshard as told; the exit status is 1 where anything chosen is not in the output, or anything was bad.

    Raises:
        UserError: options that cannot be, nothing to read, or an output folder with other files in it.
    """
    check(options)
    data, subset = _resolve(options), Subset(options.subset)
    subset.check_sorted()
    check_apart(data, options.out)
    work = Path(options.work) if options.work else Path(options.out) / ".reshard"
    job = Job(work, options.out, options.subset, options.shuffle, options.quality)
    check_out(options, work)  # before anything is made there
    with claimed(work):
        told = _describe(options, data)
        begin(options, job, told, data)
        return _steps(options, job, told)


def _steps(options: ReshardOptions, job: Job, told: dict[str, Any]) -> int:
    if options.blur_faces and not job.has_faces:
        _faces().collect(job, options.blur_faces)
    schedule = Schedule(job, options)
    bar = tqdm(total=schedule.total, desc="resharding", unit=" shards", mininterval=0.5)
    with contextlib.closing(in_processes(schedule.take, options.workers or cores())) as ended:
        for task, result in ended:
            if failure := schedule.note(task, result):
                bar.write(failure, file=sys.stderr)
            bar.total = schedule.total
            bar.update()
    bar.close()
    if schedule.failed:
        print(f"{schedule.failed:,} of {schedule.total:,} shards failed; the same command continues with these")
        return 1
    assert schedule.counts is not None
    return _report(job, told, schedule.counts, [_done(job, place.shard) for place in places(job)])


def _faces() -> Any:
    """Imported only where faces are blurred: Arrow and Pillow load slowly."""
    from curate.reshard import faces

    return faces


def _resolve(options: ReshardOptions) -> Data:
    try:
        return resolve(options.shards)
    except UserError as error:
        raise UserError(str(error).replace("data=", "shards=", 1)) from None


def _describe(options: ReshardOptions, data: Data) -> dict[str, Any]:
    """Everything that the output depends on."""
    return {
        "format": FORMAT,
        "subset": digest_file(options.subset),
        "shards": data.digest,
        "samples_per_shard": options.samples_per_shard,
        "size": options.size,
        "shuffle": options.shuffle,
        "blur_faces": options.blur_faces and _faces().digest(options.blur_faces),
        "quality": options.blur_faces and options.quality,
    }


def _done(job: Job, shard: int) -> Done:
    return Done(**read_json(job.done(shard)))


def _report(job: Job, told: dict[str, Any], counts: Counts, done: list[Done]) -> int:
    """Write what came of it beside the shards, say it, and return the exit status."""
    lost = [one for shard in done for one in shard.bad]
    if lost:
        with atomic(job.lost) as file:
            file.writelines(json_line(dict(zip(("shard", "key", "reason"), one, strict=True))) for one in lost)
    unknown = _faces().unknown(job) if job.has_faces else 0
    sums = {
        **counts._asdict(),
        "samples": sum(shard.samples for shard in done),
        "bad_samples": counts.bad_samples + len(lost),
        "blurred": sum(shard.blurred for shard in done),
        "without_metadata": unknown,
    }
    bad = [name for name in ("missing", "duplicates", "bad_samples", "bad_shards", "without_metadata") if sums[name]]
    _publish(job, counts, bool(lost))
    rows = [{"name": names(i)[0], "samples": one.samples, "bytes": one.bytes} for i, one in enumerate(done)]
    version = importlib.metadata.version("poolbench")
    read = read_json(job.work / "inputs.json")
    blur = {"method": _faces().METHOD} if job.has_faces else None
    meta = {"version": version, "options": told, "inputs": read, "blur": blur, "counts": sums, "shards": rows}
    write_json(job.work / META, meta)
    publish(job.work / META, job.out)
    print(f"{sums['samples']:,} samples of {counts.pool_samples:,} in {len(done):,} shards: {job.out}")
    explained = next((name for name in bad if name.startswith("bad")), None)
    for name in bad:
        print(f"{name.replace('_', ' ')}: {sums[name]:,}{why(job) if name == explained else ''}")
    return 1 if bad else 0


def _publish(job: Job, counts: Counts, lost: bool) -> None:
    """Put the lists of what is missing and what was bad beside the shards, where there is anything to list."""
    if counts.missing:
        publish(job.missing, job.out)
    if lost or counts.duplicates or counts.bad_samples or counts.bad_shards:
        with atomic(job.work / BAD) as file:
            for path in (job.problems, job.lost):
                with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as part:
                    shutil.copyfileobj(part, file)
        publish(job.work / BAD, job.out)
