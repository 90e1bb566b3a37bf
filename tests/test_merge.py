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
