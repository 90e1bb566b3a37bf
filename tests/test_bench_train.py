"""The throughput benchmark as a whole, with few samples: it measures both sides and says so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import forked


def benchmark(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return forked.run("bench/train_throughput.py", *arguments, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


def cells(page: str, first: str) -> list[str]:
    """The row of a table that begins with a cell."""
    found = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    assert len(found) == 1, page
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_step_of_both_sides(tmp_path: Path) -> None:
    """open_clip_train runs in this environment, too, as long as it reads no shards."""
    out = tmp_path / "page.md"
    sizes = ["--model", "ViT-Ti-32-64", "--batch", "4", "--steps", "2", "--rounds", "1"]
    done = benchmark("--part", "step", "--peer", sys.executable, *sizes, "--out", out)
    assert done.returncode == 0, done.stderr
    page = out.read_text()
    assert done.stdout == page + "\n"
    assert f"--peer <python> --part step {' '.join(sizes)}`" in page
    row = cells(page, "ViT-Ti-32-64")
    assert row[2] == "4"
    ours, theirs, ratio = float(row[3]), float(row[4]), float(row[5].split()[0])
    assert min(ours, theirs) > 0
    assert abs(ratio - ours / theirs) < 0.02 * ratio + 0.01
    assert re.fullmatch(r"ratio of 1.0: (met|\*\*missed\*\*)", row[-1])
    assert "`aten::mm`" in page


def test_loader_of_ours_alone(tmp_path: Path) -> None:
    done = benchmark("--part", "loader", "--pictures", "128", "--samples", "128", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "open_clip_train was not measured" in done.stdout
    rate = cells(done.stdout, "samples a second of processor time, all processes")
    assert float(rate[1]) > 0 and rate[2:] == ["-", "-", "ratio of 2.0: not measured"]
    pieces = {name: float(cells(done.stdout, name)[1]) for name in ("decode the JPEG", "crop and resize", "the rest")}
    assert pieces["decode the JPEG"] > 0 and pieces["crop and resize"] > 0


def test_what_cannot_be_run_is_told_in_a_line() -> None:
    done = benchmark("--peer", "no-such-python")
    assert done.returncode == 2
    assert done.stderr == "error: --peer=no-such-python is not an interpreter\n"
