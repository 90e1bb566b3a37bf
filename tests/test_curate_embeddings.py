"""Selections by embeddings (vas, vas_d, norm_sim, neg_clip_loss), each against a few lines of float64."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from metadata import columns_of, write_file
from pools import uid_of
from selecting import curate, frame, selected, uids_of

from poolbench.files import read_json
from poolbench.uids import DTYPE, is_uid

from curate.models import forms
from curate.models.devices import CPU
from curate.scorers import vas_d
from curate.scorers.embeddings import AT_ONCE, finite_rows
from curate.scorers.neg_clip_loss import partitions_of

WIDTH, TOP = 12, np.finfo(np.float32).max
SCORE = "clip_l14_similarity_score"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))


def vectors_of(rows: int, rng: np.random.Generator, kind: str) -> np.ndarray:
    """Embeddings; "odd" ones have any length, are equal to others, 0, or no numbers."""
    found = rng.normal(size=(rows, WIDTH)) + 0.3
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    if kind == "odd":
        found *= rng.choice([1, 1, 1, 1e-30, 1e-6, 1e18], (rows, 1))
        found[rng.random(rows) < 0.05] = 0
        found[rng.random(rows) < 0.05, 3] = rng.choice([np.nan, np.inf])
        found = np.where(rng.random((rows, 1)) < 0.3, found[:1], found)
        return found.astype(np.float32)
    return found.astype(np.float16)


def write_random(folder: Path, seed: int, kind: str = "odd", files: int = 4) -> Path:
    """A pool with ties, an empty file, a file of one row, malformed uids, and uids that stand twice."""
    rng = np.random.default_rng(seed)
    for number in range(files):
        rows = {1: 0, 2: 1}.get(number, int(rng.integers(100, 300))) if files > 1 else 250
        columns = columns_of(rows, 1000 * number)
        if rows > 12:
            columns["uid"][3], columns["uid"][5], columns["uid"][9] = "none", columns["uid"][4], uid_of(0)
        names = ("l14_img", "l14_txt", "b32_img", "b32_txt")
        write_file(folder / f"{number}.parquet", columns, {name: vectors_of(rows, rng, kind) for name in names})
    return folder


def write_targets(path: Path, rows: int = 60, seed: int = 99, kind: type[np.floating[Any]] = np.float16) -> Path:
    found = vectors_of(rows, np.random.default_rng(seed), "unit").astype(kind)
    found[3] = 0  # one of them that is like nothing
    np.save(path, found)
    return path


def embeddings(pool: Path, name: str = "l14_img") -> np.ndarray:
    """Of all rows, float64; rows that are no numbers are NaN throughout."""
    found = np.concatenate([np.load(path)[name] for path in sorted(pool.glob("*.npz"))]).astype(np.float64)
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found


def single(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.clip(values, -TOP, TOP).astype(np.float32)
    return found


def best(rows: pd.DataFrame, scores: np.ndarray, fraction: float, among: np.ndarray | None = None) -> np.ndarray:
    """A mask of exactly int(fraction N) rows, in the order of score, uid and place."""
    good = rows.uid.map(is_uid).to_numpy() & ~np.isnan(scores)
    if among is not None:
        good &= among
    order = sorted(np.flatnonzero(good), key=lambda row: (-scores[row], rows.uid[row], row))
    kept = np.zeros(len(rows), bool)
    kept[order[: int(len(rows) * fraction)]] = True
    return kept


def variance(vectors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return single(((vectors @ (targets.T @ targets)) * vectors).sum(1) / len(targets))


def plain_scores(spec: dict[str, Any], pool: Path) -> np.ndarray:
    """The method's scores, float32 [rows of the pool]."""
    vectors = embeddings(pool)
    if spec["filter"] == "neg_clip_loss":
        return plain_losses(spec, pool)
    targets = np.load(spec["targets"]).astype(np.float64)
    if spec["filter"] == "vas":
        return variance(vectors, targets)
    products = np.abs(vectors @ targets.T)
    return single(products.max(1) if spec["p"] == "inf" else np.sqrt((products**2).sum(1)))


