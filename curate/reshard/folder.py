"""The folder of the output and the one beside it: what may be there, what was begun, what is already written."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from poolbench.errors import UserError
from poolbench.files import read_json, write_json
from poolbench.remote import LISTING, StoreError, call, patiently, system_of
from poolbench.shards.sources import Data

from curate.reshard.copy import names
from curate.reshard.job import Job
from curate.reshard.options import ReshardOptions

BAD, META, STATE = "bad_samples.jsonl", "meta.json", "state.json"
DRAFT = "plan-"  # how the folder of a plan begins that is being made by a part
_OURS = re.compile(r"\d{8}(\.tar|_stats\.json)|meta\.json|missing_uids\.npy|bad_samples\.jsonl")
_DIGESTS = ("subset", "shards", "blur_faces")  # of what the options name, wherever it lies


def check_apart(data: Data, out: str) -> None:
    """The output must not lie where the input does: the next run would read it, and overwrite=true delete the pool."""
    folder = out.rstrip("/") if "://" in out else str(Path(out).resolve())
    for shard in data.shards:
        path = shard.path if "://" in shard.path else str(Path(shard.path).resolve())
        if path.startswith(f"{folder}/"):
            raise UserError(f"out={out} holds {shard.path}, which is read; choose another folder")


def check_out(options: ReshardOptions, work: Path) -> None:
    """Refuse a folder with files that no resharding explains.

    Raises:
        UserError: as said, or out= is a file.
    """
    if "://" not in options.out and Path(options.out).exists() and not Path(options.out).is_dir():
        raise UserError(f"out={options.out} is a file; name a folder")
    if work.exists() and not work.is_dir():
        raise UserError(f"work={work} is a file; name a folder")
    held = [name for name in held_in(options.out) if not name.startswith(".")]
    foreign = sorted(name for name in held if not _OURS.fullmatch(name))
    if any(name.endswith(".tar") for name in foreign):
        raise UserError(f"out={options.out} holds {foreign[0]}, which no resharding wrote; choose another folder")
    if held and not (work / STATE).exists() and not options.overwrite:
        raise UserError(f"out={options.out} holds {min(held)}; choose another folder, or overwrite=true deletes it")


def begin(options: ReshardOptions, job: Job, told: dict[str, Any], data: Data) -> None:
    """Take up what an earlier run left, or begin.

    Raises:
        UserError: it was begun with other options.
    """
    state = job.work / STATE
    if options.overwrite:
        _clear(job)
    elif state.exists():
        before = read_json(state)
        for key, value in told.items():
            if before.get(key) != value:
                was = "" if key in _DIGESTS else f" ({json.dumps(before.get(key))}, now {json.dumps(value)})"
                raise UserError(
                    f"out={job.out} was begun with another {key}={was}; choose another folder, or overwrite=true "
                    "deletes what is there"
                )
    # What a killed run was writing; a part minds its own, as the others are being written.
    for left in () if options.part else job.staging.glob(".*.????????"):
        if _OURS.fullmatch(left.name[1:-9]):
            left.unlink()
    for folder in ("done", "parts"):
        (job.work / folder).mkdir(parents=True, exist_ok=True)
    inputs = {"subset": options.subset, "shards": options.shards, "blur_faces": options.blur_faces}
    sums = {"shards": len(data.shards), "bytes": sum(shard.size for shard in data.shards)}
    missing = sum(source.missing for source in data.sources)  # names of a brace pattern
    # Both are written by each run anew, so that nobody waits for the disk.
    write_json(job.work / "inputs.json", {**inputs, "read": {**sums, "missing": missing}}, durable=False)
    listed = [[shard.path, shard.name, shard.size] for shard in data.shards]
    write_json(job.work / "shards.json", listed, durable=False)
    write_json(state, told)


def clear_drafts(job: Job) -> None:
    """Delete what is left of plans that never became one."""
    for draft in job.work.glob(f"{DRAFT}*"):
        shutil.rmtree(draft)


def _clear(job: Job) -> None:
    """Delete what a resharding has written, and nothing else."""
    for name in held_in(job.out):
        if not _OURS.fullmatch(name):
            continue
        if "://" in job.out:
            system, path = system_of(f"{job.out.rstrip('/')}/{name}")
            call(system, "rm_file", path, seconds=LISTING)
        else:
            (Path(job.out) / name).unlink()
    for folder in ("plan", "done", "parts", "faces", "upload"):
        shutil.rmtree(job.work / folder, ignore_errors=True)
    clear_drafts(job)
    (job.work / STATE).unlink(missing_ok=True)


def held_in(out: str) -> dict[str, int]:
    """The files of the output and their bytes."""
    if "://" not in out:
        return {path.name: path.stat().st_size for path in Path(out).glob("*") if path.is_file()}

    def listed() -> dict[str, Any]:
        system, root = system_of(out)
        system.invalidate_cache()
        found: dict[str, Any] = call(system, "find", root, detail=True, maxdepth=1, seconds=LISTING)
        return found

    try:
        return {name.rpartition("/")[2]: int(entry["size"]) for name, entry in patiently(listed).items()}
    except StoreError as error:
        raise UserError(f"out={out} cannot be listed {error}") from None
    except OSError as error:
        raise UserError(f"out={out} cannot be listed: {error}") from None


def is_whole(job: Job, shard: int, held: dict[str, int]) -> bool:
    tar, stats = names(shard)
    return job.done(shard).exists() and stats in held and held.get(tar) == read_json(job.done(shard))["bytes"]
