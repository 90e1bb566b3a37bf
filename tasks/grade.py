"""How far a result can be trusted to be comparable: one of three grades, and the one rule that derives it.

`official`: every pinned condition holds and the data are the pinned ones. `unverified`: every condition holds, but
nothing pins the data, so only counts and names were checked. `unofficial`: something was done otherwise; the reasons
travel with it. `official` of every published file is `grade == "official"`.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from tasks.lock import is_pinned
from tasks.names import speaks_of_names

Grade = Literal["official", "unverified", "unofficial"]
GRADES: tuple[Grade, ...] = get_args(Grade)  # best first

OTHER_DATA = "the data are not those of the lock file; python -m tasks verify names the files"
WITHOUT_REASON = "marked unofficial without a reason"


class Standing(NamedTuple):
    """What a line of results says of how comparable it is; the names are those of the line's fields."""

    pinned: bool | None
    official: bool
    grade: Grade
    deviations: list[str]


def grade_of(deviations: Sequence[str], pinned: bool | None) -> Grade:
    """The grade that follows from the reasons and from whether the data are the pinned ones (None: nothing pins)."""
    if deviations or pinned is False:
        return "unofficial"
    return "official" if pinned else "unverified"


def worst(grades: Iterable[Grade]) -> Grade:
    """The grade of a whole: that of its worst part."""
    return max(grades, key=GRADES.index, default="official")


def standing(key: str, data_digest: str, reasons: Sequence[str], limit: int | None) -> Standing:
    """Grade a task's result by the lock file of this checkout, whatever it was when the result was made.

    Args:
        reasons: why the result is unofficial. What earlier lock files said is dropped and said anew, and names are no
            reason where the data are the pinned ones, as the pin holds the names too.
        limit: that of the evaluation; with one, fewer shards were read, and the digest is another.
    """
    pinned = is_pinned(key, data_digest)
    deviations = [line for line in reasons if line != OTHER_DATA and not (pinned and speaks_of_names(line))]
    if pinned is False and limit is None:
        deviations.append(OTHER_DATA)
    grade = grade_of(deviations, pinned)
    return Standing(pinned, grade == "official", grade, deviations)


def regraded(
    key: str, data_digest: str, deviations: Sequence[str], limit: int | None, official: bool, grade: str | None
) -> Standing:
    """Grade a stored result anew: the lock file may be newer than it, or gone; lines of earlier versions have no grade.

    The arguments are the line's fields. Who marked a result as unofficial and gave no reason is taken at their word.
    """
    marked = not official and grade != "unverified" and not deviations
    return standing(key, data_digest, [WITHOUT_REASON] if marked else deviations, limit)