def plain_losses(spec: dict[str, Any], pool: Path) -> np.ndarray:
    temperature, found = spec["temperature"], []
    for path in sorted(pool.glob("*.npz")):
        arrays = np.load(path)
        left, right = arrays["l14_img"].astype(np.float64), arrays["l14_txt"].astype(np.float64)
        scores = np.zeros(len(left))
        used = np.flatnonzero(np.isfinite(left).all(1) & np.isfinite(right).all(1))
        for batches in partitions_of(len(used), path.stem, spec["batch"], spec["partitions"], spec["seed"]):
            for batch in batches:
                at = used[batch]
                if len(at):
                    logits = left[at] @ right[at].T / temperature
                    own = np.diag(logits)[:, None]
                    sums = log_sum(logits - own) + log_sum(logits.T - own)
                    scores[at] -= temperature / 2 * sums / spec["partitions"]
        scores[np.setdiff1d(np.arange(len(left)), used)] = np.nan
        found.append(scores)
    return single(np.concatenate(found))


def log_sum(logits: np.ndarray) -> np.ndarray:
    top: np.ndarray = logits.max(1)
    found: np.ndarray = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    return found


def plain(spec: dict[str, Any], pool: Path, rows: pd.DataFrame) -> np.ndarray:
    """Which rows are kept, as the design says it."""
    among = plain(spec["of"], pool, rows) if "of" in spec else None
    if spec.get("clip_fraction") is not None:
        among = best(rows, rows[SCORE].to_numpy(), spec["clip_fraction"], among)
    if spec["filter"] == "vas_d":
        return plain_rounds(spec, embeddings(pool), rows, among)
    return best(rows, plain_scores(spec, pool), spec["fraction"], among)


