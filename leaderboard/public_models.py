"""Public models beside the boards: others trained them on data and by recipes of their own, so no board is theirs.

They have the averages that their published scores come to, best first, and no rank. Published results of the recipes of
a board are another thing: leaderboard/references.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

from leaderboard.rank import descending
from tasks.aggregates import aggregates
from tasks.published import chosen, read


class PublicModel(NamedTuple):
    """A model, its aggregates by name, and its main metrics by task key; None where a score was not published."""

    name: str
    aggregates: dict[str, float | None]
    scores: dict[str, float | None]


class PublicModels(NamedTuple):
    """Models, best first, and the table that they are from."""

    text: str
    url: str | None
    sha256: str
    models: list[PublicModel]


def public_models(place: str, patterns: str | Sequence[str] | None = None) -> PublicModels:
    """Those of a table that `patterns` name; None takes all.

    Raises:
        UserError: the table cannot be read, or a pattern names none of its models.
    """
    table = read(place)
    models = chosen(table.models, patterns)
    rows = [PublicModel(model.name, aggregates(model.scores), model.scores) for model in models]
    return PublicModels(table.text, table.url, table.sha256, sorted(rows, key=_order))


def _order(model: PublicModel) -> tuple[float, float, str]:
    return (*descending(model.aggregates["average"], model.aggregates["imagenet"]), model.name)
