"""What bench/demo_methods.py found, as Markdown."""

import datetime
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from evaluation_report import table
from machine import machine

from poolbench.errors import UserError
from poolbench.files import atomic
from poolbench.uids import Uids

from leaderboard.models import Method as Scored

_NONE = "–"
_KINDS = "Of each kind of samples the share that is dropped. "


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
    """A method, and its seeds' scores as the leaderboard has them, None where there are none; of the pool's kinds of
    samples, where it has such, the share that is dropped of each."""

    method: str
    figures: Figures
    seconds: float | None
    scored: Scored | None
    dropped: Mapping[str, float] = MappingProxyType({})


class Missing(NamedTuple):
    """How many trainings there are to be, and the names and seeds of those that are not there."""

    trainings: int
    runs: Sequence[tuple[str, int]]


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
    pool: str,
    rows: Sequence[Row],
    skipped: Mapping[str, str],
    told: Sequence[str],
    missing: Missing,
    more: Sequence[str] = (),
) -> str:
    """The whole page.

    Args:
        pool: what it is called.
        told: a line of each method.
        more: lines behind the selections.
    """
    mine = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pyarrow", "torch"))
    head = ["method", "samples", "rows", "right among kept", "precision", "recall", *_kinds(rows)]
    return "\n".join(
        [
            f"# What each selection does on {pool}",
            "",
            f"`python bench/{shlex.join([Path(sys.argv[0]).name, *_words()])}`, "
            f"{datetime.datetime.now(datetime.UTC):%d %B %Y}. Trainings: {_trained(missing)}.",
            "",
            f"Machine: {machine()}. {mine}.",
            "",
            *table([*head, "s", "seeds", "average", "gain"], map(_cells, sorted(rows, key=_mean, reverse=True))),
            "",
            "Precision: of the captions that are dropped so many are wrong. Recall: of the wrong captions so many are "
            f"dropped. {_KINDS if _kinds(rows) else ''}Seconds are of the processor, the start of the command "
            "included, and without the score columns that were made before. The average is that of the three demo "
            "tasks, mean ± standard deviation over the seeds; the gain over no filter is with Welch's interval of "
            "95 %.",
            "",
            "## The selections",
            "",
            *(f"- {line}." for line in told),
            "",
            *more,
            *(
                ["## Left out", "", *(f"- `{name}`: {reason}." for name, reason in skipped.items()), ""]
                if skipped
                else []
            ),
        ]
    )


def _trained(missing: Missing) -> str:
    seeds: dict[str, list[str]] = {}
    for name, seed in missing.runs:
        seeds.setdefault(name, []).append(str(seed))
    left = "; missing, with seeds: " + ", ".join(f"`{name}` {' '.join(some)}" for name, some in seeds.items())
    return f"{missing.trainings - len(missing.runs)} of {missing.trainings}{left if seeds else ''}"


def marks(make: str) -> tuple[str, str]:
    """The lines between which a target of the Makefile puts its short table."""
    return f"<!-- by make {make} -->", f"<!-- end of what make {make} writes -->"


def put_between(path: Path, rows: Sequence[Row], pool: str, make: str) -> None:
    """Replace what stands between the marks of a page by the short table.

    Args:
        pool: what it is called.
        make: see `marks`.

    Raises:
        UserError: it has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    first, last = marks(make)
    before, begin, rest = text.partition(f"{first}\n")
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise UserError(f"{path} has no lines {first} and {last}")
    with atomic(path) as file:
        file.write(f"{before}{begin}{chr(10).join(short(rows, pool))}\n{end}{after}")


def short(rows: Sequence[Row], pool: str) -> list[str]:
    """Lines of the table for the documentation."""
    kinds = _kinds(rows)
    every = [_cells(row) for row in sorted(rows, key=_mean, reverse=True)]
    scored = [[*cells[:1], *cells[3:4], *cells[6 : 6 + len(kinds)], *cells[-3:]] for cells in every]
    return table([f"on {pool}", "right among kept", *kinds, "seeds", "average", "gain"], scored)


def _kinds(rows: Iterable[Row]) -> list[str]:
    """The headings of the shares that are dropped of the kinds."""
    return [f"{kind} dropped" for kind in next(iter(rows)).dropped]


def _cells(row: Row) -> list[str]:
    found, scored = row.figures, row.scored
    return [
        row.method,
        f"{found.samples:,}",
        f"{found.rows:,}",
        f"{found.right:.1%}",
        _NONE if found.precision is None else f"{found.precision:.1%}",
        f"{found.recall:.1%}",
        *(f"{share:.1%}" for share in row.dropped.values()),
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
