"""Data that misbehave, from a folder, over HTTP and from S3: training goes on, counts and names what was injected."""

import bisect
import gzip
import itertools
import re
import resource
import tarfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import forked
import fsspec
import pytest
from faulty_server import Faulty, serving
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from pools import picture, sample, write_pool, write_tar
from test_crop import encode
from waiting import until

from poolbench import remote
from poolbench.command import compose
from poolbench.errors import UserError
from poolbench.files import read_json, read_lines
from poolbench.remote import Tally
from poolbench.shards import sources
from poolbench.shards.samples import CAPTION_LIMIT, Problem, Sample, read_shard
from poolbench.shards.sources import Data, resolve

from train import loop
from train.config import TrainConfig
from train.crop import decode
from train.order import Item, Plan, Stream, keyed

ROOT = Path(__file__).parent.parent
TAKEN = 100  # samples that a run here takes: the whole first block of its only stream
OPTIONS = (
    "scale=small",
    "precision=fp32",
    "recipe.model=test-tiny",
    "recipe.batch_size=20",
    f"recipe.samples={TAKEN}",
    "recipe.warmup=1",
    "recipe.streams=1",
    "recipe.shuffle_buffer=1000",
    "efficiency.workers=1",
)


class Shard(NamedTuple):
    """What is injected: what each sample of a shard is ("good", "unread" or "undecoded"), and whether the shard breaks
    off. That is told before the last sample, which may have lost members with the end of the tar."""

    samples: list[str]
    broken: bool = False

    @property
    def events(self) -> list[str]:
        return [*self.samples[:-1], *["broken"] * self.broken, *self.samples[-1:]]


def bad_samples() -> dict[str, tuple[str, dict[str, bytes]]]:
    """Each way in which a sample can be wrong: what becomes of it, its members."""
    good = sample(1)
    square = encode(Image.new("1", (10_000, 10_000)), "PNG")
    jpeg = picture(3, form="JPEG")
    return {
        "huge_png": ("undecoded", {**good, "png": square}),
        "huge_jpeg": ("undecoded", {**good, "png": encode(Image.new("L", (10_000, 10_000)), "JPEG")}),
        "bomb": (
            "undecoded",
            {**good, "png": with_chunk(good["png"], b"iCCP", b"x\0\0" + zlib.compress(bytes(2**27)))},
        ),
        "cut_jpeg": ("undecoded", {"jpg": jpeg[: len(jpeg) // 2], "txt": b"cut"}),
        "zeros": ("undecoded", {"jpg": bytes(5000), "txt": b"zeros"}),
        "empty_image": ("unread", {**good, "png": b""}),
        "no_image": ("unread", {"pdf": b"%PDF", "txt": b"a paper"}),
        "no_caption": ("unread", {"png": good["png"]}),
        "empty_caption": ("unread", {**good, "txt": b""}),
        "latin_caption": ("unread", {**good, "txt": "Füße".encode("latin-1")}),
        "long_caption": ("good", {**good, "txt": b"word " * 200_000}),
        "long_word": ("good", {**good, "txt": bytes(97 + n * n % 23 for n in range(2**20))}),
    }


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    return png[:33] + chunk + png[33:]


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Shard]]:
    """A pool with every fault in it, and what is in each of its shards."""
    folder = write_pool(tmp_path_factory.mktemp("bad") / "pool", 3, 20)
    injected = {path.name: Shard(["good"] * 20) for path in sorted(folder.iterdir())}
    faults = bad_samples()
    write_tar(
        folder / "samples.tar", [(f"s{n}", sample(n)) for n in range(5)] + [(k, m) for k, (_, m) in faults.items()]
    )
    injected["samples.tar"] = Shard(["good"] * 5 + [kind for kind, _ in faults.values()])
    twice = write_tar(folder / "twice.tar", [("a", sample(1)), ("b", sample(2)), ("b", sample(2)), ("c", sample(3))])
    injected[twice.name] = Shard(["good", "unread", "good"])
    whole = (folder / "00001.tar").read_bytes()
    second = whole.index(b"00000021.")  # the header of the second sample's first member
    for name, data, samples in (
        ("cut.tar", whole[: second + 700], ["good"]),
        ("joined.tar", whole + whole, ["good"] * 20),
        ("hole.tar", whole[:second] + bytes(2048) + whole[second + 2048 :], ["good"]),
        ("._mac.tar", b"no data", None),
        ("zeroed.tar", whole[:second] + b"\1" * 2048 + whole[second + 2048 :], ["good"]),
        ("page.tar", b"<html>404</html>" * 99, []),
        ("empty.tar", b"", []),
        ("missing.tar", whole, []),
    ):
        (folder / name).write_bytes(data)
        if samples is not None:
            injected[name] = Shard(samples, broken=True)
    return folder, dict(sorted(injected.items()))


def told(injected: dict[str, Shard], seed: int) -> tuple[dict[str, int], set[str]]:
    """How many bad samples and shards a run meets until it has its samples, counted from what was injected and the
    documented draws alone; and the shards it meets."""
    items, counts, met, names = 0, {"samples": 0, "shards": 0}, set(), list(injected)
    totals = list(itertools.accumulate([1.0] * len(names)))
    draw = -1
    while items < TAKEN:
        draw += 1
        name = names[bisect.bisect_right(totals, keyed(seed, 0, 0, draw).random() * totals[-1])]
        met.add(name)
        for kind in injected[name].events:
            counts["shards"] += kind == "broken"
            counts["samples"] += kind in ("unread", "undecoded")
            items += kind in ("good", "undecoded")
            if items <= 16:
                assert kind != "undecoded", "the seed has to be one with a reserve of good pictures"
            if items == TAKEN:
                break
    return counts, met


def lucky(injected: dict[str, Shard]) -> int:
    """The first seed with which a run meets every shard, the bad pictures behind the block's reserve."""
    for seed in range(10_000):
        try:
            if told(injected, seed)[1] == set(injected):
                return seed
        except AssertionError:
            continue
    raise AssertionError("no seed meets everything")


def run(out: Path, data: str, *more: str) -> Path:
    config = compose("train", [*OPTIONS, f"out={out}", f"data={data}", *more], TrainConfig)
    assert loop.train(config) == 0
    return config.folder


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_lines(folder / "metrics.jsonl")]


