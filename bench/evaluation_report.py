"""What the runs of bench/evaluate_suite.py come to, as Markdown."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from processes import Ran

from tasks.registry import Task


class Outcome(NamedTuple):
    """One run: its time and memory, and its lines of results by key of the task."""

    ran: Ran
    lines: dict[str, dict[str, Any]]


class Side(NamedTuple):
    """The same run, once a round."""

    outcomes: list[Outcome]

    @property
    def seconds(self) -> float:
        return statistics.median(outcome.ran.seconds for outcome in self.outcomes)

    @property
    def gigabytes(self) -> float:
        return statistics.median(outcome.ran.memory for outcome in self.outcomes) / 1e9

    def of_task(self, key: str) -> float:
        """Median seconds of a task."""
        return statistics.median(float(outcome.lines[key]["seconds"]) for outcome in self.outcomes)

    def of_tasks(self) -> list[float]:
        """Seconds of all tasks together, by round."""
        return [sum(float(line["seconds"]) for line in outcome.lines.values()) for outcome in self.outcomes]

    def metrics(self, key: str) -> dict[str, float | None]:
        """Metrics of a task by name, None where one has no value."""
        metrics: dict[str, float | None] = self.outcomes[0].lines[key]["metrics"]
        return {
            name: None if value is None or math.isnan(value) else value
            for name, value in metrics.items()
            if name != "main_metric"  # one of the others again
        }


class Pace(NamedTuple):
    """The same evaluation of few and of many pictures."""

    few: Side
    many: Side
    more: int  # pictures that the second has more

    @property
    def rates(self) -> list[float]:
        """Pictures/s by round: the pictures that are more over the seconds that are more. Start-up falls out."""
        pairs = zip(self.few.outcomes, self.many.outcomes, strict=True)
        return [self.more / (many.ran.seconds - few.ran.seconds) for few, many in pairs]

    @property
    def growth(self) -> float:
        """Memory with many pictures over that with few."""
        return self.many.gigabytes / self.few.gigabytes


class Aim(NamedTuple):
    """What has to come out, what came out, and whether it is enough."""

    says: str
    measured: float
    met: bool


def ratios(a: Iterable[float], b: Iterable[float]) -> list[float]:
    """a / b, by round."""
    return [one / other for one, other in zip(a, b, strict=True)]


def whole(side: Side) -> list[float]:
    """Seconds from start to exit, by round."""
    return [outcome.ran.seconds for outcome in side.outcomes]


def memory(side: Side) -> list[float]:
    """Peak bytes of all processes, by round."""
    return [float(outcome.ran.memory) for outcome in side.outcomes]


def suite_aims(theirs: Side, ours: Side) -> list[Aim]:
    """What is asked for of the 40 small sets."""
    faster = statistics.median(ratios(whole(theirs), whole(ours)))
    return [Aim("40 small sets: at least 3 times faster", faster, faster >= 3)]


def tower_aims(paces: Mapping[str, Pace]) -> list[Aim]:
    """What is asked for where the image tower dominates; `paces` holds "original", "fp32" and "amp_bf16"."""
    full, half = (
        statistics.median(ratios(paces[name].rates, paces["original"].rates)) for name in ("fp32", "amp_bf16")
    )
    growth = paces["fp32"].growth
    return [
        Aim("image tower, fp32: not slower", full, full >= 1),
        Aim("image tower, amp_bf16: at least 3 times faster", half, half >= 3),
        Aim("our memory: flat in the number of pictures (to 5 %)", growth, growth <= 1.05),
    ]


def alone_aims(runs: Sequence[Ran], towers: Sequence[Mapping[str, float]]) -> list[Aim]:
    """What is asked for of our runs, each with the seconds of its towers alone, by "clock" and "processor"."""
    share = statistics.median(ratios((one["clock"] for one in towers), (ran.seconds for ran in runs)))
    return [Aim("towers alone: at least .85 of the run", share, share >= 0.85)]


def alone_table(runs: Sequence[Ran], towers: Sequence[Mapping[str, float]]) -> list[str]:
    """Seconds of whole runs and of their towers alone."""
    columns = {
        "by the clock, s": ([ran.seconds for ran in runs], [one["clock"] for one in towers]),
        "of the processor, s": ([ran.processor for ran in runs], [one["processor"] for one in towers]),
    }
    rows = [
        (name, f"{statistics.median(whole):.2f}", f"{statistics.median(alone):.2f}", spread(ratios(alone, whole)))
        for name, (whole, alone) in columns.items()
    ]
    return table(("", "whole run", "towers alone", "towers alone / run (of the rounds)"), rows)


def aims_table(aims: Sequence[Aim]) -> list[str]:
    """A row an aim."""
    rows = [(aim.says, f"{aim.measured:.2f} times", "yes" if aim.met else "**no**") for aim in aims]
    return table(("aim", "measured", "met on this machine"), rows)


def totals_table(theirs: Side, ours: Side) -> list[str]:
    """Whole runs: seconds, those within tasks, memory."""
    columns = {
        "whole run, s": [whole(side) for side in (theirs, ours)],
        "sum of the tasks, s": [side.of_tasks() for side in (theirs, ours)],
        "peak memory of all processes, GB": [[value / 1e9 for value in memory(side)] for side in (theirs, ours)],
    }
    rows = [
        (name, f"{statistics.median(a):.2f}", f"{statistics.median(b):.2f}", spread(ratios(a, b)))
        for name, (a, b) in columns.items()
    ]
    return table(("", "original harness", "ours", "ratio (of the rounds)"), rows)


def tasks_table(tasks: Sequence[Task], theirs: Side, ours: Side) -> list[str]:
    """A row a task: seconds of both and how far their metrics are apart; then the metrics that only one has."""
    rows, alone = [], []
    for task in tasks:
        a, b = theirs.metrics(task.key), ours.metrics(task.key)
        shared = [name for name in a if name in b]
        seconds = [f"{side.of_task(task.key):.2f}" for side in (theirs, ours)]
        largest = max((difference(a[name], b[name]) for name in shared), default=0.0)
        rows.append((task.key, *seconds, str(len(shared)), shown(largest)))
        for who, here, there in (("the original harness", a, b), ("ours", b, a)):
            missing = [f"`{name}`" for name in here if name not in there]
            if missing:
                alone.append(f"- {task.key}, {who}: {', '.join(missing)}")
    head = ("task", "original harness, s", "ours, s", "metrics in both", "largest difference")
    only = ["Metrics that only one has:", "", *alone] if alone else ["Neither has a metric that the other lacks."]
    return [*table(head, rows), "", *only]


def pace_table(paces: Mapping[str, Pace], totals: tuple[int, int]) -> list[str]:
    """A row a run: seconds and memory of few and of many pictures, and pictures/s."""
    few, many = (f"{total:,} pictures" for total in totals)
    head = ("", f"s, {few}", f"s, {many}", "pictures/s", "ratio (of the rounds)", f"GB, {few}", f"GB, {many}")
    labels = {"original": "original harness, fp32", "fp32": "ours, fp32", "amp_bf16": "ours, amp_bf16"}
    rows = []
    for name, pace in paces.items():
        seconds = [f"{side.seconds:.1f}" for side in (pace.few, pace.many)]
        gigabytes = [f"{side.gigabytes:.2f}" for side in (pace.few, pace.many)]
        ratio = spread(ratios(pace.rates, paces["original"].rates))
        rows.append((labels[name], *seconds, f"{statistics.median(pace.rates):.1f}", ratio, *gigabytes))
    return table(head, rows)


def precision_table(tasks: Sequence[Task], paces: Mapping[str, Pace]) -> list[str]:
    """A row a metric: the original harness, ours in fp32 and in bfloat16, and their differences."""
    rows = []
    for task in tasks:
        a, b, c = (paces[name].many.metrics(task.key) for name in ("original", "fp32", "amp_bf16"))
        for name in b:
            values = ["-" if value is None else f"{value:.4f}" for value in (a.get(name), b[name], c[name])]
            apart = shown(difference(a.get(name), b[name])), shown(difference(b[name], c[name]))
            rows.append((task.key, name, *values, *apart))
    head = ("task", "metric", "original, fp32", "ours, fp32", "ours, amp_bf16", "fp32 to fp32", "fp32 to bf16")
    return table(head, rows)


def phases_table(phases: Mapping[str, float]) -> list[str]:
    """A row a phase, the longest first."""
    rows = [(name, f"{seconds:.2f}") for name, seconds in sorted(phases.items(), key=lambda pair: -pair[1])]
    return table(("phase", "seconds"), rows)


def difference(a: float | None, b: float | None) -> float:
    """Absolute difference; infinite where only one has a value."""
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    return abs(a - b)


def shown(value: float) -> str:
    """A difference in few characters."""
    return "one has no value" if math.isinf(value) else "0" if value == 0 else f"{value:.1e}"


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]
