"""A resharding: index the input, plan the output and copy it as the plan grows, report. Each finds again what was done
before."""

import contextlib
import functools
import shutil
from pathlib import Path
from typing import Any

from poolbench.errors import UserError
from poolbench.files import atomic, claimed, digest_file, json_line, read_json, write_json
from poolbench.shards.sources import Data, resolve
from poolbench.subset import Subset
from poolbench.versions import version

from curate.pool.parts import WHOLE, part_or_merge
from curate.reshard.copy import Done, names, publish
from curate.reshard.folder import BAD, META, begin, check_apart, check_out
from curate.reshard.job import Job
from curate.reshard.options import ReshardOptions, check
from curate.reshard.parts import begun, do_part, lacks_some
from curate.reshard.plan import Counts, places, why
from curate.reshard.schedule import Schedule, work_off

FORMAT = 4


def reshard(options: ReshardOptions) -> int:
    """Reshard as told, or do one part of it, or the last step behind all parts.

    Returns:
        1 where anything chosen is not in the output, or anything was bad; of a part, where it could not do its shards.

    Raises:
        UserError: options that cannot be, nothing to read, or an output folder with other files in it.
    """
    check(options)
    data, subset = _resolve(options), Subset(options.subset)
    subset.check_sorted()
    check_apart(data, options.out)
    work = Path(options.work) if options.work else Path(options.out) / ".reshard"
    job = Job(work, options.out, options.subset, options.shuffle, options.quality, options.index)
    check_out(options, work)  # before anything is made there
    part = part_or_merge(options.part, options.merge)
    with claimed(work, shared=part is not WHOLE):
        told = _describe(options, data)
        begin(options, job, told, data)
        if part is not WHOLE:
            return do_part(job, options, part, functools.partial(_collect, options, job))
        parts = begun(job)
        if parts or options.merge is not None:
            return 1 if lacks_some(job, options.merge or parts[-1].of) else _report(job, told)
        return _steps(options, job, told)


def _steps(options: ReshardOptions, job: Job, told: dict[str, Any]) -> int:
    _collect(options, job)
    schedule = Schedule(job, options)
    if failed := work_off(schedule, options, "resharding"):
        print(f"{failed:,} of {schedule.total:,} shards failed; the same command continues with these")
        return 1
    return _report(job, told)


def _collect(options: ReshardOptions, job: Job) -> None:
    """See that the boxes of faces are there where they are needed."""
    if options.blur_faces and not job.has_faces:
        _faces().collect(job, options.blur_faces)


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


def _report(job: Job, told: dict[str, Any]) -> int:
    """Write what came of it beside the shards, say it, and return the exit status."""
    counts, done = Counts(**read_json(job.counts)), [_done(job, place.shard) for place in places(job)]
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
    read = read_json(job.work / "inputs.json")
    blur = {"method": _faces().METHOD} if job.has_faces else None
    about = {"version": version("poolbench"), "options": told, "inputs": read, "blur": blur}
    write_json(job.work / META, {**about, "counts": sums, "shards": rows}, durable=False)
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
