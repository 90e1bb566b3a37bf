"""The demo data: their formats, what is held out, and that the same packages give the same bytes."""

import hashlib
import importlib.util
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pools import by_webdataset

from poolbench.command import compose
from poolbench.errors import UserError
from poolbench.files import digest_file
from poolbench.subset import Subset

from demodata import pool as demo_module
from demodata.emoji import HELD_OUT_PERCENT, SIDE, uncompressed
from demodata.pool import VERSION, Demo, build, is_built
from demodata.samples import SHARD_SIZE
from leaderboard.models import read_leaderboard
from leaderboard.rank import constants
from tasks.lock import is_pinned, lock
from tasks.readers import open_data
from tasks.registry import select
from train import demo_time
from train.config import TrainConfig

ROOT = Path(__file__).parent.parent
Samples = list[dict[str, bytes]]
TASKS = {task.key: task for task in select(["demo"])}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return build(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def pool(demo: Demo) -> Samples:
    return [sample for tar in sorted(demo.pool.glob("*.tar")) for sample in read_samples(tar)]


def read_samples(path: Path) -> Samples:
    """The samples of a tar, extension -> content, and "key"; by nothing but tarfile."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for entry in tar:
            assert entry.isfile()
            key, extension = entry.name.split(".", 1)
            file = tar.extractfile(entry)
            assert file is not None
            samples.setdefault(key, {"key": key.encode()})[extension] = file.read()
    return list(samples.values())


def pixels(png: bytes) -> bytes:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).tobytes()


def evaluation_samples(demo: Demo, key: str) -> Samples:
    split = demo.evaluation / TASKS[key].folder / "test"
    shards = int((split / "nshards.txt").read_text())
    assert sorted(path.name for path in split.glob("*.tar")) == [f"{shard}.tar" for shard in range(shards)]
    return [sample for shard in range(shards) for sample in read_samples(split / f"{shard}.tar")]


def right_ones(demo: Demo, pool: Samples) -> tuple[Samples, Samples]:
    """The samples that demo.right names, and the others."""
    subset = Subset(str(demo.right))
    told = [subset.count(json.loads(sample["json"])["uid"]) for sample in pool]
    assert set(told) == {0, 1}
    return [s for s, right in zip(pool, told, strict=True) if right], [
        s for s, right in zip(pool, told, strict=True) if not right
    ]


def captions_by_url(samples: Samples) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for sample in samples:
        found.setdefault(json.loads(sample["json"])["url"], []).append(sample["txt"].decode())
    return found


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): digest_file(path) for path in folder.rglob("*") if path.is_file()}


def test_shards_are_webdataset_with_uids(demo: Demo, pool: Samples) -> None:
    names = sorted(path.name for path in demo.pool.iterdir())
    assert names == [f"{shard:08d}.tar" for shard in range(len(names))]
    assert len(names) == -(-len(pool) // SHARD_SIZE)
    for sample in pool:
        assert set(sample) == {"key", "png", "txt", "json"}
        assert sample["txt"].decode("utf-8").strip()
        described = json.loads(sample["json"])
        assert len(described["uid"]) == 32 and int(described["uid"], 16) >= 0
        assert described["sha256"] == hashlib.sha256(sample["png"]).hexdigest()
    shard = by_webdataset([demo.pool / names[0]])
    assert [{"key": key.encode(), **members} for key, members in shard] == pool[:SHARD_SIZE]
    keys, uids = [s["key"] for s in pool], [json.loads(s["json"])["uid"] for s in pool]
    assert len(set(keys)) == len(set(uids)) == len(pool) > 5000


def test_pictures_are_rgb_of_the_models_size(demo: Demo, pool: Samples) -> None:
    evaluated = [sample for key in TASKS for sample in evaluation_samples(demo, key)]
    for sample in [*pool[::7], *evaluated]:
        image = Image.open(io.BytesIO(sample["png"]))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIDE, SIDE))
        assert len(image.getcolors(SIDE * SIDE) or ()) > 1, "a picture with nothing on it"


def test_metadata_describe_the_shards(demo: Demo, pool: Samples) -> None:
    (path,) = demo.metadata.iterdir()
    table = pq.read_table(path)
    assert table.column_names == [
        "uid", "url", "text", "original_width", "original_height", "sha256",
        "clip_b32_similarity_score", "clip_l14_similarity_score", "face_bboxes",
    ]  # fmt: skip
    rows = {row["uid"]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows == len(pool)
    for sample in pool:
        described = json.loads(sample["json"])
        row = rows[described["uid"]]
        assert row["text"] == sample["txt"].decode("utf-8")
        assert (row["url"], row["sha256"]) == (described["url"], described["sha256"])
        assert (row["original_width"], row["original_height"]) == Image.open(io.BytesIO(sample["png"])).size
        assert row["clip_b32_similarity_score"] is row["clip_l14_similarity_score"] is row["face_bboxes"] is None


def test_what_is_said_of_the_pools_size_is_true(pool: Samples) -> None:
    assert constants().pools["tiny"] == demo_time._SAMPLES == len(pool)
    assert f"dataset_size={len(pool)}" in (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in ("README.md", "docs/demo_data.md"):
        assert f"{len(pool):,} samples" in (ROOT / page).read_text(encoding="utf-8")


def test_one_picture_has_several_captions(demo: Demo, pool: Samples) -> None:
    said = captions_by_url(right_ones(demo, pool)[0])
    egypt = next(found for url, found in said.items() if url.endswith("/1F1EA-1F1EC.svg"))
    assert set(egypt) == {"Egypt", "egypt", "flag for Egypt", "flag: Egypt", "flag"}


def test_half_of_the_captions_are_another_pictures(demo: Demo, pool: Samples) -> None:
    right, wrong = right_ones(demo, pool)
    assert len(right) == len(np.load(demo.right)) and len(wrong) / len(pool) == pytest.approx(0.5, abs=0.001)
    own = {url: {caption.lower() for caption in found} for url, found in captions_by_url(right).items()}
    for url, found in captions_by_url(wrong).items():
        assert own[url].isdisjoint(caption.lower() for caption in found)
    # Neither a drawing nor a caption tells by itself.
    drawings = [Counter(hashlib.sha256(sample["png"]).hexdigest() for sample in some) for some in (right, wrong)]
    assert drawings[0].keys() == drawings[1].keys()
    said = [Counter(sample["txt"] for sample in some) for some in (right, wrong)]
    assert (said[0] & said[1]).total() > 0.98 * len(right)


def test_no_held_out_picture_is_in_the_pool(demo: Demo, pool: Samples) -> None:
    seen = {pixels(sample["png"]) for sample in pool}
    codes = {json.loads(sample["json"])["url"].rsplit("/", 1)[1].removesuffix(".svg") for sample in pool}
    for key in TASKS:
        for sample in evaluation_samples(demo, key):
            assert pixels(sample["png"]) not in seen
            assert sample["key"].decode() not in codes


def test_no_held_out_name_is_in_the_pool(demo: Demo, pool: Samples) -> None:
    said = {sample["txt"].decode().lower() for sample in pool}
    held_out = evaluation_samples(demo, "demo/openmoji_retrieval")
    names = [name.lower() for sample in held_out for name in sample["txt"].decode().split("\n")]
    assert said.isdisjoint(names)


def test_retrieval_captions_and_pictures_are_unique(demo: Demo) -> None:
    samples = evaluation_samples(demo, "demo/openmoji_retrieval")
    assert len(samples) == TASKS["demo/openmoji_retrieval"].samples
    assert len({pixels(sample["png"]) for sample in samples}) == len(samples)
    names = [name for sample in samples for name in sample["txt"].decode().split("\n")]
    assert len({name.lower() for name in names}) == len(names) >= len(samples)
    assert all(name.strip() == name != "" for name in names)
    folder = demo.evaluation / TASKS["demo/openmoji_retrieval"].folder
    assert "retrieval" in (folder / "dataset_type.txt").read_text()


@pytest.mark.parametrize("key", ["demo/openmoji", "demo/twemoji"])
def test_classification_sets_are_what_the_tasks_say(demo: Demo, key: str) -> None:
    task = TASKS[key]
    folder = demo.evaluation / task.folder
    classes = lines(folder / "classnames.txt")
    samples = evaluation_samples(demo, key)
    assert (len(samples), len(classes)) == (task.samples, task.classes)
    assert len(set(classes)) == len(classes)
    labels = Counter(int(sample["cls"]) for sample in samples)
    assert set(labels) == set(range(len(classes)))
    assert max(labels.values()) / len(samples) < 0.1  # docs/demo_data.md: what guessing one class gets
    assert all("{c}" in template for template in lines(folder / "zeroshot_classification_templates.txt"))


def test_the_shift_shows_the_same_things_otherwise(demo: Demo) -> None:
    plain, shifted = (evaluation_samples(demo, key) for key in ("demo/openmoji", "demo/twemoji"))
    assert [(s["key"], s["cls"]) for s in plain] == [(s["key"], s["cls"]) for s in shifted]
    assert all(pixels(one["png"]) != pixels(other["png"]) for one, other in zip(plain, shifted, strict=True))
    first, second = (demo.evaluation / TASKS[key].folder for key in ("demo/openmoji", "demo/twemoji"))
    for name in ("classnames.txt", "zeroshot_classification_templates.txt"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_every_word_of_a_class_name_is_in_the_pool(demo: Demo, pool: Samples) -> None:
    words = {word.strip(":") for sample in pool for word in sample["txt"].decode().split()}
    for name in lines(demo.evaluation / TASKS["demo/openmoji"].folder / "classnames.txt"):
        assert words.issuperset(name.split())


def test_labels_are_right_where_one_can_tell(demo: Demo) -> None:
    """Independent of our naming: flags are regional indicators, a firefighter's code points hold the fire engine."""
    classes = lines(demo.evaluation / TASKS["demo/openmoji"].folder / "classnames.txt")
    for sample in evaluation_samples(demo, "demo/openmoji"):
        points, name = sample["key"].decode().split("-"), classes[int(sample["cls"])]
        assert (name == "firefighter") == ("1F692" in points)
        if 0x1F1E6 <= int(points[0], 16) <= 0x1F1FF:
            assert name == "flag"


def test_the_held_out_share(demo: Demo, pool: Samples) -> None:
    held_out = len(evaluation_samples(demo, "demo/openmoji_retrieval"))
    kept = len({json.loads(sample["json"])["url"] for sample in pool})
    assert held_out / (held_out + kept) == pytest.approx(HELD_OUT_PERCENT / 100, abs=0.02)


@pytest.mark.slow
def test_the_same_bytes_each_time(demo: Demo, tmp_path: Path) -> None:
    """In another process, so that nothing the first build left in memory (hash seed, loaded languages) can help."""
    environment = {**os.environ, "POOLBENCH_CACHE": str(tmp_path), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", "from demodata.pool import build; build()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert tree(tmp_path / VERSION) == tree(demo.pool.parent)
    for word in ("CC BY-SA 4.0", "CC-BY 4.0", "OpenMoji", "Copyright 2019 Twitter"):
        assert word in done.stderr
    assert (tmp_path / VERSION / "CREDITS.md").read_text(encoding="utf-8") in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [VERSION]


def test_the_evaluation_sets_are_those_that_are_pinned(demo: Demo, tmp_path: Path) -> None:
    again = (
        "; if they are meant to be others, python -m tasks lock tasks=demo data=<cache>/<version>/evaluation pins them"
    )
    for key, task in TASKS.items():
        data = open_data(task, demo.evaluation)
        digest = data.digest({data.name_of(path): digest_file(path) for path in data.shards})
        assert is_pinned(key, digest), f"{key} has other data than tasks/demo/lock.json says, {digest}{again}"
    assert lock(list(TASKS.values()), tmp_path / "lock.json", demo.evaluation) == {}
    assert (tmp_path / "lock.json").read_bytes() == (ROOT / "tasks/demo/lock.json").read_bytes()


def test_the_bytes_of_an_evaluation_picture_follow_from_its_pixels(demo: Demo) -> None:
    """Compressed by another zlib, or as another kind of image, a picture gives the same file."""
    for key in TASKS:
        for sample in evaluation_samples(demo, key)[::50]:
            for level, mode in ((1, "RGB"), (9, "RGBA")):
                buffer = io.BytesIO()
                Image.open(io.BytesIO(sample["png"])).convert(mode).save(buffer, "PNG", compress_level=level)
                assert buffer.getvalue() != sample["png"] and pixels(buffer.getvalue()) == pixels(sample["png"])
                assert uncompressed(buffer.getvalue()) == sample["png"]


def test_a_second_build_does_nothing(demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.pool.parent.rglob("*")}
    assert build(demo.pool.parent.parent) == demo
    assert {path: path.stat().st_mtime_ns for path in demo.pool.parent.rglob("*")} == before
    assert capsys.readouterr().err == ""


def test_a_crash_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: Path) -> None:
        (folder / "pool").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_module, "_make", make)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_leavings_of_a_killed_process_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, young = tmp_path / f".{VERSION}.old", tmp_path / f".{VERSION}.young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "file").touch()
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    monkeypatch.setattr(demo_module, "_make", lambda folder: (folder / "made").touch())
    build(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([young.name, VERSION])
    assert (tmp_path / VERSION).stat().st_mode & 0o777 == 0o777 & ~_umask()


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_build_together, args=(tmp_path, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == [VERSION]
    assert (tmp_path / VERSION / "made").read_text() == "whole"


def test_the_time_that_the_demo_takes_is_counted_in_what_is_measured() -> None:
    config = compose("train", ["scale=tiny"], TrainConfig)
    quick, slow = demo_time.Pace(step=0.2, start=8.0), demo_time.Pace(step=0.4, start=16.0)
    one, three = (demo_time.forecast(config, seeds, quick, drawn=True) for seeds in (1, 3))
    assert config.steps * 0.2 < one.first < one.end and 2 * config.steps * 0.2 < one.end
    assert three.first == one.first and three.end - one.end == pytest.approx(4 * (one.first - 11.0) + 4 * 0.5 * 8.0)
    assert demo_time.forecast(config, 1, slow, drawn=True).end > 1.9 * one.end
    assert demo_time.forecast(config, 1, quick, drawn=False).first > one.first


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(4, "half a minute"), (31, "a minute"), (61, "1.5 minutes"), (181, "3.5 minutes"), (421, "7.5 minutes")],
)
def test_the_time_that_the_demo_takes_is_rounded_up(seconds: float, told: str) -> None:
    assert demo_time._minutes(seconds) == told


