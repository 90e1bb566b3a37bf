"""Selections that only read columns, against the same with pandas in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from metadata import write_metadata
from test_columns import Length, frame, scored, write_random

from poolbench.errors import status_of
from poolbench.files import read_json
from poolbench.uids import DTYPE, split_uid

from curate.command import run

B32, L14 = "clip_b32_similarity_score", "clip_l14_similarity_score"


def selected(out: Path, *words: Any) -> np.ndarray:
    """What `python -m curate` writes; status 1, where the pool has malformed uids."""
    assert status_of(lambda: run([f"out={out}", "workers=1", *map(str, words)])) in (0, 1)
    found: np.ndarray = np.load(out)
    return found


def uids_of(rows: pd.DataFrame) -> np.ndarray:
    return np.sort(np.array([split_uid(uid) for uid in rows.uid if uid != "none"], DTYPE))


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    capsys.readouterr()
    assert status_of(lambda: run([*map(str, words), "workers=1"])) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said, said
    return said


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_top_of_a_made_column_keeps_ties(tmp_path: Path, fraction: float) -> None:
    pool = write_random(tmp_path / "pool", 11)
    scored(pool, Length())
    rows = frame(pool)
    pixels = (rows.original_width * rows.original_height).astype(np.float64).replace(0, np.nan)
    threshold = np.sort(-pixels.to_numpy())[int(len(rows) * fraction)]
    kept = rows[pixels.notna()] if np.isnan(threshold) else rows[pixels >= -threshold]
    words = ("filter=top", "filter.column=pixels", f"filter.fraction={fraction}", f"pool={pool}")
    np.testing.assert_array_equal(selected(tmp_path / "a.npy", *words), uids_of(kept))
    other = ("filter=top", "filter.column=length/pixels", "filter.threshold=200000", f"pool={pool}")
    np.testing.assert_array_equal(selected(tmp_path / "b.npy", *other), uids_of(rows[pixels >= 200000]))


def test_a_subset_is_complete_until_its_column_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 2, 60)
    scored(pool, Length())
    words = ("filter=top", "filter.column=pixels", "filter.fraction=.3", f"pool={pool}", f"out={tmp_path / 'a.npy'}")
    assert status_of(lambda: run([*words, "workers=1"])) == 0
    assert status_of(lambda: run([*words, "workers=1"])) == 0 and "is complete" in capsys.readouterr().err
    scored(pool, Length(unit=2.0))
    assert "exists; choose another" in refused(capsys, *words)


def test_a_column_that_is_not_there_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 1, 20)
    scored(pool, Length())
    words = (f"pool={pool}", f"out={tmp_path / 'a.npy'}", "filter=top", "filter.fraction=.3")
    assert "did you mean 'pixels'?" in refused(capsys, *words, "filter.column=pixel")
    assert "a score is string, not a number" in refused(capsys, *words, "filter.column=text")


@pytest.mark.parametrize("standardize", [False, True])
def test_mix_is_a_sum_in_float64(tmp_path: Path, standardize: bool) -> None:
    pool = write_random(tmp_path / "pool", 12)
    scored(pool, Length(unit=1e5))
    rows = frame(pool)
    weights = {"pixels": 0.3, L14: 2.0, B32: -1.5}
    pixels = (rows.original_width * rows.original_height).astype(np.float64) / 1e5
    with np.errstate(invalid="ignore"):
        columns = pd.DataFrame(
            {"pixels": pixels.replace(0, np.nan).astype(np.float32), L14: rows[L14], B32: rows[B32]}
        ).astype(np.float64)
        if standardize:
            finite = columns.replace([np.inf, -np.inf], np.nan)
            columns = (columns - finite.mean()) / finite.std(ddof=0)
        mixed = sum(weight * columns[name] for name, weight in weights.items()).to_numpy()
    options = f"filter.weights={{pixels: .3, {L14}: 2, {B32}: -1.5}}"
    words = ["filter=mix", options, "filter.fraction=.25", f"pool={pool}"]
    found = selected(tmp_path / "a.npy", *words, f"filter.standardize={str(standardize).lower()}")
    threshold = -np.sort(-mixed)[int(len(rows) * 0.25)]
    near = np.abs(mixed - threshold) < 1e-5
    expected, edge = set(uids_of(rows[(mixed >= threshold) & ~near]).tolist()), uids_of(rows[near]).tolist()
    assert set(found.tolist()) - set(edge) == expected - set(edge) and len(expected) > 50
    made = list((pool / "columns").glob("mix-*/0000.parquet"))
    np.testing.assert_allclose(
        pd.read_parquet(made[0]).mix, mixed[: len(pd.read_parquet(made[0]))], rtol=1e-5, atol=1e-5
    )
    assert len(read_json(tmp_path / "a.npy.json")["state"]["mixed"]["weights"]) == 3


def test_a_mix_is_made_anew_when_what_it_mixes_is(tmp_path: Path) -> None:
    pool = write_metadata(tmp_path / "pool", 2, 60)
    words = ("filter=mix", f"filter.weights={{pixels: 1, {L14}: 0}}", "filter.threshold=100000", f"pool={pool}")
    scored(pool, Length())
    first = selected(tmp_path / "a.npy", *words)
    scored(pool, Length(unit=4.0))
    second = selected(tmp_path / "b.npy", *words)
    assert 0 < len(second) < len(first)


def test_columns_go_where_they_are_told(tmp_path: Path) -> None:
    pool = write_metadata(tmp_path / "pool", 2, 60)
    scored(pool, Length())
    words = ("filter=mix", "filter.weights={pixels: 1}", "filter.threshold=100000", f"pool={pool}")
    found = selected(tmp_path / "a.npy", *words, f"columns={tmp_path / 'mine'}")
    assert [path.name[:4] for path in (tmp_path / "mine").iterdir()] == ["mix-"]
    assert [path.name for path in (pool / "columns").iterdir()] == ["length"]
    np.testing.assert_array_equal(selected(tmp_path / "b.npy", *words), found)


def test_a_mix_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 1, 20)
    words = (f"pool={pool}", f"out={tmp_path / 'a.npy'}", "filter=mix", "filter.fraction=.3")
    assert "weights= is needed" in refused(capsys, *words)
    assert "name columns and their weights" in refused(capsys, *words, "filter.weights={}")
    assert "filter.weights" in refused(capsys, *words, "filter.weights=[a]")