def plain_rounds(spec: dict[str, Any], vectors: np.ndarray, rows: pd.DataFrame, among: np.ndarray | None) -> np.ndarray:
    good = rows.uid.map(is_uid).to_numpy() & np.isfinite(vectors).all(1)
    left, target = good if among is None else good & among, int(len(rows) * spec["fraction"])
    base, step = vectors[good], -(-(left.sum() - target) // spec["rounds"])
    for number in range(spec["rounds"]):
        keep = target if number == spec["rounds"] - 1 else max(target, left.sum() - step)
        if keep >= left.sum():
            break
        left = best(rows, variance(vectors, base), (keep + 0.5) / len(rows), left)
        base = vectors[left]
    return np.asarray(left)


def specs(targets: Path) -> dict[str, dict[str, Any]]:
    named = {"targets": str(targets)}
    loss = {"filter": "neg_clip_loss", "temperature": 0.01, "batch": 50, "partitions": 3, "seed": 0, "fraction": 0.5}
    inf = {"filter": "norm_sim", "p": "inf", "fraction": 0.2, **named}
    return {
        "vas": {"filter": "vas", "fraction": 0.2, "clip_fraction": 0.5, **named},
        "vas_alone": {"filter": "vas", "fraction": 0.45, **named},
        "vas_d": {"filter": "vas_d", "fraction": 0.2, "clip_fraction": 0.6, "rounds": 7},
        "vas_d_alone": {"filter": "vas_d", "fraction": 0.3, "rounds": 1},
        "norm_sim_2": {"filter": "norm_sim", "p": "2", "fraction": 0.3, **named},
        "norm_sim_inf": inf,
        "loss": loss,
        "loss_one_batch": {**loss, "batch": 10**6, "temperature": 0.07},
        "both": {**inf, "of": loss},
        "dynamic": {"filter": "vas_d", "fraction": 0.2, "rounds": 5, "of": {**loss, "fraction": 0.4}},
        "three": {"filter": "vas", "fraction": 0.1, "clip_fraction": 0.3, **named, "of": loss},
    }


NAMES = sorted(specs(Path()))


def described(path: Path, spec: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(spec))
    return f"filter={path}"


@pytest.mark.parametrize("kind", ["odd", "unit"])
@pytest.mark.parametrize("name", NAMES)
def test_a_method_keeps_what_double_precision_keeps(tmp_path: Path, name: str, kind: str) -> None:
    for seed in (1, 2):
        pool = write_random(tmp_path / f"pool-{seed}", seed, kind)
        spec = specs(write_targets(tmp_path / "targets.npy"))[name]
        rows, word = frame(pool), described(tmp_path / "filter.yaml", spec)
        out = tmp_path / f"{seed}.npy"
        status = curate(word, f"pool={pool}", f"out={out}")
        assert status == 1  # of the malformed uids
        wanted = plain(spec, pool, rows)
        np.testing.assert_array_equal(np.load(out), uids_of(rows[wanted]))
        summary = read_json(f"{out}.json")
        no_numbers = [count for what, count in summary["counts"].items() if what.endswith("is NaN")]
        assert summary["kept"] == wanted.sum() and (kind == "unit" or max(no_numbers) > 0)


@pytest.mark.parametrize("name", NAMES)
def test_workers_parts_blocks_and_files_make_no_difference(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = write_random(tmp_path / "pool", 3)
    spec = specs(write_targets(tmp_path / "targets.npy"))[name]
    word = described(tmp_path / "filter.yaml", spec)

    def made(out: str, *words: str) -> bytes:
        places = [f"pool={pool}", f"out={tmp_path / out}", f"columns={tmp_path / out}.columns"]
        assert curate(word, *places, *words) in (0, 1)
        return (tmp_path / out).read_bytes()

    first = made("one.npy")
    monkeypatch.setattr(forms, "_ROWS", 7)
    monkeypatch.setattr(forms, "MANY", 9)
    monkeypatch.setattr("curate.models.devices.CPU", CPU._replace(side=11, strip=5))
    assert made("blocks.npy") == first
    if spec["filter"] == "vas_d":
        monkeypatch.setattr(vas_d, "_MOST", 2)  # files of a group; there are four
        monkeypatch.setattr(vas_d, "AT_ONCE", 64)
        monkeypatch.setattr(vas_d, "_LOOKED_AT", 50)
        assert made("groups.npy") == first
    if name in ("vas", "vas_d", "both"):
        assert made("workers.npy", "workers=2") == first
    for number in (2, 1, 3):
        place = [f"pool={pool}", f"out={tmp_path}/parts.npy", f"columns={tmp_path}/parts"]
        assert curate(word, *place, f"part={number}/3") in (0, 1)
    assert curate(word, f"pool={pool}", f"out={tmp_path}/parts.npy", f"columns={tmp_path}/parts") == 1
    assert (tmp_path / "parts.npy").read_bytes() == first


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("loss", "both", "three", "dynamic")])
def test_one_file_is_as_good_as_many(tmp_path: Path, name: str) -> None:
    """But for batches of pairs, which lie within a file."""
    many = write_random(tmp_path / "many", 4, "unit", files=3)
    rows = frame(many)
    arrays = {
        key: np.concatenate([np.load(path)[key] for path in sorted(many.glob("*.npz"))])
        for key in ("l14_img", "l14_txt")
    }
    write_file(tmp_path / "one" / "0.parquet", {key: rows[key].tolist() for key in ("uid", "text", SCORE)}, arrays)
    if name == "loss_one_batch":
        many = tmp_path / "one"
    word = described(tmp_path / "filter.yaml", specs(write_targets(tmp_path / "targets.npy"))[name])
    for pool in (many, tmp_path / "one"):
        curate(word, f"pool={pool}", f"out={tmp_path / pool.name}.npy")
    np.testing.assert_array_equal(np.load(tmp_path / f"{many.name}.npy"), np.load(tmp_path / "one.npy"))


def column_of(pool: Path, folder: str, column: str) -> np.ndarray:
    paths = sorted(pool.glob(f"columns/{folder}/*.parquet"))
    found: np.ndarray = np.concatenate([pd.read_parquet(path)[column].to_numpy() for path in paths])
    return found


def test_the_square_of_norm_sim_2_is_n_times_vas(tmp_path: Path) -> None:
    pool, targets = write_random(tmp_path / "pool", 5, "unit"), write_targets(tmp_path / "targets.npy")
    places = [f"pool={pool}", f"filter.targets={targets}", "filter.fraction=0.3"]
    assert curate("filter=vas", *places, f"out={tmp_path}/vas.npy") == 1
    assert curate("filter=norm_sim", "filter.p=2", *places, f"out={tmp_path}/norm.npy") == 1
    np.testing.assert_array_equal(np.load(tmp_path / "vas.npy"), np.load(tmp_path / "norm.npy"))
    vas, norm = column_of(pool, "vas-*", "vas"), column_of(pool, "norm_sim_2-*", "norm_sim_2")
    np.testing.assert_allclose(norm.astype(np.float64) ** 2, 60 * vas.astype(np.float64), rtol=3e-7)


