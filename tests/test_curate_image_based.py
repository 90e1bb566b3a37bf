"""The image filter against ten lines of numpy, and the clusters it goes by against faiss itself."""

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from metadata import write_metadata

from poolbench.errors import UserError

from curate.centroids import COMMAND, CentroidsConfig, sample
from curate.models import clusters as clustering
from curate.models.captions import usable_captions
from curate.models.clusters import k_means, longest_of, nearest
from curate.models.languages import detector
from curate.models.matrices import as_npy, load_matrix
from curate.pool.chosen import judged
from curate.pool.files import BadFile, list_pool
from curate.pool.passes import Passes
from curate.selectors.base import Filter
from curate.selectors.registry import build

WIDTH, CLUSTERS = 8, 40
SMALL = "fasttext_small"


def vectors(rows: int, seed: int, dtype: Any = np.float32) -> np.ndarray:
    found: np.ndarray = np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(dtype)
    return found


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return write_metadata(tmp_path / "pool", files=3, rows=250)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Centroids of different lengths, and targets near a few of them."""
    centroids = vectors(CLUSTERS, 1) * np.linspace(0.5, 1.5, CLUSTERS, dtype=np.float32)[:, None]
    np.save(tmp_path / "centroids.npy", centroids)
    np.save(tmp_path / "targets.npy", vectors(9, 2, np.float16))
    return tmp_path / "centroids.npy", tmp_path / "targets.npy"


def expected(pool: Path, centroids: Path, targets: Path, threshold: float | None = None) -> list[str]:
    """The rule as the reference states it."""
    matrix, kept = np.load(centroids), []
    wanted = set(np.argmax(np.load(targets).astype(np.float32) @ matrix.T, axis=1).tolist())
    for path in sorted(pool.glob("*.parquet")):
        table = pq.read_table(path).to_pydict()
        features = np.load(path.with_suffix(".npz"))["l14_img"].astype(np.float32)
        for row, text in enumerate(table["text"]):
            usable = len(text.split()) + text.count("\n") > 1 and len(text) > 5 and detector(SMALL)([text]) == ["en"]
            scored = threshold is None or table["clip_l14_similarity_score"][row] >= threshold
            if usable and scored and int(np.argmax(matrix @ features[row])) in wanted:
                kept.append(table["uid"][row])
    return sorted(kept)


def select(tmp_path: Path, pool: Path, *options: str) -> list[str]:
    """The uids that the command chooses."""
    out = tmp_path / f"subset-{len(list(tmp_path.glob('subset-*')))}.npy"
    done = forked.run("-m", "curate", f"pool={pool}", f"out={out}", f"filter.language={SMALL}", *options)
    assert done.returncode == 0, done.stderr
    return [f"{high:016x}{low:016x}" for high, low in np.load(out).tolist()]


def test_the_command_keeps_what_ten_lines_of_numpy_keep(tmp_path: Path, pool: Path, files: tuple[Path, Path]) -> None:
    given = [f"filter.centroids={files[0]}", f"filter.targets={files[1]}"]
    images = select(tmp_path, pool, "filter=image_based", *given)
    assert images == expected(pool, *files) and 20 < len(images) < 500


def test_the_intersection_keeps_what_both_keep(pool: Path, files: tuple[Path, Path]) -> None:
    given = {"centroids": str(files[0]), "targets": str(files[1]), "language": SMALL}
    both = build({"filter": "image_based_intersect_clip_score", **given, "arch": "l14", "threshold": 0.25})
    both.prepare(passes_over(pool))
    kept = expected(pool, *files, threshold=0.25)
    assert uids_kept(both, pool) == kept and 5 < len(kept) < len(expected(pool, *files))


def test_the_fraction_is_one_of_the_whole_pool(pool: Path, files: tuple[Path, Path]) -> None:
    """And not of what image_based has left."""
    given = {"centroids": str(files[0]), "targets": str(files[1]), "language": SMALL}
    both = build({"filter": "image_based_intersect_clip_score", **given, "fraction": 0.3})
    scores = np.concatenate(
        [pq.read_table(path)["clip_l14_similarity_score"].to_numpy() for path in sorted(pool.glob("*.parquet"))]
    )
    both.prepare(passes_over(pool))
    threshold = np.sort(np.nan_to_num(scores, nan=-np.inf))[::-1][int(len(scores) * 0.3)]
    assert both.children[0].state == {"threshold": float(threshold)}
    with pytest.raises(UserError, match=r"needs either filter.fraction= or filter.threshold="):
        build({"filter": "image_based_intersect_clip_score", **given})


def passes_over(pool: Path) -> Passes:
    return Passes(list_pool(str(pool)), None, 1)


NONE = Passes([], None, 1)  # for filters that ask for no pass


def uids_kept(chosen: Filter, pool: Path) -> list[str]:
    """The uids that a prepared filter keeps."""
    found = []
    for file in list_pool(str(pool)):
        for rows, counts in judged(file, chosen):
            found += rows.arrays["uid"][counts > 0].tolist()
    return sorted(f"{high:016x}{low:016x}" for high, low in found)


def test_the_first_of_equal_centroids_is_the_nearest() -> None:
    centroids = vectors(30, 3)
    centroids[[7, 21]] = centroids[3] = 2 * centroids[4]
    features = np.concatenate([centroids[[21, 4]], vectors(50, 4)])
    found = nearest(features, centroids, longest_of(centroids))
    assert found[0] == found[1] == 3, "a longer centroid in the same direction wins, and the first of three"
    assert found.tolist() == np.argmax(features.astype(np.float64) @ centroids.T.astype(np.float64), axis=1).tolist()


def test_single_precision_does_not_decide() -> None:
    """Centroids that differ by less than single precision tells apart in a sum of products."""
    rng = np.random.default_rng(5)
    base = rng.normal(size=768).astype(np.float32)
    centroids = np.tile(base, (64, 1))
    centroids[np.arange(64), rng.integers(0, 768, 64)] *= np.float32(1 + 3e-7)
    features = rng.normal(size=(200, 768)).astype(np.float16)
    exact = np.argmax(features.astype(np.float64) @ centroids.T.astype(np.float64), axis=1)
    assert (np.argmax(features.astype(np.float32) @ centroids.T, axis=1) != exact).any(), "else this tests nothing"
    assert nearest(features, centroids, longest_of(centroids)).tolist() == exact.tolist()


def test_batches_do_not_change_the_answer_and_no_number_is_near_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    centroids, features = vectors(CLUSTERS, 6), vectors(500, 7, np.float16)
    features[17, 3], features[400] = np.nan, np.inf
    done: list[int] = []
    whole = nearest(features, centroids, longest_of(centroids), done.append)
    assert sum(done) == 500 and np.flatnonzero(whole < 0).tolist() == [17, 400]
    monkeypatch.setattr(clustering, "_AT_ONCE", 7 * CLUSTERS)
    assert nearest(features, centroids, longest_of(centroids)).tolist() == whole.tolist()


def test_captions_that_the_clustering_looks_at() -> None:
    """Two tokens are enough, of which a line end is one, and the size of the picture does not matter."""
    captions = ["red car", "red\u00a0car", "a car", "the car\n", "Ein Hund am Strand", "x", None, "thecar\n"]
    english = [word == "en" for word in detector(SMALL)([caption or "" for caption in captions])]
    long_enough = [True, False, False, True, True, False, False, True]
    assert english[0] and not english[4]
    wanted = [a and b for a, b in zip(english, long_enough, strict=True)]
    assert usable_captions(pa.chunked_array([captions]), SMALL).tolist() == wanted


def test_rows_whose_embedding_is_no_number_are_counted(files: tuple[Path, Path]) -> None:
    spec = build({"filter": "image_based", "centroids": str(files[0]), "targets": str(files[1]), "language": SMALL})
    spec.prepare(NONE)
    rows = pa.table({"text": ["a photo of a dog on the beach"] * 3})
    features = np.repeat(np.load(files[1])[:1], 3, axis=0)
    features[1, 2] = np.nan
    assert spec.keep(rows, {"l14_img": features}).tolist() == [True, False, True]
    assert spec.tallies(rows, {"l14_img": features}) == {"rows without a caption": 0, "l14_img is NaN or infinite": 1}
    with pytest.raises(BadFile, match=r"l14_img has \[3\] numbers a row, the centroids have 8"):
        spec.keep(rows, {"l14_img": features[:, :3]})


def test_clusters_of_targets_are_found_once(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"filter": "image_based", "centroids": str(files[0]), "targets": str(files[1]), "language": SMALL}
    first, second = build(spec), build(spec)
    first.prepare(NONE)
    monkeypatch.setattr(clustering, "nearest", None)
    second.prepare(NONE)
    assert first.state == second.state and first.state["clusters_wanted"] > 1
    third = build({**spec, "clusters": first.state["clusters"], "targets": "not looked at"})
    third.prepare(NONE)
    assert third.state == first.state


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "centroids= is needed"),
        ({"centroids": "smal"}, "filter.centroids=smal is neither a file nor a pool's name; did you mean 'small'?"),
        ({"centroids": "text.npy"}, "filter.centroids=text.npy cannot be read: "),
        ({"centroids": "flat.npy"}, "filter.centroids=flat.npy holds float32 [8]; it is a matrix of floats"),
        (
            {"centroids": "centroids.npy", "targets": "nowhere"},
            "filter.targets=nowhere is neither a file nor 'imagenet'",
        ),
        ({"centroids": "centroids.npy", "targets": "wide.npy"}, "filter.targets=wide.npy has 9 numbers a row"),
        ({"centroids": "centroids.npy", "targets": "nan.npy"}, "holds embeddings that are no numbers"),
        ({"centroids": "centroids.npy", "targets": "zero.npy"}, "filter.targets=zero.npy holds nothing but zeros"),
        ({"centroids": "centroids.npy", "clusters": "flat.npy"}, "does not hold numbers from 0 to 39"),
        ({"centroids": "centroids.npy", "clusters": "large.npy"}, "does not hold numbers from 0 to 39"),
        ({"centroids": "centroids.npy", "language": "fastext"}, "filter.language=fastext is not known"),
    ],
)
def test_wrong_files_are_named(
    options: dict[str, str], says: str, tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.npy").write_text("no array")
    np.save("flat.npy", vectors(1, 0)[0])
    np.save("wide.npy", np.ones((2, 9), np.float32))
    np.save("nan.npy", np.full((2, WIDTH), np.nan, np.float32))
    np.save("zero.npy", np.zeros((2, WIDTH), np.float32))
    np.save("large.npy", np.array([0, CLUSTERS]))
    with pytest.raises(UserError) as caught:
        build({"filter": "image_based", "language": SMALL, **options}).prepare(NONE)
    assert says in str(caught.value) and "\n" not in str(caught.value)


class _OldPickler(pickle._Pickler):
    """Writes arrays as numpy 1 did, under the module names of then: the published centroids are such a file."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__name__", "") == "_reconstruct":
            self.save("numpy.core.multiarray")
            self.save("_reconstruct")
            self.write(pickle.STACK_GLOBAL)
            self.memoize(obj)
        else:
            super().save_global(obj, name)


