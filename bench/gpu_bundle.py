"""What bench/gpu.sh brings to a machine without a network: wheels, and small real data.

`pack` runs where there is a network, in the environment of the project, whose versions are the ones that it takes.
`unpack` needs nothing but Python: it lays the wheels out in a folder for PYTHONPATH. A package that the machine has, at
a version that all others can use, stays the machine's.
"""

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 64 * 2**20  # bytes of the whole bundle
POOL = 56 * 2**20  # bytes of the training shards
# What the commands that are run import; the rest follows from what these ask for.
WANTED = (
    *("open_clip_torch", "timm", "webdataset", "hydra-core", "omegaconf", "pydantic", "huggingface_hub", "requests"),
    *("fsspec", "braceexpand", "pillow", "platformdirs", "pyyaml", "tqdm", "tenacity", "safetensors", "packaging"),
)
# Too large to bring, and there wherever torch is used; a part that lacks one says so.
LEFT = {
    "torch": "the machine's own, with its CUDA",
    "torchvision": "goes with torch",
    "numpy": "there with torch",
    "pyarrow": "54 MB; pool metadata and predictions need it",
    "scipy": "35 MB; the metrics of evaluation need it",
    "pandas": "12 MB; open_clip_train needs it",
    "scikit-learn": "10 MB; no part needs it",
}
NOT_RUN = "clip_benchmark, wilds, wandb, vl-convert-python, jinja2 (reports, export and the leaderboard) are not used"
PEER = "webdataset==0.2.31"  # the last one that open_clip_train 3.3 reads shards with
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17)] + ["manylinux2014_x86_64", "any"]
_FROM_SOURCE = ("antlr4-python3-runtime",)  # of which there is no wheel; pure Python


class BundleError(Exception):
    """One line for the user."""


def pack(folder: Path, python: str, pool: Path | None, evaluation: Path | None) -> list[str]:
    """Make the bundle; what was taken and left out, a line each.

    Args:
        python: version of the machine's interpreter, as 3.12.
        pool: folder of training shards, with `evaluation` sets; by default the embedded demo data.

    Raises:
        BundleError: a wheel is not to be had, or the bundle is too large.
    """
    if pool is None or evaluation is None:
        from demodata.pool import build  # needs the extra `demo`

        demo = build()
        pool, evaluation = demo.pool, demo.evaluation
    for name in ("wheels", "peer"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for old in (folder / name).glob("*.whl"):
            old.unlink()
    wanted = [f"{name}=={metadata.version(name)}" for name in sorted(_closure(WANTED, python))]
    _download(folder / "wheels", wanted, python)
    _download(folder / "peer", [PEER], python)
    samples = write_data(folder, pool, evaluation, POOL)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LIMIT:
        raise BundleError(f"{folder} has {size / 2**20:.1f} MiB, more than the {LIMIT >> 20} that may travel")
    lines = [f"{folder}: {size / 2**20:.1f} MiB: {len(wanted)} wheels for Python {python}, {samples}"]
    lines += [f"left out: {name}: {why}" for name, why in LEFT.items()]
    return [*lines, f"left out: {NOT_RUN}"]


def write_data(folder: Path, pool: Path, evaluation: Path, room: int) -> str:
    """Put as many shards of a pool as there is room for (bytes), and the evaluation sets, into data.tar.gz."""
    shards, taken = [], 0
    for shard in sorted(pool.glob("*.tar")):
        taken += shard.stat().st_size
        if taken > room:
            break
        shards.append(shard)
    if not shards:
        raise BundleError(f"{pool} holds no .tar that is smaller than {room:,} bytes")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "data.tar.gz", "w:gz") as tar:
        for shard in shards:
            tar.add(shard, f"pool/{shard.name}")
        tar.add(evaluation, "evaluation")
    return f"{len(shards)} shards to train on, {len(list(evaluation.iterdir()))} evaluation sets"


