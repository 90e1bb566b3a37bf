"""Leaderboards that are quick to make, without submissions, for tests of the page."""

from typing import Any

from poolbench.files import digest_bytes

from leaderboard.models import (
    Bad,
    Board,
    BoardTask,
    Citation,
    Entry,
    Gain,
    Leaderboard,
    Method,
    Noise,
    Reference,
    Score,
    Spread,
)

AGGREGATES = ["imagenet", "vtab", "average"]
TASKS = [
    BoardTask(key="imagenet1k", name="ImageNet 1k", main_metric="acc1", groups=["imagenet"]),
    BoardTask(key="vtab/dtd", name="Textures", main_metric="acc1", groups=["vtab"]),
    BoardTask(key="vtab/pets", name="Pets", main_metric="mean_per_class_recall", groups=["vtab"]),
    BoardTask(key="mnist", name="MNIST", main_metric="acc1", groups=["other"]),
    BoardTask(key="fairface", name="FairFace", main_metric=None, groups=["fairness"]),
]
SOURCE = Citation(text="A. Paper, 2023, Table 3", url="https://example.org/paper")
NOISE = Noise(values={"average": 0.006, "imagenet": 0.002}, citation=SOURCE)
HOSTILE = "<script>window.ran=1</script><img src=x onerror='window.ran=2'>\"'&amp;</td></table>"
TURNING = "\u202edesrever\u2066 \u200b\x1b[31m"


# What sticks out of the window, as text.
OVERFLOW = """
const wide = [];
for (const node of document.querySelectorAll("body *")) {
  const box = node.getBoundingClientRect();
  if (!box.width || box.right <= innerWidth + 1 || node.closest(".scroll, .unseen, .skip, .chart")) continue;
  wide.push(node.outerHTML.slice(0, 200));
}
if (document.scrollingElement.scrollWidth > innerWidth) wide.push("the page");
return wide;
"""


def entry(method: str, average: float, rank: int | None = None, last: int | None = None, **changes: Any) -> Entry:
    """An entry whose tasks all have `average` but MNIST, which goes the other way."""
    scores = {task.key: Score(value=average, stderr=0.004) for task in TASKS[:3]}
    values = {
        "rank": rank,
        "rank_last": last if last is not None else rank,
        "digest": digest_bytes(repr((method, average, rank)).encode()),
        "method": method,
        "author": "A. Author",
        "writeup": None,
        "aggregates": {name: Score(value=average, stderr=0.002) for name in AGGREGATES},
        "scores": {**scores, "mnist": Score(value=0.9 - average, stderr=0.003)},
        "dataset_size": round(12_800_000 * (1 - average)),
        "samples_seen": 12_800_000,
        "seed": 0,
        "precision": "amp_bf16",
        "official": rank is not None,
        "grade": "unofficial" if rank is None else "official",
        "deviations": [] if rank is not None else ["run not complete"],
        **dict.fromkeys(("recipe_digest", "data_digest", "subset_digest", "checkpoint_sha256"), "a" * 64),
        "bad": Bad(samples=3, shards=0),
        "version": "0.1.0",
        "finished": "2026-01-01T04:00:00+00:00",
    }
    return Entry.model_construct(**{**values, **changes})


def reference(method: str, average: float, scores: bool = True) -> Reference:
    return Reference(
        method=method,
        author="A. Paper",
        aggregates=dict.fromkeys(AGGREGATES, average),
        scores={task.key: average for task in TASKS[:4]} if scores else {},
        dataset_size=12_800_000,
        citations=[SOURCE],
        notes=["the table and the text disagree"] if scores else [],
    )


def board(ranked: list[Entry], unranked: list[Entry], published: list[Reference], **changes: Any) -> Board:
    values: dict[str, Any] = {
        "track": "filtering",
        "scale": "small",
        "pool_size": 12_800_000,
        "aggregates": AGGREGATES,
        "tasks": TASKS,
        "noise": NOISE,
        "ranked": ranked,
        "unverified": [],
        "unranked": unranked,
        "references": published,
        "methods": [],
    }
    return Board.model_construct(**{**values, **changes})


def leaderboard(*boards: Board) -> Leaderboard:
    return Leaderboard.model_construct(format=2, aggregates_version=1, boards=list(boards))


def method(name: str, seeds: int, average: Spread, interval: Gain | None, **changes: Any) -> Method:
    values = {
        "method": name,
        "author": "A. Author",
        "dataset_size": 12_800_000,
        "entries": [],
        "seeds": list(range(seeds)),
        "aggregates": {"average": average},
        "baseline": False,
        "gain": interval,
    }
    return Method.model_construct(**{**values, **changes})


METHODS = [
    method("Clip", 3, Spread(mean=0.353, sd=0.007), Gain(value=0.083, low=0.071, high=0.095), dataset_size=3_840_000),
    method("Beta once", 1, Spread(mean=0.3, sd=None), Gain(value=0.03, low=None, high=None)),
    method("No filter", 3, Spread(mean=0.27, sd=0.004), None, baseline=True),
    method("Basic", 2, Spread(mean=0.26, sd=0.01), Gain(value=-0.01, low=-0.04, high=0.02)),
]


def usual() -> Leaderboard:
    """A tie of two at the top, 68 behind, one not ranked, two published; ten of them at medium too; one elsewhere.

    Methods with several seeds are on the first board alone.
    """
    rest = [entry(f"Method {n:02}", 0.26 - n / 1000, n + 3, min(n + 8, 70), seed=n) for n in range(68)]
    top = [entry("Alpha", 0.3, 1, 2, writeup="https://example.org/alpha"), entry("=Beta ∩ Gamma", 0.298, 1, 2)]
    published = [reference("Pool as it is", 0.1), reference("Published best", 0.29, scores=False)]
    medium = [entry(row.method, 0.4 - n / 50, n + 1) for n, row in enumerate([*top, *rest[:8]])]
    return leaderboard(
        board([*top, *rest], [entry("Unfinished", 0.5)], published, methods=METHODS),
        board(medium, [], [], scale="medium", pool_size=128_000_000),
        board([entry("Own data", 0.4, 1)], [], [], track="byod", pool_size=None),
    )


def unverified() -> Leaderboard:
    """A board on which the best two entries are unverified."""
    apart = [entry(f"Nobody {n}", 0.4 - n / 10, grade="unverified", official=False, deviations=[]) for n in range(2)]
    return leaderboard(board([entry("Alpha", 0.25, 1)], [entry("Unfinished", 0.9)], [], unverified=apart))
