"""The group `fast`: the cheapest tasks whose mean stands for the average of 38, chosen on models that others published.

    python bench/fast_tasks.py openclip_results.csv
    python bench/fast_tasks.py openclip --page bench/results/fast_tasks.md --group tasks/fast.yaml

The cost of a group is the sum of its tasks' `cost`, seconds that the published task list states, over that of all 38.
For a cost that may be spent, the group is searched whose mean, after a linear fit, is nearest to the average over the
models that are looked at. How good it is shows on others: families of models (by training data) are parted into halves
at random, a group is chosen and fitted on one half and judged on the other, both ways. The group that is kept is chosen
on all models, at the lowest of the tried costs at which the held-out rank correlation reaches the aim.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml
from fast_tasks_judged import Bools, Floats, Group, Judged, Models, judged, line, mean
from fast_tasks_report import Choice, Row, page

from poolbench.errors import exit_on_user_error
from poolbench.files import atomic

from tasks.aggregates import members
from tasks.fast import Fast
from tasks.published import Published, read
from tasks.registry import load_tasks

AIM = 0.99  # Spearman's rho on models that the group was not chosen on, mean over the halves
COSTS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15)  # that may be spent, of all 38 tasks
MOST = 8  # tasks of a group
BEAM = 30  # groups that are kept while they grow by a task
RANDOM = 5  # random groups a half, to compare with
FEWEST = 4  # models of a family that is judged by itself
ABOUT = (
    "# The group `fast`, as bench/fast_tasks.py writes it: bench/results/fast_tasks.md has its figures, tasks/fast.py\n"
    "# says what they are.\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", help="open_clip's openclip_results.csv: a copy, an address, or openclip")
    parser.add_argument("--splits", type=int, default=50, help="times that the families are parted into halves")
    parser.add_argument("--page", type=Path, help="Markdown file to write")
    parser.add_argument("--group", type=Path, help="YAML file of the group to write")
    arguments = parser.parse_args()
    published = read(arguments.published)
    models, left_out = models_of(published)
    found = choice(models, list(parted(models.families, arguments.splits)))
    splits = "" if arguments.splits == 50 else f" --splits {arguments.splits}"
    command = f"python bench/fast_tasks.py {Path(arguments.published).name}{splits}"
    text = page(command, published, models, left_out, found)
    print(text)
    if arguments.page is not None:
        with atomic(arguments.page) as file:
            file.write(text + "\n")
    if arguments.group is not None:
        write_group(arguments.group, published, models, found)


# --- the models ---


def models_of(published: Published) -> tuple[Models, list[str]]:
    """The models with all scores, each set of scores once, and the names of those that are left out for either."""
    tasks = [load_tasks()[key] for key in members()["average"]]
    rows, left_out = {}, []
    for model in published.models:
        scores = tuple(model.scores[task.key] for task in tasks)
        if None in scores or scores in rows:
            left_out.append(model.name)
        else:
            rows[scores] = model.name
    costs = np.array([task.cost for task in tasks], dtype=np.float64)
    names, recipes = list(rows.values()), [recipe(name) for name in rows.values()]
    alike = np.array([[one is not None and one == other for other in recipes] for one in recipes])
    table = np.array(list(rows), dtype=np.float64)
    return Models(names, [family(name) for name in names], table, tasks, costs / costs.sum(), alike), left_out


def family(name: str) -> str:
    """By what data a model was trained on, as its name tells: the letters behind the architecture."""
    tag = re.sub(r"^(mscoco_finetuned_|frozen_)", "", name.partition("/")[2])
    found = re.match(r"[a-z]+", tag)
    word = found[0] if found else tag
    return "commonpool" if word == "datacomp" else word  # DataComp's own data are drawn from its pool


def recipe(name: str) -> tuple[str, str] | None:
    """Architecture and samples seen, where the name tells them."""
    architecture, _, tag = name.partition("/")
    found = re.search(r"_s(\d+[mb])_", f"{tag}_")
    return (architecture, found[1]) if found else None


# --- choosing and judging ---


def parted(families: Sequence[str], splits: int) -> Iterator[Bools]:
    """Halves of the models, whole families each, and of each split the other half, too."""
    rng = np.random.default_rng(0)
    all_, of = sorted(set(families)), np.array(families)
    for _ in range(splits):
        half = np.zeros(len(of), dtype=bool)
        for name in rng.permutation(all_):
            inside = of == name
            if half.sum() + inside.sum() / 2 < len(of) / 2:
                half |= inside
        yield from (half, ~half)


def grown(scores: Floats, averages: Floats, costs: Floats, most: float, size: int) -> Group:
    """The best group of at most `size` tasks and cost `most` that a search finds that keeps BEAM groups of each size.

    Best is the highest correlation of the group's mean with the average, which is the least error after a linear fit.
    """
    centred, target = scores - scores.mean(axis=0), averages - averages.mean()
    beam: list[Group] = [()]
    best, highest = (), -np.inf
    for _ in range(size):
        found = {
            tuple(sorted((*group, task)))
            for group in beam
            for task in range(len(costs))
            if task not in group and costs[[*group, task]].sum() <= most
        }
        if not found:
            break
        groups = sorted(found)
        sums = np.stack([centred[:, group].sum(axis=1) for group in groups])
        spread = np.sqrt((sums**2).sum(axis=1) * (target**2).sum())
        r = np.divide(sums @ target, spread, out=np.full(len(groups), -1.0), where=spread > 0)
        order = np.argsort(-r, kind="stable")[:BEAM]
        if r[order[0]] > highest + 1e-9:
            best, highest = groups[order[0]], r[order[0]]
        beam = [groups[place] for place in order]
    return best


def choice(models: Models, halves: Sequence[Bools]) -> Choice:
    """Everything that is tried, and the group that is kept."""
    by_cost = {most: searched(models, halves, f"{most:.1%}", most, MOST) for most in COSTS}
    reached = [most for most, row in by_cost.items() if mean(row.held).rho >= AIM]
    if not reached:
        sys.exit(f"no cost of {COSTS} reaches a held-out rank correlation of {AIM}")
    imagenet = [task.key for task in models.tasks].index("imagenet1k")
    return Choice(
        list(by_cost.values()),
        [searched(models, halves, str(size), 1.0, size) for size in range(1, MOST + 1)],
        row_of(models, halves, "ImageNet 1k alone", [(imagenet,)] * len(halves)),
        by_cost[reached[0]],
        grown(models.scores, models.averages, models.costs, reached[0], MOST),
        dict(without_each(models, reached[0])),
        AIM,
        MOST,
    )


def searched(models: Models, halves: Sequence[Bools], label: str, most: float, size: int) -> Row:
    """The group that each half would choose, judged on the other."""
    groups = [grown(models.scores[half], models.averages[half], models.costs, most, size) for half in halves]
    return row_of(models, halves, label, groups)


def row_of(models: Models, halves: Sequence[Bools], label: str, groups: Sequence[Group]) -> Row:
    """Groups, one a half, judged on the other half beside random ones of as many tasks."""
    rng = np.random.default_rng(0)
    held = [judged(models, group, half, ~half) for group, half in zip(groups, halves, strict=True)]
    random = [
        judged(models, tuple(rng.choice(len(models.tasks), len(group), replace=False)), half, ~half)
        for group, half in zip(groups, halves, strict=True)
        for _ in range(RANDOM)
    ]
    costs = [float(models.costs[list(group)].sum()) for group in groups]
    return Row(label, list(map(len, groups)), costs, held, random, Counter(task for group in groups for task in group))


def without_each(models: Models, most: float) -> Iterator[tuple[str, tuple[Group, Judged]]]:
    """Each family of FEWEST models or more, the largest first: the group that the others choose, judged on it."""
    of = np.array(models.families)
    for name, count in Counter(models.families).most_common():
        rest = of != name
        if count >= FEWEST and rest.any():
            group = grown(models.scores[rest], models.averages[rest], models.costs, most, MOST)
            yield name, (group, judged(models, group, rest, ~rest))


# --- what is kept ---


def write_group(path: Path, published: Published, models: Models, found: Choice) -> None:
    """The group, and how far its mean can be trusted, as tasks/fast.py reads it."""
    held, means = mean(found.row.held), models.scores[:, found.group].mean(axis=1)
    slope, intercept = line(means, models.averages)
    group = Fast(
        tasks=[models.tasks[task].key for task in found.group],
        models=len(models.names),
        published=published.sha256,
        spearman=round(held.rho, 3),
        kendall=round(held.tau, 3),
        error=round(held.error, 4),
        slope=round(slope, 4),
        intercept=round(intercept, 4),
    )
    with atomic(path) as file:
        file.write(ABOUT)
        yaml.safe_dump(group.model_dump(), file, sort_keys=False)


if __name__ == "__main__":
    exit_on_user_error(main)