def _closure(names: Iterable[str], python: str) -> set[str]:
    """The distributions and all that they ask for, but for what is left to the machine."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    queue = [normal(name) for name in names]
    there = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    while queue:
        name = queue.pop()
        if name in found or name in LEFT:
            continue
        found.add(name)
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(there):
                queue.append(normal(requirement.name))
    return found


def _download(folder: Path, wanted: Sequence[str], python: str) -> None:
    """Wheels for the machine's Python, on x86-64 Linux."""
    tag = f"cp{python.replace('.', '')}"
    options = ["--no-deps", "--quiet", "--disable-pip-version-check"]
    wheels = [one for one in wanted if one.partition("==")[0] not in _FROM_SOURCE]
    kinds = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
    kinds += [f"--abi={abi}" for abi in (tag, "abi3", "none")] + [f"--platform={one}" for one in _PLATFORMS]
    commands = [["download", *options, *kinds, "-d", str(folder), *wheels]]
    commands += [["wheel", *options, "-w", str(folder), one] for one in wanted if one not in wheels]
    for command in commands:
        done = subprocess.run([sys.executable, "-m", "pip", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            raise BundleError(f"pip {command[0]} failed: {errors[-1]}")


class Unpacked(NamedTuple):
    """Where things lie on the machine, and what is told of them."""

    site: Path
    peer: Path
    pool: Path
    evaluation: Path
    notes: list[str]


def unpack(folder: Path, work: Path) -> Unpacked:
    """Lay out the bundle in `work`.

    Raises:
        BundleError: there is no bundle, or it is damaged.
    """
    if not (folder / "data.tar.gz").is_file():
        raise BundleError(f"{folder} is no bundle: make it by `bench/gpu.sh pack` where there is a network")
    site, peer, data = work / "site", work / "peer", work / "data"
    for path in (site, peer, data):
        path.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(folder / "data.tar.gz") as tar:
            tar.extractall(data, filter="data")
        wheels = {one.name: one for one in map(Wheel.of, sorted((folder / "wheels").glob("*.whl")))}
        used = _used(wheels)
        for name in used:
            wheels[name].extract(site)
        for path in sorted((folder / "peer").glob("*.whl")):
            Wheel.of(path).extract(peer)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise BundleError(f"{folder} is damaged ({error}); pack it anew") from None
    _own_metadata(site)
    own = sorted(set(wheels) - set(used))
    absent = [name for name in LEFT if _installed(name) is None]
    notes = [f"{len(used)} packages from the bundle; the machine's own: {', '.join(own) or 'none'}"]
    notes += [f"the machine lacks {name}: {LEFT[name]}" for name in absent]
    return Unpacked(site, peer, data / "pool", data / "evaluation", notes)


class Wheel(NamedTuple):
    """A wheel file, the distribution in it, and the lines that say what it asks for."""

    path: Path
    name: str
    requires: list[str]

    @classmethod
    def of(cls, path: Path) -> "Wheel":
        with zipfile.ZipFile(path) as archive:
            (place,) = (one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
            text = archive.read(place).decode()
        (name,) = re.findall(r"^Name: *(\S+)", text, re.MULTILINE)
        return cls(path, normal(name), re.findall(r"^Requires-Dist: *(.+?)\s*$", text, re.MULTILINE))

    def extract(self, site: Path) -> None:
        with zipfile.ZipFile(self.path) as archive:
            archive.extractall(site)


def _used(wheels: Mapping[str, Wheel]) -> list[str]:
    """The wheels that are needed: those whose distribution the machine lacks, or has at a version that the project or
    another wheel cannot use."""
    there = {name: _installed(name) for name in wheels}  # before the next lines make packaging look installed
    if "packaging" in wheels and there["packaging"] is None:
        sys.path.insert(0, str(wheels["packaging"].path))  # pure Python, which runs from its wheel
    asked = list(_asked(wheels))
    return [name for name, version in there.items() if not _serves(version, [one for one in asked if one.name == name])]


class _Bound(NamedTuple):
    name: str
    specifier: Any


def _asked(wheels: Mapping[str, Wheel]) -> Iterator[_Bound]:
    from packaging.requirements import Requirement

    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("dependencies = [")[2].partition("\n]")[0]
    lines = re.findall(r'"([^"]+)"', project) + [line for wheel in wheels.values() for line in wheel.requires]
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _Bound(normal(requirement.name), requirement.specifier)


def _serves(version: str | None, bounds: Sequence[_Bound]) -> bool:
    return version is not None and all(one.specifier.contains(version, prereleases=True) for one in bounds)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _own_metadata(site: Path) -> None:
    """What pip would have written of this checkout: run.json names its version."""
    if _installed("poolbench") is None:
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        (version,) = re.findall(r'^version = "(.+)"', project, re.MULTILINE)
        folder = site / f"poolbench-{version}.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: poolbench\nVersion: {version}\n")


def normal(name: str) -> str:
    """The form in which names of distributions are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
