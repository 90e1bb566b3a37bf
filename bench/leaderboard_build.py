"""How long a leaderboard of many submissions takes to build, and where the time goes.

    python bench/leaderboard_build.py 1000 10000 write=bench/results/leaderboard_build.md

Makes that many valid submissions of one track and scale with random scores, in a temporary folder, and builds their
leaderboard step by step as `python -m leaderboard build` does. At least one number is needed.
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from runs import lock_all, make_run, options, seal

from poolbench.command import parse
from poolbench.errors import UserError, exit_on_user_error
from poolbench.files import digest_bytes, read_json, write_json

from leaderboard.boards import compose
from leaderboard.build import BuildOptions, build, collect
from leaderboard.references import references
from leaderboard.submissions import find
from leaderboard.submit import submit
from tasks.aggregates import aggregates

Value = TypeVar("Value")


@dataclass
class BenchOptions:
    """The options of this script."""

    write: str | None = None


class Times(NamedTuple):
    """Seconds of each step, megabytes of each file."""

    submissions: int
    reading: float
    ranking: float
    json: float
    page: float
    whole: float
    processors: float
    leaderboard_size: float
    page_size: float


def main() -> int:
    words, chosen = parse(sys.argv[1:], BenchOptions)
    if not words or not all(word.isdecimal() for word in words):
        raise UserError("name how many submissions: python bench/leaderboard_build.py 1000 10000")
    text = report([measure(int(word)) for word in words], " ".join(sys.argv[1:]))
    print(text)
    if chosen.write is not None:
        Path(chosen.write).write_text(text, encoding="utf-8")
    return 0


def measure(count: int) -> Times:
    """Time each step, and then the command as a whole."""
    from leaderboard.page import page  # as build does

    with tempfile.TemporaryDirectory() as name:
        folder, site = Path(name, "submissions"), Path(name, "site")
        make_submissions(folder, count)
        (placed, refusals), reading = timed(lambda: collect(find(folder)))
        assert not refusals, refusals[0]
        leaderboard, ranking = timed(lambda: compose(placed, references))
        _, json = timed(lambda: leaderboard.model_dump_json(indent=2).encode())
        _, page_seconds = timed(lambda: page(leaderboard))
        before = processor_seconds()
        _, whole = timed(lambda: build([str(folder)], BuildOptions(out=str(site))))
        processors = processor_seconds() - before
        sizes = [(site / name).stat().st_size / 1e6 for name in ("leaderboard.json", "index.html")]
        return Times(count, reading, ranking, json, page_seconds, whole, processors, *sizes)


def make_submissions(folder: Path, count: int) -> None:
    """Official files as `submit` writes them, with scores, checkpoint and name of their own."""
    os.environ["POOLBENCH_LOCK"] = str(lock_all(folder.parent / "lock.json"))
    path = submit(options(make_run(folder.parent / "run")))
    template = read_json(path)
    path.unlink()
    for number in range(count):
        write_json(folder / f"{number}.submission.json", varied(template, number))


def varied(template: dict[str, Any], number: int) -> dict[str, Any]:
    """A submission that is as good as the template, and another's."""
    draw = random.Random(number)
    quality = draw.betavariate(4, 8)
    tasks = []
    for task in template["tasks"]:
        score = min(1.0, max(0.0, quality + draw.gauss(0, 0.05)))
        # 0, null and counts of images stay as they are
        metrics = {name: score if value and value < 1 else value for name, value in task["metrics"].items()}
        tasks.append({**task, "metrics": metrics})
    main = {task["key"]: task["metrics"]["main_metric"] for task in tasks}
    changes = {
        "method": f"method {number}",
        "checkpoint_sha256": digest_bytes(str(number).encode()),
        "tasks": tasks,
        "aggregates": {**template["aggregates"], "values": aggregates(main)},
    }
    sealed: dict[str, Any] = seal({**template, **changes})
    return sealed


def timed(run: Callable[[], Value]) -> tuple[Value, float]:
    start = time.perf_counter()
    value = run()
    return value, time.perf_counter() - start


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended, all cores together."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def report(rows: list[Times], arguments: str) -> str:
    from machine import machine  # with torch, which the processes that read would import too

    lines = [
        "# Building the leaderboard",
        "",
        f"`python bench/leaderboard_build.py {arguments}`, {date.today():%-d %B %Y}. {machine()}.",
        "",
        "Submissions of 40 tasks on one board, with the published results. Seconds; reading includes every check that "
        "`python -m leaderboard validate` makes of a file alone, in one process for each core, and their start. "
        "Processor seconds count all cores, and not the waiting for other programs on the machine.",
        "",
        "| submissions | read and check | rank | leaderboard.json | page | whole build | processor seconds of it "
        "| leaderboard.json, MB | index.html, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {row.submissions:,} | {cells(row)} |" for row in rows)]) + "\n"


def cells(row: Times) -> str:
    return " | ".join(f"{value:.1f}" for value in row[1:])


if __name__ == "__main__":
    exit_on_user_error(main)
