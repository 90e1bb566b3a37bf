"""What becomes of each kind of a pool's samples: how many a selection drops, and what scores say of them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from demo_inputs import column, embeddings
from evaluation_report import table
from scipy.stats import mannwhitneyu

from poolbench.uids import Uids, from_texts, mapped

from demodata.text_pool import KINDS

Numbers = npt.NDArray[Any]


def read_kinds(folder: Path) -> dict[str, Uids]:
    """The uids of each kind of a pool's samples, {} of a pool without such files."""
    return {kind: mapped(folder / "kinds" / f"{kind}.npy") for kind in KINDS if (folder / "kinds").is_dir()}


def dropped(kinds: Mapping[str, Uids], every: Uids, kept: Uids) -> dict[str, float]:
    """Of each kind the share of its samples that a selection does not keep; those that are not in the pool are passed
    over."""
    there = {kind: np.intersect1d(every, uids) for kind, uids in kinds.items()}
    return {kind: 1 - float(np.isin(uids, kept).mean()) for kind, uids in there.items()}


def above(scores: Numbers, others: Numbers) -> float:
    """How often one of `scores` is above one of `others`, of all pairs of both; equal ones count half.

    It is Mann and Whitney's U by the number of pairs, and the area under the curve that tells the two apart.
    """
    return float(mannwhitneyu(scores, others).statistic) / (len(scores) * len(others))


def preferred(images: Numbers, texts: Numbers) -> float:
    """How often a picture is more like its own caption than like that of the next row; alike counts half.

    Args:
        images, texts: unit vectors [rows, width].
    """
    vectors, captions = images.astype(np.float64), texts.astype(np.float64)
    own, other = (np.einsum("nd,nd->n", vectors, one) for one in (captions, np.roll(captions, -1, 0)))
    return float(((own > other) + (own == other) / 2).mean())


def by_kind(scored: Path, kinds: Mapping[str, Uids], columns: Sequence[str]) -> list[str]:
    """Sections on what scores say of the kinds, and whether the models read; [] where there are no kinds."""
    if not (kinds and columns):
        return []
    every = from_texts(column(scored, "uid"))
    which = {kind: np.isin(every, uids) for kind, uids in kinds.items()}
    models = [found[1] for name in columns if (found := re.fullmatch(r"clip_([a-z0-9]+)_similarity_score", name))]
    return [*_means(scored, which, columns), *_readers(scored, which, models)]


def _means(scored: Path, which: Mapping[str, Numbers], columns: Sequence[str]) -> Iterator[str]:
    rows = []
    for name in columns:
        values = np.array(column(scored, name), np.float64)
        parts = {kind: values[there & np.isfinite(values)] for kind, there in which.items()}
        writing, caption = above(parts["overwritten"], parts["swapped"]), above(parts["plain"], parts["swapped"])
        rows.append(
            [f"`{name}`", *(f"{part.mean():.3f}" for part in parts.values()), f"{writing:.3f}", f"{caption:.3f}"]
        )
    yield "## Scores by kind"
    yield ""
    yield from table(["mean of", *which, "overwritten over swapped", "plain over swapped"], rows)
    yield ""
    yield (
        "The last two columns say how often a sample of the one kind scores higher than one of the other: .5 is "
        "chance. `overwritten` and `swapped` have the same captions and drawings and differ by the writing alone. "
        "`plain` and `swapped` differ by the caption alone, without writing."
    )
    yield ""


def _readers(scored: Path, which: Mapping[str, Numbers], models: Sequence[str]) -> Iterator[str]:
    rows = []
    for name in models:
        images, texts = (embeddings(scored, f"{name}_{part}") for part in ("img", "txt"))
        rows.append([f"`{name}`", *(f"{preferred(images[there], texts[there]):.3f}" for there in which.values())])
    yield "## Do the models read"
    yield ""
    yield from table(["own caption over another's", *which], rows)
    yield ""
    yield (
        "How often a picture is more like its own caption than like that of the pool's next sample of its kind: .5 is "
        "chance. In a `swapped` picture nothing tells its caption, so what is above .5 there was learned by heart; "
        "`overwritten` has the same drawings and captions, and what is more there was read."
    )
    yield ""
