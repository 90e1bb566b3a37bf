"""The words of `probes=`: which heads are trained, on how many pictures of each class."""

import re
from typing import Any, NamedTuple

from poolbench.errors import UserError

from tasks.registry import words_of

LINEAR, TEXT = "linear", "lp++"


class Probe(NamedTuple):
    """A head, `linear` or `lp++`, and on how many pictures of each class it is trained; None: on all."""

    head: str
    shots: int | None

    def __str__(self) -> str:
        if self.shots is None:
            return self.head
        return f"{'' if self.head == LINEAR else self.head}{self.shots}"


def probes_of(value: Any) -> list[Probe]:
    """The probes that `probes=` names, each once, in its order; [] for none.

    Raises:
        UserError: a word that is none: linear, a number of pictures, or lp++ with such a number.
    """
    words = [] if value is None else value if isinstance(value, list) else [value]
    named = [part for word in words for part in (words_of(word) if isinstance(word, str) else [str(word)])]
    return list(dict.fromkeys(_probe(word) for word in named))


def _probe(word: str) -> Probe:
    if word == LINEAR:
        return Probe(LINEAR, None)
    found = re.fullmatch(rf"({re.escape(TEXT)})?([1-9][0-9]{{0,5}})", word)
    if found is None:
        raise UserError(
            f"probes={word} is none; write linear for all pictures, 16 for so many of each class, {TEXT}16 for LP++"
        )
    return Probe(TEXT if found[1] else LINEAR, int(found[2]))
