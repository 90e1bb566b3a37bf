"""What `validate` does with the subset of a submission and the pool that it is chosen from."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import make_run, options, validated

from poolbench import uids
from poolbench.errors import UserError
from poolbench.files import digest_file
from poolbench.uids import DTYPE, write_subset

from leaderboard import evidence
from leaderboard.evidence import check_pool, check_subset
from leaderboard.models import Submission
from leaderboard.submissions import read_submission
from leaderboard.submit import submit


def hexes(*numbers: int) -> list[str]:
    return [f"{number:032x}" for number in numbers]


def subset_of(folder: Path, uids: list[str], **changes: Any) -> tuple[Submission, Path]:
    """A submission whose subset these uids are, and the file."""
    path = folder / "subset.npy"
    write_subset(path, uids)
    return naming(folder, path, **{"size": len(uids), **changes}), path


def naming(folder: Path, path: Path, **subset: Any) -> Submission:
    told = {"path": str(path), "digest": digest_file(path), **subset}
    submission, refusals = read_submission(submit(options(make_run(folder / "run", subset=told))))
    assert submission is not None and not refusals
    return submission


def test_a_subset_may_repeat(tmp_path: Path) -> None:
    submission, path = subset_of(tmp_path, hexes(3, 2**100, 3, 3, 2**64))
    expected = "subset: 5 uids, 2 of them repeats, digest and order as they should be"
    assert check_subset(submission, path) == ([expected], [])


def test_a_subset_that_is_not_the_one(tmp_path: Path) -> None:
    submission, path = subset_of(tmp_path, hexes(1, 2, 3), size=4)
    assert check_subset(submission, path).refusals == [f"subset.size: 4, but {path} holds 3 uids"]
    other = tmp_path / "other.npy"
    write_subset(other, hexes(1, 2, 4))
    assert check_subset(submission, other).refusals == [f"subset.digest: not the digest of {other}"]
    without = submission.model_copy(update={"subset": None})
    assert check_subset(without, path).refusals == ["subset: null, but a subset file is supplied"]
    with pytest.raises(UserError, match="does not exist"):
        check_subset(submission, tmp_path / "none.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([(0, 2), (0, 1)], DTYPE), "is not sorted at row 1"),
        (np.array([(1, 0), (0, 5)], DTYPE), "is not sorted at row 1"),
        (np.zeros(3), "holds float64 [3], not a list of u8,u8 uids"),
        (np.zeros((2, 2), DTYPE), "not a list of u8,u8 uids"),
        (np.zeros(0, DTYPE), "is empty"),
        (np.array([{}]), "holds Python objects, not a list of u8,u8 uids"),
    ],
)
def test_a_file_that_is_no_subset(tmp_path: Path, array: Any, message: str) -> None:
    path = tmp_path / "subset.npy"
    np.save(path, array)
    (refusal,) = check_subset(naming(tmp_path, path, size=max(1, len(array))), path).refusals
    assert refusal.startswith("subset: ")
    assert message in refusal


def write_pool(place: Path, uids: list[str], *, folder: bool) -> Path:
    """A pool as a sorted list, or as parquets in any order."""
    if not folder:
        write_subset(place.with_suffix(".npy"), uids)
        return place.with_suffix(".npy")
    place.mkdir()
    shuffled = random.Random(0).sample(uids, len(uids))
    for number, part in enumerate(np.array_split(np.array(shuffled), 3)):
        pq.write_table(pa.table({"uid": part.tolist(), "text": ["t"] * len(part)}), place / f"{number}.parquet")
    return place


@pytest.mark.parametrize("folder", [False, True], ids=["list", "folder"])
def test_missing_uids_are_named_and_counted_once(tmp_path: Path, folder: bool) -> None:
    pool = write_pool(tmp_path / "pool", hexes(*range(0, 1000, 2)), folder=folder)
    submission, path = subset_of(tmp_path, hexes(0, 4, 4, 5, 5, 5, 998, 999, 1001, 2**127, 2**127))
    named = ", ".join(hexes(5, 999, 1001))
    assert check_pool(submission, path, pool).refusals == [
        f"subset: 4 uids are not in the pool {pool}: {named} and 1 more"
    ]
    submission, path = subset_of(tmp_path, hexes(0, 4, 4, 998))
    assert check_pool(submission, path, pool) == ([f"pool: every uid of the subset is in {pool}"], [])
    byod = submission.model_copy(update={"track": "byod"})
    assert check_pool(byod, path, pool) == (["pool: not compared, the track byod may hold any data"], [])


@pytest.mark.parametrize("folder", [False, True], ids=["list", "folder"])
@pytest.mark.parametrize("seed", range(8))
def test_membership_is_that_of_sets(tmp_path: Path, seed: int, folder: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a few rows in memory at a time, and uids that share a half, or all but a bit."""
    monkeypatch.setattr(evidence, "_ROWS", 3)
    monkeypatch.setattr(uids, "_ROWS", 3)
    draw = random.Random(seed)
    halves = [0, 1, 2**63, 2**64 - 1, draw.getrandbits(64)]
    every = hexes(*{high << 64 | low for high in halves for low in halves})
    pool = draw.sample(every, draw.randint(1, 20))
    chosen = draw.choices(pool if seed % 2 else every, k=draw.randint(1, 20))
    place = write_pool(tmp_path / "pool", pool, folder=folder)
    submission, path = subset_of(tmp_path, chosen)
    assert not check_subset(submission, path).refusals
    missing = sorted(set(chosen) - set(pool))
    refusals = check_pool(submission, path, place).refusals
    assert bool(refusals) == bool(missing)
    for refusal in refusals:
        assert f"{len(missing)} uids are not" in refusal
        assert ", ".join(missing[:3]) in refusal


def test_pools_that_cannot_be_read(tmp_path: Path) -> None:
    submission, path = subset_of(tmp_path, hexes(1, 2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.parquet file"):
        check_pool(submission, path, tmp_path / "empty")
    for number, table in enumerate(
        [pa.table({"id": ["0"]}), pa.table({"uid": ["0" * 31]}), pa.table({"uid": [1]}), pa.table({"uid": [None]})]
    ):
        folder = tmp_path / f"pool{number}"
        folder.mkdir()
        pq.write_table(table, folder / "part.parquet")
        with pytest.raises(UserError, match=r"part.parquet is not pool metadata with a column uid of 32 hex digits"):
            check_pool(submission, path, folder)
    np.save(tmp_path / "unsorted.npy", np.array([(2, 0), (1, 0)], DTYPE))
    with pytest.raises(UserError, match=r"is not sorted at row 1; np\.sort it"):
        check_pool(submission, path, tmp_path / "unsorted.npy")


def test_subset_and_pool_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, subset = subset_of(tmp_path, hexes(1, 2))
    path = tmp_path / "run" / "submission.json"
    pool = write_pool(tmp_path / "pool", hexes(1, 2, 3), folder=True)
    status, text = validated(capsys, path, subset=subset, pool=pool)
    assert status == 0
    assert text.splitlines()[0] == "ok"
    assert [line.split(":")[0] for line in text.splitlines()[1:]] == ["  subset", "  pool"]
    (pool / "0.parquet").unlink()
    status, text = validated(capsys, path, subset=subset, pool=pool)
    assert status == 1
    assert "uids are not in the pool" in text
