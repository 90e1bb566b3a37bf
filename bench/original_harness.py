"""Run the original harness over local sets in one process, task after task, as its evaluate.py does.

    <its python> bench/original_harness.py --harness <checkout> --sets <folder> --model <name> --checkpoint <file>
        --out <file.jsonl> [--tasks <key> ...]

Its evaluate.py cannot be started without accounts of a database and a model hub. Here the same function is called for
the same tasks in the same order, with its own batch size and workers; each line of the output holds what a line of its
results holds, and the seconds of the task. Of its data sets, three come through `datasets.load_dataset` from a hub;
they are answered from the parquet files in the folder of sets, held in memory, pictures decoded when a row is read.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["OUTDATED_IGNORE"] = "1"  # wilds looks for newer versions of itself on import

BATCH_SIZE = 64  # the default of its evaluate.py


def answer_from(sets: Path) -> None:
    """Let `datasets.load_dataset("<owner>/<name>")` read <sets>/<name>/*.parquet."""
    import datasets  # type: ignore[import-not-found] # of its environment, as are the next ones
    import pyarrow as pa
    import pyarrow.parquet as pq

    def load(repo: str, **options: Any) -> Any:
        folder = sets / repo.split("/")[-1]
        table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))
        data = datasets.Dataset(datasets.table.InMemoryTable(table))
        if "image" in data.column_names:
            return data.cast_column("image", datasets.Image())
        return data.cast_column("candidate_images", datasets.Sequence(datasets.Image()))

    datasets.load_dataset = load


def size_of(sets: Path) -> int | None:
    """Number of samples, which it wants to be told beforehand."""
    marker = sets / "sets.json"
    return int(json.loads(marker.read_text())["samples"]) if marker.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("harness", "sets", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("model", "checkpoint"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--tasks", nargs="+", help="default: all of its tasklist.yml")
    arguments = parser.parse_args()

    import yaml

    sys.path.insert(0, str(arguments.harness))
    answer_from(arguments.sets)
    from eval_utils.main import evaluate_model  # type: ignore[import-not-found]

    tasks = yaml.safe_load((arguments.harness / "tasklist.yml").read_text())
    subject = {"scale_config": {"model": arguments.model}, "checkpoint": arguments.checkpoint}
    for key in tasks:
        if arguments.tasks is not None and key not in arguments.tasks:
            continue
        started = time.perf_counter()
        metrics = evaluate_model(key, subject, str(arguments.sets), size_of(arguments.sets), BATCH_SIZE)
        metrics["main_metric"] = metrics.get(tasks[key].get("main_metric", "acc1"))
        seconds = time.perf_counter() - started
        line = {"key": key, "dataset": tasks[key]["name"], "metrics": metrics, "seconds": seconds}
        with arguments.out.open("a") as file:
            file.write(json.dumps(line, default=float) + "\n")


if __name__ == "__main__":
    main()
