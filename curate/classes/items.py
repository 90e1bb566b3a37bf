"""Which samples a classifier is shown, and of which class they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curate.classes.store import Store


@dataclass(frozen=True)
class Items:
    """Samples in stores: the number of the store, the place there, and the class of each, int64 [n]."""

    store: np.ndarray
    place: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


class Lesson(NamedTuple):
    """What a classifier learns, and what it is asked then.

    Attributes:
        classes: how many.
        seed: of all that is drawn while it learns.
    """

    stores: Sequence[Store]
    classes: int
    train: Items
    asked: Sequence[Items]
    seed: int


def of_store(number: int, places: np.ndarray, label: int) -> Items:
    """The samples at some places of one store, all of one class."""
    return Items(np.full(len(places), number), places.astype(np.int64), np.full(len(places), label))


def joined(some: Sequence[Items]) -> Items:
    """All of them."""
    parts = zip(*((one.store, one.place, one.label) for one in some), strict=True)
    return Items(*map(np.concatenate, parts))


def captions_of(stores: Sequence[Store], items: Items) -> list[str]:
    """The captions of samples that have one."""
    pairs = zip(items.store.tolist(), items.place.tolist(), strict=True)
    return [stores[store].captions[place] or "" for store, place in pairs]


def vectors_of(stores: Sequence[Store], items: Items) -> np.ndarray:
    """The embeddings of samples, float32 [n, width]."""
    found = np.empty((len(items), stores[int(items.store[0])].vectors.shape[1]), np.float32)
    for number in np.unique(items.store).tolist():
        rows = items.store == number
        found[rows] = stores[number].vectors[items.place[rows]]
    return found
