"""One order: the same batches, sample for sample and pixel for pixel, however the work is divided or interrupted."""

import collections
import contextlib
import itertools
import multiprocessing
from pathlib import Path

import pytest
import torch
from pools import sample, uid_of, write_pool, write_tar

from poolbench.errors import UserError
from poolbench.shards.sources import resolve
from poolbench.subset import Subset
from poolbench.uids import write_subset

from train.loader import AHEAD, Batch, Share, batches
from train.order import Cursor, Plan, Stream

SIDE, STREAMS, BATCH, SAMPLES = 24, 8, 24, 24 * 9 + 12
FROZEN = [85, 53, 88, 53, 86, 37, 51, 53, 87, 51, 87, 54]  # numbers of the first samples of seed 0


def tokenizer(captions: list[str]) -> torch.Tensor:
    """A caption's number and letters, so that a test can tell the samples apart."""
    return torch.tensor([[int(c.rsplit(" ", 1)[-1]), len(c)] for c in captions], dtype=torch.int64)


def plan(pool: Path, seed: int = 0, subset: Path | None = None, buffer: int = 40) -> Plan:
    return Plan(resolve(str(pool)).shards, Subset(str(subset)) if subset else None, seed, buffer)


def share(rank: int = 0, world: int = 1, first_step: int = 0, cursors: dict[int, Cursor] | None = None) -> Share:
    return Share(rank, world, BATCH, SAMPLES, STREAMS, first_step, cursors or {})


def run(plan: Plan, share: Share, workers: int = 0) -> list[Batch]:
    options = {"size": SIDE, "crop_scale": (0.5, 1.0), "tokenizer": tokenizer, "pin": False}
    # Copied, as the memory of a batch is used again.
    return [one._replace(images=one.images.clone()) for one in batches(plan, share, workers=workers, **options)]


def same(left: Batch, right: Batch) -> bool:
    return torch.equal(left.images, right.images) and torch.equal(left.texts, right.texts)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), shards=6, per_shard=17)


@pytest.fixture(scope="module")
def whole(pool: Path) -> list[Batch]:
    """The batches of one process without workers."""
    return run(plan(pool), share())


def test_budget_is_exact(whole: list[Batch]) -> None:
    assert [len(batch.images) for batch in whole] == [24] * 9 + [12]
    assert whole[0].images.shape == (24, 3, SIDE, SIDE)
    assert whole[0].images.dtype == torch.uint8


def test_samples_are_mixed_and_drawn_with_replacement(whole: list[Batch]) -> None:
    numbers = torch.cat([batch.texts[:, 0] for batch in whole]).tolist()
    counts = collections.Counter(numbers)
    assert len(counts) > 60 and max(counts.values()) > 1
    assert numbers != sorted(numbers)
    assert not same(whole[0], whole[1])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(pool: Path, whole: list[Batch], workers: int) -> None:
    assert all(same(a, b) for a, b in zip(run(plan(pool), share(), workers), whole, strict=True))


def test_a_batch_stays_while_the_workers_run_ahead(pool: Path, whole: list[Batch]) -> None:
    """It is compared when the worker has put together all that it may before the next one is asked for."""
    made = multiprocessing.Semaphore(0)

    def told(captions: list[str]) -> torch.Tensor:
        made.release()  # the pictures are there already
        return tokenizer(captions)

    options = {"size": SIDE, "crop_scale": (0.5, 1.0), "tokenizer": told, "pin": False}
    with contextlib.closing(batches(plan(pool), share(), workers=1, **options)) as found:
        count = 0
        for step, batch in enumerate(found):
            while count < min(step + 1 + AHEAD, len(whole)):
                assert made.acquire(timeout=240), "it hangs"
                count += 1
            assert same(batch, whole[step])
    assert count == len(whole)


@pytest.mark.parametrize(("world", "workers"), [(2, 0), (2, 3), (4, 0), (4, 1), (3, 0), (3, 2), (12, 0), (12, 2)])
def test_processes_change_nothing(pool: Path, whole: list[Batch], world: int, workers: int) -> None:
    """Also where the processes do not divide the streams (3) or are more than there are (12)."""
    parts = [run(plan(pool), share(rank, world), workers) for rank in range(world)]
    for step, batch in enumerate(whole):
        images, texts = torch.empty_like(batch.images), torch.empty_like(batch.texts)
        for rank in range(world):
            images[rank::world], texts[rank::world] = parts[rank][step].images, parts[rank][step].texts
        assert torch.equal(images, batch.images) and torch.equal(texts, batch.texts)


@pytest.mark.parametrize("step", [1, 4, 9])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 3), (4, 1)])
def test_resume_goes_on_where_it_stopped(pool: Path, whole: list[Batch], step: int, before: int, after: int) -> None:
    """Also with another number of processes than before."""
    cursors: dict[int, Cursor] = {}
    for rank in range(before):
        cursors |= run(plan(pool), share(rank, before))[step - 1].cursors
    for rank in range(after):
        resumed = run(plan(pool), share(rank, after, step, cursors), workers=2)
        for batch, expected in zip(resumed, whole[step:], strict=True):
            assert torch.equal(batch.images, expected.images[rank::after])
            assert torch.equal(batch.texts, expected.texts[rank::after])


def test_seed_changes_the_order_and_the_crops(pool: Path, whole: list[Batch]) -> None:
    assert not any(same(a, b) for a, b in zip(run(plan(pool, seed=1), share()), whole, strict=True))