def assert_told(folder: Path, injected: dict[str, Shard], seed: int) -> None:
    """metrics.jsonl counts and bad_samples.jsonl names what was injected, no more and no less."""
    counts, _ = told(injected, seed)
    last = read_lines(folder / "metrics.jsonl")[-1]
    assert {"samples": last["bad_samples"], "shards": last["bad_shards"]} == counts
    assert read_json(folder / "run.json")["bad"] == counts
    named = {(line["shard"].rpartition("/")[2], line["key"]) for line in read_lines(folder / "bad_samples.jsonl")}
    bad_keys = {("samples.tar", key) for key, (kind, _) in bad_samples().items() if kind != "good"}
    broken = {(name, "") for name, shard in injected.items() if shard.broken}
    assert named == bad_keys | broken | {("twice.tar", "b")}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are given up in seconds, shards read in several pieces; forked workers inherit it."""
    for name, value in {"STALL": 4.0, "PATIENCE": 20.0, "PIECE": 2**18, "_PAUSES": (0.02, 0.2)}.items():
        monkeypatch.setattr(remote, name, value)
    monkeypatch.setattr(sources, "LISTING", 4.0)


def test_bad_data_in_a_folder(bad: tuple[Path, dict[str, Shard]], tmp_path: Path, monkeypatch: Any) -> None:
    folder, injected = bad
    seed = lucky(injected)
    copy = tmp_path / "pool"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)

    def resolve_and_lose(*arguments: Any) -> Data:
        data = resolve(*arguments)
        (copy / "missing.tar").unlink()
        return data

    monkeypatch.setattr(loop, "resolve", resolve_and_lose)
    done = run(tmp_path, str(copy), "name=folder", f"seed={seed}", "max_bad_share=0.9")
    assert_told(done, injected, seed)


def test_bad_data_over_a_bad_network(bad: tuple[Path, dict[str, Shard]], tmp_path: Path, impatient: None) -> None:
    """Errors that pass change nothing: neither what is counted nor what is trained on."""
    folder, injected = bad
    seed = lucky(injected)
    with serving(Faulty(folder, refused={"/missing.tar": 404})) as calm:
        quiet = run(tmp_path, calm.url, "name=quiet", f"seed={seed}", "max_bad_share=0.9")
    with serving(Faulty(folder, refused={"/missing.tar": 404}, busy_every=10)) as rough:
        rough.cut.update({"/00000.tar": 2, "/00001.tar": 1, "/samples.tar": 3})
        rough.stuck["/00002.tar"] = 1
        done = run(tmp_path, rough.url, "name=rough", f"seed={seed}", "max_bad_share=0.9")
        assert rough.failed > 10 and not +rough.cut and not +rough.stuck
    assert_told(done, injected, seed)
    assert losses(done) == losses(quiet)


@pytest.mark.slow
def test_bad_data_in_a_bad_bucket(
    bad: tuple[Path, dict[str, Shard]], tmp_path: Path, impatient: None, s3_port: int, monkeypatch: Any
) -> None:
    folder, injected = bad
    seed = lucky(injected)
    variables = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}
    with serving(Faulty(upstream=s3_port)) as rough:
        for name, value in {**variables, "ENDPOINT_URL": rough.url}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        store.mkdir("pools")
        for path in folder.iterdir():
            store.pipe(f"pools/bad/{path.name}", path.read_bytes())
        rough.refused["/pools/bad/missing.tar"] = 404
        rough.busy_every = 10
        rough.cut.update({"/pools/bad/00000.tar": 2, "/pools/bad/samples.tar": 1})
        rough.stuck["/pools/bad/00002.tar"] = 1
        done = run(tmp_path, "s3://pools/bad", "name=bucket", f"seed={seed}", "max_bad_share=0.9")
        assert rough.failed > 3 and not +rough.cut and not +rough.stuck
    assert_told(done, injected, seed)


def useless(folder: Path, kind: str) -> Path:
    """A pool of which no sample can be used."""
    whole = {f"{n:04d}": sample(n) for n in range(8)}
    tar = folder / "pool" / "0.tar"
    if kind == "gzip":
        write_tar(tar, whole.items()).write_bytes(gzip.compress(tar.read_bytes()))
    elif kind == "dotted":
        write_tar(tar, [(f"photo.{key}", members) for key, members in whole.items()])
    elif kind == "caption in the json":
        record = {"json": b'{"caption": "a cat"}'}
        write_tar(tar, [(key, {"jpg": one.get("jpg", b"x"), **record}) for key, one in whole.items()])
    elif kind == "apart":
        parts = [(key, {name: data}) for name in ("png", "txt") for key, one in whole.items() for data in [one[name]]]
        write_tar(tar, parts)
    elif kind == "names without an ending":
        write_tar(tar, []).write_bytes(b"")
        with tarfile.open(tar, "w") as file:
            file.addfile(tarfile.TarInfo("0001"))
    return tar


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("gzip", "0.tar: no tar but a gzip file: gunzip it (the commonest reason, 200 of 200 times)"),
        ("dotted", "key photo: no image: its members are .0000.json, .0000.png, .0000.txt, "),
        ("caption in the json", "key 0000: no caption: its members are .jpg, .json; the 'caption' of its .json is not"),
        ("apart", "key 0000: its members are not adjacent: .txt stands apart from .png; "),
        ("names without an ending", "0.tar: no sample in it: '0001' and the like have no extension"),
    ],
)
def test_a_pool_without_a_usable_sample_is_told_by_its_commonest_reason(tmp_path: Path, kind: str, told: str) -> None:
    data = resolve(str(useless(tmp_path, kind)))
    with pytest.raises(UserError, match="shards in a row held no sample with an image and a caption") as error:
        Stream(Plan(data.shards, None, seed=0, buffer=50), 0)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_too_much_bad_data_stops_every_process(tmp_path: Path) -> None:
    """The real command, as two processes that no launcher watches over: each has to find its own end."""
    half = [(f"{n}", sample(n) if n % 2 else {"txt": b"no picture"}) for n in range(40)]
    pool = write_tar(tmp_path / "half.tar", half)
    options = [f"data={pool}", f"out={tmp_path}", "name=half", *OPTIONS]
    options[options.index(f"recipe.samples={TAKEN}")] = "recipe.samples=2000"
    started = forked.world(2, "tests/run_train.py", *options)
    errors = [process.communicate(timeout=600)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], errors
    lines = [line for error in errors for line in error.splitlines() if line.startswith("error: ")]
    assert any("samples cannot be read, more than max_bad_share=0.01" in line for line in lines), errors
    assert all("key 0: no image: its members are .txt (the commonest reason" in line for line in lines), errors


@pytest.mark.parametrize("server", [{}, {"ranges": False}])
def test_what_passes_is_read_on_at_the_byte_reached(server: dict[str, Any], tmp_path: Path, impatient: None) -> None:
    pool = write_pool(tmp_path / "pool", 2, 20)
    for name in ("00000.tar", "00001.tar"):
        with serving(Faulty(pool, **server)) as rough:
            rough.busy_every, rough.cut[f"/{name}"], rough.stuck[f"/{name}"] = 7, 3, 1
            tally = Tally()
            assert list(read_shard(f"{rough.url}/{name}", 0, tally)) == list(read_shard(str(pool / name)))
            # The stalled answer and those that were cut, whatever else came between.
            assert tally == Tally(retries=rough.failed) and rough.failed >= 4


def test_retries_travel_with_the_block(tmp_path: Path, impatient: None) -> None:
    pool = write_pool(tmp_path / "pool", 1, 20)
    with serving(Faulty(pool)) as rough:
        rough.cut["/00000.tar"] = 2
        stream = Stream(Plan(resolve(rough.url).shards, None, seed=0, buffer=50), 0)
        taken = [stream.take(position) for position in range(10)]
    assert sum(one.retries for one in taken) == 2
    assert [one.problems for one in taken] == [[]] * 10


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "there is no such file"), (403, "403, message='Forbidden'"), (416, "status 416")]
)
def test_what_stays_is_told_at_once(status: int, reason: str, tmp_path: Path, impatient: None) -> None:
    with serving(Faulty(tmp_path, refused={"/a.tar": status})) as server:
        tally = Tally()
        (problem,) = read_shard(f"{server.url}/a.tar", 0, tally)
        assert server.gets == {"/a.tar": 1}
    assert isinstance(problem, Problem) and problem.key == "" and tally == Tally()
    assert problem.reason.startswith("cannot be read: ") and reason in problem.reason and "\n" not in problem.reason


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_store_that_stays_away_is_given_up(
    status: int, tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 2.0)
    with serving(Faulty(tmp_path, refused={"/a.tar": status})) as server:
        tally = Tally()
        (problem,) = read_shard(f"{server.url}/a.tar", 0, tally)
        tries = server.gets["/a.tar"]
    assert isinstance(problem, Problem) and re.match(rf"cannot be read after {tries} tries in \d+ s: ", problem.reason)
    assert tally == Tally(retries=tries - 1, given_up=1) and tries > 3


def test_a_store_that_is_down_ends_the_run(tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.3)
    pool = write_pool(tmp_path / "pool", 3, 5)
    with serving(Faulty(pool)) as server:
        plan = Plan(resolve(server.url).shards, None, seed=0, buffer=50)
        server.busy_every = 1
        with pytest.raises(
            UserError, match=r"2 shards in a row could not be reached, the last was http.*\.tar"
        ) as caught:
            Stream(plan, 0)
        with pytest.raises(UserError, match=r"cannot be listed after \d+ tries in") as listing:
            resolve(server.url)
    assert "\n" not in str(caught.value) + str(listing.value)


def test_a_listing_waits_for_a_busy_store(tmp_path: Path, impatient: None) -> None:
    pool = write_pool(tmp_path / "pool", 2, 2)
    with serving(Faulty(pool)) as server:
        server.cut["/"] = server.stuck["/"] = 1
        names = [shard.name for shard in resolve(server.url).shards]
        assert names == ["00000.tar", "00001.tar"] and server.failed == 2


def test_a_shard_shorter_than_listed_is_told(tmp_path: Path, impatient: None) -> None:
    pool = write_pool(tmp_path / "pool", 1, 5)
    data = (pool / "00000.tar").read_bytes()
    fsspec.filesystem("memory").pipe("/short.tar", data)
    whole = list(read_shard("memory://short.tar", len(data)))
    assert whole == list(read_shard(str(pool / "00000.tar")))
    fsspec.filesystem("memory").pipe("/short.tar", data[:-30_000])
    problem = list(read_shard("memory://short.tar", len(data)))[-1]
    assert isinstance(problem, Problem)
    assert problem.reason == f"cannot be read: it has {len(data) - 30_000:,} bytes, {len(data):,} were listed"


class Stalling(MemoryFileSystem):  # type: ignore[misc]
    """A store without an event loop whose first read never ends."""

    protocol = "stalling"
    stalled = threading.Event()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("stalling://", "memory://"))
        return stripped

    def cat_file(self, *arguments: Any, **options: Any) -> bytes:
        if not self.stalled.is_set():
            self.stalled.set()
            time.sleep(60)
        content: bytes = super().cat_file(*arguments, **options)
        return content


def test_any_filesystem_may_stall(tmp_path: Path, impatient: None) -> None:
    fsspec.register_implementation("stalling", Stalling, clobber=True)
    Stalling.stalled.clear()
    path = write_pool(tmp_path / "pool", 1, 5) / "00000.tar"
    fsspec.filesystem("memory").pipe("/x.tar", path.read_bytes())
    tally = Tally()
    assert list(read_shard("stalling://x.tar", 0, tally)) == list(read_shard(str(path)))
    assert tally == Tally(retries=1)


def held() -> tuple[int, int, int]:
    """Open files, threads, and megabytes of memory of this process, without the test's own server: it has a thread and
    a socket for each connection."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    names = [thread.name for thread in threading.enumerate()]
    of_server = sum("process_request_thread" in name for name in names)
    files = len(list(Path("/proc/self/fd").iterdir()))
    return files - of_server, len(names) - of_server, pages * resource.getpagesize() >> 20


