"""One's own results beside those that others have published of public models, task by task.

    report(beside({"A": lines}, read("openclip"), ["ViT-B-32/openai", "ViT-B-16/*"]))

Published scores come without predictions, from another program and maybe other data: there is nothing to test them by,
so that they stand there to be looked at. They are never official.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from poolbench.errors import UserError
from poolbench.text import aligned

from tasks.aggregates import mean, members
from tasks.grade import worst
from tasks.published import Model, Published, chosen
from tasks.registry import load_tasks
from tasks.results import ResultLine

_NEAREST = 4  # models that are shown where none is named


class Beside(NamedTuple):
    """Scores by column: one's own first, then the published models'.

    Attributes:
        source, sha256: of the published table.
        own, published: names of the columns; `own` are "A" and "B".
        tasks: keys of the tasks that all of one's own have, in the registry's order.
        scores: of each column the main metric by key, None where it was not published.
        stderr: of each column of one's own the standard errors by key.
        means: of each column over the tasks, None where it lacks one of them; named `mean_of`.
        grades: of each column of one's own, the worst.
    """

    source: str
    sha256: str
    own: list[str]
    published: list[str]
    tasks: list[str]
    scores: dict[str, dict[str, float | None]]
    stderr: dict[str, dict[str, float | None]]
    means: dict[str, float | None]
    mean_of: str
    grades: dict[str, str]


def beside(
    own: Mapping[str, Mapping[str, ResultLine]], published: Published, patterns: str | Sequence[str] | None = None
) -> Beside:
    """Put results beside published models.

    Args:
        own: name of the column -> lines of results by task key.
        patterns: globs over the models' names; None takes those whose mean is nearest to the first column's.

    Raises:
        UserError: a pattern that fits no model, or no task that the published ones have, too.
    """
    values = {name: {key: line.metrics["main_metric"] for key, line in lines.items()} for name, lines in own.items()}
    average = members()["average"]
    keys = [key for key in average if all(scores.get(key) is not None for scores in values.values())]
    if not keys:
        raise UserError(f"{' and '.join(own)}: no result of the {len(average)} tasks that published= has scores of")
    if patterns is not None:
        models = chosen(published.models, patterns)
    else:
        models = _nearest(mean([next(iter(values.values()))[key] for key in keys]), published.models, keys)
    scores = {**values, **{model.name: model.scores for model in models}}
    source = published.text if published.url is None else f"{published.text} ({published.url})"
    return Beside(
        source,
        published.sha256,
        list(own),
        [model.name for model in models],
        keys,
        {name: {key: column.get(key) for key in keys} for name, column in scores.items()},
        {name: {key: lines[key].stderr for key in keys} for name, lines in own.items()},
        {name: mean([column.get(key) for key in keys]) for name, column in scores.items()},
        "average" if len(keys) == len(average) else f"mean of these {len(keys)} tasks",
        {name: worst(lines[key].grade or "unofficial" for key in keys) for name, lines in own.items()},
    )


def report(found: Beside) -> str:
    """As text: the source, a row a task and one of the means, and what the columns are."""
    head = ["task", "metric"]
    for name in found.own:
        head += [name, "± stderr"]
    rows = [head + [f"{name} *" for name in found.published]]
    for key in found.tasks:
        row = [key, str(load_tasks()[key].main_metric)]
        for name in found.own:
            row += [_number(found.scores[name][key]), _number(found.stderr[name][key])]
        rows.append(row + [_number(found.scores[name][key]) for name in found.published])
    means = [found.mean_of, ""]
    for name in found.own:
        means += [_number(found.means[name]), ""]
    rows.append(means + [_number(found.means[name]) for name in found.published])
    grades = ", ".join(f"{name} is {grade}" for name, grade in found.grades.items())
    return "\n\n".join(
        [
            f"beside published results: {found.source}",
            aligned(rows, range(2, len(rows[0]))),
            "* published: evaluated by others, with nothing to test a difference by, and never official; " + grades,
        ]
    )


def as_json(found: Beside) -> dict[str, Any]:
    """The same in JSON's types."""
    return found._asdict()


def _nearest(own: float | None, models: Sequence[Model], keys: Sequence[str]) -> list[Model]:
    """The models whose means over the tasks are nearest to one's own, in the table's order."""
    means = {model.name: mean([model.scores[key] for key in keys]) for model in models}
    assert own is not None
    distances = {name: abs(value - own) for name, value in means.items() if value is not None}
    near = sorted(distances, key=lambda name: (distances[name], name))[:_NEAREST]
    return [model for model in models if model.name in near]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
