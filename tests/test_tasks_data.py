"""`python -m tasks download | verify | lock` against a local server that speaks the Hub's protocol."""

import os
import shutil
import signal
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
from waiting import until

from poolbench import PACKAGES
from poolbench.errors import status_of
from poolbench.files import digest_file, read_json

from tasks.command import VERBS
from tasks.registry import load_tasks
from tasks.verify import verify

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
    write_classification(root, TASKS[KITTI], classification_samples(711, 4), shards=3, known=True)
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
    for name in ("poolbench", *PACKAGES):
        shutil.copytree(ROOT / name, tmp_path / "package" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "package/tasks/lock.json").unlink(missing_ok=True)
    return tmp_path / "package"


class Command:
    """Runs `python -m tasks` in a process of its own, in a copy of the packages."""

    def __init__(self, package: Path, hub: Hub, home: Path) -> None:
        self.package = package
        self._environment = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": "", "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONPATH": str(package),
        }  # fmt: skip

    def __call__(self, *words: str, before: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.started(*words, before=before, **variables)
        output, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, output, errors)

    def started(self, *words: str, before: str = "", **variables: str) -> subprocess.Popen[str]:
        code = f"import poolbench.hub\npoolbench.hub.FIRST_PAUSE = 0.01\n{before}\nimport runpy\n"
        code += "runpy.run_module('tasks', run_name='__main__', alter_sys=True)"
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            cwd=self.package, env=self._environment | variables,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def run(package: Path, hub: Hub, tmp_path: Path) -> Command:
    return Command(package, hub, tmp_path / "home")


