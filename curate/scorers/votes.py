"""The probability that a row is good, from what columns vote by their thresholds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from poolbench.errors import UserError
from poolbench.files import digest_json

from curate.models.label_model import ABSTAIN, Training, fitted, indicators, probabilities
from curate.pool.files import File, read_columns
from curate.pool.passes import Passes
from curate.pool.quantile import Column, column_of, scores
from curate.scorers.rows import RowScorer


class Votes(RowScorer):
    """`probability`: that of being selected, by a label model of the columns' votes."""

    makes = ("probability",)

    def __init__(self, votes: Mapping[str, Any], training: Training) -> None:
        """
        Args:
            votes: of each column the score up to which it says no, and the one from which it says yes.

        Raises:
            UserError: fewer than three columns, or thresholds that are none.
        """
        if len(votes) < 3:
            raise UserError("filter.votes= needs three columns or more: of fewer nothing tells which one is right")
        self.thresholds = {name: _thresholds(name, votes[name]) for name in sorted(votes)}
        self.columns, self._training = tuple(self.thresholds), training
        self.name = f"label_model-{digest_json([self.thresholds, training])[:8]}"
        self._mu = np.zeros((0, 0))

    def measure(self, passes: Passes) -> None:
        """Fit the label model to the votes of the whole pool."""
        columns = [column_of(passes.files, name) for name in self.columns]
        together = np.zeros((2 * len(columns), 2 * len(columns)), np.int64)
        rows = 0
        for _, found in passes.map(votes_together, Voters(columns, list(self.thresholds.values()))):
            together += np.array(found["together"])
            rows += found["rows"]
        self._mu = fitted(together, rows, self._training)

    def identity(self) -> Any:
        return {"thresholds": self.thresholds, "mu": self._mu.tolist()}

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        every = [probabilities(votes, self._mu) for votes in _votes(file, self.columns, list(self.thresholds.values()))]
        return {"probability": np.concatenate([*every, np.zeros(0)]).astype(np.float32)}


class Voters:
    """The columns that vote, and by which thresholds, as an argument of a pass."""

    def __init__(self, columns: Sequence[Column], thresholds: Sequence[tuple[float, float]]) -> None:
        self.columns, self.thresholds = columns, thresholds

    def identity(self) -> Any:
        return [[column.identity(), pair] for column, pair in zip(self.columns, self.thresholds, strict=True)]


def votes_together(file: File, voters: Voters) -> dict[str, Any]:
    """How many rows of a file have two votes at once, see curate.models.label_model.fitted, and how many it has."""
    together = np.zeros((2 * len(voters.columns), 2 * len(voters.columns)), np.int64)
    rows = 0
    for votes in _votes(file, [column.name for column in voters.columns], voters.thresholds):
        found = indicators(votes).astype(np.float64)
        together += (found.T @ found).astype(np.int64)  # of counts, and so exact
        rows += len(votes)
    return {"together": together.tolist(), "rows": rows}


def _votes(file: File, columns: Sequence[str], thresholds: Sequence[tuple[float, float]]) -> Iterator[np.ndarray]:
    """The votes of a file's rows, int8 [rows, columns]: 0 no, 1 yes, -1 between the thresholds or of NaN."""
    for table, _ in read_columns(file, columns):
        votes = np.full((len(table), len(columns)), ABSTAIN, np.int8)
        for place, (name, (no, yes)) in enumerate(zip(columns, thresholds, strict=True)):
            values = scores(table, name)
            votes[values <= no if no <= yes else values >= no, place] = 0
            votes[values >= yes if no <= yes else values <= yes, place] = 1
        yield votes


def _thresholds(name: str, given: Any) -> tuple[float, float]:
    try:
        no, yes = (float(value) for value in given)
    except (TypeError, ValueError):
        no = yes = np.nan
    if not np.isfinite([no, yes]).all():
        how = "such as [0.2, 0.3], or [0.3, 0.2] where low scores are good"
        raise UserError(f"filter.votes: {name}: {given} is not [no at, yes at], {how}")
    return no, yes