def test_losses_are_those_of_clip(tmp_path: Path) -> None:
    """-T times the cross-entropy of both directions, as training has it; so no score is above 0."""
    import torch

    pool = write_random(tmp_path / "pool", 6, "unit", files=1)
    words = ["filter=neg_clip_loss", "filter.fraction=0.3", f"pool={pool}", f"out={tmp_path}/out.npy"]
    assert curate(*words) == 1
    arrays = np.load(pool / "0.npz")
    image, text = (torch.from_numpy(arrays[name]).double() for name in ("l14_img", "l14_txt"))
    logits, labels = image @ text.T / 0.01, torch.arange(len(image))
    losses = [torch.nn.functional.cross_entropy(one, labels, reduction="none") for one in (logits, logits.T)]
    found = column_of(pool, "neg_clip_loss-*", "neg_clip_loss")
    np.testing.assert_allclose(found, -0.01 * (losses[0] + losses[1]) / 2, rtol=1e-6, atol=1e-8)
    assert (found <= 0).all()


def test_batches_of_a_partition_are_equal_and_belong_to_a_file_and_a_seed() -> None:
    found = partitions_of(1000, "a", 300, 4, 0)
    for batches in found:
        assert [len(batch) for batch in batches] == [334, 333, 333]
        assert sorted(np.concatenate(batches)) == list(range(1000))
    assert not (found[0][0] == found[1][0]).all()
    for other in (partitions_of(1000, "b", 300, 4, 0), partitions_of(1000, "a", 300, 4, 1)):
        assert not (other[0][0] == found[0][0]).all()
    assert [len(batch) for batch in partitions_of(449, "a", 300, 1, 0)[0]] == [449]
    assert [len(batch) for batch in partitions_of(20, "a", 300, 1, 0)[0]] == [20]


def test_scores_that_are_there_serve_another_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, targets = write_random(tmp_path / "pool", 7, "unit"), write_targets(tmp_path / "targets.npy")
    for name in ("vas", "norm_sim", "neg_clip_loss", "vas_d"):
        given = [f"filter.targets={targets}"] if name in ("vas", "norm_sim") else []
        words = [f"filter={name}", *given, f"pool={pool}"]
        fraction = ["filter.fraction=0.2", "filter.fraction=0.5"][:: 1 if name != "vas_d" else 2]
        curate(*words, fraction[0], f"out={tmp_path}/{name}-a.npy")
        with monkeypatch.context() as patched:
            for function in ("Quadratic", "largest", "pair_losses"):
                for module in ("vas", "norm_sim", "neg_clip_loss", "vas_d"):
                    patched.setattr(f"curate.scorers.{module}.{function}", _never, raising=False)
            assert curate(*words, fraction[-1], f"out={tmp_path}/{name}-b.npy") == 1
    other = write_targets(tmp_path / "targets.npy", seed=100)  # under the same name
    assert (
        curate("filter=vas", f"filter.targets={other}", "filter.fraction=0.2", f"pool={pool}", f"out={tmp_path}/c.npy")
        == 1
    )
    spec = {"filter": "vas", "targets": str(other), "fraction": 0.2}
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), uids_of(frame(pool)[plain(spec, pool, frame(pool))]))


def _never(*_: Any) -> Any:
    raise AssertionError("scored again")


def _die_in_round(number: int, words: list[str]) -> None:
    keep = vas_d._Rounds._keep

    def dying(self: Any, done: int, *given: Any) -> None:
        keep(self, done, *given)
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    vas_d._Rounds._keep = dying  # type: ignore[method-assign, assignment]
    curate(*words)


