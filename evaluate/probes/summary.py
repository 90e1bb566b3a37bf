"""What an evaluation prints of its probes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from poolbench.text import aligned

from tasks.probes import ProbeLine
from tasks.registry import Task

_HEADINGS = ("task", "probe", "metric", "score", "± sd", "draws", "weight decay", "trained on")


def probe_brief(line: ProbeLine) -> str:
    """One line for a probe that has just been trained."""
    return f"{line.key}, probe {line.probe}: {_score(line)} in {line.seconds:.1f} s"


def probe_summary(tasks: Sequence[Task], lines: Sequence[ProbeLine], problems: Mapping[str, str], file: Path) -> str:
    """The table of the probes of the chosen tasks, what is to be known of them, and which task has none and why.

    Args:
        tasks: the chosen ones, in order.
        problems: key -> why a task has none, or not all.
    """
    order = [task.key for task in tasks]
    metric_of = {task.key: task.main_metric or "-" for task in tasks}
    lines = sorted(lines, key=lambda line: order.index(line.key))
    parts = []
    if lines:
        parts.append(aligned([_HEADINGS, *(_row(line, metric_of[line.key]) for line in lines)]))
        told = {note: None for line in lines for note in notes(line)}
        parts.append("\n".join(told)) if told else None
    if problems:
        parts.append("\n".join(f"{key}: {reason}" for key, reason in problems.items()))
    if lines:
        parts.append(f"probes, which no average holds: {file}")
    return "\n" + "\n\n".join(parts)


def notes(line: ProbeLine) -> list[str]:
    """What has to be known of a probe besides its score."""
    found = []
    if line.leaked:
        found.append(f"{line.key}: {line.leaked:,} of {line.samples:,} test pictures are in the training split, too")
    if line.short_classes and line.shots is None:
        found.append(
            f"{line.key}: {line.short_classes} classes have no training picture, so that none is taken for one"
        )
    elif line.short_classes:
        found.append(
            f"{line.key}: {line.short_classes} classes have fewer than {line.shots} training pictures, and gave all"
        )
    if line.bad:
        found.append(f"{line.key}: {len(line.bad)} unreadable, listed in its line of probes")
    return found


def _row(line: ProbeLine, metric: str) -> tuple[str, ...]:
    decays = sorted(draw.weight_decay for draw in line.draws if draw.weight_decay is not None)
    spread = "-" if not decays else f"{decays[0]:.2g}" + f" to {decays[-1]:.2g}" * (decays[0] < decays[-1])
    sizes = sorted({draw.train for draw in line.draws})
    score, sd = line.metrics["main_metric"], line.sd["main_metric"]
    return (
        *(line.key, line.probe, metric),
        "-" if score is None else f"{score:.4f}",
        "-" if sd is None else f"{sd:.4f}",
        *(str(len(line.draws)), spread, f"{sizes[-1]:,}"),
    )


def _score(line: ProbeLine) -> str:
    score, sd = line.metrics["main_metric"], line.sd["main_metric"]
    if score is None:
        return "no score"
    return f"{score:.4f}" + ("" if sd is None else f" ± {sd:.4f} over {len(line.draws)} draws")