def test_everything_is_brought_once(run: Command, hub: Hub, origin: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    done = run("download", f"data={data}", CHOSEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(", not pinned\n") == 4 and "4 of 4 tasks are whole" in done.stdout
    assert done.stdout.count("4 of 4 tasks are not pinned: there is no lock file; python -m tasks lock pins them") == 1
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
    for file in record["files"]:
        assert file["sha256"] == digest_file(kitti / file["name"]), "of small files as well"
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


def test_a_server_without_ranges_sends_all_again(run: Command, hub: Hub, origin: Path, tmp_path: Path) -> None:
    hub.ranges = False
    hub.cut["test/0.tar"] = 1
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}").returncode == 0
    name = f"{TASKS[KITTI].folder}/test/0.tar"
    assert digest_file(tmp_path / "data" / name) == digest_file(origin / name) and hub.requests["test/0.tar"] == 2


def test_ctrl_c_ends_at_once_and_keeps_what_came(run: Command, hub: Hub, origin: Path, tmp_path: Path) -> None:
    """While it waits for a silent server, another download of the same folder keeps off."""
    hub.stuck = {"test/0.tar"}
    # A shell that starts the tests in the background makes its children deaf to Ctrl-C.
    hears = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    process = run.started("download", f"data={tmp_path}/data", f"tasks={KITTI}", before=hears)
    part = tmp_path / "data" / TASKS[KITTI].folder / ".download"
    whole = tmp_path / "data" / TASKS[KITTI].folder / "test/2.tar"
    size = (origin / TASKS[KITTI].folder / "test/0.tar").stat().st_size
    begun = "test-0.tar.*"
    until(lambda: whole.exists() and any(path.stat().st_size > size // 4 for path in part.glob(begun)), 300)
    other = run("download", f"data={tmp_path}/data", f"tasks={KITTI}")
    assert other.returncode == 1 and other.stderr.count("\n") == 1
    assert f"another download is at work in {part.parent}; wait for its end" in other.stderr
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)  # the server stays silent; a read of it would take 60 s
    assert process.returncode == 130 and errors == "interrupted; the same command continues where it stopped\n"
    hub.stuck = set()
    before = hub.sent["test/0.tar"]
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}").returncode == 0
    assert digest_file(part.parent / "test/0.tar") == digest_file(origin / TASKS[KITTI].folder / "test/0.tar")
    assert hub.sent["test/0.tar"] - before < size and hub.requests["test/2.tar"] == 1


def test_two_downloads_at_once_leave_right_files(run: Command, hub: Hub, origin: Path, tmp_path: Path) -> None:
    keys = [KITTI, FLICKR]
    both = [run.started("download", f"data={tmp_path}/data", f"tasks={','.join(keys)}") for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert all("another download is at work" in line for line in errors.splitlines()), errors
    assert {process.returncode for process in both} <= {0, 1}
    again = run("download", f"data={tmp_path}/data", f"tasks={','.join(keys)}", "offline=true")
    assert again.returncode == 0, again.stderr


def test_a_token_is_sent_where_one_is_asked(run: Command, hub: Hub, tmp_path: Path) -> None:
    hub.token = "secret"
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "it needs a token (HF_TOKEN)" in done.stderr
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}", HF_TOKEN="secret").returncode == 0


def test_no_server_is_told_in_one_line(run: Command, tmp_path: Path) -> None:
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", HF_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert f"{KITTI}: {TASKS[KITTI].source.repo} cannot be fetched: " in done.stderr


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
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", "jobs=1", before=limit)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"error: no room in {tmp_path}/data: " in done.stderr
    assert "test/0.tar cannot be written: File too large; what was fetched stays" in done.stderr
    parts = list((tmp_path / "data" / TASKS[KITTI].folder / ".download").glob("test-0.tar.*"))
    assert [path.stat().st_size for path in parts] == [size // 2]
    room = "import shutil\nshutil.disk_usage = lambda _: __import__('types').SimpleNamespace(free={})"
    missing = sum((origin / TASKS[KITTI].folder / f"test/{index}.tar").stat().st_size for index in range(3)) - size // 2
    requests = hub.requests.total()
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", before=room.format(missing - 1))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and hub.requests.total() == requests
    assert "B are still to be fetched, " in done.stderr and "B are free; the disk is too small" in done.stderr
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", before=room.format(missing + 1000))
    assert done.returncode == 0, "what is there of a file needs no room again"


def test_offline_fetches_nothing(run: Command, hub: Hub, tmp_path: Path) -> None:
    done = run("download", f"data={tmp_path}/data", CHOSEN, "offline=true")
    assert done.returncode == 1 and done.stderr.count("holds no finished download") == 4 and not hub.requests
    assert not (tmp_path / "data").exists()
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}").returncode == 0
    requests = hub.requests.total()
    assert run("download", f"data={tmp_path}/data", f"tasks={KITTI}", "offline=true").returncode == 0
    (tmp_path / "data" / TASKS[KITTI].folder / "test/1.tar").write_bytes(b"")
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", "offline=true")
    assert done.returncode == 1 and "1 files are missing or wrong: test/1.tar" in done.stderr
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "1 files are missing or wrong: test/1.tar" in done.stderr
    assert hub.requests.total() == requests
    (tmp_path / "data" / TASKS[KITTI].folder / ".source.json").write_text("{}")
    done = run("download", f"data={tmp_path}/data", f"tasks={KITTI}", "offline=true")
    assert done.returncode == 1 and ".source.json is damaged" in done.stderr


def test_training_splits_come_where_they_are_asked_for(run: Command, hub: Hub, tmp_path: Path) -> None:
    """At the locked commit, where there is a lock file; that one names test splits alone."""
    repo, data = TASKS[KITTI].source.repo or "", tmp_path / "data"
    folder = data / TASKS[KITTI].folder
    files = hub.repositories[repo]["main"]
    hub.repositories[repo][COMMIT] = files  # what a lock file asks for
    files |= {f"train/{name}": files[f"test/{name}"] for name in ("0.tar", "1.tar")} | {"train/nshards.txt": b"2\n"}
    chosen = f"data={data}", f"tasks={KITTI},{GEODE}"
    assert run("download", *chosen).returncode == 0 and not (folder / "train").exists()
    done = run("download", *chosen, "train=true")
    assert done.returncode == 0, done.stderr
    assert "no training split there" in next(line for line in done.stdout.splitlines() if line.startswith(GEODE))
    assert "no training split" not in next(line for line in done.stdout.splitlines() if line.startswith(KITTI))
    assert {path.name for path in (folder / "train").iterdir()} == {"0.tar", "1.tar", "nshards.txt"}
    done = run("verify", f"data={data}", f"tasks={KITTI}")
    assert "474 samples to train probes on, 474 test pictures among them" in done.stdout and done.returncode == 0
    (folder / "train/0.tar").unlink()
    assert run("download", *chosen, "offline=true").returncode == 0
    done = run("download", *chosen, "offline=true", "train=true")
    assert done.returncode == 1 and "1 files are missing or wrong: train/0.tar" in done.stderr

    assert run("lock", f"tasks={KITTI}").returncode == 0
    locked = read_json(run.package / "tasks/lock.json")["tasks"][KITTI]["files"]
    assert not [file for file in locked if file["name"].startswith("train/")]
    done = run("download", *chosen, "train=true")
    assert done.returncode == 0 and (folder / "train/0.tar").exists(), done.stderr


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
    content = read_json(package / "tasks/lock.json")
    assert (content["version"], content["endpoint"]) == (1, hub.url)
    locked = content["tasks"]
    assert set(locked) == set(KEYS) and locked[KITTI]["revision"] == COMMIT
    assert locked[KITTI]["licence"] == "cc-by-nc-4.0" and locked[GEODE]["licence"] is None
    for file in locked[KITTI]["files"]:
        assert set(file) == {"path", "name", "size", "sha256"}
        assert file["sha256"] == digest_file(origin / TASKS[KITTI].folder / file["path"])

    done = run("download", f"data={tmp_path}/data", CHOSEN)
    assert done.returncode == 0 and "not pinned" not in done.stdout
    done = run("verify", f"data={tmp_path}/data", f"tasks={KITTI}")
    assert done.returncode == 0 and done.stdout.startswith(f"{KITTI}: ok, 711 samples, 4 classes, pinned")
    line = scored(write_checkpoint(tmp_path / "model.pt"), tmp_path / "data", tmp_path / "out", [KITTI]).line(KITTI)
    assert line["data_digest"] == locked[KITTI]["data_digest"], "what an evaluation records can be compared with it"

    names = tmp_path / "data" / TASKS[KITTI].folder / "classnames.txt"
    names.write_text(f"{names.read_text()}three\n")
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
    other = run("verify", "data=.", f"tasks={KITTI},mnist")
    assert "1 of 2 tasks are not pinned: the lock file lock.json does not name them" in other.stdout


def test_a_repository_with_other_shards_than_it_tells_is_not_pinned(run: Command, hub: Hub, package: Path) -> None:
    files = hub.repositories[TASKS[KITTI].source.repo or ""]["main"]
    files["test/3.tar"] = files["test/2.tar"]
    done = run("lock", f"tasks={KITTI}")
    assert done.returncode == 1 and "holds 4 shards, but its test/nshards.txt tells '3'" in done.stderr
    assert "no lock file was written" in done.stdout and not (package / "tasks/lock.json").exists()


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


def another_name(folder: Path) -> None:
    names = (folder / "classnames.txt").read_text(encoding="utf-8").splitlines()
    (folder / "classnames.txt").write_text("\n".join([*names[:2], "a lorry", *names[3:]]), encoding="utf-8")


def a_wrong_label(folder: Path) -> None:
    samples = classification_samples(711, 4)
    samples[700][1]["cls"] = b"four"
    write_classification(folder.parent, TASKS[KITTI], samples, shards=3, known=True)


def a_bad_picture(folder: Path) -> None:
    samples = classification_samples(711, 4)
    extension = next(iter(samples[700][1]))
    samples[700][1][extension] = samples[700][1][extension][:50]
    write_classification(folder.parent, TASKS[KITTI], samples, shards=3, known=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_nothing, f"{KITTI}: ok, 711 samples, 4 classes, not pinned\n"),
        (drop_a_shard, "test/1.tar is missing"),
        (cut_a_shard, "1.tar (the rest of it): "),
        (repeat_a_shard, "237 keys occur more than once, the first is s0000000"),
        (add_a_class, "5 class names, the registry says 4"),
        (another_name, "  classnames.txt, line 3, is 'a lorry', known is "),
        (a_wrong_label, "2.tar: s0000700.cls holds 'four', not an integer"),
        (a_bad_picture, "2.tar s0000700: the picture cannot be decoded"),
        (lambda folder: shutil.rmtree(folder), "does not exist"),
    ],
)
def test_verify_says_what_is_wrong_and_where(
    damage: Callable[[Path], None],
    message: str,
    origin: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.verify.pinned", lambda key: None)
    folder = tmp_path / TASKS[KITTI].folder
    shutil.copytree(origin / TASKS[KITTI].folder, folder)
    damage(folder)
    assert verify([TASKS[KITTI]], tmp_path, images=True, jobs=1) == int(damage is not damage_nothing)
    assert message in capsys.readouterr().out


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
    assert "has no column of captions" in run("verify", f"data={tmp_path}/data", f"tasks={FLICKR}").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["download"], "data= is needed"),
        (["download", "data=x", "tasks=demo"], "these tasks need no download"),
        (["download", "data=x", "jobs=0"], "jobs=0: at least 1"),
        (["download", f"data={__file__}"], f"data={__file__} is not a folder"),
        (["verify", "data=/nowhere"], "data=/nowhere is not a folder"),
        (["verify", "data=.", "tasks=vtab/pest"], "did you mean 'vtab/pets'?"),
        (["lock", "tasks=demo"], "tasks=demo is pinned with data=<evaluation sets> that hold it"),
        (["lock", "tasks=aro"], "other tasks without data= where a repository of the hub holds their data"),
        (["lock", "tasks=mnist", "data=."], "other tasks without data="),
        (["dowload"], "did you mean 'download'?"),
        ([], "needs a command; known: list, download, verify, lock"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(lambda: VERBS.answer(words)) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
