"""Filters as columns of a mix, HYPE's selection among them, against float64 sums of our own."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metadata import write_metadata
from pools import uid_of
from test_curate_columns import B32, refused, selected
from test_curate_image_based import CLUSTERS, SMALL, expected, vectors

from poolbench.files import read_json
from poolbench.uids import DTYPE, split_uid, write_subset

from curate.presets import preset

HYPE = [f"hype_l14_{name}" for name in ("image_specificity", "text_specificity", "distance")]
ROWS = 120


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Three files with HYPE's columns, of which one row has none."""
    folder = write_metadata(tmp_path / "pool", files=3, rows=ROWS)
    for number, path in enumerate(sorted(folder.glob("*.parquet"))):
        table, rng = pq.read_table(path), np.random.default_rng(number)
        for name in HYPE:
            values = rng.normal(0.3, 0.3, ROWS).astype(np.float32)
            values[7] = np.nan
            table = table.append_column(name, pa.array(values))
        pq.write_table(table, path)
    return folder


def highest(pool: Path, weights: dict[str, float], members: dict[str, set[str]], fraction: float) -> np.ndarray:
    """The uids of the pool with the highest sums, of which `fraction` decides as clip_score's does."""
    rows = pa.concat_tables(pq.read_table(path) for path in sorted(pool.glob("*.parquet"))).to_pydict()
    total = np.zeros(len(rows["uid"]))
    for name, weight in weights.items():
        column = [uid in members[name] for uid in rows["uid"]] if name in members else rows[name]
        total += weight * np.array(column, np.float64)
    total = total.astype(np.float32)
    threshold = -np.sort(-total)[int(len(total) * fraction)]
    assert np.isfinite(threshold)
    kept = [split_uid(uid) for uid, one in zip(rows["uid"], total, strict=True) if one >= threshold]
    return np.sort(np.array(kept, DTYPE))


def test_hype_is_the_sum_of_five_terms(tmp_path: Path, pool: Path) -> None:
    np.save(tmp_path / "centroids.npy", vectors(CLUSTERS, 1))
    np.save(tmp_path / "targets.npy", vectors(9, 2, np.float16))
    files = tmp_path / "centroids.npy", tmp_path / "targets.npy"
    image_based = f"{{filter: image_based, centroids: {files[0]}, targets: {files[1]}, language: {SMALL}}}"
    words = ("filter=hype", "scale=medium", f"filter.members={{image_based: {image_based}}}", f"pool={pool}")
    weights = preset("hype").options["weights"]
    members = {"image_based": set(expected(pool, *files))}
    assert 20 < len(members["image_based"]) < 2 * ROWS
    found = selected(tmp_path / "a.npy", *words)
    np.testing.assert_array_equal(found, highest(pool, weights, members, 19.7 / 128))
    alone = {name: weight for name, weight in weights.items() if name != "image_based"}
    assert found.tolist() != highest(pool, alone, {}, 19.7 / 128).tolist()
    state = read_json(tmp_path / "a.npy.json")["state"]
    assert state["members"]["image_based"]["clusters_wanted"] > 0
    (member,) = (pool / "columns").glob("member-*/0000.parquet")
    assert set(pq.read_table(member)["member"].to_pylist()) == {0.0, 1.0}
    three = selected(tmp_path / "b.npy", "filter=mix", f"pool={pool}", "filter.fraction=.2",
                     f"filter.weights={{{HYPE[0]}: 1, {HYPE[1]}: 1, {HYPE[2]}: -1}}")  # fmt: skip
    np.testing.assert_array_equal(three, highest(pool, dict(zip(HYPE, (1, 1, -1), strict=True)), {}, 0.2))


def test_a_subset_file_counts_as_it_is_now(tmp_path: Path, pool: Path) -> None:
    weights = {HYPE[0]: 1.0, "mine": 2.0}
    words = ("filter=mix", f"filter.weights={{{HYPE[0]}: 1, mine: 2}}", "filter.fraction=.3", f"pool={pool}")
    for number, numbers in enumerate((range(0, 90, 2), range(200, 300))):
        write_subset(tmp_path / "mine.npy", [uid_of(one) for one in numbers])
        found = selected(tmp_path / f"{number}.npy", *words, f"filter.members={{mine: {tmp_path / 'mine.npy'}}}")
        members = {"mine": {uid_of(one) for one in numbers}}
        np.testing.assert_array_equal(found, highest(pool, weights, members, 0.3))


def test_a_filter_that_learns_of_the_whole_pool_is_a_member(tmp_path: Path, pool: Path) -> None:
    """In parts and workers, too: its threshold is that of all rows."""
    best = selected(tmp_path / "best.npy", "filter=top", f"filter.column={B32}", "filter.fraction=.4", f"pool={pool}")
    half = f"{{filter: top, column: {B32}, fraction: 0.4}}"
    words = ("filter=mix", "filter.weights={half: 1}", f"filter.members={{half: {half}}}", "filter.threshold=1")
    np.testing.assert_array_equal(selected(tmp_path / "a.npy", *words, f"pool={pool}"), best)


def test_a_wrong_member_is_one_line(tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        f"pool={pool}",
        f"out={tmp_path / 'a.npy'}",
        "filter=mix",
        "filter.fraction=.3",
        f"filter.weights={{{B32}: 1}}",
    )
    assert "filter.members has 'mine', to which filter.weights= gives no weight" in refused(
        capsys, *words, "filter.members={mine: basic}"
    )
    assert f"filter.members.{B32}=basi is not known; did you mean 'basic'?" in refused(
        capsys, *words, f"filter.members={{{B32}: basi}}"
    )
    assert "filter.members=basic is no mapping" in refused(capsys, *words, "filter.members=basic")
    assert "has no column 'image_based'" in refused(
        capsys, *words[:2], "filter=hype", "filter.fraction=.3"
    )  # without scale= nothing says which clusters
