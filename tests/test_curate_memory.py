"""Selecting in little memory: what it takes does not grow with the pool, and the order is that of a sort."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forked import ROOT

from poolbench.uids import DTYPE

from curate.pool.merge import Run, merge, sort_uids


@pytest.mark.parametrize("memory", [100, 4000, 10**9])
def test_merging_in_little_memory_is_sorting(tmp_path: Path, memory: int) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2**63, (rows, 2)).astype("u8").view(DTYPE).ravel() for rows in (0, 1, 500, 1300)]
    parts.append(np.repeat(parts[2][:30], 9))  # repeats
    parts.append(np.array([(7, number) for number in range(200, 0, -1)], DTYPE))  # that begin alike
    runs, first = [], 0
    with (tmp_path / "runs").open("wb") as file:
        for part in parts:
            file.write(sort_uids(part).tobytes())
            runs.append(Run(tmp_path / "runs", first, len(part)))
            first += len(part)
    assert merge(runs, tmp_path / "out.npy", memory) == first
    np.save(tmp_path / "expected.npy", np.sort(np.concatenate(parts)))
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


PEAK = """
import re, sys
from pathlib import Path
from curate.command import run
assert run(sys.argv[1:]) == 0 and "pandas" not in sys.modules
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
import pandas, pyarrow
assert pyarrow.table({"a": [1]}).to_pandas().equals(pandas.DataFrame({"a": [1]}))
"""


def peak(pool: Path, out: Path) -> float:
    """MB that selecting takes at most, in a process that does all of it."""
    words = ["filter=clip_score", "filter.fraction=0.9", f"pool={pool}", f"out={out}", "workers=1"]
    done = subprocess.run([sys.executable, "-c", PEAK, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) / 1000


def test_memory_is_flat_in_the_pools_size(tmp_path: Path) -> None:
    """Two files of a real size, and 16; sorting all uids of those at once would take 150 MB more."""
    rows, rng = 200_000, np.random.default_rng(0)
    digits = rng.bytes(16 * rows).hex()
    columns = {
        "uid": [digits[32 * row : 32 * row + 32] for row in range(rows)],
        "clip_l14_similarity_score": rng.normal(0.2, 0.1, rows).astype(np.float32),
    }
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "file")
    for number in range(16):
        (tmp_path / "many" / f"{number}.parquet").hardlink_to(tmp_path / "file")
    for number in range(2):
        (tmp_path / "few" / f"{number}.parquet").hardlink_to(tmp_path / "file")
    few, many = (peak(tmp_path / name, tmp_path / f"{name}.npy") for name in ("few", "many"))
    assert many < few + 40, (few, many)  # what threads leave to each other's allocators differs by 10 MB between runs
    found = np.load(tmp_path / "many.npy")
    assert len(found) == 8 * len(np.load(tmp_path / "few.npy")) > 2_800_000
    assert found.nbytes > 45e6


MERGE = """
import re, sys
from pathlib import Path
from curate.pool.merge import Run, merge
for count in (4, 40):
    runs = [Run(Path(sys.argv[1]), 0, 2**17)] * count
    assert merge(runs, Path(sys.argv[2]), 10**9) == count * 2**17
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_merging_takes_no_more_memory_for_more_uids(tmp_path: Path) -> None:
    """84 MB of uids, of which neither the sorting nor the look for ranges holds a large part, not even mapped."""
    halves = np.random.default_rng(0).integers(0, 2**63, (2**17, 2)).astype("u8")
    (tmp_path / "run").write_bytes(sort_uids(halves.view(DTYPE).ravel()).tobytes())
    done = subprocess.run(
        [sys.executable, "-c", MERGE, tmp_path / "run", tmp_path / "out.npy"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    few, many = map(int, done.stdout.split())
    assert many < few + 20_000, (few, many)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy")[::40], np.sort(halves.view(DTYPE).ravel()))
