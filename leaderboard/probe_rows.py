"""Zero-shot against linear probe: do a little training and none agree on which dataset is best?"""

from collections.abc import Sequence
from typing import NamedTuple

from leaderboard.models import Board, Entry
from leaderboard.probes import LINEAR


class Against(NamedTuple):
    """An entry's zero-shot score and that of its linear probe, over the same tasks; `kind` is one of charts.KINDS."""

    label: str
    kind: str
    zero_shot: float
    probe: float


class Comparison(NamedTuple):
    """The entries with linear probes, and the tasks that the two scores are means over."""

    rows: list[Against]
    tasks: list[str]


def zero_shot_against_probe(board: Board, key: str | None = None, *, ranked: bool = False) -> Comparison:
    """Means over the tasks of which every entry that has linear probes has one, so that all are over the same tasks.

    Args:
        key: one task instead, for those entries that have it.
        ranked: only ranked entries, as in figures.
    """
    kinds = {"entry": board.ranked}
    if not ranked:
        kinds |= {"unverified": board.unverified, "unranked": board.unranked}
    probed = [(kind, entry, found) for kind, entries in kinds.items() for entry in entries if (found := _both(entry))]
    if key is not None:
        probed = [(kind, entry, {key: found[key]}) for kind, entry, found in probed if key in found]
    shared = [task.key for task in board.tasks if probed and all(task.key in found for _, _, found in probed)]
    if not shared:
        return Comparison([], [])
    rows = []
    for kind, entry, found in probed:
        plain, trained = zip(*(found[task] for task in shared), strict=True)
        rows.append(Against(entry.method, kind, sum(plain) / len(shared), sum(trained) / len(shared)))
    return Comparison(rows, shared)


def several_tasks(keys: Sequence[str]) -> str:
    """What the scores are means of, for an axis."""
    return keys[0] if len(keys) == 1 else f"mean of {len(keys)} tasks"


def _both(entry: Entry) -> dict[str, tuple[float, float]]:
    """Task -> zero-shot score and linear probe, where an entry has both."""
    found = {}
    for key, words in (entry.probes or {}).items():
        plain = entry.scores[key].value if key in entry.scores else None
        trained = words[LINEAR].value if LINEAR in words else None
        if plain is not None and trained is not None:
            found[key] = plain, trained
    return found
