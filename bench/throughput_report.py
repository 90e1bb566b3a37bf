"""What the runs of bench/train_throughput.py come to, as Markdown."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from end_to_end import Case, Pace
from evaluation_report import ratios, spread, table
from throughput_work import DEVICE, Read, StepWork, Trained

T = TypeVar("T")
LOADER, BOUND, NEVER_BELOW, SHARE = 2.0, 1.5, 1.0, 0.4  # what is asked for
SHARE_OF = ("ViT-B-16", "ViT-L-14")  # the models for which the share of the matrix product is asked for, on a GPU


class Both(NamedTuple, Generic[T]):
    """The same measurement, once a round; `theirs` is empty where there is no peer."""

    ours: list[T]
    theirs: list[T]

    def medians(self, value: Callable[[T], float], form: str) -> list[str]:
        """A cell each, ours first."""
        return [format(statistics.median(map(value, side)), form) if side else "-" for side in (self.ours, self.theirs)]

    def faster(self, value: Callable[[T], float]) -> list[float]:
        """Ours over theirs, by round; [] without a peer."""
        return ratios(map(value, self.ours), map(value, self.theirs)) if self.theirs else []


def loader_part(reads: Both[Read]) -> list[str]:
    """The loader alone: rates, then where its time goes."""
    values: list[tuple[str, Callable[[Read], float], float | None]] = [
        ("samples/s with one worker", lambda read: read.rate, None),
        ("samples a second of processor time, all processes", lambda read: read.cpu_rate, LOADER),
        ("pictures decoded and resized a second of processor time", lambda read: read.pictures, LOADER),
    ]
    rows = []
    for says, value, least in values:
        faster = reads.faster(value)
        rows.append((says, *reads.medians(value, ".1f"), _ratio(faster), _verdict("ratio", faster, least)))
    return [
        "## The loader alone",
        "",
        f"{reads.ours[0].samples:,} samples of 512-pixel JPEGs, one worker, one thread, the first ones left out.",
        "",
        *table(("", "ours", "open_clip_train", "ratio (of the rounds)", "goal"), rows),
        "",
        "Seconds of processor time for 1,000 samples. Each part is measured by itself, in one process; the rest is "
        "what the loader takes beyond their sum: handing batches from process to process, first of all.",
        "",
        *table(("part", "ours", "open_clip_train"), _pieces(reads)),
        "",
    ]


def step_part(steps: Mapping[StepWork, Both[Trained]]) -> list[str]:
    """The step alone: a row a model, then where our time goes."""
    head = ("model", "precision", "batch", "ours, samples/s", "open_clip_train", "ratio (of the rounds)")
    shares = ("ours, TFLOP/s", "matrix product, TFLOP/s", "share", "share, open_clip_train", "share without padding")
    lines = [
        "## The step alone",
        "",
        "Synthetic batches on the device: forward, backward, optimizer. FLOP/s are samples/s times three forward "
        "passes, as torch's FlopCounterMode counts them (equal to open_clip's own profile). They count captions of "
        "the full length, whatever a side makes of their padding, so that equal FLOP/s are equal samples/s; what is "
        "computed again to save memory is not counted. `share without padding`, by which the goal is judged, takes "
        "the padding off ours: the text tower's count times the share of tokens that are none. The matrix product is "
        "a large square one in the same precision.",
        "",
        *table((*head, *shares, "goals"), [_step_row(work, both) for work, both in steps.items()]),
        "",
    ]
    for work, both in steps.items():
        rows = [(f"`{name}`", f"{100 * share:.1f} %") for name, share in both.ours[-1].operations.items()]
        lines += [f"Where our time goes, {work.model}:", "", *table(("operation", "of the step"), rows), ""]
    return lines


def both_part(paces: Mapping[Case, Both[Pace]]) -> list[str]:
    """Loader and step together."""
    rows = []
    for case, both in paces.items():
        faster = both.faster(lambda pace: pace.rate)
        binds = bool(both.theirs) and statistics.median(pace.waited for pace in both.theirs) > 0.5
        rows.append(
            (
                *(case.says, case.precision, str(case.batch), str(case.workers)),
                *both.medians(lambda pace: pace.rate, ".1f"),
                _ratio(faster),
                *both.medians(lambda pace: pace.waited, ".0%"),
                _verdict("ratio", faster, BOUND if binds else NEVER_BELOW),
            )
        )
    head = ("what is trained", "precision", "batch", "workers", "ours, samples/s", "open_clip_train")
    return [
        "## Both together",
        "",
        f"Whole processes from shards, the first steps left out. The goal is {BOUND} where open_clip_train waits for "
        f"data more than half its time, else {NEVER_BELOW}.",
        "",
        *table((*head, "ratio (of the rounds)", "ours waits for data", "open_clip_train waits", "goal"), rows),
        "",
    ]


def _pieces(reads: Both[Read]) -> list[tuple[str, ...]]:
    """A row a part of the loader, then the rest and the sum."""
    names = dict.fromkeys(name for side in reads for read in side for name in read.pieces)

    def row(name: str) -> tuple[str, ...]:
        return (name, *reads.medians(lambda read: read.pieces.get(name, 0.0), ".2f"))

    rest = reads.medians(lambda read: 1000 / read.cpu_rate - sum(read.pieces.values()), ".2f")
    return [
        *map(row, names),
        ("the rest", *rest),
        ("the loader as a whole", *reads.medians(lambda r: 1000 / r.cpu_rate, ".2f")),
    ]


def _step_row(work: StepWork, both: Both[Trained]) -> tuple[str, ...]:
    one, faster = both.ours[0], both.faster(lambda trained: trained.rate)
    whole, real = (3 * (one.image_flops + share * one.text_flops) for share in (1.0, one.filled))
    peak = max(trained.matmul for trained in both.ours)
    rate = statistics.median(trained.rate for trained in both.ours)
    goals = [_verdict("ratio", faster, NEVER_BELOW)]
    if work.model in SHARE_OF and DEVICE == "cuda":
        goals.append(_verdict("share", [rate * real / peak], SHARE))
    return (
        *(work.model, work.precision, str(work.batch)),
        *both.medians(lambda trained: trained.rate, ".1f"),
        _ratio(faster),
        *(f"{rate * whole / 1e12:.3g}", f"{peak / 1e12:.3g}"),
        *both.medians(lambda trained: trained.rate * whole / peak, ".0%"),
        f"{rate * real / peak:.0%}",
        "; ".join(goals),
    )


def _ratio(values: Sequence[float]) -> str:
    return spread(values) if values else "-"


def _verdict(what: str, values: Sequence[float], least: float | None) -> str:
    """The goal and whether the median of the values reaches it."""
    if least is None:
        return "-"
    if not values:
        return f"{what} of {least}: not measured"
    return f"{what} of {least}: {'met' if statistics.median(values) >= least else '**missed**'}"
