"""What bench/demo_methods.py found, as Markdown."""

import datetime
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from evaluation_report import table
from machine import machine

from poolbench.errors import UserError
from poolbench.files import atomic
from poolbench.uids import Uids

from leaderboard.models import Method as Scored

BEGIN, END = "<!-- by make methods -->", "<!-- end of what make methods writes -->"
_NONE = "–"


class Figures(NamedTuple):
    """What a selection does with wrong captions.

    Attributes:
        samples: in the subset, repeats counted; `rows` of the pool are they.
        precision: of dropping, wrong rows among the dropped ones; None where none is dropped.
        recall: dropped rows among the wrong ones.
        right: samples with a right caption among those kept, repeats counted.
    """

    samples: int
    rows: int
    precision: float | None
    recall: float
    right: float


class Row(NamedTuple):
    """A method, and its seeds' scores as the leaderboard has them, None where there are none."""

    method: str
    figures: Figures
    seconds: float | None
    scored: Scored | None


def figures(every: Uids, right: Uids, kept: Uids) -> Figures:
    """
    Args:
        every: uids of the pool, each once.
        right: of the samples with a right caption; others than the pool's are passed over.
        kept: of the subset, as often as they stand in it.
    """
    wrong = np.setdiff1d(every, right)
    dropped = np.setdiff1d(every, kept)
    both = len(np.intersect1d(dropped, wrong))
    return Figures(
        samples=len(kept),
        rows=len(every) - len(dropped),
        precision=both / len(dropped) if len(dropped) else None,
        recall=both / len(wrong),
        right=1 - float(np.isin(kept, wrong).mean()),
    )


def page(
    rows: Sequence[Row],
    skipped: dict[str, str],
    told: Sequence[str],
    trainings: int,
    missing: Sequence[tuple[str, int]],
) -> str:
    """The whole page.

    Args:
        told: a line of each method.
        missing: names and seeds of the trainings that are not there, of `trainings`.
    """
    mine = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pyarrow", "torch"))
    seeds: dict[str, list[str]] = {}
    for name, seed in missing:
        seeds.setdefault(name, []).append(str(seed))
    left = "; missing, with seeds: " + ", ".join(f"`{name}` {' '.join(some)}" for name, some in seeds.items())
    return "\n".join(
        [
            "# What each selection does on the demo pool",
            "",
            f"`python bench/{shlex.join([Path(sys.argv[0]).name, *_words()])}`, "
            f"{datetime.datetime.now(datetime.UTC):%d %B %Y}. Trainings: {trainings - len(missing)} of "
            f"{trainings}{left if missing else ''}.",
            "",
            f"Machine: {machine()}. {mine}.",
            "",
            *table(
                [
                    "method",
                    "samples",
                    "rows",
                    "right among kept",
                    "precision",
                    "recall",
                    "s",
                    "seeds",
                    "average",
                    "gain",
                ],
                map(_cells, sorted(rows, key=_mean, reverse=True)),
            ),
            "",
            "Precision: of the captions that are dropped so many are wrong. Recall: of the wrong captions so many are "
            "dropped. Seconds are of the processor, the start of the command included, and without the score columns "
            "that a row above has made. The average is that of the three demo tasks, mean ± standard deviation over "
            "the seeds; the gain over no filter is with Welch's interval of 95 %.",
            "",
            "## The selections",
            "",
            *(f"- {line}." for line in told),
            "",
            "## Left out",
            "",
            *(f"- `{name}`: {reason}." for name, reason in skipped.items()),
            "",
        ]
    )


def put_between(path: Path, rows: Sequence[Row]) -> None:
    """Replace what stands between the marks of a page by the short table.

    Raises:
        UserError: it has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"{path} has no lines {BEGIN} and {END}")
    with atomic(path) as file:
        file.write(f"{before}{begin}{chr(10).join(short(rows))}\n{end}{after}")


def short(rows: Iterable[Row]) -> list[str]:
    """Lines of the table for the documentation."""
    head = ["on the demo pool", "right among kept", "seeds", "average", "gain"]
    places = [0, 3, 7, 8, 9]
    return table(head, ([_cells(row)[place] for place in places] for row in sorted(rows, key=_mean, reverse=True)))


def _cells(row: Row) -> list[str]:
    found, scored = row.figures, row.scored
    return [
        row.method,
        f"{found.samples:,}",
        f"{found.rows:,}",
        f"{found.right:.1%}",
        _NONE if found.precision is None else f"{found.precision:.1%}",
        f"{found.recall:.1%}",
        _NONE if row.seconds is None else f"{row.seconds:.0f}",
        str(len(scored.seeds)) if scored else "0",
        _NONE if scored is None else _average(scored),
        _NONE if scored is None else _gain(scored),
    ]


def _average(scored: Scored) -> str:
    average = scored.aggregates["average"]
    return short_number(average.mean) + (f" ± {short_number(average.sd)}" if average.sd is not None else "")


def _gain(scored: Scored) -> str:
    gain = scored.gain
    if gain is None:
        return _NONE
    interval = "" if gain.low is None else f" ({short_number(gain.low)} to {short_number(gain.high)})"
    return f"{'+' if gain.value >= 0 else ''}{short_number(gain.value)}{interval}"


def short_number(value: float | None) -> str:
    """.353 for 0.3528"""
    return "none" if value is None else f"{value:z.3f}".replace("0.", ".", 1)


def _mean(row: Row) -> float:
    mean = row.scored.aggregates["average"].mean if row.scored else None
    return -1.0 if mean is None else mean


def _words() -> list[str]:
    """The words of this command, without those that name places."""
    words, places = [], {"--out", "--page", "--docs", "--pool", "--train"}
    for before, word in zip(["", *sys.argv[1:]], sys.argv[1:], strict=False):
        if before not in places and word not in places:
            words.append(word)
    return words
