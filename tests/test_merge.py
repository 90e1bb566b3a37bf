"""Uids in order, however they begin."""

import numpy as np
import pytest

from poolbench.uids import DTYPE

from curate.pool.merge import sort_uids


@pytest.mark.parametrize("high", [1, 2, 5, 1000, 2**20, 2**44, 2**64], ids=lambda high: f"below {high}")
@pytest.mark.parametrize("rows", [0, 1, 2, 1000, 5000])
def test_uids_are_sorted_by_both_halves(high: int, rows: int) -> None:
    rng = np.random.default_rng()
    halves = rng.integers(0, [high, 2**64 if rows % 2 else 7], (rows, 2), dtype=np.uint64, endpoint=False)
    uids = np.concatenate([halves, halves[: rows // 3]]).view(DTYPE).ravel()  # some of them twice
    rng.shuffle(uids)
    before = uids.copy()
    assert [tuple(uid) for uid in sort_uids(uids).tolist()] == sorted(tuple(uid) for uid in uids.tolist())
    assert np.array_equal(uids, before)


@pytest.mark.parametrize("high", [1, 1000, 2**44, 2**64], ids=lambda high: f"below {high}")
@pytest.mark.parametrize(
    "lengths",
    [[], [0], [1, 0, 1], [500], [1000, 3, 700, 700], [7] * 300],
    ids=lambda each: f"{len(each)} runs of {sum(each)}",
)
def test_sorted_runs_become_one(high: int, lengths: list[int]) -> None:
    rng = np.random.default_rng()
    drawn = [rng.integers(0, [high, 7], (rows, 2), dtype=np.uint64).view(DTYPE).ravel() for rows in lengths]
    runs = np.concatenate([np.zeros(0, DTYPE), *map(np.sort, drawn)])
    assert np.array_equal(sort_uids(runs, in_runs=True), np.sort(runs))
