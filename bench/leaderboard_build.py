"""How long a leaderboard of many submissions takes to build, and where the time goes.

    python bench/leaderboard_build.py 1000 10000 write=bench/results/leaderboard_build.md

Makes that many valid submissions of one track and scale with random scores, in a temporary folder, builds their
leaderboard as `python -m leaderboard build` does, and opens the page in Chromium, where there is one. At least one
number is needed.
"""

import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from browser import chrome, missing
from runs import lock_all, make_run, options, seal

from poolbench.command import parse
from poolbench.errors import UserError, exit_on_user_error
from poolbench.files import digest_bytes, read_json, write_json

from leaderboard.build import BuildOptions
from leaderboard.submit import submit
from tasks.aggregates import aggregates

# When the page has what, in milliseconds since its address was opened.
_WATCH = """
window.seen = {};
const wanted = {table: "#static tbody tr", ranking: "#ranking tbody tr", chart: "#size-chart svg"};
new MutationObserver(() => {
  for (const [name, what] of Object.entries(wanted))
    if (!(name in window.seen) && document.querySelector(what)) window.seen[name] = performance.now();
}).observe(document, {childList: true, subtree: true});
"""


@dataclass
class BenchOptions:
    """The options of this script."""

    write: str | None = None
    scratch: str | None = None  # folder for the submissions, 25 kB each


class Times(NamedTuple):
    """Seconds, megabytes; of the browser, None where there is none."""

    submissions: int
    reading: float
    ranking: float
    json: float
    page: float
    whole: float
    processors: float
    memory: float  # of the largest process, at its most
    leaderboard_size: float
    page_size: float
    first_table: float | None
    ranked_table: float | None
    script: float | None  # processor seconds of the page's thread until its charts are drawn


def main() -> int:
    words, chosen = parse(sys.argv[1:], BenchOptions)
    if not words or not all(word.isdecimal() for word in words):
        raise UserError("name how many submissions: python bench/leaderboard_build.py 1000 10000")
    text = report([measure(int(word), chosen.scratch) for word in words], " ".join(sys.argv[1:]))
    print(text)
    if chosen.write is not None:
        Path(chosen.write).write_text(text, encoding="utf-8")
    return 0


def measure(count: int, scratch: str | None) -> Times:
    """Build one, in a process of its own for the sake of its memory, and open the page."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder, site = Path(name, "submissions"), Path(name, "site")
        make_submissions(folder, count)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            steps, whole, processors, memory = process.submit(timed_build, folder, site).result()
        sizes = [(site / name).stat().st_size / 1e6 for name in ("leaderboard.json", "index.html")]
        seen = opened(site / "index.html")
        return Times(count, *steps, whole, processors, memory, *sizes, *seen)  # type: ignore[call-arg]


def timed_build(folder: Path, site: Path) -> tuple[list[float], float, float, float]:
    """The command's seconds by step and whole, its processor seconds, and the peak memory of a process in MB."""
    import leaderboard.build
    import leaderboard.page

    steps = dict.fromkeys(("collect", "compose", "_write", "page"), 0.0)

    def timed(owner: Any, name: str) -> None:
        run = getattr(owner, name)

        def wrapper(*arguments: Any) -> Any:
            start = time.perf_counter()
            value = run(*arguments)
            steps[name] += time.perf_counter() - start
            return value

        setattr(owner, name, wrapper)

    for name in ("collect", "compose", "_write"):
        timed(leaderboard.build, name)
    timed(leaderboard.page, "page")
    before, start = processor_seconds(), time.perf_counter()
    assert leaderboard.build.build([str(folder)], BuildOptions(out=str(site))) == 0
    whole, processors = time.perf_counter() - start, processor_seconds() - before
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e3
    return list(steps.values()), whole, processors, memory


def opened(page: Path) -> tuple[float | None, float | None, float | None]:
    """Seconds until Chromium has a first table (plain HTML) and the ranking that sorts, and the script's processor
    seconds."""
    if missing():
        return None, None, None
    with chrome() as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        driver.get(page.as_uri())
        while "chart" not in (seen := driver.execute_script("return window.seen")):
            time.sleep(0.05)
        metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        task = next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")
        return seen["table"] / 1e3, seen["ranking"] / 1e3, task


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


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended, all cores together."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def report(rows: list[Times], arguments: str) -> str:
    from machine import machine  # with torch, which the processes that read would import too

    lines = [
        "# Building the leaderboard",
        "",
        f"`python bench/leaderboard_build.py {arguments}`, {date.today():%-d %B %Y}. {machine()}. "
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f}.",
        "",
        "Submissions of 40 tasks on one board, with the published results. Seconds; reading includes every check that "
        "`python -m leaderboard validate` makes of a file alone, in one process for each core, and their start. "
        "Processor seconds count all cores, and not the waiting for other programs on the machine. Memory is the peak "
        "of the process that builds.",
        "",
        "| submissions | read and check | rank | write | page | whole build | processor seconds | memory, MB "
        "| leaderboard.json, MB | index.html, MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(f"| {row.submissions:,} | {cells(row[1:10])} |" for row in rows),
        "",
        "In Chromium, seconds from opening the file to the first table (plain HTML, the best 100 of each board) and to "
        "the ranking that searches and sorts; processor seconds of the page's thread until its charts are drawn.",
        "",
        "| submissions | first table | ranking | processor seconds |",
        "|---|---|---|---|",
        *(f"| {row.submissions:,} | {cells(row[10:])} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def cells(values: tuple[float | None, ...]) -> str:
    return " | ".join("not measured" if value is None else f"{value:,.1f}" for value in values)


if __name__ == "__main__":
    exit_on_user_error(main)