def test_the_time_that_the_demo_takes_is_told(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a model that steps in milliseconds, all of it is the start of commands."""
    monkeypatch.setenv("POOLBENCH_CACHE", str(demo.pool.parent.parent))
    assert is_built()
    words = ["seeds=0 1 2", "precision=fp32", "recipe.model=test-tiny", "recipe.samples=512", "recipe.warmup=1"]
    demo_time.main(words)
    told = capsys.readouterr().out
    assert told.startswith("On this machine the first result comes after about ")
    assert "\n6 trainings of 4 steps, " in told
    with pytest.raises(UserError, match="seeds= is needed"):
        demo_time.main(["seeds="])


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "resvg_py" else found(name))
    with pytest.raises(UserError, match=r"resvg_py: pip install -e '\.\[demo\]'") as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="POOLBENCH_CACHE"):
            build(root)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _build_together(root: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:
    def make(folder: Path) -> None:
        barrier.wait(20)  # all four are in the making before the first is done
        (folder / "made").write_text("whole")

    demo_module._make = make
    build(root)


@pytest.mark.slow
def test_make_demo_curates_and_compares(demo: Demo, tmp_path: Path) -> None:
    """The Makefile's commands as they stand, with few samples: 512 to train on, two shards to choose from."""
    (tmp_path / "small" / "pool").mkdir(parents=True)
    for tar in sorted(demo.pool.glob("*.tar"))[:2]:
        (tmp_path / "small" / "pool" / tar.name).symlink_to(tar)
    (tmp_path / "small" / "right.npy").symlink_to(demo.right)
    words = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/installed", "demo", "SEEDS=3"]
    words += [f"BIN={Path(sys.executable).parent}", f"POOLBENCH_CACHE={demo.pool.parent.parent}", "POOL=small"]
    words += ["PRECISION=precision=fp32 recipe.samples=512 recipe.warmup=1"]
    ours = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}  # not those of `make test`
    environment = {**ours, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.startswith("On this machine the first result comes after about ")
    made = tmp_path / "demo"
    kept = len(np.load(made / "clip_score.npy"))
    assert SHARD_SIZE <= kept < SHARD_SIZE + 20  # "Egypt" and "egypt" have the same score, and ties are kept
    (board,) = read_leaderboard(made / "leaderboard.json").boards[-1:]
    assert sorted((entry.method, entry.seed, entry.dataset_size) for entry in board.unranked) == [
        ("CLIP score of one half", 3, kept),
        ("no filter", 3, constants().pools["tiny"]),
    ]
    for name in ("index.html", "clip_score.html", "runs/clip_score-3/contact_sheet.png"):
        assert name in done.stdout and (made / name).stat().st_size > 10_000
