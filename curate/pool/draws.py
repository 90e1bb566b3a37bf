"""Drawing rows of a pool by their scores, in rounds, rows that were drawn becoming less likely.

A round draws without replacement, by a softmax of logits: the k rows whose exponential clocks, of rate exp(logit),
ring first (which is Gumbel top-k in another scale). Clocks have no memory, so that one need not be set anew in each
round but only once it has rung: a round takes the k rows whose clocks ring earliest. So it costs about as much as it
draws, and not as much as the pool has rows. Logits more than 700 below the highest count as 700 below it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poolbench.errors import UserError
from poolbench.files import atomic

from curate.pool.chosen import bits_of
from curate.pool.files import PLACE, File, read
from curate.pool.hashes import hashed, mixed
from curate.pool.passes import Pass, result
from curate.pool.quantile import Column, scores

CANDIDATE = np.dtype([("place", "i8"), ("hash", "u8"), ("logit", "f8")])
COUNT = np.dtype([("place", "i8"), ("times", "i4")])
_NEAR = 16  # rounds whose rows are looked for at a time
_STEEP = 700.0  # above it, exp of a difference of logits is no number


class Rule(NamedTuple):
    """How rows are drawn.

    Attributes:
        size: draws in all.
        alpha: what a logit loses by each draw.
        cap: draws of one row at most; 0: any number.
        batch: draws of a round.
    """

    size: int
    alpha: float
    cap: int
    batch: int
    seed: int


def candidates(file: File, column: Column, seed: int, ranked: Pass) -> np.ndarray:
    """The rows of a file that can be drawn: those that `ranked`, a pass of kept_bits, has kept, with a finite score."""
    bits, start, found = result(ranked, file), 0, []
    for rows in read(file, [column.name], [PLACE]):
        kept = bits_of(bits, start, start + len(rows.good))[rows.good]
        start += len(rows.good)
        logits = scores(rows.table, column.name).astype(np.float64)
        kept &= np.isfinite(logits)
        some = np.empty(int(kept.sum()), CANDIDATE)
        uids = rows.arrays["uid"][kept]
        some["hash"] = hashed(uids, seed)
        some["place"], some["logit"] = rows.arrays[PLACE][kept], logits[kept]
        found.append(some)
    return np.concatenate([*found, np.zeros(0, CANDIDATE)])


def drawn(pieces: Iterable[np.ndarray], highest: float, rule: Rule) -> np.ndarray:
    """How often each row is drawn that is drawn at all, of COUNT, sorted by place.

    It depends on uids, scores and the rule, not on how the pool is cut. Rows of one uid share their clocks.

    Args:
        pieces: arrays of CANDIDATE.
        highest: the highest logit.

    Raises:
        UserError: there are not so many draws.
    """
    rows, times, total, last = np.zeros(0, CANDIDATE), np.zeros(0), 0, np.inf
    for piece in pieces:
        total += len(piece)
        logits = piece["logit"] - highest
        rings = _clock(piece, 0, logits)
        early = rings <= last  # before the others are drawn, `size` draws are made of the earliest
        rows, times = np.concatenate([rows, piece[early]]), np.concatenate([times, rings[early]])
        rows["logit"][len(rows) - int(early.sum()) :] = logits[early]
        if len(rows) > rule.size + rule.size // 4:
            last = np.partition(times, rule.size - 1)[rule.size - 1]
            kept = times <= last
            rows, times = rows[kept], times[kept]
    if not total or (rule.cap and rule.size > total * rule.cap):
        raise UserError(f"filter.size={rule.size:,} is more than can be drawn of {total:,} rows that have a score")
    counts = _rounds(rows, times, rule)
    found = np.zeros(int((counts > 0).sum()), COUNT)
    found["place"], found["times"] = rows["place"][counts > 0], counts[counts > 0]
    return np.sort(found, order="place")


def _rounds(rows: np.ndarray, times: np.ndarray, rule: Rule) -> np.ndarray:
    """Draw until all is drawn; how often each row was, int64 [rows]."""
    counts = np.zeros(len(rows), np.int64)
    near, horizon, left, alive = np.zeros(0, np.int64), -np.inf, rule.size, len(rows)
    while left:
        now = min(rule.batch, left, alive)
        if len(near) < now:
            wanted = min(len(rows), _NEAR * now)
            horizon = np.partition(times, wanted - 1)[wanted - 1]
            near = np.flatnonzero(times <= horizon)
        order = np.argpartition(times[near], now - 1)[:now]
        chosen = near[order]
        end = times[chosen].max()
        counts[chosen] += 1
        logits = rows["logit"][chosen] - rule.alpha * counts[chosen]
        times[chosen] = end + _clock(rows[chosen], counts[chosen], logits)
        if rule.cap:
            over = chosen[counts[chosen] >= rule.cap]
            times[over] = np.inf
            alive -= len(over)
        near = near[times[near] <= horizon]
        left -= now
    return counts


def _clock(rows: np.ndarray, times: np.ndarray | int, logits: np.ndarray) -> np.ndarray:
    """When the clocks ring that are set for the `times`-th draw, from then on, float64 [rows]."""
    seeds = mixed(np.broadcast_to(np.asarray(times, np.uint64), len(rows)))
    uniform = ((mixed(rows["hash"] ^ seeds) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    ring: np.ndarray = -np.log(uniform) * np.exp(np.minimum(-logits, _STEEP))
    return ring


def write_counts(path: Path, counts: np.ndarray) -> None:
    """Keep what was drawn, for workers."""
    with atomic(path, "wb") as stream:
        np.save(stream, counts)


def times_of(counts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How often rows at some places were drawn, int64 [places]."""
    if not len(counts):
        return np.zeros(len(places), np.int64)
    found = np.minimum(np.searchsorted(counts["place"], places), len(counts) - 1)
    drawn_: np.ndarray = np.where(counts["place"][found] == places, counts["times"][found], 0).astype(np.int64)
    return drawn_
