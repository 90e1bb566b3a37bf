"""Two models' probes side by side. No test is made of them: that of the pictures would not cover the draws."""

from collections.abc import Sequence
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

from poolbench.text import aligned

from tasks.probes import FILE, ProbeLine, read_probes
from tasks.registry import load_tasks

_HEADINGS = ("task", "probe", "metric", "A", "B", "B - A", "± sd", "draws")


class ProbeDifference(NamedTuple):
    """B compared with A on one probe of one task; `sd` is that of the difference over draws that both made alike, None
    of fewer than two."""

    key: str
    probe: str
    metric: str
    a: float
    b: float
    difference: float
    sd: float | None
    draws: int


class Probes(NamedTuple):
    """The probes that both have, in the order of tasks and probes, and why others cannot be compared."""

    differences: list[ProbeDifference]
    not_comparable: dict[str, str]


def compare_probes(a: Path, b: Path) -> Probes:
    """Compare the last line of each probe in two folders of results; empty where one has none.

    Raises:
        UserError: a file holds something else than lines of probes.
    """
    lines_a, lines_b = _last(a), _last(b)
    found: list[ProbeDifference] = []
    refused: dict[str, str] = {}
    for name in sorted(lines_a.keys() & lines_b.keys(), key=_order):
        first, second = lines_a[name], lines_b[name]
        if (first.data_digest, first.train_digest) != (second.data_digest, second.train_digest):
            refused[f"{first.key}, probe {first.probe}"] = "A and B were trained or tested on different data"
            continue
        one, other = first.metrics["main_metric"], second.metrics["main_metric"]
        if one is None or other is None:
            refused[f"{first.key}, probe {first.probe}"] = "one of them has no main metric"
            continue
        metric = load_tasks()[first.key].main_metric or "-"
        found.append(ProbeDifference(first.key, first.probe, metric, one, other, other - one, *_spread(first, second)))
    return Probes(found, refused)


def probe_report(probes: Probes) -> str:
    """The comparison as text; nothing where there is nothing."""
    parts = []
    if probes.differences:
        rows = [
            (
                *(one.key, one.probe, one.metric, f"{one.a:.4f}", f"{one.b:.4f}", f"{one.difference:+.4f}"),
                *("-" if one.sd is None else f"{one.sd:.4f}", str(one.draws)),
            )
            for one in probes.differences
        ]
        parts.append(aligned([_HEADINGS, *rows], range(3, len(_HEADINGS))))
        parts.append(
            "Probes; ± sd is that of B - A over draws of the same pictures, and says nothing of other test sets."
        )
    parts += [f"not comparable: {name}: {reason}" for name, reason in probes.not_comparable.items()]
    return "\n\n".join(parts)


def as_values(probes: Probes) -> dict[str, Any]:
    """The comparison in JSON's types, as a part of that of the tasks; nothing where there is nothing."""
    if not probes.differences and not probes.not_comparable:
        return {}
    rows = [one._asdict() for one in probes.differences]
    return {"probes": rows, "probes_not_comparable": probes.not_comparable}


def _last(folder: Path) -> dict[tuple[str, str, int], ProbeLine]:
    known = load_tasks()
    lines = [line for line in read_probes(folder / FILE) if line.key in known]
    return {(line.key, line.head, line.shots or 0): line for line in lines}


def _order(name: tuple[str, str, int]) -> tuple[int, str, int]:
    key, head, shots = name
    return list(load_tasks()).index(key), head, shots


def _spread(a: ProbeLine, b: ProbeLine) -> tuple[float | None, int]:
    """The standard deviation of the difference over draws with the same seeds, and how many there are."""
    of_a, of_b = _by_seed(a), _by_seed(b)
    seeds: Sequence[int] = [seed for seed in of_a if seed in of_b]
    if len(seeds) < 2:
        return None, len(seeds)
    return stdev(of_b[seed] - of_a[seed] for seed in seeds), len(seeds)


def _by_seed(line: ProbeLine) -> dict[int, float]:
    values = {draw.seed: draw.metrics["main_metric"] for draw in line.draws}
    return {seed: value for seed, value in values.items() if value is not None}
