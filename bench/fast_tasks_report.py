"""What bench/fast_tasks.py found, as Markdown."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from evaluation_report import table
from fast_tasks_judged import NOISE, Group, Judged, Models, judged, line, mean

from tasks.published import Published

_HEAD = (
    *("", "tasks", "cost", "Spearman", "Kendall", "error", "pairs", "like pairs"),
    *("random: Spearman", "Kendall", "error"),
)


class Row(NamedTuple):
    """A way to choose, over all halves: tasks and cost of its groups, how they judge held-out models, and how random
    groups of as many tasks do; how often each task is chosen."""

    label: str
    sizes: list[int]
    costs: list[float]
    held: list[Judged]
    random: list[Judged]
    chosen: "Counter[int]"


class Choice(NamedTuple):
    """All that came out: the rows by cost and by size, ImageNet's, the one that the group was chosen by, the group, and
    by family the group that is chosen without it and how it does on it."""

    by_cost: list[Row]
    by_size: list[Row]
    imagenet: Row
    row: Row
    group: Group
    families: dict[str, tuple[Group, Judged]]
    aim: float
    most: int


def page(command: str, published: Published, models: Models, left_out: Sequence[str], choice: Choice) -> str:
    """The measurement."""
    return "\n".join(
        [
            *_what(command, published, models, left_out, choice),
            "",
            *_rows(choice),
            "",
            *_tasks(models, choice),
            "",
            "## A family left out",
            "",
            "Chosen and fitted without the models of one family, judged on them:",
            "",
            *_families(models, choice),
        ]
    )


def _what(command: str, published: Published, models: Models, left_out: Sequence[str], choice: Choice) -> list[str]:
    group, everyone = choice.group, np.ones(len(models.names), dtype=bool)
    seen, held = judged(models, group, everyone, everyone), mean(choice.row.held)
    slope, intercept = line(models.scores[:, group].mean(axis=1), models.averages)
    pictures, all_ = sum(models.tasks[task].samples for task in group), sum(task.samples for task in models.tasks)
    keys = ", ".join(f"`{models.tasks[task].key}`" for task in group)
    return [
        "# The group `fast`",
        "",
        f"`{command}`",
        "",
        f"Chosen from the scores of {len(models.names)} models in {published.text} (SHA-256 `{published.sha256}`).",
        f"Left out, as their scores are another row's again or incomplete: {', '.join(left_out) or 'none'}.",
        "",
        f"**{keys}**: {len(group)} tasks, {models.costs[list(group)].sum():.1%} of the cost of {len(models.tasks)} and "
        f"{pictures / all_:.1%} of their pictures ({pictures:,} of {all_:,}).",
        "",
        f"- On models that it was not chosen on: Spearman {held.rho:.3f}, Kendall {held.tau:.3f}; the average that its "
        f"mean foretells is off by {held.error:.4f} (root mean square).",
        f"- On those that it was chosen on: Spearman {seen.rho:.3f}, Kendall {seen.tau:.3f}, error {seen.error:.4f}.",
        f"- average ≈ {intercept:.4f} + {slope:.4f} × mean of the group, fitted on all of them.",
    ]


def _rows(choice: Choice) -> list[str]:
    return [
        "## By cost",
        "",
        f"For each cost that may be spent, groups of at most {choice.most} tasks. All is of models that were held out, "
        f"means over {len(choice.row.held)} halves; in brackets the worst of twenty. Cost: of all tasks, by `cost` in "
        "their files. Error: of the average that the mean foretells by a line from the other half, root mean square. "
        f"Pairs: in the order of the average, of those whose averages are more than {NOISE} apart; like pairs: of one "
        "architecture and as many samples seen, so that the data make the difference. Random groups have as many "
        "tasks.",
        "",
        *table(_HEAD, [_cells(one) for one in (*choice.by_cost, choice.imagenet)]),
        "",
        f"`fast` is what the lowest cost with a Spearman of at least {choice.aim} chooses on all models. That cost was "
        "found by these same numbers, which flatters them a little.",
        "",
        "## By number of tasks",
        "",
        "The same with at most so many tasks, whatever they cost.",
        "",
        *table(_HEAD, [_cells(one) for one in choice.by_size]),
    ]


def _cells(row: Row) -> tuple[str, ...]:
    held, random = mean(row.held), mean(row.random)
    rho, tau, error, *_ = np.array(row.held, dtype=np.float64).T
    return (
        row.label,
        f"{np.mean(row.sizes):.1f}",
        f"{np.mean(row.costs):.1%}",
        f"{held.rho:.3f} ({np.percentile(rho, 5):.3f})",
        f"{held.tau:.3f} ({np.percentile(tau, 5):.3f})",
        f"{held.error:.4f} ({np.percentile(error, 95):.4f})",
        _share(held.right, held.pairs),
        _share(held.like_right, held.like_pairs),
        f"{random.rho:.3f}",
        f"{random.tau:.3f}",
        f"{random.error:.4f}",
    )


def _tasks(models: Models, choice: Choice) -> list[str]:
    halves = len(choice.row.held)
    often = sorted(choice.row.chosen.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [
        (
            models.tasks[task].key,
            f"{models.costs[task]:.2%}",
            f"{models.tasks[task].samples:,}",
            f"{count / halves:.0%}",
            "yes" if task in choice.group else "",
        )
        for task, count in often
    ]
    return [
        "## The tasks",
        "",
        f"How often each is in the group that a half chooses at a cost of {choice.row.label} ({halves} halves):",
        "",
        *table(("task", "cost", "pictures", "chosen", "in `fast`"), rows),
    ]


def _families(models: Models, choice: Choice) -> list[str]:
    head = ("family", "models", "group", "Spearman", "Kendall", "error", "pairs", "like pairs")
    counts = Counter(models.families)
    rows = [
        (
            name,
            str(counts[name]),
            ", ".join(models.tasks[task].key for task in group),
            f"{found.rho:.3f}",
            f"{found.tau:.3f}",
            f"{found.error:.4f}",
            f"{found.right} of {found.pairs}",
            f"{found.like_right} of {found.like_pairs}",
        )
        for name, (group, found) in choice.families.items()
    ]
    return table(head, rows)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
