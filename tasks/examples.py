"""What the samples of evaluation sets are, whatever files they are read from."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poolbench.errors import UserError


class Example(NamedTuple):
    """One sample: the compressed picture and what was asked for with `needs`.

    `label` is -1, `captions` and `metadata` are empty where they were not asked for. `metadata` is an int64 vector.
    Of several labels it is 1 at those that a sample has and 0 at the others.
    Where a caption is to be chosen, `label` says which of `captions` is right. Of samples with two pictures each is
    an Example of the key `<sample>/0` or `<sample>/1`, the first one first, and `label` that number.
    """

    key: str
    image: bytes
    label: int
    captions: tuple[str, ...]
    metadata: npt.NDArray[np.int64]


class Puzzle(NamedTuple):
    """One instance of WinoGAViL: which of the pictures go with the cue?

    `pictures` are the keys of the Examples that hold the candidates' pictures, `names` what they are called, `right`
    which of them are associated with the cue; all three of one length.
    """

    key: str
    cue: str
    pictures: tuple[str, ...]
    names: tuple[str, ...]
    right: tuple[bool, ...]


class Bad(NamedTuple):
    """A sample that cannot be used, or with an empty key a whole rest of a shard. `shard` is the file's name."""

    shard: str
    key: str
    reason: str


def counts(item: Example | Puzzle | Bad, needs: frozenset[str]) -> bool:
    """Whether a sample has ended with what was read; a puzzle has several pictures, and a pair two."""
    if "puzzles" in needs:
        return isinstance(item, Puzzle | Bad)
    return not ("pairs" in needs and isinstance(item, Example) and item.label == 0)


def checked_choices(file: str, captions: list[str], right: Any) -> tuple[tuple[str, ...], int]:
    """Captions to choose among, and which is right.

    Raises:
        UserError: fewer than two, or no such place; a blank one, which is not dropped as in retrieval: another one
            would take its place as the right one.
    """
    if not all(captions):
        raise UserError(f"{file}: caption {captions.index('') + 1} of {len(captions)} is blank")
    if len(captions) < 2:
        raise UserError(f"{file} holds {len(captions)} captions; to choose among them takes at least 2")
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(captions):
        raise UserError(f"{file}: right is {right!r}, not one of 0 .. {len(captions) - 1}")
    return tuple(captions), right
