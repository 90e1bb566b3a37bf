"""From accepted submissions to boards: an entry each, ranked where noise allows it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from poolbench import recipes

from leaderboard.methods import methods
from leaderboard.models import (
    FORMAT,
    TRACKS,
    Board,
    BoardTask,
    Entry,
    Leaderboard,
    Reference,
    Score,
    Submission,
    Track,
)
from leaderboard.rank import constants, order, places, standard_error
from leaderboard.suites import main_metrics, suite_tasks
from tasks.aggregates import AGGREGATES_VERSION, aggregates, members
from tasks.grade import GRADES, Grade
from tasks.registry import suite_of

References = Callable[[Track, str], list[Reference]]


class Placed(NamedTuple):
    """An entry and the board it belongs to."""

    track: Track
    scale: str
    entry: Entry


def place(submission: Submission) -> Placed:
    """The entry of an accepted submission, without a rank yet."""
    suite = suite_of(submission.scale)
    scores = {
        result.key: Score(value=result.metrics["main_metric"], stderr=result.stderr) for result in submission.tasks
    }
    values = aggregates(main_metrics(submission.tasks), suite)
    entry = Entry(
        rank=None,
        rank_last=None,
        digest=submission.digest,
        method=submission.method,
        author=submission.author,
        writeup=submission.writeup,
        aggregates={
            name: Score(value=values[name], stderr=standard_error(keys, scores))
            for name, keys in members(suite).items()
        },
        scores={task.key: scores[task.key] for task in suite_tasks(submission.scale) if task.key in scores},
        dataset_size=submission.dataset_size,
        samples_seen=submission.samples_seen,
        seed=submission.seed,
        precision=submission.precision,
        official=submission.official,
        grade=submission.grade,
        deviations=submission.deviations,
        recipe_digest=submission.recipe_digest,
        data_digest=submission.data.digest,
        subset_digest=submission.subset.digest if submission.subset else None,
        checkpoint_sha256=submission.checkpoint_sha256,
        bad=submission.bad,
        version=submission.code.version,
        finished=submission.finished,
        audit=submission.audit,
        overlap=submission.overlap,
        probes=_probes(submission),
    )
    return Placed(submission.track, submission.scale, entry)


def _probes(submission: Submission) -> dict[str, dict[str, Score]] | None:
    """By task, then by probe; the error is that over the test pictures."""
    if submission.probes is None:
        return None
    found: dict[str, dict[str, Score]] = defaultdict(dict)
    for one in submission.probes:
        found[one.key][one.probe] = Score(value=one.value, stderr=one.stderr)
    return dict(found)


def no_references(track: Track, scale: str) -> list[Reference]:
    """No published results, for a board of submissions alone."""
    return []


def compose(placed: Iterable[Placed], published: References = no_references) -> Leaderboard:
    """The boards that have an entry or a published result: filtering before byod, scales by size, the demo's last."""
    entries: dict[tuple[Track, str], list[Entry]] = defaultdict(list)
    for track, scale, entry in placed:
        entries[track, scale].append(entry)
    scales = sorted(recipes.scales(), key=lambda scale: suite_of(scale) != "main")
    boards = [
        _board(track, scale, entries[track, scale], published(track, scale)) for track in TRACKS for scale in scales
    ]
    filled = [board for board in boards if board.ranked or board.unverified or board.unranked or board.references]
    return Leaderboard(format=FORMAT, aggregates_version=AGGREGATES_VERSION, boards=filled)


def _board(track: Track, scale: str, entries: Sequence[Entry], published: list[Reference]) -> Board:
    entries = sorted(entries, key=order)
    suite = suite_of(scale)
    noise = constants().noise.get(suite)
    pool_size = constants().pools.get(scale) if track == "filtering" else None
    kinds = {grade: [entry for entry in entries if _kind(entry) == grade] for grade in GRADES}
    ranked = _ranked(kinds["official"], noise.values["average"] if noise else 0.0)
    return Board(
        track=track,
        scale=scale,
        pool_size=pool_size,
        aggregates=list(members(suite)),
        tasks=[
            BoardTask(key=task.key, name=task.name, main_metric=task.main_metric, groups=list(task.groups))
            for task in suite_tasks(scale)
        ],
        noise=noise,
        ranked=ranked,
        unverified=kinds["unverified"],
        unranked=kinds["unofficial"],
        references=published,
        methods=methods(ranked, list(members(suite)), pool_size),
    )


def _kind(entry: Entry) -> Grade:
    """By what an entry is listed: its grade, but for one without an average there is no place but the last."""
    return entry.grade if entry.aggregates["average"].value is not None else "unofficial"


def _ranked(entries: Sequence[Entry], seed_noise: float) -> list[Entry]:
    """Sorted entries with their ranks."""
    first, last = places([entry.aggregates["average"] for entry in entries], seed_noise)
    return [
        entry.model_copy(update={"rank": rank, "rank_last": rank_last})
        for entry, rank, rank_last in zip(entries, first, last, strict=True)
    ]
