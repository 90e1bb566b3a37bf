"""bench/gpu.sh: what it brings, that it outlives its parts, and some of them rehearsed on the CPU."""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import forked
import pytest
from pools import write_pool

from tasks.registry import load_tasks

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "bench"))

import gpu  # noqa: E402
import gpu_bundle  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One without wheels: what they bring is installed here."""
    folder = tmp_path_factory.mktemp("bundle")
    pool, sets = write_pool(folder / "pool"), folder / "sets"
    (sets / "wds_x").mkdir(parents=True)
    (sets / "wds_x" / "classnames.txt").write_text("a\n")
    told = gpu_bundle.write_data(folder / "made", pool, sets, 2**20)
    assert told == "4 shards to train on, 1 evaluation sets"
    return folder / "made"


def wheel(folder: Path, name: str, version: str, *requires: str) -> Path:
    """A wheel with one module."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
    return path


def test_what_the_machine_has_stays_unless_another_wheel_cannot_use_it(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    copy.mkdir()
    os.link(bundle / "data.tar.gz", copy / "data.tar.gz")
    wheel(copy / "wheels", "not_there_at_all", "1.0")
    wheel(copy / "wheels", "tqdm", "99.0", "packaging>=1")
    wheel(copy / "wheels", "packaging", "99.0")
    wheel(copy / "wheels", "pydantic", "99.0", "requests>=99; python_version > '3'", "tqdm>=99; extra == 'more'")
    wheel(copy / "wheels", "requests", "99.0")
    wheel(copy / "peer", "webdataset", "0.2.31")
    found = gpu_bundle.unpack(copy, tmp_path / "work")
    assert {path.name for path in found.site.glob("*.py")} == {"not_there_at_all.py", "requests.py"}
    assert [path.name for path in found.peer.glob("*.py")] == ["webdataset.py"]
    assert found.notes[0] == "2 packages from the bundle; the machine's own: packaging, pydantic, tqdm"
    assert len(list(found.pool.glob("*.tar"))) == 4
    assert (found.evaluation / "wds_x" / "classnames.txt").is_file()


def test_what_reads_the_wheels_comes_along_where_the_machine_lacks_it(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    (copy / "wheels").mkdir(parents=True)
    os.link(bundle / "data.tar.gz", copy / "data.tar.gz")
    with zipfile.ZipFile(copy / "wheels" / "packaging-1-py3-none-any.whl", "w") as archive:
        for file in metadata.files("packaging") or ():
            if file.suffix != ".pyc":
                archive.write(str(file.locate()), str(file))
    venv.create(tmp_path / "bare", with_pip=False)
    script = (
        f"import sys; sys.path.append({str(ROOT / 'bench')!r}); from pathlib import Path; import gpu_bundle; "
        f"print(gpu_bundle.unpack(Path({str(copy)!r}), Path({str(tmp_path / 'work')!r})).notes[0])"
    )
    told = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout == "1 packages from the bundle; the machine's own: none\n"
    assert (tmp_path / "work" / "site" / "packaging" / "__init__.py").is_file()


def test_shards_are_taken_as_there_is_room(tmp_path: Path) -> None:
    pool, sets = write_pool(tmp_path / "pool"), tmp_path / "sets"
    sets.mkdir()
    sizes = [path.stat().st_size for path in sorted(pool.glob("*.tar"))]
    assert gpu_bundle.write_data(tmp_path / "made", pool, sets, sum(sizes[:2])).startswith("2 shards")
    with tarfile.open(tmp_path / "made" / "data.tar.gz") as tar:
        assert [name for name in tar.getnames() if name.startswith("pool/")] == ["pool/00000.tar", "pool/00001.tar"]
    with pytest.raises(gpu_bundle.BundleError, match="holds no"):
        gpu_bundle.write_data(tmp_path / "none", pool, sets, 100)


def test_what_a_distribution_asks_for_comes_along() -> None:
    found = gpu_bundle._closure(["hydra-core", "open_clip_torch"], "3.12")
    assert {"omegaconf", "antlr4-python3-runtime", "ftfy", "wcwidth", "timm"} <= found
    assert not found & {"torch", "numpy", "torchvision", "exceptiongroup"}


def test_a_part_that_fails_is_a_row(bundle: Path, tmp_path: Path) -> None:
    """There is no model to score with, as `train` was not run."""
    out = tmp_path / "gpu.md"
    words = ["run", "--device", "cpu", "--tiny", "--only", "score", "--bundle", str(bundle), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "bench/gpu.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    page = out.read_text()
    assert done.stdout == page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    says = "**failed**: exit status 1: there is no model, as the part `train` has left none"
    assert rows == [f"| {' | '.join(gpu.HEAD)} |", f"| score | - | - | - | {says} |"]
    assert "A rehearsal in tiny sizes" in page and str(tmp_path) not in page


def test_rehearsal_of_a_part(bundle: Path, tmp_path: Path) -> None:
    """In a process that has imported everything already."""
    scene, rows = tmp_path / "scene.json", tmp_path / "rows.jsonl"
    unpacked = gpu_bundle.unpack(bundle, tmp_path / "work")
    scene.write_text(json.dumps(run_of(tmp_path / "page.md")._scene(tmp_path, unpacked)))
    done = forked.run("bench/gpu_parts.py", "nccl", scene, rows)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row[-1] for row in found] == ["ok", "ok", "ok", "-"]
    assert found[0][:2] == ["gloo, gathered features, DistributedDataParallel", "largest difference 0"]


def run_of(out: Path, **more: Any) -> gpu.Run:
    return gpu.Run(argparse.Namespace(out=out, minutes=1.0, tiny=True, device="cpu", only=None, **more))


def lives(number: int) -> bool:
    """Whether a process runs; one that has ended may still be there until somebody asks for its status."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    log = tmp_path / "log"
    for limit in (3, 30, 300):
        why = run_of(tmp_path / "page.md")._process([sys.executable, "-c", code], log, {"environment": {}}, limit)
        assert why == f"its time limit of {limit} s is over"
        if log.read_text():  # a busy machine may not have come so far
            break
    child = int(log.read_text())
    while lives(child):  # the signal is on its way
        time.sleep(0.01)


def test_a_part_that_fails_says_what_it_said_last(tmp_path: Path) -> None:
    run = run_of(tmp_path / "page.md")
    why = run._process([sys.executable, "-c", "raise ValueError('a | b')"], tmp_path / "log", {"environment": {}}, 60)
    assert why == "exit status 1: ValueError: a | b"
    run._rows["device"] = [["device", "-", "-", "-", f"**failed**: {why}"]]
    run._write()
    assert (tmp_path / "page.md").read_text().splitlines()[-1].endswith("ValueError: a / b |")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--bundle", "/none"], "error: /none is no bundle: make it by `bench/gpu.sh pack`"),
        (["run", "--only", "trian"], "--only: no part is called 'trian'; known: device, train"),
        (["run", "--minutes", "0"], "--minutes has to be more than 0"),
        (["pack", "--pool", "/none"], "--pool and --evaluation go together"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(words: list[str], says: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "bench/gpu.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]


def test_a_damaged_bundle_is_told(tmp_path: Path) -> None:
    (tmp_path / "data.tar.gz").write_bytes(b"no archive")
    with pytest.raises(gpu_bundle.BundleError, match="is damaged"):
        gpu_bundle.unpack(tmp_path, tmp_path / "work")


def test_every_part_is_there(tmp_path: Path) -> None:
    import gpu_parts

    for part in gpu.PARTS:
        assert callable(gpu_parts.function(part.name))
    scene = run_of(tmp_path / "page.md")._scene(
        tmp_path, gpu_bundle.Unpacked(tmp_path / "site", tmp_path / "peer", tmp_path / "pool", tmp_path / "sets", [])
    )
    assert gpu_parts.Scene(**json.loads(json.dumps(scene))).device == "cpu"
    known = load_tasks()
    assert all(task in known for task in gpu_parts.FEW_TASKS.split(","))
