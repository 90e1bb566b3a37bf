"""The numbers that no change of the code may move: losses, metrics, subsets, copied bytes, a leaderboard.

They stand in tests/frozen.json. Where a change means to move them, write them anew with

    OMP_NUM_THREADS=1 python tests/test_frozen.py

and say in the commit why they moved.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import open_clip
import pytest
from evalsets import MODEL, ONE_OF_EACH_KIND, scored, write_checkpoint, write_every_kind
from metadata import write_metadata
from pools import uid_of, write_tar
from runs import make_run, options
from trained import losses
from trained import options as training

from poolbench.files import read_json
from poolbench.uids import write_subset

from leaderboard.build import BuildOptions, build
from leaderboard.submit import submit

FILE = Path(__file__).parent / "frozen.json"
HALF = "{filter: clip_score, arch: b32, fraction: 0.5}"
FILTERS = {
    "no_filter": ["filter=no_filter"],
    "basic": ["filter=basic", "filter.language=fasttext_small"],  # the detector that a package carries
    "clip_score of a fraction": ["filter=clip_score", "filter.arch=l14", "filter.fraction=0.3"],
    "clip_score of a threshold": ["filter=clip_score", "filter.arch=b32", "filter.threshold=0.28"],
    "laion2b": ["filter=laion2b"],
    "sample": ["filter=sample", "filter.of={filter: no_filter}", "filter.size=500"],
    "intersection": ["filter=intersection", f"filter.of=[{{filter: basic, language: fasttext_small}}, {HALF}]"],
    "union": ["filter=union", f"filter.of=[{{filter: laion2b}}, {HALF}]"],
}


def frozen_losses(folder: Path) -> dict[str, Any]:
    """The loss of each of 60 steps of the tests' small model."""
    words = [*training(folder), "name=one", "recipe.model=test-tiny", "seed=3"]
    done = forked.run(f"{Path(__file__).parent}/run_train.py", *words)
    assert done.returncode == 0, done.stderr
    return {"losses": losses(folder / "runs" / "one")}


def frozen_metrics(folder: Path) -> dict[str, Any]:
    """Every metric of a task of each kind, for a checkpoint of random weights."""
    open_clip.add_model_config(Path(__file__).parent / "models")
    data = write_every_kind(folder / "sets")
    outcome = scored(write_checkpoint(folder / f"{MODEL}.pt"), data, folder / "out", ONE_OF_EACH_KIND)
    return {line["key"]: {**line["metrics"], "stderr": line["stderr"]} for line in outcome.lines}


def frozen_subsets(folder: Path) -> dict[str, Any]:
    """The digest of the subset of each filter that needs nothing from outside, on a pool with ties and NaN."""
    pool = write_metadata(folder / "pool", files=5, rows=400)
    found = {}
    for number, (name, words) in enumerate(FILTERS.items()):
        out = folder / f"{number}.npy"
        done = forked.run("-m", "curate", *words, f"pool={pool}", f"out={out}", "workers=1")
        assert done.returncode == 0, done.stderr
        found[name] = digest(out)
    return found


def frozen_reshard(folder: Path) -> dict[str, Any]:
    """The digest of each tar of a resharding, from tars whose bytes no encoder has touched."""
    for shard in range(3):
        rows = range(40 * shard, 40 * shard + 40)
        write_tar(folder / "pool" / f"{shard}.tar", ((f"{n:08d}", members(n)) for n in rows))
    write_subset(folder / "subset.npy", [uid_of(n) for n in [*range(0, 120, 3), 7, 7, 50, 117]])
    words = [f"subset={folder}/subset.npy", f"shards={folder}/pool", f"out={folder}/out", "samples_per_shard=9"]
    done = forked.run("-m", "curate.reshard", *words, "workers=2")
    assert done.returncode == 0, done.stderr
    return {path.name: digest(path) for path in sorted((folder / "out").glob("*.tar"))}


def members(number: int) -> dict[str, bytes]:
    """A sample whose picture is noise: resharding does not look at it."""
    noise = hashlib.shake_128(b"%d" % number).digest(200 + 97 * number % 900)
    return {"jpg": noise, "txt": f"picture {number}".encode(), "json": json.dumps({"uid": uid_of(number)}).encode()}


def frozen_leaderboard(folder: Path) -> dict[str, Any]:
    """The digest of leaderboard.json of five entries, without what tells when it was made."""
    for number, scale in enumerate(("small", "small", "medium", "tiny", "tiny")):
        submit(options(make_run(folder / "runs" / str(number), scale=scale, seed=number), f"Method {number % 2}"))
    assert build([str(folder / "runs")], BuildOptions(out=str(folder / "site"))) == 0
    board = read_json(folder / "site" / "leaderboard.json")
    return {"digest": hashlib.sha256(json.dumps(timeless(board), sort_keys=True).encode()).hexdigest()}


def timeless(value: Any) -> Any:
    """JSON without the fields that two builds of the same files differ in."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


TIMES = ("created", "built", "time", "version", "commit", "code", "submitted", "file", "path", "id", "digest")
PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "losses": frozen_losses,
    "metrics": frozen_metrics,
    "subsets": frozen_subsets,
    "reshard": frozen_reshard,
    "leaderboard": frozen_leaderboard,
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("part", PARTS)
def test_nothing_moved(part: str, tmp_path: Path) -> None:
    """Floats to 1e-4, since processors add in different orders; all else to the last bit."""
    expected = flat(read_json(FILE)[part])
    close = {
        at: pytest.approx(one, rel=1e-4, abs=1e-4) if isinstance(one, float) else one for at, one in expected.items()
    }
    assert flat(PARTS[part](tmp_path)) == close


def flat(value: Any, at: str = "") -> dict[str, Any]:
    """The leaves of nested JSON by their path."""
    if not isinstance(value, dict | list):
        return {at: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {leaf: found for key, item in items for leaf, found in flat(item, f"{at}/{key}").items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch, forked.session():
        parts = {}
        for name, part in PARTS.items():
            (Path(scratch) / name).mkdir()
            parts[name] = part(Path(scratch) / name)
    FILE.write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    sys.exit(0)
