"""The parts of an array, `part=i/n`: which pieces are whose; and the last step, `merge=n`: what is missing."""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from poolbench.errors import UserError

_SHOWN = 5  # missing pieces of a part that are named

_Piece = TypeVar("_Piece")


class Part(NamedTuple):
    """Part `number` (from 1) of `of`: every of-th piece."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def own(self, pieces: Sequence[_Piece]) -> Sequence[_Piece]:
        return pieces[self.number - 1 :: self.of]


WHOLE = Part(1, 1)


def part_or_merge(part: str | None, merge: int | None) -> Part:
    """The part that is asked for; WHOLE, the very object, where none is.

    Raises:
        UserError: no such part, or both steps at once.
    """
    if merge is not None and merge < 1:
        raise UserError(f"merge={merge}: how many parts there are, at least 1")
    if merge is not None and part is not None:
        raise UserError(f"part={part} does a part, merge={merge} puts all parts together; give one of them")
    if part is None:
        return WHOLE
    from poolbench.command import part_of  # which imports Hydra, that workers of passes have no use for

    return Part(*part_of(part))


def tell_missing(
    names: Sequence[str], done: Sequence[bool], of: int, kind: str, why: Callable[[Part], str] = lambda part: ""
) -> int:
    """Say which parts of `of` have not done all of their pieces, a line each; how many pieces are missing.

    Args:
        why: what is known of a part that lacks some, as words that follow its name.
    """
    parts = [Part(number, of) for number in range(1, of + 1)]
    behind = []
    for part in parts:
        own, there = part.own(names), part.own(done)
        lacking = [name for name, good in zip(own, there, strict=True) if not good]
        if lacking:
            behind.append(str(part.number))
            more = f" and {len(lacking) - _SHOWN:,} more" if len(lacking) > _SHOWN else ""
            named = ", ".join(lacking[:_SHOWN])
            lacks = f"{len(lacking):,} of its {len(own):,} {kind} missing: {named}{more}"
            print(f"part {' '.join(filter(None, (str(part), why(part))))}: {lacks}", file=sys.stderr)
    if behind:
        print(f"start these parts of {of} again, which find what they have done: {','.join(behind)}", file=sys.stderr)
    return len(done) - sum(done)
