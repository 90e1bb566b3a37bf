"""Chained fractions, the n-th largest among what another filter keeps, against ten lines of pandas."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from metadata import columns_of, write_file, write_metadata
from pools import uid_of
from selecting import curate, frame, selected, uids_of

from poolbench.errors import UserError
from poolbench.files import read_json
from poolbench.uids import write_subset

from curate.pool.chosen import bits_of, judged, kept_bits
from curate.pool.files import File, list_pool
from curate.pool.passes import Passes
from curate.selectors.base import Filter
from curate.selectors.registry import build, described

ODD = [np.nan, np.inf, -np.inf, -0.0, 0.0, 0.25, 0.5]


def write_random(folder: Path, seed: int) -> Path:
    """Files of 0 to 300 rows whose scores have ties, NaN, infinities and both zeros; a uid that is none in one."""
    rng = np.random.default_rng(seed)
    dtype = (np.float32, np.float64)[seed % 2]
    first = 0
    for number, rows in enumerate([*rng.integers(1, 300, 4).tolist(), 0]):
        columns = columns_of(rows, first)
        for arch in ("b32", "l14"):
            scores = np.round(rng.normal(0.2, 0.2, rows), 2)
            scores = np.where(rng.random(rows) < 0.3, rng.choice(ODD, rows), scores)
            columns[f"clip_{arch}_similarity_score"] = scores.astype(dtype)
        if number == 2:
            columns["uid"][0] = "none"
        write_file(folder / f"{number}.parquet", columns)
        first += rows
    return folder


def plain(rows: pd.DataFrame, spec: Any) -> "pd.Series[int]":
    """How often each row is kept, as docs/curate.md says it."""
    named = rows.uid != "none"
    if isinstance(spec, str):
        subset = {tuple(pair) for pair in np.load(spec).tolist()}
        return rows.uid.map(lambda uid: uid != "none" and (int(uid[:16], 16), int(uid[16:], 16)) in subset).astype(int)
    if spec["filter"] == "repeat":
        return plain(rows, spec["of"]) * spec["times"]
    scores, of = rows[f"clip_{spec['arch']}_similarity_score"], spec.get("of")
    times = pd.Series(1, rows.index) if of is None else plain(rows, of)
    ranked = scores[times > 0].dropna().sort_values(ascending=False)
    place = int(len(rows) * spec.get("fraction", 0))
    threshold = spec.get("threshold", ranked.iloc[place] if place < len(ranked) else -np.inf)
    return times.where((scores >= threshold) & named, 0)


def chained(rng: np.random.Generator, subset: Path, depth: int) -> Any:
    """A filter that chooses among what another one keeps, which does so itself, `depth` of them."""
    spec: dict[str, Any] = {"filter": "clip_score", "arch": str(rng.choice(["b32", "l14"]))}
    if rng.random() < 0.2:
        spec["threshold"] = 0.25
    else:
        spec["fraction"] = float(rng.choice([0, 0.05, 0.2, 0.4, 0.7, 1]))
    if depth:
        spec["of"] = chained(rng, subset, depth - 1)
    elif rng.random() < 0.3:
        spec["of"] = str(subset)
    return {"filter": "repeat", "times": 3, "of": spec} if rng.random() < 0.2 else spec


@pytest.mark.parametrize("seed", range(12))
def test_a_chain_keeps_what_pandas_keeps(tmp_path: Path, seed: int) -> None:
    pool, rng = write_random(tmp_path / "pool", seed), np.random.default_rng(seed)
    rows = frame(pool)
    write_subset(tmp_path / "some.npy", [uid_of(number) for number in range(0, len(rows), 2)])
    spec = chained(rng, tmp_path / "some.npy", depth=seed % 4)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(spec))
    times = plain(rows, spec)
    status = curate(f"filter={recipe}", f"pool={pool}", f"out={tmp_path}/out.npy")
    assert status == (1 if times.any() else 2), spec  # a uid is none; or nothing is kept, which is not written
    if times.any():
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), uids_of(rows.loc[rows.index.repeat(times)]))
        assert read_json(tmp_path / "out.npy.json")["kept"] == (times > 0).sum()


def test_the_random_chains_are_of_every_kind() -> None:
    """Else the test above tests less than it says."""
    specs = [str(chained(np.random.default_rng(seed), Path("some.npy"), seed % 4)) for seed in range(12)]
    for part in ("repeat", "some.npy", "threshold", "'fraction': 0.05", "'fraction': 0.4"):
        assert any(part in spec for spec in specs), part


OUTER = ("filter=clip_score", "filter.fraction=0.2")
INNER = "filter.of={filter: clip_score, arch: b32, fraction: 0.3}"


def test_neither_workers_nor_parts_change_a_chain(tmp_path: Path) -> None:
    pool = write_metadata(tmp_path / "pool", 5, 100, npz=False)
    words = (*OUTER, INNER, f"pool={pool}")
    one = selected(tmp_path / "one.npy", *words)
    assert len(one) > 100  # int(0.2 * 500) + 1 and ties
    selected(tmp_path / "two.npy", *words, "workers=2")
    for part in (2, 3, 1):
        assert curate(*words, f"out={tmp_path}/parts.npy", f"part={part}/3") == 0
    selected(tmp_path / "parts.npy", *words)
    for other in ("two", "parts"):
        assert (tmp_path / f"{other}.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()
        assert read_json(tmp_path / f"{other}.npy.json") == read_json(tmp_path / "one.npy.json")
    summary = read_json(tmp_path / "one.npy.json")
    assert summary["filter"]["of"] == {"filter": "clip_score", "arch": "b32", "fraction": 0.3, "threshold": None}
    assert summary["state"].keys() == {"threshold", "of"} and summary["state"]["of"][0].keys() == {"threshold"}


def test_what_is_kept_of_one_chain_is_not_taken_for_anothers(tmp_path: Path) -> None:
    pool = write_metadata(tmp_path / "pool", 3, 100, npz=False)
    subset, work = tmp_path / "some.npy", tmp_path / "work"
    words = (*OUTER, f"filter.of={subset}", f"pool={pool}", f"work={work}", "overwrite=true")

    def kept() -> tuple[bytes, dict[str, int]]:
        found = selected(tmp_path / "out.npy", *words)
        return found.tobytes(), {path.name: path.stat().st_mtime_ns for path in work.glob("judge-*/*.uids")}

    write_subset(subset, [uid_of(number) for number in range(0, 300, 2)])
    before = kept()
    assert kept() == before  # nothing was made anew
    write_subset(subset, [uid_of(number) for number in range(1, 300, 2)])
    after = kept()
    assert after[0] != before[0] and len(list(work.glob("judge-*"))) == 2
    assert len(list(work.glob("kept_bits-*"))) == 2
    selected(tmp_path / "whole.npy", *OUTER, f"pool={pool}", f"work={work}")
    assert len(list(work.glob("judge-*"))) == 3 and len(list(work.glob("kept_bits-*"))) == 2


def test_fewer_rows_than_asked_are_all_kept(tmp_path: Path) -> None:
    pool = write_metadata(tmp_path / "pool", 2, 50, npz=False)
    rows = frame(pool)
    write_subset(tmp_path / "some.npy", list(rows.uid[:20]))
    words = ("filter=clip_score", "filter.fraction=0.5", f"filter.of={tmp_path}/some.npy", f"pool={pool}")
    found = selected(tmp_path / "out.npy", *words)
    np.testing.assert_array_equal(found, uids_of(rows[:20].dropna(subset="clip_l14_similarity_score")))
    assert read_json(tmp_path / "out.npy.json")["state"]["threshold"] == "-inf"


def test_the_filter_behind_datacomp_1b_chooses_among_others_too(tmp_path: Path) -> None:
    pool = write_metadata(tmp_path / "pool", 2, 100)
    rng = np.random.default_rng(0)
    for name in ("centroids", "targets"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(4, 8)).astype(np.float32))
    images = {"filter": "image_based", "language": "fasttext_small"}
    images |= {name: str(tmp_path / f"{name}.npy") for name in ("centroids", "targets")}
    scores = {"filter": "clip_score", "fraction": 0.3, "of": {"filter": "clip_score", "arch": "b32", "fraction": 0.5}}
    both = {**images, **scores, "filter": "image_based_intersect_clip_score"}
    found = []
    for name, spec in (("both", both), ("chain", {"filter": "intersection", "of": [images, scores]})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(spec))
        found.append(selected(tmp_path / f"{name}.npy", f"filter={tmp_path}/{name}.yaml", f"pool={pool}"))
    np.testing.assert_array_equal(*found)
    assert described(build(both)) | {"of": None} == {**both, "threshold": None, "arch": "l14", "clusters": "",
                                                     "embedding": "l14_img", "of": None}  # fmt: skip


def test_rows_are_asked_about_once_and_a_bit_stands_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pieces in which a file is read, and where a uid is none."""
    pool = write_random(tmp_path / "pool", 1)
    inner = build({"filter": "clip_score", "threshold": 0.2})
    with Passes(list_pool(str(pool)), tmp_path / "work", 1) as passes:
        inner.prepare(passes)
    for file in list_pool(str(pool)):
        rows = pd.read_parquet(file.path)
        expected = ((rows.clip_l14_similarity_score >= 0.2) & (rows.uid != "none")).to_numpy()
        for size in (2**16, 17):
            monkeypatch.setattr("curate.pool.files.ROWS", size)
            bits = kept_bits(file, inner)
            assert bits.nbytes == -(-len(rows) // 8)
            for start in range(0, len(rows), 23):
                stop = min(start + 31, len(rows))
                assert bits_of(bits, start, stop).tolist() == expected[start:stop].tolist()
    asked: list[str] = []
    monkeypatch.undo()
    monkeypatch.setattr(type(inner), "keep", _noting(asked, type(inner).keep))
    with Passes(list_pool(str(pool)), tmp_path / "more", 1) as passes:
        outer = build({"filter": "clip_score", "fraction": 0.1, "of": {"filter": "clip_score", "threshold": 0.2}})
        outer.prepare(passes)
    assert len(asked) == 4  # files with rows, in one pass of several


def _noting(asked: list[str], keep: Any) -> Any:
    def noted(self: Filter, rows: Any, arrays: Mapping[str, np.ndarray]) -> Any:
        asked.append(type(self).__name__)
        return keep(self, rows, arrays)

    return noted


class Everything(Filter):
    """A filter as somebody adds one: it knows nothing of `of`."""

    def keep(self, rows: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.arange(len(arrays["uid"])) % 2 == 0


def test_any_filter_chooses_among_others_without_code_of_its_own(tmp_path: Path) -> None:
    (file,) = list_pool(str(write_metadata(tmp_path / "pool", 1, 60, npz=False)))
    inner = build({"filter": "repeat", "times": 2, "of": {"filter": "clip_score", "threshold": 0.2}})
    options = build("no_filter").options
    chosen = Everything(options, [inner])
    with Passes([file], tmp_path / "work", 1) as passes:
        chosen.prepare(passes)
    assert chosen.needs.columns == ("clip_l14_similarity_score",)
    ((_, counts),) = judged(file, chosen)
    scores = pd.read_parquet(file.path).clip_l14_similarity_score.to_numpy()
    assert counts.tolist() == [2 * int(score >= 0.2 and row % 2 == 0) for row, score in enumerate(scores)]
    assert chosen.identity() != Everything(options, [build("no_filter")]).identity() != Everything(options).identity()


@pytest.mark.parametrize(
    ("of", "says"),
    [
        ("bsic", "filter.of=bsic is not known; did you mean 'basic'?"),
        ({"filter": "clip_score", "fraction": 2}, "filter.fraction=2.0 must lie from 0 to 1"),
        ({"filter": "repeat", "times": 2, "of": "bsic"}, "filter.of.of=bsic is not known"),
        (["basic", "laion2b"], "filter.of=['basic', 'laion2b'] is a list; one filter is asked"),
    ],
)
def test_a_mistake_in_a_chain_is_one_line(of: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        build({"filter": "clip_score", "fraction": 0.5, "of": of})
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_bits_of_no_rows(tmp_path: Path) -> None:
    path = write_file(tmp_path / "0.parquet", columns_of(0))
    (file,) = list_pool(str(path.parent))
    assert isinstance(file, File) and len(kept_bits(file, build("no_filter"))) == 0
