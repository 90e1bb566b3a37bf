"""Find the chosen samples in the shards of a pool, shard by shard, in indexes that are made once and found again."""

import os
from typing import Any, NamedTuple

import numpy as np

from poolbench.files import writing
from poolbench.remote import StoreError, Tally, info
from poolbench.shards.samples import Problem, open_shard, told_once
from poolbench.uids import find, mapped

from curate.reshard.job import ROW, Job, pairs, shards_of
from curate.reshard.quick import quick
from curate.reshard.stored import (
    Contents,
    Index,
    found_index,
    index_paths,
    local_stamp,
    sample_array,
    write_index,
)
from curate.reshard.tars import OpenTar, Stored, TarStream, scan

_MARKS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")


class Found(NamedTuple):
    """What a shard of the input holds: the rows of the chosen samples, of dtype ROW, how many samples there are,
    problems, and by what its index is known."""

    rows: np.ndarray[Any, Any]
    samples: int
    problems: list[Problem]
    identity: int


def index_shard(job: Job, shard: int) -> Found:
    """The chosen samples of one shard, by its index, which is made where there is none of the shard as it is.

    Raises:
        StoreError: a store does not answer.
    """
    name = shards_of(job)[shard][1]
    index = index_of(job, shard)
    problems = [Problem(name, *problem) for problem in index.contents.problems]
    rows = _rows(mapped(job.subset), index.contents.samples, shard)
    return Found(rows, len(index.contents.samples) + len(problems), problems, index.identity())


def ensure_index(job: Job, shard: int) -> None:
    """See that there is an index of one shard."""
    index_of(job, shard)


def is_indexed(job: Job, shard: int) -> bool:
    """Whether somebody has made an index of a shard; it may be of the shard as it was."""
    return any(path.exists() for path in index_paths(shards_of(job)[shard][0], job.indexes))


def index_of(job: Job, shard: int) -> Index:
    """The index of a shard as it is now, found or made; of one that cannot be read, which is all that it says, none is
    kept.

    Raises:
        StoreError: a store does not answer; a run that goes on must not take the shard for empty.
    """
    path, name, size = shards_of(job)[shard]
    paths = index_paths(path, job.indexes)
    try:
        stamp = _stamp(path)
        if (found := found_index(paths, stamp)) is not None:
            return found
        index = Index(stamp, _contents(path, name, size))
        if _stamp(path) != stamp:
            raise OSError("it changes while it is read")
    except StoreError:
        raise
    except FileNotFoundError:
        return _unread("there is no such file")
    except OSError as error:
        return _unread(f"cannot be read: {error}")
    with writing(paths[-1]):
        write_index(paths[-1], index)
    return index


def _unread(reason: str) -> Index:
    return Index([], _listed([Problem("", "", reason)]))


def _stamp(path: str) -> list[Any]:
    """By which a shard is told from what it was before.

    Raises:
        OSError: it is not there, or cannot be asked for.
    """
    if "://" not in path:
        return local_stamp(os.stat(path))  # noqa: PTH116 (as fast as it can be: a pool has a million)
    found = info(path)
    if found is None:
        raise FileNotFoundError
    return [found.get("size"), next((str(found[mark]) for mark in _MARKS if found.get(mark)), "")]


def _contents(path: str, name: str, size: int) -> Contents:
    if "://" in path:
        with open_shard(path, size, Tally()) as file:
            return _listed(list(scan(TarStream(file), name)))
    handle = os.open(path, os.O_RDONLY)
    try:
        return quick(handle) or _listed(list(scan(OpenTar(handle), name)))
    finally:
        os.close(handle)


def _listed(found: list[Stored | Problem]) -> Contents:
    """What a scan found, as an index has it."""
    stored = [one for one in found if isinstance(one, Stored)]
    problems = told_once([one for one in found if isinstance(one, Problem)])
    layouts: dict[tuple[str, ...], int] = {}
    numbers, sizes = [], list[int]()
    for one in stored:
        whole = one.span == one.size  # else something stands between the members, or a header takes more blocks
        kinds = tuple(extension for extension, _ in one.members)
        numbers.append(layouts.setdefault(kinds, len(layouts) + 1) if whole else 0)
        sizes += [size for _, size in one.members] if whole else []
    offsets, spans, held = np.array([one[2:5] for one in stored], np.uint64).reshape(-1, 3).T
    samples = sample_array(pairs([one.uid for one in stored]), offsets, spans, held, numbers)
    return Contents(samples, np.array(sizes, np.uint32), list(layouts), [(one.key, one.reason) for one in problems])


def _rows(subset: np.ndarray[Any, Any], samples: np.ndarray[Any, Any], shard: int) -> np.ndarray[Any, Any]:
    """A row of dtype ROW for each time that a sample is wanted."""
    first, times = find(subset, samples["uid"])
    which = np.repeat(np.arange(len(samples)), times)
    rows = np.zeros(len(which), ROW)
    rows["repeat"] = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
    rows["row"] = first[which] + rows["repeat"]
    rows["shard"], rows["number"] = shard, which
    for field in ("offset", "span", "size"):
        rows[field] = samples[field][which]
    return rows