def test_rounds_go_on_where_a_kill_has_left_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = write_random(tmp_path / "pool", 8)
    words = ["filter=vas_d", "filter.rounds=6", "filter.fraction=0.2", f"pool={pool}"]
    assert curate(*words, f"out={tmp_path}/whole.npy", f"columns={tmp_path}/whole") == 1
    again = [*words, f"out={tmp_path}/killed.npy", f"columns={tmp_path}/killed"]
    child = multiprocessing.get_context("fork").Process(target=_die_in_round, args=(4, again))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    done: list[int] = []
    keep = vas_d._Rounds._keep

    def noted(self: Any, number: int, *given: Any) -> None:
        done.append(number)
        keep(self, number, *given)

    monkeypatch.setattr(vas_d._Rounds, "_keep", noted)
    assert curate(*again) == 1
    assert done == [5, 6]
    assert (tmp_path / "killed.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_file_is_scored_piece_by_piece(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(13), AT_ONCE + 100
    arrays = {name: vectors_of(rows, rng, "odd") for name in ("l14_img", "l14_txt")}
    write_file(tmp_path / "pool" / "0.parquet", columns_of(rows), arrays)
    for name in ("vas", "norm_sim_inf", "vas_d_alone"):
        spec = specs(write_targets(tmp_path / "targets.npy"))[name]
        word, out = described(tmp_path / "filter.yaml", spec), tmp_path / f"{name}.npy"
        assert curate(word, f"pool={tmp_path}/pool", f"out={out}") == 0
        rows_ = frame(tmp_path / "pool")
        np.testing.assert_array_equal(np.load(out), uids_of(rows_[plain(spec, tmp_path / "pool", rows_)]))


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_rows_that_are_numbers_are_told_by_their_bits(kind: type[np.floating[Any]]) -> None:
    bits = np.arange(2**16, dtype=np.uint16)  # all that a float16 can be, and every leading half of a float32
    every = bits.view(np.float16) if kind == np.float16 else (bits.astype(np.uint32) << 16 | 1).view(np.float32)
    every = np.concatenate([every, np.array([np.inf, -np.inf, np.nan, np.finfo(kind).max], kind)])
    beside = np.zeros((len(every), 2), kind)
    beside[:, 1] = every
    np.testing.assert_array_equal(finite_rows(beside), np.isfinite(every))
    assert finite_rows(beside[:0]).shape == (0,) and finite_rows(beside[:, :0]).all()


def test_a_file_that_is_gone_between_rounds_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, keep = write_random(tmp_path / "pool", 11, "unit"), vas_d._Rounds._keep

    def losing(self: Any, number: int, *given: Any) -> None:
        keep(self, number, *given)
        if number == 2:
            (pool / "3.npz").rename(tmp_path / "gone")

    monkeypatch.setattr(vas_d._Rounds, "_keep", losing)
    words = ["filter=vas_d", "filter.rounds=4", "filter.fraction=0.2", f"pool={pool}", f"out={tmp_path}/out.npy"]
    assert curate(*words) == 2
    assert "3.parquet cannot be read" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "gone").rename(pool / "3.npz")
    assert curate(*words) == 1
    spec = {"filter": "vas_d", "rounds": 4, "fraction": 0.2}
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), uids_of(frame(pool)[plain(spec, pool, frame(pool))]))


def test_files_of_different_widths_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_random(tmp_path / "pool", 12, "unit", files=2)
    arrays = {name: np.ones((250, WIDTH + 1), np.float16) for name in ("l14_img", "l14_txt")}
    write_file(pool / "2.parquet", columns_of(250, 5000), arrays)
    assert curate("filter=vas_d", "filter.fraction=0.2", f"pool={pool}", f"out={tmp_path}/out.npy") == 2
    assert f"2.npz has embeddings of another width than {pool}/0.npz" in capsys.readouterr().err