def test_order_is_frozen(pool: Path, whole: list[Batch]) -> None:
    """A change of these numbers changes every run that was ever started: it needs a new version of the recipes."""
    assert whole[0].texts[:12, 0].tolist() == FROZEN


def test_every_sample_comes_equally_often(pool: Path) -> None:
    stream = Stream(plan(pool, buffer=30), 0)
    counts = collections.Counter(stream.take(position).item.key for position in range(102 * 60))
    assert len(counts) == 102
    # Shards are drawn 360 times: a binomial with mean 60 and deviation 7 for each.
    assert min(counts.values()) > 60 - 5 * 7.1 and max(counts.values()) < 60 + 5 * 7.1


def test_shuffle_mixes_within_its_buffer(pool: Path) -> None:
    stream = Stream(plan(pool, buffer=100), 0)
    keys = [stream.take(position).item.key for position in range(400)]
    neighbours = sum(int(b) == int(a) + 1 for a, b in itertools.pairwise(keys))
    assert neighbours < 20, "unshuffled shards would have about 376"


def test_weights_upsample_a_source(tmp_path: Path) -> None:
    one, two = write_pool(tmp_path / "one", 2, 20), write_pool(tmp_path / "two", 3, 20, first=1000)
    shards = resolve([str(one), str(two)], [3.0, 1.0]).shards
    stream = Stream(Plan(shards, None, 0, 50), 0)
    numbers = [int(stream.take(position).item.key) for position in range(20 * 900)]
    share_of_one = sum(number < 1000 for number in numbers) / len(numbers)
    assert abs(share_of_one - 2 * 3 / (2 * 3 + 3)) < 5 * (0.22 / 900) ** 0.5


def test_subset_repeats_and_leaves_out(pool: Path, tmp_path: Path) -> None:
    chosen = {3: 1, 20: 2, 55: 5}
    write_subset(tmp_path / "subset.npy", [uid_of(n) for n, times in chosen.items() for _ in range(times)])
    stream = Stream(plan(pool, subset=tmp_path / "subset.npy", buffer=8), 0)
    counts = collections.Counter(int(stream.take(position).item.key) for position in range(4000))
    assert set(counts) == set(chosen)
    per_draw = {number: counts[number] / times for number, times in chosen.items()}
    assert max(per_draw.values()) < 1.5 * min(per_draw.values())


def test_subset_of_other_data_is_told(pool: Path, tmp_path: Path) -> None:
    write_subset(tmp_path / "subset.npy", [uid_of(999_999)])
    with pytest.raises(UserError, match="shards in a row held no sample of the subset"):
        Stream(plan(pool, subset=tmp_path / "subset.npy"), 0)


def test_samples_without_a_uid_are_told(tmp_path: Path) -> None:
    records = {"none": None, "cut": b"{", "list": b"[]", "deep": b"[" * 100_000, "short": b'{"uid": "abc"}'}
    bad = [(key, {**sample(n), "json": data}) for n, (key, data) in enumerate(records.items())]
    present = [(key, {name: data for name, data in members.items() if data is not None}) for key, members in bad]
    write_tar(tmp_path / "0.tar", [*present, ("good", sample(9))])
    write_subset(tmp_path / "subset.npy", [uid_of(9)])
    taken = Stream(plan(tmp_path, subset=tmp_path / "subset.npy", buffer=1), 0).take(0)
    assert taken.item.key == "good"
    reasons = {problem.key: problem.reason for problem in taken.problems}
    told = dict.fromkeys(("cut", "list", "deep"), "its .json holds no uid")
    assert reasons == {**told, "none": "no .json with a uid", "short": "uid 'abc' is not 32 hex digits"}


def test_bad_samples_are_replaced_and_told_alike_everywhere(tmp_path: Path) -> None:
    """Undecodable images, missing captions and an unreadable tar, with any division of the work."""
    good = write_pool(tmp_path / "pool", 3, 20)
    truncated = sample(500, "JPEG")
    truncated["jpg"] = truncated["jpg"][: len(truncated["jpg"]) // 2]
    speechless = {"png": sample(501)["png"], "json": b"{}"}
    write_tar(
        good / "00003.tar", [("a", truncated), ("b", speechless), *((f"c{n}", sample(n)) for n in range(600, 610))]
    )
    (good / "00004.tar").write_bytes(b"no tar at all" * 100)
    whole = run(plan(good), share())
    told = collections.Counter((Path(p.shard).name, p.key) for batch in whole for p in batch.problems)
    assert set(told) == {("00003.tar", "a"), ("00003.tar", "b"), ("00004.tar", "")}
    for world in (2, 3, 12):
        parts = [run(plan(good), share(rank, world), workers=rank % 3) for rank in range(world)]
        again = collections.Counter(
            (Path(p.shard).name, p.key) for part in parts for batch in part for p in batch.problems
        )
        assert again == told
        for step, batch in enumerate(whole):
            for rank in range(world):
                assert torch.equal(parts[rank][step].images, batch.images[rank::world])
        assert sum(batch.shards for part in parts for batch in part) == sum(batch.shards for batch in whole)


def test_nothing_readable_is_told(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"x" * 4096)
    with pytest.raises(UserError, match="shards in a row held no sample with an image and a caption"):
        run(plan(tmp_path), share())
    with pytest.raises(UserError, match="shards in a row"):  # from a worker, without its traceback
        run(plan(tmp_path), share(), workers=2)