def test_the_published_kinds_of_files_are_read_and_nothing_in_them_is_run(tmp_path: Path) -> None:
    matrix = vectors(5, 8)
    old = SimpleNamespace(Pickler=_OldPickler, dump=pickle.dump, __name__="old")
    torch.save(matrix, tmp_path / "old.pt", pickle_module=old, pickle_protocol=4)
    assert b"numpy.core.multiarray" in (tmp_path / "old.pt").read_bytes()
    torch.save(matrix, tmp_path / "array.pt", pickle_protocol=4)
    torch.save({"image_features": torch.from_numpy(matrix).half()}, tmp_path / "features.pt")
    for name in ("old", "array", "features"):
        found = load_matrix(as_npy(tmp_path / f"{name}.pt", "filter.targets"), "filter.targets")
        assert np.allclose(found, matrix, atol=2e-3) and len(found) == 5
    torch.save({"image_features": _Evil(tmp_path / "run")}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil.pt cannot be read: \w+.mkdir in it is neither"):
        as_npy(tmp_path / "evil.pt", "filter.targets")
    assert not (tmp_path / "run").exists()


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_k_means_is_that_of_faiss() -> None:
    import faiss

    points = vectors(600, 9)
    theirs = faiss.Kmeans(WIDTH, 12, niter=20, seed=0, max_points_per_centroid=10**7)
    theirs.train(points)
    ours = k_means(points, 12, 20, 0)
    assert ours.dtype == np.float32 and (ours == theirs.centroids).all()
    assert (ours != k_means(points, 12, 20, 1)).any() and (ours != k_means(points, 12, 1, 0)).any()
    with pytest.raises(UserError, match=r"clusters=601 is more than the 600 embeddings"):
        k_means(points, 601, 20, 0)


def test_all_points_are_taken_and_none_is_drawn() -> None:
    """faiss by itself takes 256 points a cluster."""
    points = vectors(3000, 10)
    assert np.allclose(k_means(points, 1, 1, 0)[0], points.mean(axis=0), atol=1e-5)


def test_the_command_clusters_the_rows_with_usable_captions(tmp_path: Path, pool: Path) -> None:
    out = tmp_path / "centroids.npy"
    given = [f"pool={pool}", f"out={out}", f"language={SMALL}"]
    assert COMMAND.answer([*given, "clusters=5"]) == 0
    parts = []
    for path in sorted(pool.glob("*.parquet")):
        kept = usable_captions(pq.read_table(path)["text"], SMALL)
        parts.append(np.load(path.with_suffix(".npz"))["l14_img"][kept])
    points = np.concatenate(parts).astype(np.float32)
    assert (np.load(out) == k_means(points, 5, 20, 0)).all()
    half = sample(list_pool(str(pool)), CentroidsConfig(str(pool), str(out), 5, 0.5, SMALL), tmp_path / "work")
    assert len(half) == sum(len(part) // 2 for part in parts)
    known = {tuple(row) for row in points.tolist()}
    assert all(tuple(row) in known for row in half.tolist()), "rows of the pool, whole"
    assert len(np.unique(half, axis=0)) < len(half), "drawn with replacement"


def test_what_is_clustered_is_that_of_the_files_one_by_one(tmp_path: Path, pool: Path) -> None:
    """For any number of workers, with draws by the place of a file, and found again by a run that was cut short."""
    files, parts = list_pool(str(pool)), []
    for number, path in enumerate(sorted(pool.glob("*.parquet"))):
        kept = usable_captions(pq.read_table(path)["text"], SMALL)
        part = np.load(path.with_suffix(".npz"))["l14_img"][kept]
        parts.append(part[np.random.default_rng([3, number]).integers(len(part), size=int(len(part) * 0.4))])
    expected = np.concatenate(parts).astype(np.float32)
    for workers in (1, 2):
        config = CentroidsConfig(str(pool), "", 5, 0.4, SMALL, seed=3, workers=workers)
        work = tmp_path / str(workers)
        assert np.array_equal(sample(files, config, work), expected)
    arrays = sorted(work.glob("drawn-*/*.npy"))
    before = [path.stat().st_mtime_ns for path in arrays]
    assert np.array_equal(sample(files, config, work), expected) and len(arrays) == len(files)
    assert [path.stat().st_mtime_ns for path in arrays] == before
    later = [file._replace(number=number) for number, file in enumerate(files[1:])]  # other places, other draws
    assert not np.isin(sample(later, config, work), expected[len(parts[0]) :]).all()


def test_a_killed_clustering_continues(
    tmp_path: Path, pool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "centroids.npy"
    given = [f"pool={pool}", f"out={out}", f"language={SMALL}", "clusters=5", "workers=1"]

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("curate.centroids.k_means", killed)
        with pytest.raises(KeyboardInterrupt):
            COMMAND.answer(given)
    assert not out.exists() and out.with_name("centroids.npy.work").exists()
    assert COMMAND.answer(given) == 0
    assert "continuing: 3 of 3 files are done" in capsys.readouterr().err
    assert out.exists() and not out.with_name("centroids.npy.work").exists()


def test_a_pool_without_embeddings_and_wrong_keys_are_one_line(tmp_path: Path) -> None:
    bare = write_metadata(tmp_path / "bare", files=1, rows=20, npz=False)
    given = [f"pool={bare}", f"out={tmp_path}/c.npy", f"language={SMALL}"]
    with pytest.raises(UserError, match=r"0000.parquet has no .npz beside it, in which l14_img would be"):
        COMMAND.answer(given)
    with pytest.raises(UserError, match="ratio= is above 0 and at most 1"):
        COMMAND.answer([*given, "ratio=0"])
    with pytest.raises(UserError, match="workers=0 must be positive"):
        COMMAND.answer([*given, "workers=0"])
    with pytest.raises(UserError, match="unknown word 'small'"):
        COMMAND.answer(["small", *given])
    assert not (tmp_path / "c.npy").exists()
