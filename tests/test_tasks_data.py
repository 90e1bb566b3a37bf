"""`python -m tasks download | verify | lock` against a local server that speaks the Hub's protocol."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evalsets import (
    classification_samples,
    metadata_of,
    puzzles,
    retrieval_samples,
    scored,
    with_metadata,
    write_checkpoint,
    write_classification,
    write_parquet,
    write_puzzles,
)
from hub_server import COMMIT, Hub, serving

from conf.files import digest_file, read_json
from tasks.registry import load_tasks

ROOT = Path(__file__).parent.parent
TASKS = load_tasks()
KITTI, GEODE = "vtab/kitti_closest_vehicle_distance", "fairness/geode"
FLICKR, WINOGAVIL = "retrieval/flickr_1k_test_image_text_retrieval", "misc/winogavil"
PIECE = 1 << 16  # bytes
KEYS = [KITTI, GEODE, FLICKR, WINOGAVIL]
CHOSEN = f"tasks={','.join(KEYS)}"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as the repositories hold them; KITTI is complete."""
    root = tmp_path_factory.mktemp("origin")
    write_classification(root, TASKS[KITTI], classification_samples(711, 4), shards=3)
    samples = classification_samples(30, 40)
    labels = pa.array([int(members["cls"]) for _, members in samples]).to_numpy()
    write_classification(root, TASKS[GEODE], with_metadata(samples, metadata_of(TASKS[GEODE], labels)), shards=2)
    write_parquet(root / TASKS[FLICKR].folder / "TEST/test/0000.parquet", retrieval_samples(12))
    write_parquet(root / TASKS[FLICKR].folder / "TEST/test/0001.parquet", retrieval_samples(5, seed=1))
    folder = write_puzzles(root / "rows", TASKS[WINOGAVIL], puzzles(8), files=1)
    (root / TASKS[WINOGAVIL].folder / "default/test").mkdir(parents=True)
    shutil.move(folder / "0000.parquet", root / TASKS[WINOGAVIL].folder / "default/test/0000.parquet")
    (root / TASKS[KITTI].folder / "README.md").write_text("not for us")
    return root


