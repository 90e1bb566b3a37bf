"""From a folder of submissions to leaderboard.json and a page.

    python -m leaderboard build submissions out=site

Every `submission.json` and `*.submission.json` below the folder is checked; a refused one is named on stderr and left
out. The same submissions give the same bytes, in whatever order they are found and whenever they are built.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from conf import recipes
from conf.errors import UserError
from conf.files import atomic, digest_json, write_json
from leaderboard.models import (
    FORMAT,
    TRACKS,
    Board,
    BoardTask,
    Entry,
    Leaderboard,
    Score,
    Submission,
    Track,
)
from leaderboard.page import page
from leaderboard.validate import main_metrics, read_submission, suite_tasks
from tasks.aggregates import AGGREGATES_VERSION, aggregates, members
from tasks.registry import suite_of


@dataclass
class BuildOptions:
    """The options of `build`."""

    out: str = MISSING


def build(folders: Sequence[str], options: BuildOptions) -> int:
    """Write `<out>/leaderboard.json` and `<out>/index.html`. The exit status is 1 where a submission was refused.

    Raises:
        UserError: not one folder is named, it does not exist, or no submission is in it.
    """
    if len(folders) != 1:
        raise UserError("build needs one folder of submissions: python -m leaderboard build FOLDER out=DIR")
    folder = Path(folders[0])
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; build needs the folder that holds the submissions")
    paths = find(folder)
    if not paths:
        raise UserError(f"{folder} holds no submission.json; python -m leaderboard submit run=... writes one")
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file; name a folder")
    for forgotten in sorted({path.parent for path in folder.rglob("eval_results.jsonl")}):
        if not (forgotten / "submission.json").exists():
            print(f"note: {forgotten} has results and no submission.json", file=sys.stderr)
    submissions, refusals = collect(paths)
    for line in refusals:
        print(f"refused: {line}", file=sys.stderr)
    leaderboard = compose(submissions)
    write_json(out / "leaderboard.json", leaderboard.model_dump(mode="json"))
    with atomic(out / "index.html") as file:
        file.write(page(leaderboard))
    print(f"{len(submissions)} of {len(paths)} submissions: {out / 'leaderboard.json'}, {out / 'index.html'}")
    return 1 if refusals else 0


def find(folder: Path) -> list[Path]:
    """The submission files below a folder, sorted by path."""
    return sorted({*folder.rglob("submission.json"), *folder.rglob("*.submission.json")})


def collect(paths: Sequence[Path]) -> tuple[list[Submission], list[str]]:
    """The submissions that are accepted, and "<file>: <field>: <reason>" for each reason against the others."""
    accepted: dict[str, Submission] = {}
    first: dict[str, Path] = {}
    refusals = []
    for path in paths:
        submission, reasons = read_submission(path)
        if submission is None or reasons:
            refusals += [f"{path}: {reason}" for reason in reasons]
            continue
        content = digest_json(submission.public())
        if content in accepted:
            refusals.append(f"{path}: checkpoint_sha256: the same submission as {first[content]}")
            continue
        accepted[content], first[content] = submission, path
    return [accepted[content] for content in sorted(accepted)], refusals


def compose(submissions: Sequence[Submission]) -> Leaderboard:
    """The boards: filtering before byod, scales by size with the demonstration's last."""
    scales = sorted(recipes.scales(), key=lambda scale: suite_of(scale) != "main")
    boards = [
        _board(track, scale, chosen)
        for track in TRACKS
        for scale in scales
        if (chosen := [s for s in submissions if (s.track, s.scale) == (track, scale)])
    ]
    return Leaderboard(format=FORMAT, aggregates_version=AGGREGATES_VERSION, boards=boards)


def _board(track: Track, scale: str, submissions: Sequence[Submission]) -> Board:
    entries = sorted((_entry(submission) for submission in submissions), key=_order)
    tasks = [
        BoardTask(key=task.key, name=task.name, main_metric=task.main_metric, groups=list(task.groups))
        for task in suite_tasks(scale)
    ]
    return Board(
        track=track,
        scale=scale,
        aggregates=list(members(suite_of(scale))),
        tasks=tasks,
        ranked=list(_ranked([entry for entry in entries if _comparable(entry)])),
        unranked=[entry for entry in entries if not _comparable(entry)],
    )


def _entry(submission: Submission) -> Entry:
    scores = {
        result.key: Score(value=result.metrics["main_metric"], stderr=result.stderr) for result in submission.tasks
    }
    return Entry(
        rank=None,
        method=submission.method,
        author=submission.author,
        writeup=submission.writeup,
        aggregates=aggregates(main_metrics(submission.tasks), suite_of(submission.scale)),
        scores={task.key: scores[task.key] for task in suite_tasks(submission.scale) if task.key in scores},
        dataset_size=submission.dataset_size,
        samples_seen=submission.samples_seen,
        seed=submission.seed,
        precision=submission.precision,
        official=submission.official,
        deviations=submission.deviations,
        recipe_digest=submission.recipe_digest,
        data_digest=submission.data.digest,
        subset_digest=submission.subset.digest if submission.subset else None,
        checkpoint_sha256=submission.checkpoint_sha256,
        version=submission.code.version,
        finished=submission.finished,
    )


def _comparable(entry: Entry) -> bool:
    return entry.official and entry.aggregates["average"] is not None


def _merit(entry: Entry) -> tuple[float, float]:
    """What ranks: the average, then ImageNet (which a demonstration board does not have)."""
    average, imagenet = (entry.aggregates.get(name) for name in ("average", "imagenet"))
    return (-math.inf if average is None else average, -math.inf if imagenet is None else imagenet)


def _order(entry: Entry) -> tuple[float, float, str, str, str, str]:
    """Best first; equals in an order that does not depend on their files."""
    average, imagenet = _merit(entry)
    return (-average, -imagenet, entry.method, entry.author, entry.checkpoint_sha256, entry.model_dump_json())


def _ranked(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Ranks 1, 2, 2, 4: equals share the better one."""
    rank = 0
    for place, entry in enumerate(entries, start=1):
        if place == 1 or _merit(entry) != _merit(entries[place - 2]):
            rank = place
        yield entry.model_copy(update={"rank": rank})