@pytest.mark.slow
def test_a_hundred_faulty_shards_leave_nothing_behind(
    bad: tuple[Path, dict[str, Shard]], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "STALL", 0.3)
    folder, injected = bad
    pool = folder / "00000.tar"

    def read_all(server: Faulty) -> None:
        for name in injected:
            for place in (str(folder / name), f"{server.url}/{name}"):
                for found in read_shard(place):
                    if isinstance(found, Sample) and found.key.startswith(("huge", "bomb", "cut")):
                        with pytest.raises(ValueError):
                            decode(found.members["png"] if "png" in found.members else found.members["jpg"])
        server.stuck[f"/{pool.name}"] = server.cut[f"/{pool.name}"] = 1
        next(read_shard(f"{server.url}/{pool.name}"))  # and never read to its end

    with serving(Faulty(folder, refused={"/missing.tar": 404}, busy_every=10)) as server:
        read_all(server)
        files, threads, memory = held()
        for _ in range(4):
            read_all(server)
        assert server.failed > 20
        # A connection or two are kept for the next request; the others are still being closed on the other side.
        until(lambda: held()[0] <= files + 2 and held()[1] <= threads)
        assert held()[2] < memory + 60


def test_long_captions_keep_what_a_model_reads(tmp_path: Path) -> None:
    from open_clip import get_tokenizer

    tokenizer = get_tokenizer("ViT-B-32")
    texts = [
        "a  b\n c " * 9000,
        "  " + "x " * 20_000,
        "word " * 3000,
        "é😀 &amp; <b> " * 1500,
        "0" * 9000,
        " a" + "\n" * 6000 + "b",
    ]
    path = write_tar(tmp_path / "x.tar", [(str(n), {**sample(n), "txt": t.encode()}) for n, t in enumerate(texts)])
    stream = Stream(Plan(resolve(str(path)).shards, None, seed=0, buffer=60), 0)
    found = {item.key: item.caption for item in (stream.take(n).item for n in range(6)) if isinstance(item, Item)}
    assert len(found) == len(texts)
    for key, caption in found.items():
        assert len(caption) <= CAPTION_LIMIT
        assert tokenizer([caption]).equal(tokenizer([texts[int(key)]])), key