def test_what_is_wrong_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, targets = write_random(tmp_path / "pool", 9, "unit", files=1), tmp_path / "targets.npy"

    def told(*words: Any, status: int = 2) -> str:
        capsys.readouterr()
        given = [f"pool={pool}", f"out={tmp_path}/out.npy", "filter.fraction=0.3"]
        assert curate(*words, *given, "overwrite=true") == status
        lines = [line for line in capsys.readouterr().err.splitlines() if "file" not in line[:4]]
        assert len(lines) == 1, lines
        return lines[0]

    vas = ["filter=vas", f"filter.targets={targets}"]
    for array, why in (
        (np.zeros((0, WIDTH), np.float16), "holds float16 [0, 12]"),
        (np.ones((3, WIDTH)), "holds float64; embeddings are float16 or float32"),
        (np.ones((3, WIDTH), int), "holds int64 [3, 12]"),
        (np.full((3, WIDTH), np.nan, np.float32), "holds embeddings that are no numbers"),
        (np.zeros((3, WIDTH), np.float16), f"filter.targets={targets} holds nothing but zeros"),
        (np.ones((3, WIDTH + 1), np.float32), "l14_img has 12 numbers a row, the targets 13"),
        (b"no array", "cannot be read"),
    ):
        targets.write_bytes(array) if isinstance(array, bytes) else np.save(targets, array)
        assert why in told(*vas)
        assert why in told("filter=norm_sim", f"filter.targets={targets}")
    assert "neither a file nor 'imagenet'" in told("filter=vas", "filter.targets=imagenot")
    write_targets(targets)
    assert "no array 'l15_img'" in told(*vas, "filter.embedding=l15_img")
    assert "filter.device=tpu is not known" in told(*vas, "filter.device=tpu")
    assert "filter.clip_fraction=1.5 must lie from 0 to 1" in told(*vas, "filter.clip_fraction=1.5")
    assert "filter.arch=l15 is not known" in told(*vas, "filter.arch=l15")
    assert "filter.p=3 is not known" in told("filter=norm_sim", f"filter.targets={targets}", "filter.p=3")
    for name, value in (("temperature", "0"), ("batch", "0"), ("partitions", "0"), ("seed", "-1")):
        assert f"filter.{name}={value}" in told("filter=neg_clip_loss", f"filter.{name}={value}")
    assert "filter.rounds=0" in told("filter=vas_d", "filter.rounds=0")
    assert "no array 'x_img'" in told("filter=neg_clip_loss", "filter.arch=x")
    rng = np.random.default_rng(0)
    for kind, why in ((np.float64, "l14_img holds float64 [12] a row"), (np.int64, "l14_img holds int64 [12] a row")):
        arrays = {name: (9 * vectors_of(250, rng, "unit")).astype(kind) for name in ("l14_img", "l14_txt")}
        write_file(pool / "0.parquet", columns_of(250), arrays)
        for words in (vas, ["filter=vas_d"], ["filter=neg_clip_loss"]):
            assert why in told(*words)
    (pool / "0.npz").unlink()
    assert "has no .npz beside it" in told(*vas)


def test_a_file_that_cannot_be_used_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, targets = write_random(tmp_path / "pool", 10, "unit"), write_targets(tmp_path / "targets.npy")
    (pool / "3.npz").unlink()
    for name, spec in specs(targets).items():
        if "of" not in spec:
            capsys.readouterr()
            word = described(tmp_path / "filter.yaml", spec)
            assert curate(word, f"pool={pool}", f"out={tmp_path}/{name}.npy") == 1
            assert "3.parquet has no .npz beside it" in capsys.readouterr().err
            assert read_json(tmp_path / f"{name}.npy.json")["bad_files"].keys() == {"3"}


def test_fewer_rows_than_are_asked_for_are_all_kept_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, targets = write_random(tmp_path / "pool", 11), write_targets(tmp_path / "targets.npy")
    good = embeddings(pool)
    wanted = uids_of(frame(pool)[frame(pool).uid.map(is_uid) & np.isfinite(good).all(1)])
    for name in ("vas", "vas_d", "norm_sim"):
        given = [] if name == "vas_d" else [f"filter.targets={targets}"]
        capsys.readouterr()
        assert curate(f"filter={name}", *given, "filter.fraction=1", f"pool={pool}", f"out={tmp_path}/{name}.npy") == 1
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), wanted)
        assert "are asked for" in capsys.readouterr().err


def test_ties_are_broken_by_uid(tmp_path: Path) -> None:
    """All rows have the same embedding, one file's stand before the others'."""
    targets = write_targets(tmp_path / "targets.npy")
    for number in range(3):
        one = np.tile(vectors_of(1, np.random.default_rng(1), "unit"), (100, 1))
        write_file(tmp_path / f"pool/{number}.parquet", columns_of(100, 100 * number), {"l14_img": one, "l14_txt": one})
    uids = np.sort(uids_of(frame(tmp_path / "pool")))
    for name, given in (("vas", targets), ("norm_sim", targets), ("vas_d", None), ("neg_clip_loss", None)):
        words = [f"filter={name}", "filter.fraction=0.5", f"pool={tmp_path}/pool"]
        words += [f"filter.targets={given}"] if given else []
        found = selected(tmp_path / f"{name}.npy", *words)
        assert found.dtype == DTYPE and len(found) == 150
        np.testing.assert_array_equal(found, uids[:150])
