"""Find the chosen samples in the shards of a pool, shard by shard."""

import os
from typing import Any, NamedTuple

import numpy as np

from poolbench.files import atomic, read_json, write_json
from poolbench.remote import StoreError, Tally
from poolbench.shards.samples import Problem, open_shard, told_once
from poolbench.uids import find, mapped

from curate.reshard.job import ROW, Job, pairs, shards_of
from curate.reshard.tars import OpenTar, Stored, TarStream, scan


class Found(NamedTuple):
    """What a shard of the input holds."""

    samples: int
    problems: list[Problem]


def index_shard(job: Job, shard: int) -> None:
    """Write the rows and the problems of one shard, unless that was done before."""
    path, name, size = shards_of(job)[shard]
    target = job.index(shard)
    if target.with_suffix(".json").exists():
        return
    found = _scan(path, name, size)
    stored = [one for one in found if isinstance(one, Stored)]
    problems = told_once([one for one in found if isinstance(one, Problem)])
    rows = _rows(mapped(job.subset), stored, shard)
    with atomic(target, "wb") as file:
        np.save(file, rows)
    lines = [[_text(word) for word in problem] for problem in problems]
    write_json(target.with_suffix(".json"), {"samples": len(stored) + len(problems), "problems": lines})


def read_found(job: Job, shard: int) -> Found:
    """What `index_shard` told of a shard besides its rows."""
    told = read_json(job.index(shard).with_suffix(".json"))
    return Found(told["samples"], [Problem(*problem) for problem in told["problems"]])


def _scan(path: str, name: str, size: int) -> list[Stored | Problem]:
    try:
        if "://" in path:
            with open_shard(path, size, Tally()) as file:
                return list(scan(TarStream(file), name))
        handle = os.open(path, os.O_RDONLY)
        try:
            return list(scan(OpenTar(handle), name))
        finally:
            os.close(handle)
    except FileNotFoundError:
        return [Problem(name, "", "there is no such file")]
    except StoreError:
        raise  # it may answer later; a run that goes on must not take the shard for empty
    except OSError as error:
        return [Problem(name, "", f"cannot be read: {error}")]


def _rows(subset: np.ndarray[Any, Any], stored: list[Stored], shard: int) -> np.ndarray[Any, Any]:
    """A row of dtype ROW for each time that a sample is wanted."""
    first, times = find(subset, pairs([one.uid for one in stored]))
    which = np.repeat(np.arange(len(stored)), times)
    rows = np.zeros(len(which), ROW)
    rows["repeat"] = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
    rows["row"] = first[which] + rows["repeat"]
    rows["shard"] = shard
    for field in ("offset", "span", "size"):
        rows[field] = np.array([getattr(one, field) for one in stored], np.uint64)[which]
    return rows


def _text(word: str) -> str:
    """Names that are not UTF-8 with JSON's escapes, which is how lines of results have them."""
    return word.encode(errors="backslashreplace").decode()