@pytest.fixture
def hub(origin: Path) -> Iterator[Hub]:
    hub = Hub(licences={TASKS[KITTI].source.repo or "": "cc-by-nc-4.0"})
    for key in KEYS:
        source = TASKS[key].source
        assert source.repo is not None
        hub.add(source.repo, origin / TASKS[key].folder, source.revision or "main")
    with serving(hub):
        yield hub


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the packages, so that a lock file can lie in it."""
    for name in ("tasks", "conf", "train"):
        shutil.copytree(ROOT / name, tmp_path / "package" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "package/tasks/lock.json").unlink(missing_ok=True)
    return tmp_path / "package"


class Command:
    """Runs `python -m tasks` in a process of its own, in a copy of the packages."""

    def __init__(self, package: Path, hub: Hub, home: Path) -> None:
        self._package = package
        self._environment = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "PYTHONPATH": str(package),
        }  # fmt: skip

    def __call__(self, *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
        code = f"import tasks.hub\ntasks.hub.FIRST_PAUSE = 0.01\n{before}\nimport runpy\n"
        code += "runpy.run_module('tasks', run_name='__main__', alter_sys=True)"
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=self._package, env=self._environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture
def run(package: Path, hub: Hub, tmp_path: Path) -> Command:
    return Command(package, hub, tmp_path / "home")


def test_everything_is_brought_once(run: Command, hub: Hub, origin: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    done = run("download", f"data={data}", CHOSEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not pinned") == 4 and "4 of 4 tasks are whole" in done.stdout
    kitti = data / TASKS[KITTI].folder
    for name in ("classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt", "test/2.tar"):
        assert (kitti / name).read_bytes() == (origin / TASKS[KITTI].folder / name).read_bytes()
    assert not (kitti / "README.md").exists() and not (kitti / ".download").exists()
    assert sorted(path.name for path in (data / TASKS[FLICKR].folder).glob("*.parquet")) == [
        "TEST-test-0000.parquet",
        "TEST-test-0001.parquet",
    ]
    record = read_json(kitti / ".source.json")
    assert record["commit"] == COMMIT and record["licence"] == "cc-by-nc-4.0" and len(record["files"]) == 6
    requests = hub.requests.total()
    again = run("download", f"data={data}", CHOSEN)
    assert again.returncode == 0 and hub.requests.total() == requests, "nothing is fetched twice"
    (kitti / "test/1.tar").write_bytes(b"x" * (kitti / "test/1.tar").stat().st_size)
    (kitti / "test/0.tar").unlink()
    assert run("download", f"data={data}", CHOSEN).returncode == 0
    assert hub.requests.total() == requests + 2
    assert (kitti / "test/1.tar").read_bytes() == (origin / TASKS[KITTI].folder / "test/1.tar").read_bytes()
    assert run("verify", f"data={data}", f"tasks={KITTI}", "images=true").stdout.startswith(f"{KITTI}: ok, 711 samples")


def test_cut_connections_go_on_where_they_were(run: Command, hub: Hub, origin: Path, tmp_path: Path) -> None:
    hub.cut["test/0.tar"] = 2
    hub.busy["test/1.tar"] = 2
    hub.busy["classnames.txt"] = 1
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", "jobs=1")
    assert done.returncode == 0, done.stderr
    name = f"{TASKS[KITTI].folder}/test/0.tar"
    assert (tmp_path / "data" / name).read_bytes() == (origin / name).read_bytes()
    size = (origin / name).stat().st_size
    assert size <= hub.sent["test/0.tar"] <= size + 2 * PIECE, (
        "but for the last piece of each answer, nothing is sent twice"
    )


def test_an_interrupted_download_goes_on(run: Command, hub: Hub, origin: Path, tmp_path: Path) -> None:
    hub.cut["test/0.tar"] = 1
    hub.busy_after_cut = True
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}")
    name = f"{TASKS[KITTI].folder}/test/0.tar"
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"{KITTI}: {TASKS[KITTI].source.repo}/test/0.tar cannot be fetched: status 503" in done.stderr
    assert "0 of 1 tasks are whole" in done.stdout and not (tmp_path / "data" / name).exists()
    hub.busy_after_cut = False
    hub.busy.clear()
    size, before = (origin / name).stat().st_size, hub.sent["test/0.tar"]
    assert 0 < before < size
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}").returncode == 0
    assert size <= hub.sent["test/0.tar"] <= size + PIECE, "but for the last piece, nothing is sent twice"
    assert digest_file(tmp_path / "data" / name) == digest_file(origin / name)


@pytest.mark.parametrize("path", ["test/1.tar", "classnames.txt"])
def test_a_wrong_checksum_is_refused(path: str, run: Command, hub: Hub, origin: Path, tmp_path: Path) -> None:
    size = (origin / TASKS[KITTI].folder / path).stat().st_size
    hub.lies[path] = b"?" * size
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"{path} at {COMMIT}: its digest is" in done.stderr and "twice" in done.stderr
    assert hub.requests[path] == 2 and not (tmp_path / "data" / TASKS[KITTI].folder / path).exists()
    assert (tmp_path / "data" / TASKS[KITTI].folder / "test/0.tar").exists(), "what was right stays"
    hub.lies.clear()
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}").returncode == 0


def test_a_full_disk_is_told_in_one_line(run: Command, hub: Hub, origin: Path, tmp_path: Path) -> None:
    size = (origin / TASKS[KITTI].folder / "test/0.tar").stat().st_size
    # Writing behind half of a shard fails, as on a disk that fills up meanwhile.
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, {size // 2}))"
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", before=limit)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "cannot be written: File too large" in done.stderr
    room = "import shutil\nshutil.disk_usage = lambda _: __import__('types').SimpleNamespace(free=1000)"
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", before=room)
    assert done.returncode == 2 and "GB free, but" in done.stderr and done.stderr.count("\n") == 1
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}").returncode == 0


def test_offline_fetches_nothing(run: Command, hub: Hub, tmp_path: Path) -> None:
    done = run("download", f"data={tmp_path}/data", CHOSEN, "offline=true")
    assert done.returncode == 1 and done.stderr.count("holds no finished download") == 4 and not hub.requests
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}").returncode == 0
    requests = hub.requests.total()
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}", "offline=true").returncode == 0
    (tmp_path / "data" / TASKS[KITTI].folder / "test/1.tar").write_bytes(b"")
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", "offline=true")
    assert done.returncode == 1 and "1 files are missing or wrong: test/1.tar" in done.stderr
    assert hub.requests.total() == requests


def test_what_is_not_on_the_hub_is_told_and_the_rest_is_brought(run: Command, hub: Hub, tmp_path: Path) -> None:
    files = hub.repositories[TASKS[FLICKR].source.repo or ""]["refs/convert/parquet"]
    files["TEST/partial-test/0000.parquet"] = files.pop("TEST/test/0000.parquet")
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI},{FLICKR},mnist")
    assert done.returncode == 1 and "1 of 3 tasks are whole" in done.stdout
    assert f"{FLICKR}: {TASKS[FLICKR].source.repo}: the hub has converted only a part" in done.stderr
    assert "mnist: djghosh/wds_mnist_test cannot be fetched: there is no such file or repository" in done.stderr


# --- the lock file ---


def test_the_lock_pins_commit_files_and_digest(
    run: Command, hub: Hub, package: Path, origin: Path, tmp_path: Path
) -> None:
    done = run("lock", CHOSEN)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 tasks are pinned" in done.stdout
    locked = read_json(package / "tasks/lock.json")["tasks"]
    assert set(locked) == set(KEYS) and locked[KITTI]["revision"] == COMMIT
    assert locked[KITTI]["licence"] == "cc-by-nc-4.0" and locked[GEODE]["licence"] is None
    for file in locked[KITTI]["files"]:
        assert file["sha256"] == digest_file(origin / TASKS[KITTI].folder / file["path"])

    done = run("download", f"data={tmp_path}/data", CHOSEN)
    assert done.returncode == 0 and "not pinned" not in done.stdout
    done = run("verify", f"data={tmp_path}/data", f"tasks={KITTI}")
    assert done.returncode == 0 and done.stdout.startswith(f"{KITTI}: ok, 711 samples, 4 classes, pinned")
    line = scored(write_checkpoint(tmp_path / "model.pt"), tmp_path / "data", tmp_path / "out", [KITTI]).line(KITTI)
    assert line["data_digest"] == locked[KITTI]["data_digest"], "what an evaluation records can be compared with it"

    names = tmp_path / "data" / TASKS[KITTI].folder / "classnames.txt"
    names.write_text(names.read_text().replace("thing 3", "thing three"))
    done = run("verify", f"data={tmp_path}/data", f"tasks={KITTI}")
    assert done.returncode == 1 and "1 files are not those of the lock file, the first is classnames.txt" in done.stdout
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}").returncode == 0
    assert "three" not in names.read_text()


def test_locking_some_tasks_keeps_the_others(run: Command, hub: Hub, package: Path) -> None:
    assert run("lock", f"tasks={KITTI},{GEODE}").returncode == 0
    before = read_json(package / "tasks/lock.json")["tasks"]
    del hub.repositories[TASKS[GEODE].source.repo or ""]
    done = run("lock", f"tasks={GEODE},{FLICKR}")
    assert done.returncode == 1 and f"{GEODE}: " in done.stderr and "1 of 2 tasks are pinned" in done.stdout
    after = read_json(package / "tasks/lock.json")["tasks"]
    assert set(after) == {KITTI, GEODE, FLICKR} and {key: after[key] for key in before} == before
    (package / "tasks/lock.json").write_text(json.dumps({"version": 1, "tasks": {KITTI: {}}}))
    done = run("verify", "data=.", f"tasks={KITTI}")
    assert done.returncode != 0 and "lock.json" not in done.stdout


# --- verify ---


def damage_nothing(folder: Path) -> None:
    pass


def drop_a_shard(folder: Path) -> None:
    (folder / "test/1.tar").unlink()


def cut_a_shard(folder: Path) -> None:
    data = (folder / "test/1.tar").read_bytes()
    (folder / "test/1.tar").write_bytes(data[: len(data) // 2])


def repeat_a_shard(folder: Path) -> None:
    shutil.copy(folder / "test/0.tar", folder / "test/1.tar")


def add_a_class(folder: Path) -> None:
    with (folder / "classnames.txt").open("a") as file:
        file.write("one more\n")


def a_wrong_label(folder: Path) -> None:
    samples = classification_samples(711, 4)
    samples[700][1]["cls"] = b"four"
    write_classification(folder.parent, TASKS[KITTI], samples, shards=3)


def a_bad_picture(folder: Path) -> None:
    samples = classification_samples(711, 4)
    extension = next(iter(samples[700][1]))
    samples[700][1][extension] = samples[700][1][extension][:50]
    write_classification(folder.parent, TASKS[KITTI], samples, shards=3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_nothing, f"{KITTI}: ok, 711 samples, 4 classes, not pinned\n1 of 1 tasks have"),
        (drop_a_shard, "test/1.tar is missing"),
        (cut_a_shard, "1.tar (the rest of it): "),
        (repeat_a_shard, "237 keys occur more than once, the first is s0000000"),
        (add_a_class, "5 class names, the registry says 4"),
        (a_wrong_label, "2.tar: s0000700.cls holds 'four', not an integer"),
        (a_bad_picture, "2.tar s0000700: the picture cannot be decoded"),
        (lambda folder: shutil.rmtree(folder), "does not exist"),
    ],
)
def test_verify_says_what_is_wrong_and_where(
    damage: Callable[[Path], None], message: str, origin: Path, run: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / TASKS[KITTI].folder
    shutil.copytree(origin / TASKS[KITTI].folder, folder)
    damage(folder)
    done = run("verify", f"data={tmp_path}/data", f"tasks={KITTI}", "images=true", "jobs=2")
    assert message in done.stdout and done.stderr == ""
    assert done.returncode == int(damage is not damage_nothing)


def test_verify_counts_every_kind(run: Command, hub: Hub, tmp_path: Path) -> None:
    assert run("download", f"data={tmp_path}/data", CHOSEN).returncode == 0
    done = run("verify", f"data={tmp_path}/data", CHOSEN, "jobs=1")
    assert done.returncode == 1 and "1 of 4 tasks have the data" in done.stdout
    for line in (
        "30 samples, the registry says 12488",
        "17 samples, the registry says 1000",
        "8 samples, the registry says 3563",
    ):
        assert line in done.stdout
    table = pq.read_table(tmp_path / "data" / TASKS[FLICKR].folder / "TEST-test-0000.parquet")
    pq.write_table(table.drop_columns(["caption"]), tmp_path / "data" / TASKS[FLICKR].folder / "TEST-test-0000.parquet")
    assert "has no column 'caption'" in run("verify", f"data={tmp_path}/data", f"tasks={FLICKR}").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["download"], "data= is needed"),
        (["download", "data=x", "tasks=demo"], "these tasks need no download"),
        (["download", "data=x", "jobs=0"], "jobs=0: at least 1"),
        (["verify", "data=/nowhere"], "data=/nowhere is not a folder"),
        (["verify", "data=.", "tasks=vtab/pest"], "did you mean 'vtab/pets'?"),
        (["dowload"], "did you mean 'download'?"),
        ([], "needs a command; known: list, download, verify, lock"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, run: Command) -> None:
    done = run(*words)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
