"""What training runs have come to, and a short one for the tests that interrupt it."""

from pathlib import Path

import torch
from pools import write_pool

from poolbench.files import read_json, read_lines

STEPS = 60


def options(folder: Path) -> list[str]:
    """STEPS steps, of which none writes a checkpoint but the last."""
    return [
        "scale=tiny",
        f"data={write_pool(folder / 'pool')}",
        f"out={folder}/runs",
        "precision=fp32",
        "recipe.batch_size=4",
        f"recipe.samples={4 * STEPS}",
        "recipe.warmup=1",
    ]


def losses(run: Path) -> list[float]:
    """The loss of each step that a run has logged."""
    return [line["loss"] for line in read_lines(run / "metrics.jsonl")]


def steps(run: Path) -> int:
    """How many steps a run has logged."""
    return len(read_lines(run / "metrics.jsonl"))


def checkpoints(run: Path) -> list[int]:
    """The steps whose checkpoints are there."""
    return sorted(int(path.stem.removeprefix("step_")) for path in (run / "checkpoints").glob("*.pt"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The weights of a run's newest checkpoint."""
    record = read_json(run / "run.json")
    state: dict[str, torch.Tensor] = torch.load(run / record["checkpoint"]["path"], weights_only=True)["state_dict"]
    return state


def same(left: Path, right: Path) -> bool:
    """Whether two runs, which have to be complete, have the same weights, bit by bit."""
    assert all(read_json(run / "run.json")["status"] == "complete" for run in (left, right))
    a, b = weights(left), weights(right)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
