"""Selections by clusters of embeddings (dbp, semdedup), each against a few lines of float64."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import pytest
from metadata import columns_of, write_file
from pools import uid_of
from selecting import curate, frame, uids_of
from test_curate_embeddings import best, described, embeddings, write_random
from test_shares import projected

from poolbench.files import read_json
from poolbench.uids import DTYPE, from_texts, is_uid

from curate.pool.hashes import hashed
from curate.pool.members import MEMBER, keys_of, last_keys
from curate.scorers import clustered, semdedup

DBP: dict[str, Any] = {"filter": "dbp", "fraction": 0.3, "clusters": 6, "temperature": 0.1}
DEDUP: dict[str, Any] = {"filter": "semdedup", "epsilon": 0.2, "clusters": 6}
OF = {"filter": "top", "column": "clip_l14_similarity_score", "threshold": 0.2}
SPECS: dict[str, dict[str, Any]] = {
    "dbp": DBP,
    "dbp_one": {**DBP, "clusters": 1},
    "dbp_of": {**DBP, "of": OF, "fraction": 0.2, "balance": 1.0},
    "hard": DEDUP,
    "easy": {**DEDUP, "which": "easy", "epsilon": 0.05},
    "random": {**DEDUP, "which": "random", "seed": 3},
    "one_cluster": {**DEDUP, "clusters": 1, "epsilon": 0.4},
    "so_many": {**DEDUP, "epsilon": None, "fraction": 0.3},
    "of": {**DEDUP, "of": OF, "epsilon": None, "fraction": 0.2},
    "both": {**DBP, "fraction": 0.1, "of": {**DEDUP, "of": OF}},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))


def directions(pool: Path) -> np.ndarray:
    found = embeddings(pool)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.where(lengths > 0, lengths, np.nan)


def column(pool: Path, folder: str, name: str) -> np.ndarray:
    paths = sorted(pool.glob(f"columns/{folder}/*.parquet"))
    found: np.ndarray = np.concatenate([pd.read_parquet(path)[name].to_numpy() for path in paths])
    return found


def plain(spec: dict[str, Any], pool: Path, rows: pd.DataFrame) -> np.ndarray:
    """Which rows are kept, once the clusters are there: bool [rows]."""
    if spec["filter"] == "top":
        return np.asarray(rows[spec["column"]] >= np.float32(spec["threshold"])) & rows.uid.map(is_uid).to_numpy()
    vectors = directions(pool)
    looked_at = rows.uid.map(is_uid).to_numpy() & ~np.isnan(vectors).any(1)
    if "of" in spec:
        looked_at &= plain(spec["of"], pool, rows)
    how = clustered.Clustering("l14_img", spec["clusters"], seed=spec.get("seed", 0))
    (path,) = pool.glob(f"columns/{how.folder(spec.get('of'))}/centroids-*.npy")
    centroids = np.load(path).astype(np.float64)
    cosines = vectors @ centroids.T
    numbers = np.where(looked_at, np.nan_to_num(cosines).argmax(1), -1)
    own = 1 - np.take_along_axis(
        vectors @ (centroids / np.linalg.norm(centroids, axis=1)[:, None]).T, numbers[:, None], 1
    )
    distances = np.round(np.nan_to_num(own[:, 0]) * 2**26) / 2**26
    if spec["filter"] == "dbp":
        return plain_dbp(spec, rows, numbers, distances, centroids)
    return plain_dedup(spec, rows, vectors, numbers, distances)


def plain_dbp(
    spec: dict[str, Any], rows: pd.DataFrame, numbers: np.ndarray, distances: np.ndarray, centroids: np.ndarray
) -> np.ndarray:
    clusters, total = len(centroids), int(len(rows) * spec["fraction"])
    sizes = np.bincount(numbers[numbers >= 0], minlength=clusters)
    total = min(total, sizes.sum())
    apart = 1 - centroids @ centroids.T
    inter = np.array(
        [np.sort(np.delete(apart[one], one))[:20].mean() if clusters > 1 else 0 for one in range(clusters)]
    )
    intra = np.array([distances[numbers == one].mean() if sizes[one] else np.nan for one in range(clusters)])
    varied = np.where(np.isnan(inter * intra), np.nanmean(inter * intra), inter * intra)
    shares = np.exp(varied / spec["temperature"])
    low = np.maximum(np.minimum(int(spec.get("balance", 0.5) * total / clusters), sizes - 1), 0)
    x = projected(shares / shares.sum() * total, low, sizes, total)
    counts = np.floor(x + 1e-6).astype(int)
    counts[np.argsort(-(x - counts), kind="stable")[: total - counts.sum()]] += 1
    kept = np.zeros(len(rows), bool)
    for one in range(clusters):
        some = np.flatnonzero(numbers == one)
        order = sorted(some, key=lambda row: (-distances[row], rows.uid[row], row))
        kept[order[: counts[one]]] = True
    return kept


def plain_dedup(
    spec: dict[str, Any], rows: pd.DataFrame, vectors: np.ndarray, numbers: np.ndarray, distances: np.ndarray
) -> np.ndarray:
    which, novelty = spec.get("which", "hard"), np.full(len(rows), np.nan)
    hashes = hashed(from_texts([uid if is_uid(uid) else uid_of(0) for uid in rows.uid]), spec.get("seed", 0))
    first = {"hard": -distances, "easy": distances, "random": hashes}[which]
    for one in range(spec["clusters"]):
        order = sorted(np.flatnonzero(numbers == one), key=lambda row: (first[row], rows.uid[row], row))
        for place, row in enumerate(order):
            alike = max([0.0, *(float(vectors[row] @ vectors[other]) for other in order[:place])])
            novelty[row] = np.float32(round((1 - alike) * 2**26) / 2**26)
    if spec.get("epsilon") is not None:
        return np.nan_to_num(novelty, nan=-1) >= np.float32(spec["epsilon"])
    return best(rows, novelty, spec["fraction"], numbers >= 0)


@pytest.mark.parametrize("kind", ["odd", "unit"])
@pytest.mark.parametrize("name", SPECS)
def test_a_method_keeps_what_double_precision_keeps(tmp_path: Path, name: str, kind: str) -> None:
    pool, spec = write_random(tmp_path / "pool", 1 if kind == "odd" else 2, kind), SPECS[name]
    rows, out = frame(pool), tmp_path / "out.npy"
    assert curate(described(tmp_path / "filter.yaml", spec), f"pool={pool}", f"out={out}") == 1  # of the malformed uids
    wanted = plain(spec, pool, rows)
    np.testing.assert_array_equal(np.load(out), uids_of(rows[wanted]))
    folder = "semdedup" if spec["filter"] == "semdedup" else "clusters"
    (told,) = (count for what, count in read_json(f"{out}.json")["counts"].items() if what.startswith(folder))
    assert told == np.isnan(directions(pool)).any(1)[rows.uid.map(is_uid)].sum() and (kind == "unit" or told)
    assert 0 < wanted.sum() < len(rows)


@pytest.mark.parametrize("name", ["both", "of", "random", "one_cluster"])
def test_workers_parts_blocks_and_files_make_no_difference(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, word = write_random(tmp_path / "pool", 3), described(tmp_path / "filter.yaml", SPECS[name])

    def made(out: str, *words: str) -> tuple[bytes, Any]:
        places = [f"pool={pool}", f"out={tmp_path / out}.npy", f"columns={tmp_path / out}"]
        assert curate(word, *places, *words) in (0, 1)
        path = tmp_path / f"{out}.npy"
        columns = [pd.read_parquet(one).to_csv() for one in sorted((tmp_path / out).rglob("*.parquet"))]
        return path.read_bytes() if path.exists() else b"", columns

    first = made("one")
    if name == "both":
        assert made("workers", "workers=2") == first
    for number in (2, 1, 3):
        made("parts", f"part={number}/3")
    assert made("parts") == first
    monkeypatch.setattr(semdedup, "_BLOCK", 7)
    monkeypatch.setattr(clustered, "_ROWS", 11)
    assert made("blocks") == first


def joined(many: Path, one: Path) -> Path:
    rows = frame(many)
    image = np.concatenate([np.load(path)["l14_img"] for path in sorted(many.glob("*.npz"))])
    score = "clip_l14_similarity_score"
    write_file(one / "0.parquet", {key: rows[key].tolist() for key in ("uid", "text", score)}, {"l14_img": image})
    return one


@pytest.mark.parametrize("name", ["both", "of"])
def test_one_file_is_as_good_as_many(tmp_path: Path, name: str) -> None:
    many = write_random(tmp_path / "many", 4, "odd", files=3)
    word = described(tmp_path / "filter.yaml", SPECS[name])
    for pool in (many, joined(many, tmp_path / "one")):
        curate(word, f"pool={pool}", f"out={pool}.npy")
    np.testing.assert_array_equal(np.load(f"{many}.npy"), np.load(tmp_path / "one.npy"))


def test_clusters_are_those_of_spherical_k_means(tmp_path: Path) -> None:
    """As faiss finds them of the drawn points, in the order in which they are drawn."""
    pool = write_random(tmp_path / "pool", 5, "unit")
    curate("filter=dbp", "filter.fraction=.3", "filter.clusters=5", f"pool={pool}", f"out={tmp_path}/all.npy")
    curate(
        *("filter=dbp", "filter.fraction=.3", "filter.clusters=5", "filter.sample=20", "filter.seed=1"),
        *(f"pool={pool}", f"out={tmp_path}/drawn.npy"),
    )
    rows, vectors = frame(pool), directions(pool)
    good = np.flatnonzero(rows.uid.map(is_uid).to_numpy())
    for sample, seed in ((256, 0), (20, 1)):
        hashes = hashed(from_texts(rows.uid[good].tolist()), seed)
        most = np.sort(hashes)[: 5 * sample][-1]
        order = [row for value, row in sorted(zip(hashes.tolist(), good.tolist(), strict=True)) if value <= most]
        assert len(order) == len(good) or len(order) in (100, 101)
        points = vectors[order].astype(np.float32)
        theirs = faiss.Kmeans(12, 5, niter=100, seed=seed, spherical=True, min_points_per_centroid=1)
        theirs.train(points)
        folder = clustered.Clustering("l14_img", 5, sample=sample, seed=seed).folder(None)
        (path,) = pool.glob(f"columns/{folder}/centroids-*.npy")
        np.testing.assert_array_equal(np.load(path), theirs.centroids)


def test_the_last_of_each_cluster_is_found_by_counting() -> None:
    rng = np.random.default_rng(0)
    for digits in (2**2, 2**40):  # many rows with equal distances and uids, and hardly any
        some = np.zeros(3000, MEMBER)
        some["cluster"] = rng.integers(0, 12, 3000)
        some["cluster"][some["cluster"] == 4] = 5
        some["distance"] = rng.choice([0, 1e-7, 0.5, 2], 3000) if digits == 4 else rng.random(3000) * 2
        some["uid"]["f0"], some["uid"]["f1"] = (rng.integers(0, digits, 3000) * 2**23 for _ in range(2))
        some["place"] = rng.permutation(3000) + 2**40
        sizes = np.bincount(some["cluster"], minlength=12)
        wanted = rng.integers(0, sizes + 1)
        wanted[[0, 1]] = 0, sizes[1]
        found = last_keys(lambda some=some: iter([some[:1000], some[1000:1000], some[1000:]]), wanted)  # type: ignore[misc]
        kept = keys_of(some["distance"], some["uid"], some["place"]) <= found[some["cluster"]]
        for cluster in range(12):
            own = np.flatnonzero(some["cluster"] == cluster)
            order = np.lexsort(
                (some["place"][own], some["uid"]["f1"][own], some["uid"]["f0"][own], -some["distance"][own])
            )
            assert set(own[order[: wanted[cluster]]]) == set(own[kept[own]])


def test_equal_pictures_are_one_and_ties_are_broken_by_uid(tmp_path: Path) -> None:
    """All rows have the same direction, of any length; one file's stand before the others'."""
    for number in range(3):
        one = np.tile(np.arange(1, 13, dtype=np.float32), (100, 1)) * np.float32(10.0) ** (15 * (number - 1))
        write_file(tmp_path / f"pool/{number}.parquet", columns_of(100, 100 * number), {"l14_img": one})
    uids = np.sort(uids_of(frame(tmp_path / "pool")))
    words = [f"pool={tmp_path}/pool", "filter.clusters=1"]
    for which in ("hard", "easy"):
        curate("filter=semdedup", "filter.epsilon=1e-6", f"filter.which={which}", *words, f"out={tmp_path}/{which}.npy")
        np.testing.assert_array_equal(np.load(tmp_path / f"{which}.npy"), uids[:1])
    for name in ("semdedup", "dbp"):
        curate(f"filter={name}", "filter.fraction=0.5", *words, f"out={tmp_path}/{name}.npy")
        found = np.load(tmp_path / f"{name}.npy")
        assert found.dtype == DTYPE
        np.testing.assert_array_equal(found, uids[:150])


def test_columns_that_are_there_serve_another_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = write_random(tmp_path / "pool", 7, "unit")
    words = ["filter.clusters=6", f"pool={pool}"]
    assert curate("filter=semdedup", "filter.epsilon=0.1", *words, f"out={tmp_path}/a.npy") == 1
    for module, name in ((clustered, "k_means"), (clustered, "nearest"), (semdedup, "novelty")):
        monkeypatch.setattr(module, name, None)
    assert curate("filter=semdedup", "filter.fraction=0.3", *words, f"out={tmp_path}/b.npy") == 1
    assert curate("filter=dbp", "filter.fraction=0.3", *words, f"out={tmp_path}/c.npy") == 1
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    arrays = dict(np.load(pool / "3.npz"))
    write_file(
        pool / "3.parquet",
        columns_of(len(arrays["l14_img"]), 5000),
        arrays | {"l14_img": rng.permutation(arrays["l14_img"])},
    )
    spec = {**DEDUP, "fraction": 0.3, "epsilon": None}
    curate("filter=semdedup", "filter.fraction=0.3", *words, f"out={tmp_path}/d.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), uids_of(frame(pool)[plain(spec, pool, frame(pool))]))


def _die(words: list[str]) -> None:
    compared = semdedup.novelties

    def dying(file: Any, *given: Any) -> Any:
        if file.number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return compared(file, *given)

    dying.__module__, dying.__qualname__, dying.__name__ = (
        semdedup.__name__, "novelties", "novelties",
    )  # fmt: skip
    semdedup.novelties = dying
    curate(*words)


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = write_random(tmp_path / "pool", 8)
    words = ["filter=semdedup", "filter.clusters=5", "filter.epsilon=0.1", f"pool={pool}", "workers=1"]
    assert curate(*words, f"out={tmp_path}/whole.npy", f"columns={tmp_path}/whole") == 1
    again = [*words, f"out={tmp_path}/killed.npy", f"columns={tmp_path}/killed"]
    child = multiprocessing.get_context("fork").Process(target=_die, args=(again,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    done: list[int] = []
    compared = semdedup.novelty
    monkeypatch.setattr(semdedup, "novelty", lambda vectors, rows: done.append(rows) or compared(vectors, rows))
    monkeypatch.setattr(clustered, "k_means", None)
    assert curate(*again) == 1
    assert len(done) == 2  # of the five clusters those of the last of four tasks
    assert (tmp_path / "killed.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_what_is_wrong_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_random(tmp_path / "pool", 9, "unit", files=1)

    def told(*words: str) -> str:
        capsys.readouterr()
        assert curate(*words, f"pool={pool}", f"out={tmp_path}/out.npy") == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "file" not in line[:4]]
        assert len(lines) == 1, lines
        return lines[0]

    for name, value in (
        *(("clusters", "0"), ("iterations", "0"), ("sample", "0"), ("seed", "-1"), ("clusters", "20000000")),
        *(("temperature", "0"), ("balance", "2"), ("temperature", "nan")),
    ):
        said = told("filter=dbp", "filter.fraction=.3", f"filter.{name}={value}")
        assert f"filter.{name}={int(value):,}" in said if value == "20000000" else f"filter.{name}={value}" in said
    assert "filter.fraction=1.5 must lie from 0 to 1" in told("filter=dbp", "filter.fraction=1.5")
    assert "needs either filter.epsilon= or filter.fraction=" in told("filter=semdedup")
    assert "needs either" in told("filter=semdedup", "filter.epsilon=.1", "filter.fraction=.3")
    assert "filter.epsilon=-1.0 must lie from 0 to 1" in told("filter=semdedup", "filter.epsilon=-1")
    assert "filter.epsilon=nan must lie" in told("filter=semdedup", "filter.epsilon=nan")
    assert "filter.which=hart is not known; did you mean 'hard'" in told(
        "filter=semdedup", "filter.epsilon=.1", "filter.which=hart"
    )
    assert "filter.clusters=1,000 is more than the 249 embeddings" in told("filter=semdedup", "filter.epsilon=.1")
    dbp = ["filter=dbp", "filter.fraction=.3", "filter.clusters=3"]
    assert "no array 'l15_img'" in told(*dbp, "filter.embedding=l15_img")
    for array, why in (
        (np.ones((250, 12)), "l14_img holds float64 [12] a row"),
        (np.ones((250, 3, 4), np.float16), "l14_img holds float16 [3, 4] a row"),
        (np.zeros((250, 12), np.float16), "filter.clusters=3 is more than the 0 embeddings"),
        (np.full((250, 12), np.nan, np.float32), "filter.clusters=3 is more than the 0 embeddings"),
    ):
        write_file(pool / "0.parquet", columns_of(250), {"l14_img": array})
        assert why in told(*dbp)
    write_file(pool / "0.parquet", columns_of(250), {"l14_img": np.eye(250, 12, dtype=np.float16) + 1})
    write_file(pool / "1.parquet", columns_of(250, 250), {"l14_img": np.eye(250, 13, dtype=np.float16) + 1})
    assert f"{pool}/1.npz has embeddings of another width than {pool}/0.npz" in told(*dbp)


def test_more_than_there_are_are_all_kept_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_random(tmp_path / "pool", 11)
    rows = frame(pool)
    wanted = uids_of(rows[rows.uid.map(is_uid) & ~np.isnan(directions(pool)).any(1)])
    for name in ("dbp", "semdedup"):
        capsys.readouterr()
        assert (
            curate(
                f"filter={name}", "filter.fraction=1", "filter.clusters=5", f"pool={pool}", f"out={tmp_path}/{name}.npy"
            )
            == 1
        )
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), wanted)
        assert "are asked for" in capsys.readouterr().err


def test_a_file_that_cannot_be_used_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_random(tmp_path / "pool", 10, "unit")
    (pool / "3.npz").unlink()
    for name in ("dbp", "semdedup"):
        word = described(tmp_path / "filter.yaml", {"filter": name, "fraction": 0.2, "clusters": 4})
        assert curate(word, f"pool={pool}", f"out={tmp_path}/{name}.npy") == 1
        assert "3.parquet has no .npz beside it" in capsys.readouterr().err
        assert read_json(tmp_path / f"{name}.npy.json")["bad_files"].keys() == {"3"}


@pytest.mark.parametrize("name", ["dbp", "semdedup"])
def test_a_pool_of_one_row_is_a_cluster(tmp_path: Path, name: str) -> None:
    write_file(tmp_path / "pool/0.parquet", columns_of(1), {"l14_img": np.ones((1, 3), np.float16)})
    words = [f"filter={name}", "filter.fraction=1", "filter.clusters=1", f"pool={tmp_path}/pool"]
    assert curate(*words, f"out={tmp_path}/out.npy") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), from_texts([uid_of(0)]))
