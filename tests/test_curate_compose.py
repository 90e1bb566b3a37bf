"""Filters of filters and of subset files: what they keep with its repeats, and which uids the pool lacks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pools import uid_of
from selecting import curate, frame, selected, uids_of

from poolbench.files import read_json
from poolbench.uids import split_uid, write_subset


def test_filters_compose_with_repeats(pool: Path, tmp_path: Path) -> None:
    rows = frame(pool)
    high, low = rows.clip_l14_similarity_score >= 0.25, rows.clip_b32_similarity_score >= 0.2
    of = "[{filter: clip_score, threshold: 0.25}, {filter: clip_score, arch: b32, threshold: 0.2}]"
    for name, expected in {
        "union": rows[high | low],
        "intersection": rows[high & low],
        "difference": rows[high & ~low],
        "sum": pd.concat([rows[high], rows[low]]),
    }.items():
        found = selected(tmp_path / f"{name}.npy", f"filter={name}", f"filter.of={of}", f"pool={pool}")
        np.testing.assert_array_equal(found, uids_of(expected))
    found = selected(tmp_path / "r.npy", "filter=repeat", "filter.of=no_filter", "filter.times=2", f"pool={pool}")
    np.testing.assert_array_equal(found, uids_of(pd.concat([rows, rows])))


def test_subset_files_combine_without_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.pool.files.SPAN", 7)
    first = Counter({uid_of(number): 1 + number % 3 for number in range(40)})
    second = Counter({uid_of(number): 2 for number in range(30, 60)})
    write_subset(tmp_path / "a.npy", list(first.elements()))
    write_subset(tmp_path / "b.npy", list(second.elements()))
    of = f"filter.of=[{tmp_path}/a.npy,{tmp_path}/b.npy]"
    for name, expected in {
        "union": first | second,
        "intersection": first & second,
        "sum": first + second,
        "difference": Counter({uid: count for uid, count in first.items() if uid not in second}),
    }.items():
        found = selected(tmp_path / f"{name}.npy", f"filter={name}", of)
        assert found.tolist() == sorted(split_uid(uid) for uid in expected.elements())


def test_nothing_may_be_taken_away_but_not_chosen(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none, some = tmp_path / "none.npy", tmp_path / "some.npy"
    write_subset(none, [])
    write_subset(some, [uid_of(number) for number in (5, 5, 9, 700)])
    for of, wanted in (
        (f"[{some},{none}]", np.load(some)),
        (f"[{some},{{filter: union, of: [{none},{none}]}}]", np.load(some)),
    ):
        np.testing.assert_array_equal(
            selected(tmp_path / "a.npy", "filter=difference", f"filter.of={of}", "overwrite=true"), wanted
        )
    found = selected(tmp_path / "b.npy", "filter=difference", f"filter.of=[no_filter,{none}]", f"pool={pool}")
    np.testing.assert_array_equal(found, uids_of(frame(pool)))
    assert read_json(tmp_path / "b.npy.json")["not_in_pool"] == {}
    for words in ([f"filter={none}"], ["filter=difference", f"filter.of=[{none},{some}]"]):
        for more in ([], [f"pool={pool}"]):
            assert curate(f"out={tmp_path}/c.npy", *words, *more) == 2
            assert capsys.readouterr().err.splitlines()[-1] == f"error: subset {none} is empty"
            assert not list(tmp_path.glob("c.npy*"))


def test_a_recipe_and_options_that_change_it(pool: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("filter: intersection\nof:\n  - no_filter\n  - {filter: clip_score, fraction: 0.9}\n")
    found = selected(tmp_path / "a.npy", f"filter={recipe}", "filter.of.1.fraction=0.2", f"pool={pool}")
    plain = selected(tmp_path / "b.npy", "filter=clip_score", "filter.fraction=0.2", f"pool={pool}")
    np.testing.assert_array_equal(found, plain)
    summary = read_json(tmp_path / "a.npy.json")
    assert summary["filter"]["of"][1] == {"filter": "clip_score", "arch": "l14", "fraction": 0.2, "threshold": None}
    assert summary["state"]["of"][1] == {"threshold": read_json(tmp_path / "b.npy.json")["state"]["threshold"]}


def test_uids_that_the_pool_lacks_are_told(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poolbench.uids._ROWS", 3)
    some = tmp_path / "some.npy"
    write_subset(some, [uid_of(number) for number in [*range(990, 1010), 1000, 1001, 5, 5]])
    of = f"filter.of=[{some},{{filter: clip_score, fraction: 0.5}}]"
    for words in (f"filter={some}",), ("filter=union", of), ("filter=difference", of):
        out = tmp_path / "out.npy"
        selected(out, *words, f"pool={pool}", "overwrite=true")
        assert f"not in the pool: 10 uids of {some}\n" in capsys.readouterr().err
        assert read_json(tmp_path / "out.npy.json")["not_in_pool"] == {str(some): 10}
    write_subset(some, [uid_of(5), uid_of(5)])
    selected(tmp_path / "five.npy", f"filter={some}", f"pool={pool}")
    selected(tmp_path / "alone.npy", f"filter={some}")
    assert "not in the pool" not in capsys.readouterr().err
    assert read_json(tmp_path / "alone.npy.json")["not_in_pool"] == {}
