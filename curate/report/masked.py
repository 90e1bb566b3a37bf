"""Pictures beside their masked ones, on the side of the subset on which they are."""

import base64
from pathlib import Path

import numpy as np

from poolbench.uids import from_texts

from curate.pool.masked_samples import MaskedSample, read
from curate.report import page as pages
from curate.report.members import Members
from curate.report.statistics import DROPPED, KEPT


def masked_pictures(folder: str, subset: Members) -> pages.Sheets:
    """What scoring with `export=` wrote, those that the subset keeps and the others.

    Raises:
        UserError: it is no such folder.
    """
    samples = read(Path(folder))
    kept = subset.find(from_texts([one.uid for one in samples]))[1] > 0
    groups = []
    for group, chosen in ((KEPT, kept), (DROPPED, ~kept)):
        cells = [_cell(Path(folder), samples[place]) for place in np.flatnonzero(chosen).tolist()]
        groups.append(pages.SheetGroup(group.capitalize(), group, cells))
    note = f"{len(samples)} of the scored pictures, and each with its text painted over; what it was read as is quoted."
    return pages.Sheets("Text painted over", note, groups, wide=True)


def _cell(folder: Path, sample: MaskedSample) -> pages.SheetCell:
    try:
        picture = "data:image/jpeg;base64," + base64.b64encode((folder / sample.picture).read_bytes()).decode()
    except OSError:  # the page says that there is none
        picture = ""
    values = [(_short(name), value) for name, value in sample.scores.items() if value is not None]
    shown = [f"{name} {value:.0f}" if value == int(value) else f"{name} {value:.3f}" for name, value in values]
    read_as = f" “{pages.cut(sample.text)}”" if sample.text else ""
    return pages.SheetCell(picture, pages.cut(sample.caption), ", ".join(shown) + read_as)


def _short(column: str) -> str:
    return column.removeprefix("clip_").removesuffix("_similarity_score")
